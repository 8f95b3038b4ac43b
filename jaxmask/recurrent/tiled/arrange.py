"""Count the real steps of each row in the order in which a recurrence meets them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int

from jaxmask._types import Array, Lengths, StepMask


class Places(NamedTuple):
    """Two orders of each row's steps, padding after all real ones, and the way between them."""

    steps: Int[Array, "member batch time"]  # the step that comes n-th
    ranks: Int[Array, "member batch time"]  # its inverse


def arrange(real: StepMask, *, reverse: bool) -> tuple[Places, Lengths]:
    """The places of real steps in front, in order or reversed, and how many there are in each row.

    Args:
      real: `[member, batch, time]`.
      reverse: whether the last real step comes first.

    Example:
      >>> import jax.numpy as jnp
      >>> real = jnp.array([[[False, True, False], [True, False, True]]])
      >>> places, lengths = arrange(real, reverse=False)
      >>> places.steps.tolist(), lengths.tolist()
      ([[[1, 0, 2], [0, 2, 1]]], [[1, 2]])
    """
    lengths = jnp.sum(real, axis=2, dtype=jnp.int32)
    until = jnp.cumsum(real, axis=2, dtype=jnp.int32)
    rank = lengths[..., None] - until if reverse else until - 1
    # Made like an array, it varies over the axes of a `shard_map` that the rest varies over.
    step = jnp.zeros_like(until) + jnp.arange(real.shape[2], dtype=jnp.int32)
    ranks = jnp.where(real, rank, lengths[..., None] + step - until)
    steps = jax.lax.cond(jnp.all(ranks == step), lambda: step, lambda: _inverse(ranks, step))
    return Places(steps, ranks), lengths


def _inverse(ranks: Array, step: Array) -> Array:
    member, batch = jnp.indices(ranks.shape[:2], sparse=True)
    return step.at[member[..., None], batch[..., None], ranks].set(step, unique_indices=True)
