"""Means and variances of real values, and what normalisation does with them."""

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks
from jaxmask._sums import accumulator, divide
from jaxmask._types import Array, ArrayLike, Mask

AxisName: TypeAlias = str | tuple[str, ...] | None


def floating_pair(
    x: ArrayLike, mask: Mask, where: str, *, over_time: bool = False
) -> tuple[Array, Mask, Array]:
    """A checked pair with a feature axis, and the mask expanded to the rank of `x`."""
    x, mask = _check.pair(x, mask, where, over_time=over_time)
    _check.floating(x, where)
    _check.features(x, mask, where, axes=2 if over_time else 1)
    if mask is None:
        return x, None, jnp.ones((1,) * x.ndim, bool)
    return x, mask, _mask_ops.expand(masks.as_bool(mask), x.ndim)


def widened(x: Array, real: Array) -> Array:
    """`x` in the dtype of its sums, with 0 in the padding."""
    return jnp.where(real, x, 0).astype(accumulator(x.dtype))


def moments(
    x: Array, real: Array, axes: tuple[int, ...], axis_name: AxisName = None
) -> tuple[Array, Array, Array, Array]:
    """Mean and variance of the real values over `axes`, which stay with size 1.

    `x` is wide, with 0 in the padding; `real` broadcasts against it; `axis_name` names the mapped
    axes of devices whose values belong to the same statistics. Returns `x` less its mean (0 in the
    padding), the mean, the variance, and the number of real values; all 0 where that number is 0.
    """
    repeats = math.prod(x.shape[axis] // max(1, real.shape[axis]) for axis in axes)
    count = jnp.sum(real, axis=axes, keepdims=True, dtype=jnp.int32) * repeats
    total = jnp.sum(x, axis=axes, keepdims=True)
    if axis_name is not None:
        # Two calls: JAX 0.7 cannot differentiate one sum of floats and integers in `shard_map`.
        total, count = jax.lax.psum(total, axis_name), jax.lax.psum(count, axis_name)
    mean = divide(total, count)
    centred = jnp.where(real, x - mean, 0)
    squares = jnp.sum(jnp.square(centred), axis=axes, keepdims=True)
    if axis_name is not None:
        squares = jax.lax.psum(squares, axis_name)
    return centred, mean, divide(squares, count), count


def inverse_root(variance: Array, epsilon: float, where: str) -> Array:
    """`1 / sqrt(variance + epsilon)`; 0 where that would divide by 0, also in its gradient."""
    _check.number(epsilon, where, "epsilon")
    total = variance + epsilon
    vanishes = total == 0
    return jnp.where(vanishes, 0, jax.lax.rsqrt(jnp.where(vanishes, 1, total)))


def scale_and_shift(
    y: Array, x: Array, real: Array, scale: ArrayLike | None, bias: ArrayLike | None, where: str
) -> Array:
    """Scale and shift the last axis, in the dtype of `x`, with 0 in the padding again."""
    if scale is not None:
        y = y * _of_features(scale, x, where, "scale").astype(y.dtype)
    if bias is not None:
        y = y + _of_features(bias, x, where, "bias").astype(y.dtype)
    return jnp.where(real, y, 0).astype(x.dtype)


def _of_features(value: ArrayLike, x: Array, where: str, name: str) -> Array:
    value = _check.array(value, name, where)
    _check.floating(value, where, name)
    _check.shape(value, x.shape[-1:], "[feature]", where, name)
    return jax.lax.broadcast_to_rank(value, x.ndim)
