"""Compare two functions by values and gradients: what the checks of `ragged` and `skip` share."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array, PyTree


def is_float(leaf: Any) -> bool:
    """Whether a leaf has a gradient; shared leaves may be anything, even text."""
    if not isinstance(leaf, float | np.ndarray | np.generic | jax.Array):
        return False
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def floats(leaves: Sequence[Any]) -> list[Array]:
    return [jnp.asarray(leaf) for leaf in leaves if is_float(leaf)]


def merged(leaves: Sequence[Any], floats: Sequence[Array]) -> list[Any]:
    inside = iter(floats)
    return [next(inside) if is_float(leaf) else leaf for leaf in leaves]


def weighted_sum(y: PyTree) -> Array:
    """A sum of all floats, in which each index has the same weight in arrays of any size."""
    total = jnp.zeros(())
    for leaf in jax.tree.leaves(y):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            angle = jnp.ones(leaf.shape)
            for axis in range(leaf.ndim):
                angle += (1.3 - 0.4 * axis) * jax.lax.broadcasted_iota(
                    jnp.float32, leaf.shape, axis
                )
            total += jnp.sum(leaf * jnp.cos(angle))
    return total


def difference(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> str:
    """The first entry that differs, or ""; nan equals only nan, and padding must be 0."""
    if jnp.issubdtype(theirs.dtype, jnp.floating):  # NumPy takes bfloat16 for no float
        ours, theirs = (a.astype(np.promote_types(a.dtype, np.float32)) for a in (ours, theirs))
    if ours.ndim != theirs.ndim or any(
        a < b for a, b in zip(ours.shape, theirs.shape, strict=True)
    ):
        return f"expected shape {theirs.shape}, got {ours.shape}"
    expected = np.zeros_like(ours)
    expected[tuple(slice(0, size) for size in theirs.shape)] = theirs
    if not np.issubdtype(theirs.dtype, np.inexact):
        wrong = ours != expected
    else:
        finite = theirs[np.isfinite(theirs)]
        scale = max(1.0, float(np.max(np.abs(finite), initial=0)))
        wrong = ~np.isclose(ours / scale, expected / scale, rtol=0, atol=tolerance, equal_nan=True)
    if not wrong.any():
        return ""
    index = tuple(int(k) for k in np.argwhere(wrong)[0])
    return f"expected {expected[index]:.3g}, got {ours[index]:.3g}"
