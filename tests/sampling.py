"""Parameters of which some are tried on every change, and the others with `--all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def usual(chosen: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """The chosen ones, and the others for the exhaustive run."""
    return [*chosen, *map(_exhaustive, others)]


def every_nth(n: int, every: Iterable[Any]) -> list[Any]:
    """One of n on every change."""
    return [_exhaustive(each) if k % n else each for k, each in enumerate(every)]


def _exhaustive(value: Any) -> Any:
    return pytest.param(value, marks=pytest.mark.exhaustive)
