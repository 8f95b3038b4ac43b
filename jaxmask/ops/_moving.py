"""Move the real steps of each row, and leave the padding out of it."""

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask
from jaxmask.ops._filling import fill
from jaxmask.ops._segments import segments_apart


def _order(real: StepMask) -> Array:
    """Physical index of the k-th real step of each row; padding comes after all of them."""
    return jnp.argsort(~real, axis=1, stable=True)


def _take(x: Array, index: Array) -> Array:
    # `x` is filled before it gets here: an index that has no real step to point at meets padding.
    return jnp.take_along_axis(x, _mask_ops.expand(index, x.ndim), axis=1, mode="clip")


def compact(x: ArrayLike, mask: Mask) -> Pair:
    """Move the real steps of each row to its left end, in their order.

    Left padding and holes become right padding; a right-padded row stays as it is.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments`, or None: nothing to move.

    Returns:
      The pair `(y, mask)`, of the same shapes, padded on the right.

    Raises:
      TypeError, MaskError: if `mask` does not belong to `x`.

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
        new = Segments(jnp.where(packed, _take(mask.ids, order), 0), mask.max_segments)
    return fill(_take(fill(x, mask)[0], order), new)


def to_left(x: Array, real: StepMask) -> tuple[Array, StepMask]:
    """Move each row so that it begins at the first column, and its holes with it.

    For windows that count from the beginning of a row. `compact` closes the holes as well.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      real: `[batch, time]`, boolean.

    Returns:
      `x` and `real` without padding on the left, of the same shapes; 0 in the padding of `x`.

    Example:
      >>> real = jnp.array([[False, True, False, True]])
      >>> x, real = to_left(jnp.array([[9, 7, 9, 8]]), real)
      >>> x.tolist(), real.tolist()
      ([[7, 0, 8, 0]], [[True, False, True, False]])
    """
    x, _ = fill(x, real)
    known = _check.known(real)
    if not x.shape[1] or (known is not None and (known[:, 0] | ~known.any(axis=1)).all()):
        return x, real
    first = jnp.argmax(real, axis=1)[:, None]  # 0 in an empty row
    index = first + jnp.arange(real.shape[1], dtype=first.dtype)[None]
    moved = _take(real, index) & (index < real.shape[1])
    # Only a batch with padding on the left pays for the gather, and for its scatter backwards.
    shifted = jax.lax.cond(jnp.any(first), lambda x: _take(x, index), lambda x: x, x)
    return fill(shifted, moved)[0], moved


@segments_apart
def flip(x: ArrayLike, mask: Mask) -> Pair:
    """Reverse the real steps of each row; padding stays where it is.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments` (each reversed in its place), or None.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Raises:
      TypeError, MaskError: if `mask` does not belong to `x`.

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
    return fill(_take(fill(x, mask)[0], _take(_order(real), mirrored)), mask)


@segments_apart
def shift(x: ArrayLike, mask: Mask, steps: int = 1, *, value: ArrayLike | complex = 0) -> Pair:
    """Move the real steps of each row along by some steps; the mask stays.

        y at the k-th real step = x at the (k - steps)-th real step, or `value` if there is none

    A shift by 1 makes the inputs of a decoder from its targets, with `value` the start symbol.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      steps: static; positive moves towards the end of the row, negative towards its start.
      value: what comes in at the end that is left free: a number, or an array by row `[batch]`, by
        step `[batch, time]` or of the shape of `x`; cast to the dtype of `x`.

    Returns:
      The pair `(y, mask)`, `y` like `x`. What is pushed out of the row is gone.

    Raises:
      TypeError: if `steps` is not an int, or `mask` not boolean.
      ValueError, MaskError: if `value` has another shape, or `mask` does not belong to `x`.

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
    y = _take(fill(x, mask)[0], _take(_order(real), source))
    y = jnp.where(_mask_ops.expand(inside, x.ndim), y, value)
    return fill(y, mask)
