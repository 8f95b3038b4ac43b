"""Masked primitives that are safe against nan, inf and empty rows.

All of them act on the real steps of each row only, wherever the padding lies (mask class: any),
and keep the sequences of `Segments` apart. What stands in the padding of a result is 0.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmask import _check, masks
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask

__all__ = [
    "compact",
    "cumsum",
    "fill",
    "fill_real",
    "flip",
    "log_softmax",
    "logsumexp",
    "shift",
    "softmax",
]

# --------------------------------------------------------------------------- filling


def fill(x: ArrayLike, mask: Mask, value: complex = 0) -> Pair:
    """Put one constant into the padding.

        y[b, t] = x[b, t] if mask[b, t] else value

    The constant stands in the way of every gradient: padding gets exactly zero cotangent, and nan
    or inf that stood there is gone.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; any dtype.
      mask: boolean, or `Segments`, or None: nothing to fill.
      value: cast to the dtype of `x`.

    Returns:
      The pair `(y, mask)`.

    Raises:
      TypeError, MaskError: if `mask` does not belong to `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, _ = jm.ops.fill(jnp.array([[1.0, jnp.nan]]), jnp.array([[True, False]]))
      >>> y.tolist()
      [[1.0, 0.0]]
    """
    x, mask = _check.pair(x, mask, "fill")
    if mask is None:
        return x, None
    real = masks.expand(masks.steps(mask), x.ndim)
    # A select, never `x * mask`: 0 * nan is nan.
    return jnp.where(real, x, jnp.asarray(value, x.dtype)), mask


def fill_real(x: ArrayLike, mask: Mask, value: complex | None = None) -> Pair:
    """Put a copy of a real step into the padding, so that any function is safe to run on it.

    Zero is no safe filler for a foreign function: the gradients of sqrt, log, a norm or a
    normalisation are nan there, and nan times a zero cotangent is nan. A real step of the same row
    is safe wherever the function is safe on the row alone. A row without a real step copies one
    of another row. The copies carry no gradient.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; any dtype.
      mask: boolean, or `Segments`, or None: nothing to fill.
      value: for a batch without any real step, the one case with nothing to copy; 1 where None
        (0 for integers and booleans, since 0 is a valid id in any table).

    Returns:
      The pair `(y, mask)`.

    Raises:
      TypeError, MaskError: if `mask` does not belong to `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[0.0, 5.0, 6.0], [0.0, 0.0, 0.0]])
      >>> mask = jnp.array([[False, True, True], [False, False, False]])
      >>> jm.ops.fill_real(x, mask)[0].tolist()
      [[5.0, 5.0, 6.0], [5.0, 5.0, 5.0]]
    """
    x, mask = _check.pair(x, mask, "fill_real")
    if mask is None or not x.size:
        return x, mask
    real = masks.steps(mask)
    if value is None:
        value = 1 if jnp.issubdtype(x.dtype, jnp.inexact) else 0
    copy = jax.lax.stop_gradient(x)
    if real.ndim == 2:
        first = jnp.argmax(real, axis=1).reshape(-1, *[1] * (x.ndim - 1))
        copy = jnp.take_along_axis(copy, first, axis=1)  # [batch, 1, feature...]
    has_step = real if real.ndim == 1 else jnp.any(real, axis=1)
    other = jnp.where(jnp.any(has_step), copy[jnp.argmax(has_step)], jnp.asarray(value, x.dtype))
    copy = jnp.where(masks.expand(has_step, x.ndim), copy, other)
    return jnp.where(masks.expand(real, x.ndim), x, copy), mask


# --------------------------------------------------------- keeping segments to themselves


def segments_apart(function: Callable[..., Pair], *, pooled: bool = False) -> Callable[..., Pair]:
    """Let a function of a boolean mask take `Segments`: it runs once for each segment.

    `function(x, mask, ...)` returns zeros in its padding, so the segments of a row add up to the
    result for the row; a pooled result becomes one row a segment.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> total = segments_apart(jm.pool.sum, pooled=True)
      >>> segments = jm.Segments(jnp.array([[1, 2, 2]]), max_segments=2)
      >>> total(jnp.array([[1.0, 2.0, 3.0]]), segments)[0].tolist()
      [1.0, 5.0]
    """

    @functools.wraps(function)
    def wrapper(x: ArrayLike, mask: Mask, *args: object, **kwargs: object) -> Pair:
        if not isinstance(mask, Segments):
            return function(x, mask, *args, **kwargs)
        x, mask = _check.pair(x, mask, function.__name__, over_time=True)
        assert isinstance(mask, Segments)
        each = masks.of_each_segment(mask)
        axis = 1 if pooled else 0
        y, _ = jax.vmap(lambda m: function(x, m, *args, **kwargs), in_axes=1, out_axes=axis)(each)
        if pooled:
            return y.reshape(-1, *y.shape[2:]), masks.rows(mask)
        return jnp.sum(y, axis=0, dtype=y.dtype), mask

    return wrapper


# --------------------------------------------------------------------- over the real steps


def _over_time(x: ArrayLike, mask: Mask, axis: int, where: str) -> tuple[Array, StepMask, Mask]:
    x, mask = _check.pair(x, mask, where, over_time=True)
    if _check.axis(axis, x.ndim, where) != 1:
        raise ValueError(
            f"{where}: `axis` must be the time axis, 1, got {axis}. Over features no step is "
            "padding to the others: use the function of JAX there, inside `jm.nn.Passthrough`."
        )
    return x, _real(x, mask), mask


def _real(x: Array, mask: Mask) -> StepMask:
    """The boolean mask, with axes of 1 for the features; all True for None."""
    real = jnp.ones(x.shape[:2], bool) if mask is None else masks.steps(mask)
    return masks.expand(real, x.ndim)


def _exponentials(x: Array, real: StepMask) -> tuple[Array, Array, Array, Array]:
    """`x - top` and its exponential, their totals over time (1 in an empty row), and `top`."""
    # The lowest finite number, not -inf: -inf makes inf - inf in an empty row.
    lowest = jnp.asarray(jnp.finfo(x.dtype).min, x.dtype)
    has_step = jnp.any(real, axis=1, keepdims=True)
    top = jnp.max(jnp.where(real, x, lowest), axis=1, keepdims=True, initial=lowest)
    top = jax.lax.stop_gradient(jnp.where(has_step, top, 0))
    # Select before `exp` and after it: after it alone, nan in the padding reaches the gradient.
    shifted = jnp.where(real, x, top) - top
    weights = jnp.where(real, jnp.exp(shifted), 0)
    total = jnp.where(has_step, jnp.sum(weights, axis=1, keepdims=True), 1)
    return shifted, weights, total, top


@segments_apart
def softmax(x: ArrayLike, mask: Mask, *, axis: int = 1) -> Pair:
    """Softmax over the real steps of each row.

        y[b, t] = exp(x[b, t]) / sum_s mask[b, s] exp(x[b, s])   where mask[b, t], else 0

    Args:
      x: `[batch, time, feature...]`, floating; each feature is a softmax of its own.
      mask: `[batch, time]`, boolean, or `Segments`, or None. A row without a real step gives 0.
      axis: the time axis, 1.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Raises:
      TypeError: if `x` is not floating or `mask` not boolean.
      ValueError, MaskError: if `axis` is not time, or `mask` does not belong to `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[1.0, 1.0, jnp.nan]])
      >>> jm.ops.softmax(x, jnp.array([[True, True, False]]))[0].tolist()
      [[0.5, 0.5, 0.0]]

    Agrees with `scipy.special.softmax` of the unpadded row.
    """
    x, real, mask = _over_time(x, mask, axis, "softmax")
    _check.floating(x, "softmax")
    _, weights, total, _ = _exponentials(x, real)
    return weights / total, mask


@segments_apart
def log_softmax(x: ArrayLike, mask: Mask, *, axis: int = 1) -> Pair:
    """Logarithm of `softmax` over the real steps of each row.

        y[b, t] = x[b, t] - log sum_s mask[b, s] exp(x[b, s])   where mask[b, t], else 0

    Args:
      x: `[batch, time, feature...]`, floating.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      axis: the time axis, 1.

    Returns:
      The pair `(y, mask)`, `y` like `x`. 0 stands in the padding, which is not the logarithm of
      a probability: read the mask.

    Raises:
      TypeError: if `x` is not floating or `mask` not boolean.
      ValueError, MaskError: if `axis` is not time, or `mask` does not belong to `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[3.0, 9.0]])
      >>> jm.ops.log_softmax(x, jnp.array([[True, False]]))[0].tolist()
      [[0.0, 0.0]]

    Agrees with `scipy.special.log_softmax` of the unpadded row.
    """
    x, real, mask = _over_time(x, mask, axis, "log_softmax")
    _check.floating(x, "log_softmax")
    shifted, _, total, _ = _exponentials(x, real)
    return jnp.where(real, shifted - jnp.log(total), 0), mask


@functools.partial(segments_apart, pooled=True)
def logsumexp(x: ArrayLike, mask: Mask, *, axis: int = 1) -> Pair:
    """Logarithm of the sum of exponentials over the real steps of each row.

        y[b] = log sum_t mask[b, t] exp(x[b, t])

    Args:
      x: `[batch, time, feature...]`, floating.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      axis: the time axis, 1.

    Returns:
      The pair `(y, row_mask)`: `y [batch, feature...]`, and `row_mask [batch]`, True where the row
      has a real step. A row without one gives 0 (not -inf) and False.

    Raises:
      TypeError: if `x` is not floating or `mask` not boolean.
      ValueError, MaskError: if `axis` is not time, or `mask` does not belong to `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[3.0, 9.0]])
      >>> jm.ops.logsumexp(x, jnp.array([[True, False]]))[0].tolist()
      [3.0]

    Agrees with `scipy.special.logsumexp` of the unpadded row.
    """
    x, real, mask = _over_time(x, mask, axis, "logsumexp")
    _check.floating(x, "logsumexp")
    _, _, total, top = _exponentials(x, real)
    return jnp.squeeze(top + jnp.log(total), axis=1), masks.rows(mask)


@segments_apart
def cumsum(x: ArrayLike, mask: Mask, *, axis: int = 1) -> Pair:
    """Running sum over the real steps of each row.

        y[b, t] = sum_{s <= t} mask[b, s] x[b, s]   where mask[b, t], else 0

    Args:
      x: `[batch, time, feature...]`; 16-bit floats are summed in float32.
      mask: `[batch, time]`, boolean, or `Segments` (the sum starts anew in each), or None.
      axis: the time axis, 1.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Raises:
      TypeError: if `mask` is not boolean.
      ValueError, MaskError: if `axis` is not time, or `mask` does not belong to `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[1.0, jnp.inf, 2.0]])
      >>> jm.ops.cumsum(x, jnp.array([[True, False, True]]))[0].tolist()
      [[1.0, 0.0, 3.0]]

    Agrees with `numpy.cumsum` of the unpadded row.
    """
    x, real, mask = _over_time(x, mask, axis, "cumsum")
    total = jnp.cumsum(jnp.where(real, x, 0), axis=1, dtype=accumulator(x.dtype))
    return jnp.where(real, total, 0).astype(x.dtype), mask


def accumulator(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype to add up in: at least float32 for floats, the dtype itself otherwise.

    Example:
      >>> import jax.numpy as jnp
      >>> accumulator(jnp.bfloat16).name, accumulator(jnp.int32).name
      ('float32', 'int32')
    """
    dtype = jnp.dtype(dtype)
    return jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype


# ----------------------------------------------------------------- moving the real steps


def _order(real: StepMask) -> Array:
    """Physical index of the k-th real step of each row; padding comes after all of them."""
    return jnp.argsort(~real, axis=1, stable=True)


def _take(x: Array, index: Array) -> Array:
    return jnp.take_along_axis(x, masks.expand(index, x.ndim), axis=1, mode="clip")


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
    real = masks.steps(mask)
    order = _order(real)
    packed = masks.from_lengths(masks.lengths(real), real.shape[1])
    new: Mask = packed
    if isinstance(mask, Segments):
        new = Segments(jnp.where(packed, _take(mask.ids, order), 0), mask.max_segments)
    return fill(_take(x, order), new)


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
    real = masks.steps(mask)
    mirrored = masks.lengths(real)[:, None] - 1 - masks.positions(real)
    return fill(_take(x, _take(_order(real), mirrored)), mask)


@segments_apart
def shift(x: ArrayLike, mask: Mask, steps: int = 1, *, value: complex = 0) -> Pair:
    """Move the real steps of each row along by some steps; the mask stays.

        y at the k-th real step = x at the (k - steps)-th real step, or `value` if there is none

    A shift by 1 makes the inputs of a decoder from its targets, with `value` the start symbol.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      steps: static; positive moves towards the end of the row, negative towards its start.
      value: what comes in at the end that is left free.

    Returns:
      The pair `(y, mask)`, `y` like `x`. What is pushed out of the row is gone.

    Raises:
      TypeError: if `steps` is not an int, or `mask` not boolean.
      MaskError: if `mask` does not belong to `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, True, True, False]])
      >>> jm.ops.shift(jnp.array([[1, 2, 3, 9]]), mask, value=7)[0].tolist()
      [[7, 1, 2, 0]]
    """
    x, mask = _check.pair(x, mask, "shift", over_time=True)
    steps = operator.index(steps)
    real = _real(x, mask).reshape(x.shape[:2])
    source = masks.positions(real) - steps
    inside = (source >= 0) & (source < masks.lengths(real)[:, None])
    y = _take(x, _take(_order(real), source))
    y = jnp.where(masks.expand(inside, x.ndim), y, jnp.asarray(value, x.dtype))
    return fill(y, mask)
