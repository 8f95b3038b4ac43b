"""Soft dynamic time warping between ragged rows."""

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, ops
from jaxmask._errors import refusing_pairs
from jaxmask._logs import log_add
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, common_dtype
from jaxmask.losses._diagonals import diagonals, moved


@refusing_pairs
def soft_dtw(
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    target_mask: Mask,
    *,
    gamma: float | Array = 1.0,
) -> Pair:
    """Least cost of warping each row onto its target, with a soft minimum over the ways to do it.

        c[i, j] = |predictions[b, i] - targets[b, j]|^2
        r[i, j] = c[i, j] + softmin(r[i-1, j], r[i, j-1], r[i-1, j-1])
        softmin(a...) = -gamma log sum exp(-a / gamma),     y[b] = r at the last real steps

    Both masks may have their padding anywhere (mask class: any). It may be below 0, and is not
    least where both rows are equal; that holds for the divergence, `soft_dtw(x, y) - (soft_dtw(x,
    x) + soft_dtw(y, y)) / 2`.

    Args:
      predictions: `[batch, time, feature]`, floating.
      mask: `[batch, time]`, boolean, or None.
      targets: `[batch, target, feature]`, floating; of another length, if you like.
      target_mask: `[batch, target]`, boolean, or None.
      gamma: a scalar, above 0; the smaller, the nearer to dynamic time warping.

    Returns:
      The pair `(per_row, row_mask)`: `per_row [batch]`, in at least float32, and `row_mask
      [batch]`, True where the row has real steps on both sides. Others give 0 and False, since
      nothing can be warped onto nothing. With both masks None the row mask is None.

    Raises:
      MaskError: if a mask does not belong to its array, or is `Segments`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, y = jnp.array([[[1.0], [2.0], [jnp.nan]]]), jnp.array([[[1.0], [1.0], [2.0], [5.0]]])
      >>> mask = jnp.array([[True, True, False]])
      >>> cost, row_mask = jm.losses.soft_dtw(x, mask, y, None, gamma=0.01)
      >>> round(float(cost[0]), 4), row_mask.tolist()
      (9.0, [True])

    Source: Cuturi and Blondel, 2017, Soft-DTW: a differentiable loss function for time-series,
    arXiv:1703.01541.
    """
    where = "soft_dtw"
    _check.positive(gamma, where, "gamma")
    rows = []
    for name, x, mask_name, its_mask in (
        ("predictions", predictions, "mask", mask),
        ("targets", targets, "target_mask", target_mask),
    ):
        x, its_mask = _check.pair(
            x, its_mask, where, over_time=True, segments=False, name=name, mask_name=mask_name
        )
        _check.floating(x, where, name)
        if x.ndim != 3:
            raise ValueError(f"{where}: `{name}` must be [batch, time, feature], got {x.shape}.")
        front, its_mask = ops.compact(x, its_mask)
        rows.append((front, _mask_ops.real_steps(its_mask, x.shape[:2])))
    (x, x_real), (y, y_real) = rows
    if x.shape[::2] != y.shape[::2]:
        raise ValueError(
            f"{where}: `predictions` and `targets` must have one batch and one number of features, "
            f"got shapes {x.shape} and {y.shape}."
        )
    dtype = common_dtype(accumulator(x.dtype), y.dtype)
    row_mask = jnp.any(x_real, axis=1) & jnp.any(y_real, axis=1)
    if not x.shape[1] or not y.shape[1]:
        cost = jnp.zeros(x.shape[0], dtype)
    else:
        cost = _cost(x.astype(dtype), x_real, y.astype(dtype), y_real, jnp.asarray(gamma, dtype))
    cost, _ = ops.fill(cost, row_mask)
    return cost, None if mask is None and target_mask is None else row_mask


# Compiled as a whole even in eager mode: the infinities inside are intended, and would trip
# `jax_debug_infs` op by op.
@jax.jit
def _cost(x: Array, x_real: Array, y: Array, y_real: Array, gamma: Array) -> Array:
    """`[batch]`, of rows whose padding is 0 and stands at their ends."""
    # Not |x|^2 + |y|^2 - 2 x y, which loses the digits of a small distance.
    each = jnp.sum((x[:, :, None] - y[:, None]) ** 2, axis=3)
    lengths = [jnp.sum(m, axis=1, dtype=jnp.int32) for m in (x_real, y_real)]
    end = jnp.maximum(lengths[1] - 1, 0)[:, None]

    def step(before: tuple[Array, Array, Array], cost: Array) -> tuple:
        last, last_but_one, from_start = before
        score = log_add(last, moved(last, -jnp.inf), moved(last_but_one, from_start)) - cost
        return (score, last, jnp.full_like(from_start, -jnp.inf)), jnp.take_along_axis(
            score, end, axis=1
        )

    nowhere = jnp.full((x.shape[0], y.shape[1]), -jnp.inf, x.dtype)
    start = nowhere, nowhere, jnp.zeros((x.shape[0], 1), x.dtype)
    step = jax.checkpoint(step, prevent_cse=False)
    _, at_end = jax.lax.scan(step, start, diagonals(each / gamma, jnp.inf))
    read = jnp.maximum(lengths[0] + lengths[1] - 2, 0)[None]
    score = jnp.take_along_axis(at_end[..., 0], read, axis=0)[0]
    return jnp.where((lengths[0] > 0) & (lengths[1] > 0), -gamma * score, 0)
