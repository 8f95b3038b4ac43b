"""What makes a test a law: it runs over every entry of the registry that is not exempt from it."""

import functools
from collections.abc import Callable

import pytest

from tests.registry import REGISTRY, Entry

LAWS: dict[str, Callable] = {}


def law(function: Callable, over: Callable[[Entry], bool] = lambda entry: True) -> Callable:
    """Run over every entry that the law speaks of and that is not exempt."""
    name = function.__name__.removeprefix("test_")
    LAWS[name] = function
    entries = [entry for entry in REGISTRY if name not in entry.exempt and over(entry)]
    return pytest.mark.parametrize("entry", entries, ids=str)(function)


def law_over(condition: Callable[[Entry], bool]) -> Callable[[Callable], Callable]:
    """A law for some entries only."""
    return functools.partial(law, over=condition)
