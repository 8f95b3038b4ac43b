"""The contenders, one file each: `build(problem)` gives a program that runs the problem.

A rival is left out, with a reason, if its library is missing or cannot do what is asked.
"""

import functools
import importlib
from collections.abc import Callable, Iterable

from bench import contest
from bench.contest import Entrant
from bench.problem import Problem

OURS = "jaxmask"
BUILDERS = {  # module and function
    OURS: ("jaxmask", "auto"),
    "jaxmask scan": ("jaxmask", "scan"),
    "flax": ("flax", "build"),
    "keras": ("keras", "build"),
    "sequence-layers": ("sequence_layers", "build"),
    "torch packed": ("pytorch", "packed"),
    "torch padded": ("pytorch", "padded"),
    "cudnn": ("cudnn", "build"),
}
NAMES = tuple(BUILDERS)
JAX_RIVALS = ("flax", "keras")  # those that the goals name
TORCH_RIVALS = ("torch packed", "torch padded")


def builder(name: str) -> Callable[[Problem], Entrant]:
    """The rival's `build`; a library is imported only if it takes part."""
    module, function = BUILDERS[name]
    return getattr(importlib.import_module(f"bench.rivals.{module}"), function)


def build_all(problem: Problem, names: Iterable[str]) -> tuple[dict[str, Entrant], dict[str, str]]:
    """Programs by name, and by name the reason why others are left out."""
    return contest.enter({name: functools.partial(_build, name, problem) for name in names})


def _build(name: str, problem: Problem) -> Entrant:
    return builder(name)(problem)
