"""Parameters of which some are tried on every change, and the others with `--all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def usual(chosen: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """The chosen ones, and the others for the exhaustive run."""
    return [*chosen, *(pytest.param(each, marks=pytest.mark.exhaustive) for each in others)]


def every_nth(n: int, every: Iterable[Any]) -> list[Any]:
    """One of n on every change."""
    every = list(every)
    return [
        x if k % n == 0 else pytest.param(x, marks=pytest.mark.exhaustive)
        for k, x in enumerate(every)
    ]
