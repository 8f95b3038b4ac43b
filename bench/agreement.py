"""Do rivals compute the same? Checked before anything is timed."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Disagreement(Exception):
    """A rival computes something else."""


def require_same(ours: Any, theirs: Any, about: str, tolerance: float = 1e-3) -> float:
    """The distance of two trees, which must not exceed the tolerance."""
    worst = distance(ours, theirs)
    if not worst <= tolerance:
        raise Disagreement(f"{about}: they differ by {worst:.1e}, more than {tolerance:.0e}")
    return worst


def distance(ours: Any, theirs: Any) -> float:
    """The largest |a - b| over the largest |b| of any array, nan if there is any nan."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return float(np.max([_relative(np.asarray(a), np.asarray(b)) for a, b in pairs]))


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        raise Disagreement(f"expected an array of shape {b.shape}, got {a.shape}")
    return float(np.max(np.abs(a - b), initial=0) / (np.max(np.abs(b), initial=0) or 1))


def with_gradient(function: Callable, arguments: Sequence[int]) -> Callable:
    """A sum in which every element counts differently, and its gradient."""

    def total(*given: Any) -> jax.Array:
        y = function(*given)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    return jax.value_and_grad(total, argnums=tuple(arguments))
