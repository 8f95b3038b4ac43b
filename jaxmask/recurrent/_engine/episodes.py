"""Where the state starts anew, told by the real steps alone."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from jaxmask._types import Array


def episodes(
    starts: Bool[Array, "row time"], real: Bool[Array, "row time"], *, reverse: bool
) -> tuple[Bool[Array, "row time"], Bool[Array, "row"]]:
    """At which real steps a recurrence meets a new episode, and whether it meets one after them.

    A start counts at a masked step too: the next real step begins a new episode. Going backward,
    a start lies behind its own step.

    Returns:
      Where the step and the one that came before it, or the carry, are of two episodes, and whether
      one begins after the last real step, so that the last state is zeros. Where `real` is False
      the first says nothing.
    """
    # Numbers of episodes grow with time, so those of the real steps before a step are at most, and
    # going backward at least, that of the one that comes right before it.
    number = jnp.cumsum(starts, axis=1, dtype=jnp.int32)
    none, total = jnp.zeros_like(number[:, :1]), number[:, -1:]
    if reverse:
        seen = jax.lax.cummin(jnp.where(real, number, total), axis=1, reverse=True)
        before = jnp.concatenate([seen[:, 1:], total], axis=1)
        return number != before, (seen[:, :1] != none)[:, 0]
    seen = jax.lax.cummax(jnp.where(real, number, none), axis=1)
    before = jnp.concatenate([none, seen[:, :-1]], axis=1)
    return number != before, (seen[:, -1:] != total)[:, 0]
