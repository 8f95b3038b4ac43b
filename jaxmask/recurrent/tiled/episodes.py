"""Where the state starts anew, told by the real steps alone."""

import jax.numpy as jnp
from jaxtyping import Bool, Int

from jaxmask._types import Array


def episodes(
    starts: Bool[Array, "*rows time"], real: Bool[Array, "*rows time"], *, reverse: bool
) -> tuple[Int[Array, "*rows time"], Int[Array, "*rows"], Bool[Array, "*rows"]]:
    """Number the episodes of each row, so that the state is kept between steps of one number.

    A start counts at a masked step too: the next real step begins a new episode.

    Returns:
      The number of each step's episode, the number of the carry's, and whether an episode begins
      after the last real step, so that the last state is zeros.

    Example:
      >>> real = jnp.array([[True, False, True, True, False]])
      >>> starts = jnp.array([[False, True, False, False, True]])
      >>> [a.tolist() for a in episodes(starts, real, reverse=False)]
      [[[0, 1, 1, 1, 2]], [0], [True]]
    """
    number = jnp.cumsum(starts, axis=-1, dtype=jnp.int32)
    none, total = jnp.zeros_like(number[..., 0]), number[..., -1]
    if reverse:
        last = jnp.min(jnp.where(real, number, total[..., None]), axis=-1)
        return number, total, last != none
    return number, none, jnp.max(jnp.where(real, number, 0), axis=-1) != total


def begins(
    number: Int[Array, "*rows time"], first: Int[Array, "*rows"]
) -> Bool[Array, "*rows time"]:
    """Where a step is of another episode than the one before it, of rows of real steps.

    Example:
      >>> begins(jnp.array([[0, 1, 1]]), jnp.array([0])).tolist()
      [[False, True, False]]
    """
    before = jnp.concatenate([first[..., None], number[..., :-1]], axis=-1)
    return number != before
