"""Arithmetic with the logarithm of 0, which is -inf: 0 log 0 = 0, and no inf - inf."""

import functools

import jax
import jax.numpy as jnp

from jaxmask._types import Array


def times(weight: Array, log: Array) -> Array:
    """`weight * log`, and 0 without a gradient where the weight is 0 and the logarithm infinite."""
    return weight * jnp.where((weight == 0) & jnp.isinf(log), 0, log)


def log_add(*terms: Array) -> Array:
    """Log of the sum of exponentials; -inf, without a gradient, where every term is."""
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, terms))
    safe, all_zero = _finite(top)
    total = functools.reduce(jnp.add, [jnp.exp(x - safe) for x in terms])
    return _scaled_back(total, top, safe, all_zero)


def log_sum_exp(x: Array, axis: int) -> Array:
    """`log_add` of the entries along one axis."""
    top = jax.lax.stop_gradient(jnp.max(x, axis=axis))
    safe, all_zero = _finite(top)
    total = jnp.sum(jnp.exp(x - jnp.expand_dims(safe, axis)), axis=axis)
    return _scaled_back(total, top, safe, all_zero)


def _finite(top: Array) -> tuple[Array, Array]:
    all_zero = top == -jnp.inf
    return jnp.where(all_zero, 0, top), all_zero  # not -inf - -inf


def _scaled_back(total: Array, top: Array, safe: Array, all_zero: Array) -> Array:
    # `top`, not a constant, which would trip `jax_debug_infs` in a gradient.
    return jnp.where(all_zero, top, safe + jnp.log(jnp.where(all_zero, 1, total)))
