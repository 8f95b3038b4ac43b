"""Totals and counts of per-step values, which `losses` and `metrics` share."""

import math

import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops, ops, pool
from jaxmask._sums import divide
from jaxmask._types import Array, ArrayLike, Mask, RowMask, Scalar, Segments, common_dtype


def total_and_count(
    per_step: ArrayLike,
    mask: Mask,
    weights: ArrayLike | None,
    by: str,
    where: str,
    present: ArrayLike | None = None,
) -> tuple[Scalar, Scalar]:
    """Total and count as `losses.sum_and_count`, which has the equations, gives them."""
    values, fraction, mask = _one_value_a_step(per_step, mask, present, where)
    real = _mask_ops.real_steps(mask, values.shape)
    of_steps, of_rows = _weights(weights, real, values.dtype, where)
    rows = mask if by == "row" else real
    # Rows first, then the batch: 1 + 1 + ... in one float32 stops at 2^24.
    sums, counts = _over_time(of_steps * values, rows), _over_time(of_steps * fraction, rows)
    if by == "row":
        sums, counts = divide(sums, counts), (counts != 0).astype(counts.dtype)
    if isinstance(rows, Segments):
        of_rows = jnp.repeat(of_rows, rows.max_segments)
    return jnp.sum(of_rows * sums), jnp.sum(of_rows * counts)


def _one_value_a_step(
    per_step: ArrayLike, mask: Mask, present: ArrayLike | None, where: str
) -> tuple[Array, ArrayLike, Mask]:
    """The sum of each step's features over their number, in at least float32, 0 in padding.

    The second result is the fraction of the features that are present.
    """
    values, mask = _check.pair(per_step, mask, where, name="per_step")
    _real_numbers(values, where, "per_step")
    values, _ = ops.fill(values, mask)
    values = values.astype(common_dtype(values.dtype, jnp.float32))
    axes = min(values.ndim, 2) if mask is None else mask.ndim
    features, last = max(math.prod(values.shape[axes:]), 1), tuple(range(axes, values.ndim))
    fraction: ArrayLike = np.ones((), values.dtype)
    if present is not None:
        here = _mask_ops.entries(mask, present, values.shape, where)
        values = jnp.where(here, values, 0)
        fraction = jnp.sum(here, axis=last, dtype=values.dtype) / features
    return jnp.sum(values, axis=last) / features, fraction, mask


def _weights(
    weights: ArrayLike | None, real: RowMask, dtype: jnp.dtype, where: str
) -> tuple[Array, Array]:
    """Weights of the steps, in the shape of `real`, and of the rows; both 0 in padding."""
    of_steps, of_rows = real.astype(dtype), jnp.ones(real.shape[:1], dtype)
    if weights is None:
        return of_steps, of_rows
    weights = _check.array(weights, "weights", where)
    _real_numbers(weights, where, "weights")
    if weights.ndim == 1 or real.ndim == 1:
        _check.shape(weights, real.shape[:1], "[batch]", where, "weights")
        has_step = real if real.ndim == 1 else jnp.any(real, axis=1)
        return of_steps, ops.fill(weights, has_step)[0].astype(dtype)
    _check.shape(weights, real.shape, "[batch, time]", where, "weights")
    return ops.fill(weights, real)[0].astype(dtype), of_rows


def _over_time(x: Array, mask: Mask) -> Array:
    return x if x.ndim == 1 else pool.sum(x, mask)[0]


def _real_numbers(x: Array, where: str, name: str) -> None:
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"{where}: `{name}` must be real numbers, got dtype {x.dtype}.")
