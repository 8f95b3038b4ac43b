"""The steps of rows: filled, moved, and kept to their sequence. Arguments are checked already."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmask import _check, _errors, _mask_ops, masks
from jaxmask._meshes import spread_like
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask


def filled(x: Array, mask: Mask, value: ArrayLike | complex = 0) -> Array:
    """`x` with a constant in the padding, which gets no cotangent."""
    if mask is None:
        return x
    # A select, never `x * mask`: 0 * nan is nan.
    return jnp.where(_mask_ops.expand(masks.as_bool(mask), x.ndim), x, jnp.asarray(value, x.dtype))


def filled_with_copies(x: Array, mask: Mask, value: ArrayLike | complex | None = None) -> Array:
    """`x` with copies of real steps in the padding, so that any function is safe to run on it.

    Zero is no safe filler for a foreign function: the gradients of sqrt, log, a norm or a
    normalisation are nan there, and nan times a zero cotangent is nan. A real step of the same row
    is safe wherever the function is safe on the row alone. An empty row copies a step of another
    row. Where no row has one, it is `value`: 1, or 0 for integers and booleans, since 0 is a valid
    id in any table. Copies carry no gradient.
    """
    if mask is None or not x.size:
        return x
    if value is None:
        value = 1 if jnp.issubdtype(x.dtype, jnp.inexact) else 0
    real = masks.as_bool(mask)
    return spread_like((x, real), _with_copies, x, real, jnp.asarray(value, x.dtype))


def _with_copies(x: Array, real: StepMask, value: Array) -> Array:
    # Filled first, since an empty row would copy its padding before that is replaced.
    copy = jax.lax.stop_gradient(filled(x, real))
    if real.ndim == 2:
        first = jnp.argmax(real, axis=1).reshape(-1, *[1] * (x.ndim - 1))
        copy = jnp.take_along_axis(copy, first, axis=1)  # [batch, 1, feature...]
    has_step = real if real.ndim == 1 else jnp.any(real, axis=1)
    other = jnp.where(jnp.any(has_step), copy[jnp.argmax(has_step)][None], value)
    copy = jnp.where(_mask_ops.expand(has_step, x.ndim), copy, other)
    return jnp.where(_mask_ops.expand(real, x.ndim), x, copy)


def gather(x: Array, index: Array) -> Array:
    """`y[b, k] = x[b, index[b, k]]`. Fill `x` first: an index without a step reads padding."""
    return jnp.take_along_axis(x, _mask_ops.expand(index, x.ndim), axis=1, mode="clip")


def to_left(x: Array, real: StepMask) -> tuple[Array, StepMask]:
    """Each row moved to the first column, its holes with it; 0 in the padding.

    For windows that count from the beginning of a row. `ops.compact` closes the holes as well.
    """
    x = filled(x, real)
    known = _check.known(real)
    if not x.shape[1] or (known is not None and (known[:, 0] | ~known.any(axis=1)).all()):
        return x, real
    first = jnp.argmax(real, axis=1)[:, None]  # 0 in an empty row
    index = first + jnp.arange(real.shape[1], dtype=first.dtype)[None]
    moved = gather(real, index) & (index < real.shape[1])
    # Only a batch with padding on the left pays for the gather, and for its scatter backwards.
    shifted = jax.lax.cond(jnp.any(first), lambda x: gather(x, index), lambda x: x, x)
    return filled(shifted, moved), moved


def segments_apart(function: Callable[..., Pair], *, pooled: bool = False) -> Callable[..., Pair]:
    """Let a function of a boolean mask take `Segments`: it runs once for each segment.

    `function(x, mask, ...)` returns zeros in its padding, so the segments of a row add up to the
    result for the row; a pooled result becomes one row per segment.
    """
    function = _errors.refusing_pairs(function)

    @functools.wraps(function)
    def wrapper(x: ArrayLike, mask: Mask, *args: object, **kwargs: object) -> Pair:
        if not isinstance(mask, Segments):
            return function(x, mask, *args, **kwargs)
        x, mask = _check.pair(x, mask, function.__name__, over_time=True)
        assert isinstance(mask, Segments)
        each = _mask_ops.of_each_segment(mask)
        axis = 1 if pooled else 0
        y, _ = jax.vmap(lambda m: function(x, m, *args, **kwargs), in_axes=1, out_axes=axis)(each)
        if pooled:
            return y.reshape(-1, *y.shape[2:]), masks.rows(mask)
        return jnp.sum(y, axis=0, dtype=y.dtype), mask

    return _errors.refusing_pairs(wrapper)
