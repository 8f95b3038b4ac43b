"""Where a round keeps what it leaves.

    the units of one member    | none | states, round by round | gates of the first rounds | free |

The states after each step are always kept. What a step read of its products, its *gates*, is a
multiple of that, and spares the backward two products. So gates stand behind the states, of as many
rounds as there is room for: the room is that of full rows and a little more, and where few steps
are real most of it is free. The gates of the other rounds are computed again.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Int

from jaxmask._types import Array
from jaxmask.recurrent._choice import Choice


class Room(NamedTuple):
    """Static sizes of one member, in units."""

    states: int  # with the first, which has no step
    more: int
    gates: int  # that the gates of a unit take; 0 where none are kept

    @property
    def all(self) -> int:
        """How many units there are."""
        return self.states + self.more


def room_for(choice: Choice, units: int, states: int, gates: int) -> Room:
    """Room for the states of all units, and beside it for a quarter of what `h` takes, for gates.

    Args:
      choice: the sizes to cut with. Where there is one number of slots no gates are kept.
      units: of states.
      states: how many arrays a state has.
      gates: how often the gates of a step are as wide as one of them; 0 keeps none.
    """
    if not gates or len(choice.slots) == 1:
        return Room(units, 0, 0)
    each = gates // states
    return Room(units, units // (4 * states) + each * choice.slots[-2], each)


def at_states(room: Room, member: Any, begin: Any) -> Any:
    """Where a round's states begin, from its first unit, in the room of all members."""
    return begin + member * room.more


def at_gates(
    room: Room, member: Any, begin: Any, slots: int, used: Any
) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """Where a round's gates begin, and whether they stay there.

    Those that do not fit are all put into the same place, the last.

    Args:
      room: the sizes.
      member: whose round it is.
      begin: the first unit of the round, counted over all members.
      slots: that a round has.
      used: the units of the member's states, and the first.
    """
    size = slots * room.gates
    start = used + (begin - member * room.states - 1) * room.gates
    fits = start + 2 * size <= room.all
    return member * room.all + jnp.where(fits, start, room.all - size), fits
