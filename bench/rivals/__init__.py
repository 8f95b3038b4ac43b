"""The contenders, one file each: `build(problem)` gives a program that runs the problem.

A rival is left out, with a reason, if its library is missing or cannot do what is asked.
"""

import importlib
from collections.abc import Callable, Iterable

from bench.contest import LeftOut
from bench.problem import Problem
from bench.rivals.program import Program

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


def builder(name: str) -> Callable[[Problem], Program]:
    """The rival's `build`; a library is imported only if it takes part."""
    module, function = BUILDERS[name]
    try:
        return getattr(importlib.import_module(f"bench.rivals.{module}"), function)
    except ModuleNotFoundError as missing:
        raise LeftOut(f"{missing.name} is not installed") from missing


def build_all(problem: Problem, names: Iterable[str]) -> tuple[dict[str, Program], dict[str, str]]:
    """Programs by name, and by name the reason why others are left out."""
    programs, left_out = {}, {}
    for name in names:
        try:
            programs[name] = builder(name)(problem)
        except LeftOut as reason:
            left_out[name] = str(reason)
        except Exception as error:
            if name.startswith(OURS):
                raise
            left_out[name] = f"it fails with {type(error).__name__}: {error}".splitlines()[0]
    return programs, left_out
