"""From per-step values to one number: what is added, and what it is divided by."""

import math

import jax.numpy as jnp

from jaxmask import _check, _mask_ops, ops, pool
from jaxmask._types import Array, ArrayLike, Mask, RowMask, Scalar, Segments, common_dtype

__all__ = ["reduce", "sum_and_count"]


def reduce(
    per_step: ArrayLike, mask: Mask, weights: ArrayLike | None = None, by: str = "step"
) -> Scalar:
    """Reduce per-step values to one number over the real steps.

        by="step"   sum w y / sum w          over the real steps of the batch
        by="row"    mean over rows of (sum_t w y / sum_t w)      over rows with a real step
        by="sum"    sum w y

    Trailing feature axes of `per_step` are averaged within their step first.

    Args:
      per_step: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; real numbers.
        With `mask=None` it is steps, unless it is `[batch]`. nan in padding is harmless.
      mask: boolean, or `Segments` (rows are then segments), or None.
      weights: `[batch, time]` weighs steps, and `[batch]` weighs rows: all the steps of a row by
        "step" and "sum", the row's mean by "row". Told apart by rank, checked by shape; None weighs
        all alike. A weight of 0 does not hide a nan at a real step: take the step out of the mask.
      by: what counts alike: "step" or "row"; or "sum", no division at all.

    Returns:
      A scalar, in at least float32; 0 where there is nothing to count: no real step, or weights
      that sum to 0. By "row", a row whose weights sum to 0 does not count.

    Raises:
      TypeError: if `mask` is not boolean, or an array is complex.
      ValueError, MaskError: if `by` is none of the three, or `weights` or `mask` does not belong to
        `per_step`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> per_step = jnp.array([[1.0, 1.0, 1.0], [5.0, jnp.nan, jnp.nan]])
      >>> mask = jnp.array([[True, True, True], [True, False, False]])
      >>> float(jm.losses.reduce(per_step, mask)), float(jm.losses.reduce(per_step, mask, by="row"))
      (2.0, 3.0)

    Over devices and accumulated steps a mean of means is wrong: add the two numbers of
    `sum_and_count`, and divide once.
    """
    where = "reduce"
    _check.choice(by, ("step", "row", "sum"), where, "by")
    total, count = add_up(per_step, mask, weights, "step" if by == "sum" else by, where)
    return total if by == "sum" else divide(total, count)


def sum_and_count(
    per_step: ArrayLike, mask: Mask, weights: ArrayLike | None = None, by: str = "step"
) -> tuple[Scalar, Scalar]:
    """Add up per-step values, and what to divide them by.

        by="step"   (sum w y, sum w)         over the real steps of the batch
        by="row"    (sum over rows of sum_t w y / sum_t w, number of rows)   with a real step

    The mean over several devices or accumulated steps is the sum of all totals over the sum of all
    counts: `jax.lax.psum(total, axis) / jax.lax.psum(count, axis)`. Gradients alike: differentiate
    `total`, add the gradients up, divide them by the sum of the counts.

    Args:
      per_step: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; real numbers.
      mask: boolean, or `Segments` (rows are then segments), or None.
      weights: `[batch, time]` or `[batch]`, as in `reduce`.
      by: "step" or "row". A "sum" has no count that could be added up over devices: add the totals
        by "step" and divide by nothing.

    Returns:
      Two scalars `(total, count)`, in at least float32. `reduce` is their quotient.

    Raises:
      TypeError, ValueError, MaskError: as `reduce`; ValueError if `by` is "sum".

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, True, False]])
      >>> total, count = jm.losses.sum_and_count(jnp.array([[1.0, 4.0, 9.0]]), mask)
      >>> float(total), float(count)
      (5.0, 2.0)
    """
    where = "sum_and_count"
    if by == "sum":
        raise ValueError(
            f'{where}: `by` must be "step" or "row", got "sum": a sum has no count. Its total is '
            'that of by="step"; over devices, add the totals and divide by nothing.'
        )
    _check.choice(by, ("step", "row"), where, "by")
    return add_up(per_step, mask, weights, by, where)


def divide(total: Scalar, count: Scalar) -> Scalar:
    """Divide; 0 where the count is 0, with a zero gradient there.

    Example:
      >>> import jax.numpy as jnp
      >>> float(divide(jnp.array(0.0), jnp.array(0.0)))
      0.0
    """
    some = count != 0
    return jnp.where(some, total / jnp.where(some, count, 1).astype(total.dtype), 0)


def add_up(
    per_step: ArrayLike, mask: Mask, weights: ArrayLike | None, by: str, where: str
) -> tuple[Scalar, Scalar]:
    """Do the work of `sum_and_count` for the function that `where` names.

    Example:
      >>> import jax.numpy as jnp
      >>> total, count = add_up(jnp.array([1.0, 4.0]), None, None, "row", "example")
      >>> float(total), float(count)
      (5.0, 2.0)
    """
    values, mask = _one_value_a_step(per_step, mask, where)
    real = _mask_ops.real_steps(mask, values.shape)
    of_steps, of_rows = _weights(weights, real, values.dtype, where)
    rows = mask if by == "row" else real
    # Rows first, then the batch: 1 + 1 + ... in one float32 stands still at 2^24.
    sums, counts = _over_time(of_steps * values, rows), _over_time(of_steps, rows)
    if by == "row":
        sums, counts = divide(sums, counts), (counts != 0).astype(counts.dtype)
    if isinstance(rows, Segments):
        of_rows = jnp.repeat(of_rows, rows.max_segments)
    return jnp.sum(of_rows * sums), jnp.sum(of_rows * counts)


def _one_value_a_step(per_step: ArrayLike, mask: Mask, where: str) -> tuple[Array, Mask]:
    """The features of each step averaged, in at least float32, 0 in padding."""
    values, mask = _check.pair(per_step, mask, where, name="per_step")
    _real_numbers(values, where, "per_step")
    values, _ = ops.fill(values, mask)
    values = values.astype(common_dtype(values.dtype, jnp.float32))
    axes = min(values.ndim, 2) if mask is None else mask.ndim
    features = math.prod(values.shape[axes:])
    return jnp.sum(values, axis=tuple(range(axes, values.ndim))) / max(features, 1), mask


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
