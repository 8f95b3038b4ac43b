"""Arrays over pairs of steps, walked along their anti-diagonals.

What stands on one diagonal depends on earlier ones alone, so a scan takes time + other - 1 steps.
"""

import jax
import jax.numpy as jnp

from jaxmask._types import Array


def diagonals(x: Array, outside: float) -> Array:
    """`y[d, b, u] = x[b, d - u, u]`, of `[batch, time, other]`, and `outside` where there is none.

    Where a size is symbolic, one diagonal more, outside. By padding and reshaping: a gather would
    become a scatter backwards.
    """
    batch, time, other = x.shape
    size = time + other - 1
    if jax.export.is_symbolic_dim(size):  # JAX does not see that other * size is not negative
        size += 1
    right = size + 1 - time
    wide = jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, right)), constant_values=outside)
    # A row that is one shorter begins one further to the left, so each row moves by its number.
    skewed = wide.reshape(batch, other * (size + 1))[:, : other * size]
    return skewed.reshape(batch, other, size).transpose(2, 0, 1)


def moved(x: Array, first: Array | float) -> Array:
    """`x[:, u - 1]` at `u`, with `first` at 0."""
    edge = jnp.broadcast_to(jnp.asarray(first, x.dtype), x[:, :1].shape)
    return jnp.concatenate([edge, x[:, :-1]], axis=1)
