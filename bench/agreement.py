"""Do rivals compute the same? Checked before anything is timed."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.problem import Problem
from bench.rivals.program import Program, Result

# Relative error of a whole array. A GPU multiplies float32 by TF32 unless told otherwise, and some
# libraries add up the gradients of hundreds of steps in bfloat16.
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-1}
TOLERANCE_ON_GPU = {"float32": 1e-2, "bfloat16": 1e-1}


class Disagreement(Exception):
    """A rival computes something else."""


def differences(
    problem: Problem, programs: dict[str, Program], reference: Result
) -> dict[str, float]:
    """The distance of each program from the reference; raises if one is too large."""
    tolerances = TOLERANCE if jax.default_backend() == "cpu" else TOLERANCE_ON_GPU
    tolerance = tolerances[problem.dtype]
    found = {}
    for name, program in programs.items():
        found[name] = worst = distance(program.result(program.run()), reference)
        if not worst <= tolerance:
            raise Disagreement(
                f"{name} differs from the plain scan by {worst:.1e}, more than {tolerance:.0e}, "
                f"on {problem.cell} {problem.shape} {problem.what} in {problem.dtype}"
            )
    return found


def distance(ours: Result, theirs: Result) -> float:
    """The largest |a - b| / |b| of any array, nan if there is any nan."""
    pairs = zip(jax.tree.leaves(tuple(ours)), jax.tree.leaves(tuple(theirs)), strict=True)
    return float(np.max([_relative(a, b) for a, b in pairs]))


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        raise Disagreement(f"expected an array of shape {b.shape}, got {a.shape}")
    error = np.linalg.norm((a - b).ravel())
    return float(error / np.maximum(np.linalg.norm(b.ravel()), 1e-30))


def require_same(ours: Any, theirs: Any, about: str, tolerance: float = 1e-3) -> None:
    """Refuse arrays that differ by more than a part of their largest value."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        scale = float(np.max(np.abs(b))) or 1.0
        if not float(np.max(np.abs(a - b))) <= tolerance * scale:
            raise Disagreement(f"{about}: results differ")


def with_gradient(function: Callable, arguments: Sequence[int]) -> Callable:
    """A sum in which every element counts differently, and its gradient."""

    def total(*given: Any) -> jax.Array:
        y = function(*given)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    return jax.value_and_grad(total, argnums=tuple(arguments))
