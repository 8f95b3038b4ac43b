"""The dtypes of sums and averages."""

import jax
import jax.numpy as jnp

from jaxmask._types import common_dtype


def accumulator(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype to add up in: at least float32 for floats, the dtype itself otherwise.

    Example:
      >>> accumulator(jnp.bfloat16).name, accumulator(jnp.int32).name
      ('float32', 'int32')
    """
    dtype = jnp.dtype(dtype)
    return common_dtype(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype


def of_sum(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype of a sum, by the rule of NumPy: narrow integers and booleans would wrap around.

    Example:
      >>> of_sum(jnp.bfloat16).name, of_sum(jnp.bool_).name, of_sum(jnp.uint8).name
      ('bfloat16', 'int32', 'uint32')
    """
    return jax.eval_shape(jnp.sum, jax.ShapeDtypeStruct((), dtype)).dtype


def of_mean(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype of an average, by the rule of NumPy: integers and booleans become floats.

    Example:
      >>> of_mean(jnp.bfloat16).name, of_mean(jnp.int8).name
      ('bfloat16', 'float32')
    """
    return jax.eval_shape(jnp.mean, jax.ShapeDtypeStruct((), dtype)).dtype
