"""Real steps moved within their row."""

import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled, gather, segments_apart
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask


def _order(real: StepMask) -> Array:
    """Physical index of the k-th real step of each row; padding comes after all of them."""
    return jnp.argsort(~real, axis=1, stable=True)


@refusing_pairs
def compact(x: ArrayLike, mask: Mask) -> Pair:
    """Move the real steps of each row to its left end, in their order.

    Left padding and holes become right padding; a right-padded row stays as it is.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments`, or None: nothing to move.

    Returns:
      The pair `(y, mask)`, of the same shapes, padded on the right.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[False, True, False, True]])
      >>> y, mask = jm.ops.compact(jnp.array([[0, 7, 0, 8]]), mask)
      >>> y.tolist(), mask.tolist()
      ([[7, 8, 0, 0]], [[True, True, False, False]])
    """
    x, mask = _check.pair(x, mask, "compact", over_time=True)
    if mask is None:
        return x, None
    real = masks.as_bool(mask)
    order = _order(real)
    packed = jnp.arange(real.shape[1])[None] < masks.lengths(real)[:, None]
    new: Mask = packed
    if isinstance(mask, Segments):
        new = Segments(jnp.where(packed, gather(mask.ids, order), 0), mask.max_segments)
    return filled(gather(filled(x, mask), order), new), new


@segments_apart
def flip(x: ArrayLike, mask: Mask) -> Pair:
    """Reverse the real steps of each row; padding stays where it is.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments` (each reversed in its place), or None.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.ops.flip(jnp.array([[1, 2, 3, 9]]), jnp.array([[True, True, True, False]]))[0].tolist()
      [[3, 2, 1, 0]]
    """
    x, mask = _check.pair(x, mask, "flip", over_time=True)
    if mask is None:
        return jnp.flip(x, axis=1), None
    real = masks.as_bool(mask)
    mirrored = masks.lengths(real)[:, None] - 1 - masks.positions(real)
    return filled(gather(filled(x, mask), gather(_order(real), mirrored)), mask), mask


@segments_apart
def shift(x: ArrayLike, mask: Mask, steps: int = 1, *, value: ArrayLike | complex = 0) -> Pair:
    """Shift the real steps of each row by `steps`; the mask stays.

        y at the k-th real step = x at the (k - steps)-th real step, or `value` if there is none

    A shift by 1 makes the inputs of a decoder from its targets, with `value` the start symbol.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      steps: static; positive shifts towards the end of the row, negative towards its start.
      value: fills the vacated steps: a number, or an array by row `[batch]`, by step
        `[batch, time]` or of the shape of `x`; cast to the dtype of `x`.

    Returns:
      The pair `(y, mask)`, `y` like `x`. Steps shifted out of the row are dropped.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, True, True, False]])
      >>> jm.ops.shift(jnp.array([[1, 2, 3, 9]]), mask, value=7)[0].tolist()
      [[7, 1, 2, 0]]
    """
    x, mask = _check.pair(x, mask, "shift", over_time=True)
    value = _check.by_row_or_step(value, x, "shift", "value", dtype=x.dtype)
    steps = _check.count(steps, "shift", "steps", least=None)
    real = _mask_ops.real_steps(mask, x.shape[:2])
    source = masks.positions(real) - steps
    inside = (source >= 0) & (source < masks.lengths(real)[:, None])
    y = gather(filled(x, mask), gather(_order(real), source))
    y = jnp.where(_mask_ops.expand(inside, x.ndim), y, value)
    return filled(y, mask), mask
