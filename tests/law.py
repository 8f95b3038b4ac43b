"""What makes a test a law: it runs over every entry of the registry that is not exempt from it."""

import functools
from collections.abc import Callable

import pytest

from tests.registry import REGISTRY, Entry

LAWS: dict[str, Callable] = {}


def law(
    *,
    over: Callable[[Entry], bool] = lambda entry: True,
    where: Callable[[Entry], bool] = lambda entry: True,
    of_gradients: bool = False,
    by_fusion: bool = False,
    of_every_call: bool = True,
) -> Callable[[Callable], Callable]:
    """Run a test over every entry that it speaks of and that is not exempt.

    Args:
      over: which entries the law speaks of.
      where: of which of those it could say something new; on every change it is skipped for others.
      of_gradients: compile one entry of each function with XLA's default optimisation, which
        decides what is computed twice and to which rounding. With `--all`, everything is.
      by_fusion: what XLA fuses is all that matters: on every change LLVM optimises nothing.
      of_every_call: run on every change over modules and over every way to call a function that
        the registry has. Otherwise one entry of each function is tried, and all with `--all`.
    """

    def register(function: Callable) -> Callable:
        name = function.__name__.removeprefix("test_")
        LAWS[name] = function
        function.where = where
        function.of_gradients = of_gradients
        function.by_fusion = by_fusion
        function.of_every_call = of_every_call
        function.entries = [e for e in REGISTRY if name not in e.exempt and over(e)]
        return pytest.mark.law(function)

    return register


def is_module(entry: Entry) -> bool:
    """Whether it holds parameters, and calls a function that is tried itself."""
    return entry.name.startswith("nn.")


@functools.cache
def other_calls() -> set[str]:
    """Modules, and further ways to call a function."""
    return {entry.name for entry in REGISTRY} - one_for_each_function()


def way_to_compile(law: Callable, entry: Entry) -> str:
    """How a law compiles the programs of an entry on every change (`optimised.COMPILERS`)."""
    if not law.of_gradients or entry.name not in one_for_each_function():
        return "quick"
    return "fused" if law.by_fusion else "optimised"


@functools.cache
def one_for_each_function() -> set[str]:
    """The first entry of each public function; modules hold parameters and call one of them."""
    first: dict[str, str] = {}
    for entry in REGISTRY:
        if not is_module(entry):
            first.setdefault(entry.name.split(":")[0], entry.name)
    return set(first.values())
