"""Merging pairs."""

from tests.registry.entry import Entry

ENTRIES: list[Entry] = []

NOT_MASKED: dict[str, str] = {}
