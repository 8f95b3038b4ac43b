"""Rows of results in one JSON file; a row that is measured again replaces the one before."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import timing

Row = dict[str, Any]


def load(path: Path) -> list[Row]:
    """The rows of all machines, none where there is no file."""
    return json.loads(path.read_text())["rows"] if path.exists() else []


def merge(path: Path, rows: Iterable[Row], key: tuple[str, ...]) -> None:
    """Put rows of this machine into the file, in the place of those that have the same key."""
    kept = json.loads(path.read_text()) if path.exists() else {"machines": {}, "rows": []}
    kept["machines"][timing.machine_name()] = {**timing.machine(), "versions": _versions()}
    by_key = {tuple(row[name] for name in key): row for row in [*kept["rows"], *rows]}
    kept["rows"] = [by_key[k] for k in sorted(by_key, key=str)]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(timing.as_lines(kept))
    os.replace(unfinished, path)  # noqa: PTH105


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in ("jaxmask", "jax", "jaxlib", "flax", "keras", "torch", "sequence-layers"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def of_machine(rows: list[Row], machine: str | None) -> list[Row]:
    """Those of one machine: the one named, else this one, else the only one there is."""
    names = sorted({row["machine"] for row in rows})
    if machine is None:
        here = timing.machine_name()
        machine = here if here in names or len(names) != 1 else names[0]
    return [row for row in rows if row["machine"] == machine]
