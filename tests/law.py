"""What makes a test a law: it runs over every entry of the registry that is not exempt from it."""

from collections.abc import Callable

import pytest

from tests.registry import REGISTRY, Entry

LAWS: dict[str, Callable] = {}


def law(
    *,
    over: Callable[[Entry], bool] = lambda entry: True,
    where: Callable[[Entry], bool] = lambda entry: True,
    of_gradients: bool = False,
    of_every_call: bool = True,
    of_modules: bool = True,
) -> Callable[[Callable], Callable]:
    """Run a test over every entry that it speaks of and that is not exempt.

    Args:
      over: which entries the law speaks of.
      where: of which of those it could say something new; on every change it is skipped for others.
      of_gradients: compile with XLA's default optimisation, which decides what is computed twice
        and to which rounding. With `--all`, every law is compiled so.
      of_every_call: run on every change over modules and over every way to call a function that
        the registry has. Otherwise one entry of each function is tried, and all with `--all`.
      of_modules: run on every change over modules, which call a function that is tried anyway.
    """

    def register(function: Callable) -> Callable:
        name = function.__name__.removeprefix("test_")
        LAWS[name] = function
        function.where = where
        function.of_gradients = of_gradients
        function.of_every_call = of_every_call
        function.of_modules = of_modules
        entries = [entry for entry in REGISTRY if name not in entry.exempt and over(entry)]
        return pytest.mark.law(pytest.mark.parametrize("entry", entries, ids=str)(function))

    return register


def one_for_each_function() -> set[str]:
    """The first entry of each public function; modules hold parameters and call one of them."""
    first: dict[str, str] = {}
    for entry in REGISTRY:
        if not entry.name.startswith("nn."):
            first.setdefault(entry.name.split(":")[0], entry.name)
    return set(first.values())
