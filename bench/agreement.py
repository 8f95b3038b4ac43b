"""Do rivals compute the same? Checked before anything is timed."""

import jax
import numpy as np

from bench.problem import Problem
from bench.rivals.program import Program, Result

# Of the relative error of a whole array. A GPU multiplies float32 by TF32 unless told otherwise,
# and in bfloat16 some add up the gradients of hundreds of steps in that type.
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-1}
TOLERANCE_ON_GPU = {"float32": 1e-2, "bfloat16": 1e-1}


class Disagreement(Exception):
    """A rival that computes something else."""


def differences(
    problem: Problem, programs: dict[str, Program], reference: Result
) -> dict[str, float]:
    """How far each program is from the reference, in its worst array; refuses too far."""
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
    """The largest |a - b| / |b| of any array, nan where there is any nan."""
    pairs = zip(jax.tree.leaves(tuple(ours)), jax.tree.leaves(tuple(theirs)), strict=True)
    return float(np.max([_relative(a, b) for a, b in pairs]))


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        raise Disagreement(f"expected an array of shape {b.shape}, got {a.shape}")
    error = np.linalg.norm((a - b).ravel())
    return float(error / np.maximum(np.linalg.norm(b.ravel()), 1e-30))
