"""Arithmetic with the logarithm of 0, which is -inf: 0 log 0 = 0, and no inf - inf."""

import functools

import jax
import jax.numpy as jnp

from jaxmask._types import Array


def times(weight: Array, log: Array) -> Array:
    """`weight * log`, and 0 without a gradient where the weight is 0 and the logarithm infinite.

    Example:
      >>> import jax.numpy as jnp
      >>> times(jnp.array([0.0, 0.5]), jnp.array([-jnp.inf, -jnp.inf])).tolist()
      [0.0, -inf]
    """
    return weight * jnp.where((weight == 0) & jnp.isinf(log), 0, log)


def log_add(*terms: Array) -> Array:
    """Log of the sum of exponentials; -inf, without a gradient, where every term is.

    Example:
      >>> import jax.numpy as jnp
      >>> log_add(jnp.array(-jnp.inf), jnp.array(0.0)).tolist()
      0.0
    """
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, terms))
    safe, ruled_out = _finite(top)
    total = functools.reduce(jnp.add, [jnp.exp(x - safe) for x in terms])
    return _back(total, top, safe, ruled_out)


def log_sum_exp(x: Array, axis: int) -> Array:
    """`log_add` of the entries along one axis.

    Example:
      >>> import jax.numpy as jnp
      >>> log_sum_exp(jnp.array([[-jnp.inf, -jnp.inf]]), axis=1).tolist()
      [-inf]
    """
    top = jax.lax.stop_gradient(jnp.max(x, axis=axis))
    safe, ruled_out = _finite(top)
    total = jnp.sum(jnp.exp(x - jnp.expand_dims(safe, axis)), axis=axis)
    return _back(total, top, safe, ruled_out)


def _finite(top: Array) -> tuple[Array, Array]:
    ruled_out = top == -jnp.inf
    return jnp.where(ruled_out, 0, top), ruled_out  # not -inf - -inf


def _back(total: Array, top: Array, safe: Array, ruled_out: Array) -> Array:
    # `top`, not a constant, which would trip `jax_debug_infs` in a gradient.
    return jnp.where(ruled_out, top, safe + jnp.log(jnp.where(ruled_out, 1, total)))
