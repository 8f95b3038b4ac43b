"""What makes a test a law: it runs over every entry of the registry that is not exempt from it."""

from collections.abc import Callable

import pytest

from tests.registry import REGISTRY, Entry

LAWS: dict[str, Callable] = {}


def law(
    *, over: Callable[[Entry], bool] = lambda entry: True, of_gradients: bool = False
) -> Callable[[Callable], Callable]:
    """Run a test over every entry that it speaks of and that is not exempt.

    A law of gradients is compiled with XLA's default optimisation, which decides what is computed
    twice and to which rounding.
    """

    def register(function: Callable) -> Callable:
        name = function.__name__.removeprefix("test_")
        LAWS[name] = function
        function.of_gradients = of_gradients
        entries = [entry for entry in REGISTRY if name not in entry.exempt and over(entry)]
        return pytest.mark.law(pytest.mark.parametrize("entry", entries, ids=str)(function))

    return register
