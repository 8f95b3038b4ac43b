"""Put each row's real steps in the order in which a recurrence meets them, and in units."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from jaxmask._types import Array, StepMask
from jaxmask.recurrent._choice import Choice
from jaxmask.recurrent._engine.episodes import episodes
from jaxmask.recurrent._engine.schedule import (
    Dealt,
    Schedule,
    Units,
    at,
    deal,
    place,
    schedule,
    units_for,
)


class Arranged(NamedTuple):
    """The order in which each member's real steps are run."""

    lengths: Int[Array, "member row"]
    places: Int[Array, "member row time"]  # where what a step leaves is kept, see `place`
    last: Int[Array, "member row"]  # the place of the last real step
    dealt: Dealt
    units: Units
    ends_anew: Bool[Array, "member row"] | None  # the last state is zeros: an episode begins then


# Both are traced once for a forward that is pulled back, and one that is not.
@functools.partial(jax.jit, static_argnums=0, static_argnames="reverse", inline=True)
def arrange(
    choice: Choice, real: StepMask, starts: StepMask | None = None, *, reverse: bool = False
) -> Arranged:
    """Count real steps in order or reversed, deal the rows, and say for each unit what it does.

    Args:
      choice: the sizes to cut with.
      real: `[member, batch, time]`.
      starts: where the state starts from zeros, or None.
      reverse: whether the last real step comes first.
    """
    return each(functools.partial(_arrange, choice, reverse), real, starts)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def line_up(choice: Choice, arranged: Arranged) -> Schedule:
    """All members' units in a line."""
    return schedule(arranged.dealt, arranged.units, choice, *arranged.places.shape[1:])


def each(f: Callable, *rest: Any) -> Any:
    """`f` of each member; one alone without a mapped axis of size 1, which products would have."""
    if len(jax.tree.leaves(rest)[0]) > 1:
        return jax.vmap(f)(*rest)
    return jax.tree.map(lambda a: a[None], f(*jax.tree.map(lambda a: a[0], rest)))


def _arrange(choice: Choice, reverse: bool, real: Array, starts: Array | None) -> Arranged:
    batch, time = real.shape
    lengths, ranks = _count(real, reverse)
    dealt, units = deal(lengths, choice, time), units_for(choice, batch, time)
    places, last = (
        place(dealt, choice, lengths, step) for step in (ranks, jnp.maximum(lengths - 1, 0))
    )
    begins, ends_anew = None, None
    if starts is not None:
        begins, ends_anew = episodes(starts, real, reverse=reverse)
    number = jnp.where(real, jnp.arange(real.size, dtype=jnp.int32).reshape(real.shape), -1)
    source = jnp.full_like(lengths, -1, shape=(units * choice.steps,))
    source = source.at[places.astype(jnp.uint32)].set(number, mode="promise_in_bounds")
    own = _units(source.reshape(units, choice.steps), ranks, lengths, begins)
    return Arranged(lengths, places, last, dealt, own, ends_anew)


def _count(real: Array, reverse: bool) -> tuple[Array, Array]:
    """How many real steps a row has, and as which a step comes, padding after all real ones."""
    lengths = jnp.sum(real, axis=1, dtype=jnp.int32)
    until = jnp.cumsum(real, axis=1, dtype=jnp.int32)
    rank = lengths[:, None] - until if reverse else until - 1
    return lengths, jnp.where(real, rank, lengths[:, None])


def _units(source: Array, ranks: Array, lengths: Array, starts: Array | None) -> Units:
    first = jnp.maximum(source[:, 0], 0)
    row, rank = first // ranks.shape[1], at(ranks.reshape(-1), first)
    left = jnp.where(source[:, 0] < 0, 0, at(lengths, row) - rank)
    some = jnp.maximum(source, 0)
    starts = None if starts is None else at(starts.reshape(-1), some) & (source >= 0)
    return Units(row, rank == 0, left, some, starts)
