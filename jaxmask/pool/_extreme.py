"""Largest and smallest values over time, whose gradient is chosen by index."""

import functools
import math

import jax
import jax.numpy as jnp

from jaxmask._types import Array, StepMask

_LONG = 64  # steps from which a search in blocks pays


# Compiled as one, since op by op the infinite identity trips `jax_debug_infs`.
@functools.partial(jax.jit, static_argnames="highest")
def extreme(x: Array, real: StepMask, *, highest: bool) -> Array:
    """Largest or smallest real step of each row; 0 where there is none, nan where one is nan.

    `x [batch, time, feature...]` is real numbers or booleans, `real [batch, time, 1...]`. The
    gradient goes to the first of the steps that tie. It is chosen by index: the rule of `jnp.max`
    asks where `x == max(x)`, and XLA may compute `x` again for that comparison, with another
    rounding, so that no value is equal and the gradient vanishes.
    """
    if jnp.issubdtype(x.dtype, jnp.floating):
        return _differentiable(x, real, highest)
    return _value(x, real, highest)


def _value(x: Array, real: Array, highest: bool) -> Array:
    reduce = jnp.max if highest else jnp.min
    identity = _identity(x.dtype, highest)
    y = reduce(jnp.where(real, x, identity), axis=1, initial=identity)
    return jnp.where(jnp.any(real, axis=1), y, jnp.zeros((), x.dtype))


_differentiable = jax.custom_jvp(_value, nondiff_argnums=(2,))


@_differentiable.defjvp
def _tangent_at_the_index(
    highest: bool, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    x, real = primals
    y = _differentiable(x, real, highest)
    if not x.shape[1]:
        return y, jnp.zeros_like(y)
    step = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    chosen = real & (step == _index(x, real, highest))
    # One term of the sum is not 0. Turned around, this is a select and not a scatter.
    return y, jnp.sum(jnp.where(chosen, tangents[0], 0), axis=1)


def _index(x: Array, real: Array, highest: bool) -> Array:
    """The first index of the extreme, `[batch, 1, feature...]`; any in an empty row."""
    index = _search(jnp.where(real, x, _identity(x.dtype, highest)), highest)
    # Padding ties with a real infinity, and all real steps are that infinity then.
    found = jnp.take_along_axis(jnp.broadcast_to(real, x.shape), index, axis=1)
    return jnp.where(found, index, jnp.argmax(real, axis=1, keepdims=True))


def _search(x: Array, highest: bool) -> Array:
    """`jnp.argmax` or `argmin` over time, with the axis kept.

    XLA does not vectorise a search for an index on CPUs. So a long row is cut in blocks, plain
    reductions find the extreme of each, and the search goes over blocks and then within one. The
    values are compared again within it, which is safe: whichever rounding they have, one index is
    found, and the one of a largest value.
    """
    search = functools.partial(jnp.argmax if highest else jnp.argmin, axis=1, keepdims=True)
    time = x.shape[1]
    if not isinstance(time, int) or time < _LONG:  # a symbolic size has no blocks
        return search(x)
    size = math.isqrt(time - 1) + 1
    padding = ((0, 0), (0, -time % size), *[(0, 0)] * (x.ndim - 2))
    x = jnp.pad(x, padding, constant_values=_identity(x.dtype, highest))
    x = x.reshape(x.shape[0], -1, size, *x.shape[2:])
    block = search((jnp.max if highest else jnp.min)(x, axis=2))
    x = jnp.take_along_axis(x, jnp.expand_dims(block, 2), axis=1)
    return block * size + search(jnp.squeeze(x, 1))


def _identity(dtype: jnp.dtype, highest: bool) -> Array:
    if dtype == jnp.bool_:
        return jnp.asarray(not highest)
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(-jnp.inf if highest else jnp.inf, dtype)
    limits = jnp.iinfo(dtype)
    return jnp.asarray(limits.min if highest else limits.max, dtype)
