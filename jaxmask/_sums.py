"""Sums and averages: their dtypes, and division where nothing was counted."""

import jax
import jax.numpy as jnp

from jaxmask._types import Array, common_dtype


def accumulator(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype to add up in: at least float32 for floats, the dtype itself otherwise."""
    dtype = jnp.dtype(dtype)
    return common_dtype(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype


def sum_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype of a sum, as in NumPy: narrow integers and booleans would wrap around."""
    return jax.eval_shape(jnp.sum, jax.ShapeDtypeStruct((), dtype)).dtype


def mean_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype of an average, as in NumPy: integers and booleans become floats."""
    return jax.eval_shape(jnp.mean, jax.ShapeDtypeStruct((), dtype)).dtype


def divide(total: Array, count: Array) -> Array:
    """`total / count`, and 0 without a gradient where nothing was counted."""
    some = count != 0
    return jnp.where(some, total / jnp.where(some, count, 1).astype(total.dtype), 0)
