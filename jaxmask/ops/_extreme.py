"""Largest and smallest values, whose gradient is chosen by index."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from jaxmask._types import Array

_LONG = 64  # steps from which a search in blocks pays


# Compiled as one, since op by op the infinite identity trips `jax_debug_infs`.
@functools.partial(jax.jit, static_argnames=("axis", "highest"))
def extreme(x: Array, keep: Bool[Array, "..."], *, axis: int, highest: bool) -> Array:
    """Largest or smallest of the values to keep along an axis; 0 where there is none.

    The gradient goes to the first of the values that tie. It is chosen by index: the rule of
    `jnp.max` asks where `x == max(x)`, and XLA may compute `x` again for that comparison, with
    another rounding, so that no value is equal and the gradient vanishes.

    Args:
      x: real numbers or booleans.
      keep: of the rank of `x`, broadcasts against it.
      axis: static, to be reduced.
      highest: static, the largest or the smallest.

    Returns:
      `x` without that axis, in its dtype. nan where a value to keep is nan.

    Example:
      >>> x, keep = jnp.array([2.0, 2.0, 9.0]), jnp.array([True, True, False])
      >>> largest = lambda x: extreme(x, keep, axis=0, highest=True)
      >>> jax.value_and_grad(largest)(x)
      (Array(2., dtype=float32), Array([1., 0., 0.], dtype=float32))
    """
    if jnp.issubdtype(x.dtype, jnp.floating):
        return _differentiable(x, keep, axis, highest)
    return _value(x, keep, axis, highest)


def _value(x: Array, keep: Array, axis: int, highest: bool) -> Array:
    reduce = jnp.max if highest else jnp.min
    identity = _identity(x.dtype, highest)
    y = reduce(jnp.where(keep, x, identity), axis=axis, initial=identity)
    return jnp.where(jnp.any(keep, axis=axis), y, jnp.zeros((), x.dtype))


_differentiable = jax.custom_jvp(_value, nondiff_argnums=(2, 3))


@_differentiable.defjvp
def _at_the_index(
    axis: int, highest: bool, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    x, keep = primals
    y = _differentiable(x, keep, axis, highest)
    if not x.shape[axis]:
        return y, jnp.zeros_like(y)
    place = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
    chosen = keep & (place == _index(x, keep, axis, highest))
    # One term of the sum is not 0. Turned around, this is a select and not a scatter.
    return y, jnp.sum(jnp.where(chosen, tangents[0], 0), axis=axis)


def _index(x: Array, keep: Array, axis: int, highest: bool) -> Array:
    """Where the extreme stands first, with the axis kept; anywhere if nothing is kept."""
    index = _search(jnp.where(keep, x, _identity(x.dtype, highest)), axis, highest)
    # What is left out ties with a kept infinity, and all that is kept is that infinity then.
    found = jnp.take_along_axis(jnp.broadcast_to(keep, x.shape), index, axis=axis)
    return jnp.where(found, index, jnp.argmax(keep, axis=axis, keepdims=True))


def _search(x: Array, axis: int, highest: bool) -> Array:
    """`jnp.argmax` or `argmin` with the axis kept.

    XLA does not vectorise a search for an index on CPUs. So a long axis is cut in blocks, plain
    reductions find the extreme of each, and the search goes over blocks and then within one. The
    values are compared again within it, which is safe: whichever rounding they have, one index is
    found, and the one of a largest value.
    """
    search = functools.partial(jnp.argmax if highest else jnp.argmin, axis=axis, keepdims=True)
    time = x.shape[axis]
    if not isinstance(time, int) or time < _LONG:  # a symbolic size has no blocks
        return search(x)
    size = math.isqrt(time - 1) + 1
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, -time % size)
    x = jnp.pad(x, padding, constant_values=_identity(x.dtype, highest))
    x = x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
    extremes = (jnp.max if highest else jnp.min)(x, axis=axis + 1)
    block = search(extremes)
    x = jnp.take_along_axis(x, jnp.expand_dims(block, axis + 1), axis=axis)
    return block * size + search(jnp.squeeze(x, axis))


def _identity(dtype: jnp.dtype, highest: bool) -> Array:
    if dtype == jnp.bool_:
        return jnp.asarray(not highest)
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(-jnp.inf if highest else jnp.inf, dtype)
    limits = jnp.iinfo(dtype)
    return jnp.asarray(limits.min if highest else limits.max, dtype)
