"""What stands in the padding: a constant, or a copy of a real step for functions not our own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops, masks
from jaxmask._types import Array, ArrayLike, Mask, Pair


def fill(x: ArrayLike, mask: Mask, value: ArrayLike | complex = 0) -> Pair:
    """Put a constant into the padding.

        y[b, t] = x[b, t] if mask[b, t] else value

    The constant stands in the way of every gradient: padding gets exactly zero cotangent, and nan
    or inf that stood there is gone.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; any dtype.
      mask: boolean, or `Segments`, or None: nothing to fill.
      value: a number, or an array by row `[batch]`, by step `[batch, time]` or of the shape of `x`;
        cast to the dtype of `x`.

    Returns:
      The pair `(y, mask)`.

    Raises:
      TypeError, MaskError: if `mask` does not belong to `x`.
      ValueError: if `value` has another shape.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, _ = jm.ops.fill(jnp.array([[1.0, jnp.nan]]), jnp.array([[True, False]]))
      >>> y.tolist()
      [[1.0, 0.0]]
    """
    x, mask = _check.pair(x, mask, "fill")
    value = _check.by_row_or_step(value, x, "fill", "value", dtype=x.dtype)
    if mask is None:
        return x, None
    real = _mask_ops.expand(masks.as_bool(mask), x.ndim)
    # A select, never `x * mask`: 0 * nan is nan.
    return jnp.where(real, x, value), mask


def fill_real(x: ArrayLike, mask: Mask, value: ArrayLike | complex | None = None) -> Pair:
    """Put a copy of a real step into the padding, so that any function is safe to run on it.

    Zero is no safe filler for a foreign function: the gradients of sqrt, log, a norm or a
    normalisation are nan there, and nan times a zero cotangent is nan. A real step of the same row
    is safe wherever the function is safe on the row alone. A row without a real step copies one
    of another row. The copies carry no gradient.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; any dtype.
      mask: boolean, or `Segments`, or None: nothing to fill.
      value: for a batch without any real step, the one case with nothing to copy; 1 where None
        (0 for integers and booleans, since 0 is a valid id in any table). A number, or an array
        as in `fill`.

    Returns:
      The pair `(y, mask)`.

    Raises:
      TypeError, MaskError: if `mask` does not belong to `x`.
      ValueError: if `value` has another shape than `fill` allows.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[0.0, 5.0, 6.0], [0.0, 0.0, 0.0]])
      >>> mask = jnp.array([[False, True, True], [False, False, False]])
      >>> jm.ops.fill_real(x, mask)[0].tolist()
      [[5.0, 5.0, 6.0], [5.0, 5.0, 5.0]]
    """
    x, mask = _check.pair(x, mask, "fill_real")
    if value is None:
        value = 1 if jnp.issubdtype(x.dtype, jnp.inexact) else 0
    value = _check.by_row_or_step(value, x, "fill_real", "value", dtype=x.dtype)
    if mask is None or not x.size:
        return x, mask
    real = masks.as_bool(mask)
    # Filled first, since an empty row would copy its padding before that is replaced in turn.
    copy = jax.lax.stop_gradient(fill(x, mask)[0])
    if real.ndim == 2:
        first = jnp.argmax(real, axis=1).reshape(-1, *[1] * (x.ndim - 1))
        copy = jnp.take_along_axis(copy, first, axis=1)  # [batch, 1, feature...]
    has_step = real if real.ndim == 1 else jnp.any(real, axis=1)
    other = jnp.where(jnp.any(has_step), copy[jnp.argmax(has_step)][None], value)
    copy = jnp.where(_mask_ops.expand(has_step, x.ndim), copy, other)
    return jnp.where(_mask_ops.expand(real, x.ndim), x, copy), mask


def each_step(
    f: Callable[[Array], Array],
    x: ArrayLike,
    mask: Mask,
    *,
    value: ArrayLike | complex | None = None,
) -> Pair:
    """Run a function that acts on each step alone, and never show it padding.

        y[b, t] = f(x)[b, t]   where mask[b, t], else 0

    Mask class: any, if `f` acts on each step alone; `jm.leak.check` tells.

    Args:
      f: `f(x) -> y`, which keeps the axes that the mask has.
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; any dtype.
      mask: boolean, or `Segments`, or None: `f` runs on `x` as it is.
      value: as in `fill_real`.

    Returns:
      The pair `(y, mask)`.

    Raises:
      TypeError: if `mask` is not boolean.
      MaskError: if `mask` does not belong to `x`, or `f` changes the axes that it has.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[4.0, -1.0]]), jnp.array([[True, False]])
      >>> jm.ops.each_step(jnp.sqrt, x, mask)[0].tolist()
      [[2.0, 0.0]]
    """
    safe, mask = fill_real(x, mask, value)
    y = f(safe)
    if mask is None:
        return y, None
    if not isinstance(y, jax.Array | np.ndarray) or y.shape[: mask.ndim] != mask.shape:
        raise _check.MaskError(
            f"each_step: {_check.name_of(f)} must keep the axes of the mask, {mask.shape}, but "
            f"gave {_check.kind_of(y)}. A function that changes time must take the mask: "
            "`f(x, mask) -> (y, mask)`, or `jm.nn.Consume(f)` where the mask ends."
        )
    return fill(y, mask)
