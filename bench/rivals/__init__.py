"""The contenders, one file each: `build(problem)` gives a program that runs the problem.

A rival is left out, with a reason, where its library is missing or cannot do what is asked.
"""

from collections.abc import Callable

from bench.problem import Problem
from bench.rivals.program import LeftOut, Program

OURS = "jaxmask"
NAMES = (
    OURS,
    "jaxmask scan",
    "flax",
    "keras",
    "sequence-layers",
    "torch packed",
    "torch padded",
    "cudnn",
)
JAX_RIVALS = ("flax", "keras")  # those that the goals name
TORCH_RIVALS = ("torch packed", "torch padded")


def builder(name: str) -> Callable[[Problem], Program]:
    """The rival's `build`; libraries are imported only for those that take part."""
    try:
        match name:
            case "jaxmask" | "jaxmask scan":
                from bench.rivals import jaxmask

                return jaxmask.scan if name == "jaxmask scan" else jaxmask.auto
            case "flax":
                from bench.rivals import flax

                return flax.build
            case "keras":
                from bench.rivals import keras

                return keras.build
            case "sequence-layers":
                from bench.rivals import sequence_layers

                return sequence_layers.build
            case "torch packed" | "torch padded":
                from bench.rivals import pytorch

                return pytorch.packed if name == "torch packed" else pytorch.padded
            case "cudnn":
                from bench.rivals import cudnn

                return cudnn.build
    except ModuleNotFoundError as missing:
        raise LeftOut(f"{missing.name} is not installed") from missing
    raise ValueError(f"expected one of {', '.join(NAMES)}, got {name!r}")


def build_all(
    problem: Problem, names: tuple[str, ...], tick: Callable[[str], None] = lambda name: None
) -> tuple[dict[str, Program], dict[str, str]]:
    """Programs by name, and by name the reason why others are left out."""
    programs, left_out = {}, {}
    for name in names:
        tick(name)
        try:
            programs[name] = builder(name)(problem)
        except LeftOut as reason:
            left_out[name] = str(reason)
        except Exception as error:
            if name.startswith(OURS):
                raise
            left_out[name] = f"it fails with {type(error).__name__}: {error}".splitlines()[0]
    return programs, left_out
