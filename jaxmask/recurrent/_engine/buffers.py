"""Where rounds keep states and gates, and reads and writes of blocks of a buffer.

    the units of one member    | none | states, round by round | gates of the first rounds | free |

The states after each step are always kept. The *gates* (what a step read of its products) are a
multiple of that, and save the backward two products. They are stored behind the states, for
as many rounds as fit: the buffer is sized for full rows and a little more, so most of it is free
where few steps are real. The gates of the other rounds are recomputed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from jaxmask._types import Array
from jaxmask.recurrent._choice import Choice


class Layout(NamedTuple):
    """Static sizes; those of a member's buffer in units, see `scheduling`.

    A member is a set of rows with its own weights, or those shared by all; the buffers of members
    follow one another.
    """

    slots: tuple[int, ...]
    steps: int
    states: int  # units of states, including the first, which has no step
    spare: int  # units behind them
    gates: int  # units that the gates of one unit take; 0: none are kept
    members: int = 1

    @property
    def units(self) -> int:
        return self.states + self.spare


def layout_for(choice: Choice, units: int, states: int, gates: int, members: int = 1) -> Layout:
    """Space for the states of all units, and after it, for gates, a quarter of the space of `h`.

    A state consists of `states` arrays, and the gates of a step are `gates` times as wide as one of
    them (0: keep none). With a single number of slots no gates are kept.
    """
    if gates % states:
        raise ValueError(
            f"`Kind.gates` must be divisible by the number of states, got {gates} gates for "
            f"{states} states: kept gates fill whole states. Set `gates=0` to recompute them."
        )
    if not gates or len(choice.slots) == 1:
        return Layout(choice.slots, choice.steps, units, 0, 0, members)
    width = gates // states
    spare = units // (4 * states) + width * choice.slots[-2]
    return Layout(choice.slots, choice.steps, units, spare, width, members)


def states_begin(layout: Layout, member: Any, begin: Any) -> Any:
    """Where a round's states begin in the buffer of all members, from its first unit."""
    return begin + member * layout.spare


def gates_begin(
    layout: Layout, member: Any, begin: Any, slots: int, used: Any
) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """Where a round's gates begin, and whether they stay there.

    Gates that do not fit all overwrite the last units. `begin` is the first unit of the
    round, counted over all members; `used` the number of units of the member's states.
    """
    size = slots * layout.gates
    start = used + (begin - member * layout.states - 1) * layout.gates
    fits = start + 2 * size <= layout.units
    return member * layout.units + jnp.where(fits, start, layout.units - size), fits


def lookup(x: Array, *index: Array) -> Array:
    """`x[index]`, for indices within bounds."""
    # Unsigned: XLA would emit a test for the sign of a signed index.
    return x.at[tuple(i.astype(jnp.uint32) for i in index)].get(mode="promise_in_bounds")


def read_block(x: Array, start: Any, size: int) -> Array:
    """A slice of the leading axis; `start` is clipped so that the slice stays inside."""
    return jax.lax.dynamic_slice(x, _start_indices(x, start), (size, *x.shape[1:]))


def write_block(buffer: Array, value: Array, start: Any) -> Array:
    """Write a block into a buffer, in the dtype of the buffer."""
    value = value.astype(buffer.dtype)
    return jax.lax.dynamic_update_slice(buffer, value, _start_indices(buffer, start))


def _start_indices(x: Array, start: Any) -> list[Array]:
    return [jnp.asarray(i, jnp.uint32) for i in (start, *[0] * (x.ndim - 1))]
