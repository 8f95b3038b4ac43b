"""Who works on which chunk of which row when.

    rows of chunks of real steps           slots, each a queue of rows      rounds ->
    a  | 0 | 1 | 2 | 3 |                   slot 0  | a0 | a1 | a2 | a3 |
    b  | 0 | 1 | 2 |                       slot 1  | b0 | b1 | b2 | d0 |
    c  | 0 | 1 |                           slot 2  | c0 | c1 | e0 |
    d  | 0 |     e  | 0 |

A round takes one chunk in every slot, so it multiplies a matrix with as many rows as there are
slots, however ragged the batch is. How many slots are best, the lengths tell: few where the longest
row decides how many rounds there are, many where there is work for all. So the number is chosen
when the program runs, from a few that are static.

A **unit** is a slot in a round, the place of one chunk. Units are numbered round by round, so that
those of a round are one block of any buffer, whatever the number of slots. What a round computes is
kept in its own units: nothing is ever moved to where a row stands but once, at the end. The first
unit never has a step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxmask import _mask_ops
from jaxmask._types import Array
from jaxmask.recurrent._choice import Choice

# What a round costs beside its slots, in slots: the starting of its operations, and the reading of
# the matrices.
ROUND = 10
_NEVER = jnp.iinfo(jnp.int32).max // 2


class Dealt(NamedTuple):
    """The queues of the rows of one member, or of each."""

    which: Int[Array, "*member"]  # the number of slots, by its index in `Choice.slots`
    rounds: Int[Array, "*member"]  # that hold a real step
    first: Int[Array, "*member row"]  # the unit of a row's first chunk; 0 for a row of none


class Units(NamedTuple):
    """What each unit does, of one member, of each, or of all in a line."""

    row: Int[Array, "*member unit"]
    is_first: Bool[Array, "*member unit"]  # of the chunks of its row
    left: Int[Array, "*member unit"]  # real steps of the row from here on, 0 where a slot is idle
    source: Int[Array, "*member unit step"]  # where what comes with a step stands, over all rows
    starts: Bool[Array, "*member unit step"] | None  # where the state is zeros before it


class Schedule(NamedTuple):
    """The units, and for each number of slots the rounds that it has."""

    units: Units
    begins: tuple[Int[Array, "round"], ...]  # the first units of rounds with a real step, in front
    numbers: tuple[Int[Array, ""], ...]  # how many they are
    used: Int[Array, "member"]  # the units of these rounds, and the first
    first: Int[Array, "member row"]  # see `Dealt`


class Turn(NamedTuple):
    """What a round does: chunks of as many rows as there are slots."""

    begin: Int[Array, ""]
    row: Int[Array, "slot"]
    is_first: Bool[Array, "slot"]
    goes_on: Bool[Array, "slot"]  # the row has another chunk
    source: Int[Array, "slot steps"]
    real: Bool[Array, "slot steps"]
    ends: Bool[Array, "slot steps"]  # the last step of its row
    starts: Bool[Array, "slot steps"] | None


def units_for(choice: Choice, batch: int, time: int) -> int:
    """How many units hold the steps of all rows, and the first.

    Where all rows may have a slot of their own, full rows need no more than that. Else no slot has
    more than `ceil(batch / slots)` of them: when a row is dealt, some slot has at most
    `batch // slots` of those dealt before, and the one with the least has no more.
    """
    rows = batch if batch in choice.slots else max(s * -(-batch // s) for s in choice.slots)
    return 1 + rows * -(-time // choice.steps)


def deal(lengths: Int[Array, "row"], choice: Choice, time: int) -> Dealt:
    """Deal rows to slots, the longest first, each to the slot with the least to do.

    (Largest processing time first: Graham, 1969, doi:10.1137/0117039.)

    Args:
      lengths: real steps of each row.
      choice: see `Choice`.
      time: steps of a row, padding included.
    """
    counts, batch = -(-lengths // choice.steps), len(lengths)
    all_at_once = jnp.where(counts > 0, jnp.arange(1, batch + 1, dtype=jnp.int32), 0)
    alone = Dealt(jnp.full_like(counts[0], len(choice.slots) - 1), jnp.max(counts), all_at_once)
    if choice.slots == (batch,):
        return alone
    which = cheapest(counts, choice.slots)
    slots = jnp.asarray(choice.slots, jnp.int32)[which]
    dealt = Dealt(which, *_longest_first(counts, slots, max(choice.slots)))
    if batch not in choice.slots:
        return dealt
    fits = dealt.rounds * slots < units_for(choice, batch, time)
    return jax.tree.map(lambda a, b: jnp.where(fits, a, b), dealt, alone)


def cheapest(counts: Int[Array, "row"], slots: tuple[int, ...]) -> Int[Array, ""]:
    """The index of the number of slots that takes the least time.

    The longest row and the sum of all bound the number of rounds, and a round costs its slots and a
    little more.

    Args:
      counts: chunks of each row.
      slots: to choose from.
    """
    choices = jnp.asarray(slots, counts.dtype)
    rounds = jnp.maximum(jnp.max(counts), -(-jnp.sum(counts) // choices))
    return jnp.argmin(rounds * (choices + ROUND)).astype(jnp.int32)


def _longest_first(counts: Array, slots: Array, most: int) -> tuple[Array, Array]:
    """How many rounds there are, and the unit of each row's first chunk."""
    slot = jnp.arange(1, most + 1, dtype=jnp.int32)

    def give(free: Array, count: Array) -> tuple[Array, Array]:
        first = jnp.min(free)
        return jnp.where(free == first, free + count * slots, free), jnp.where(count > 0, first, 0)

    order = jnp.argsort(-counts, stable=True)
    # The first free unit of a slot tells how much the slot has to do, and which slot it is.
    free, firsts = jax.lax.scan(give, jnp.where(slot <= slots, slot, _NEVER), counts[order])
    rounds = jnp.max(jnp.where(slot <= slots, free - 1, 0)) // slots
    return rounds, jnp.zeros_like(firsts).at[order].set(firsts, unique_indices=True)


def _slots(dealt: Dealt, choice: Choice) -> Array:
    """How many slots were chosen."""
    return jnp.asarray(choice.slots, jnp.int32)[dealt.which]


def place(
    dealt: Dealt, choice: Choice, lengths: Int[Array, "row"], step: Int[Array, "row *n"]
) -> Int[Array, "row *n"]:
    """Where a step of each row, counted as it comes, is kept: its place in its unit, all in a line.

    For padding a place in the first unit, which never has a step.
    """
    slots = _slots(dealt, choice)
    first, lengths = (_mask_ops.expand(a, step.ndim) for a in (dealt.first, lengths))
    unit = jnp.where(step < lengths, first + step // choice.steps * slots, 0)
    return unit * choice.steps + step % choice.steps


def schedule(dealt: Dealt, units: Units, choice: Choice, batch: int, time: int) -> Schedule:
    """One member's rounds after another's, `batch` rows of `time` steps each."""
    members, number = units.row.shape

    def rounds(index: int, slots: int) -> tuple[Array, Array]:
        turn = jnp.arange((number - 1) // slots, dtype=jnp.int32)[None]
        runs = (turn < dealt.rounds[:, None]) & (dealt.which == index)[:, None]
        begin = in_line(jnp.broadcast_to(1 + turn * slots, runs.shape), number)
        if members > 1:
            begin = begin[jnp.argsort(~runs.reshape(-1), stable=True)]
        return begin, jnp.sum(runs, dtype=jnp.int32)

    begins, numbers = zip(*(rounds(*one) for one in enumerate(choice.slots)), strict=True)
    row, source = in_line(units.row, batch), in_line(units.source, batch * time)
    line = jax.tree.map(flat, units)._replace(row=row, source=source)
    used = 1 + dealt.rounds * _slots(dealt, choice)
    return Schedule(line, begins, numbers, used.astype(jnp.uint32), dealt.first)


def in_line(index: Int[Array, "member *n"], size: int) -> Array:
    """Each member's indices, in an array that has `size` of one member after those of another."""
    member = jnp.arange(len(index), dtype=jnp.int32)
    return flat(index + size * _mask_ops.expand(member, index.ndim)).astype(jnp.uint32)


def flat(a: Array) -> Array:
    """What one member has, after what another has."""
    return a.reshape(-1, *a.shape[2:])


def take(line: Schedule, choice: Choice, index: int, turn: Array) -> Turn:
    """What the slots do at a turn, for one of the numbers of slots."""
    begin = block(line.begins[index], turn, 1)[0]
    units = jax.tree.map(lambda a: block(a, begin, choice.slots[index]), line.units)
    left_at = units.left[:, None] - jnp.arange(choice.steps, dtype=jnp.int32)[None]
    goes_on = units.left > choice.steps
    return Turn(
        begin,
        units.row,
        units.is_first,
        goes_on,
        units.source,
        left_at > 0,
        left_at == 1,
        units.starts,
    )


def gather(x: Float[Array, "row time feature"], turn: Turn) -> Float[Array, "slot steps feature"]:
    """What comes with the steps of a turn, and 0 past the end of a row."""
    return jnp.where(turn.real[..., None], at(x.reshape(-1, x.shape[-1]), turn.source), 0)


def at(x: Array, *place: Array) -> Array:
    """`x[place]`, for places that are inside."""
    # Unsigned, an index is used as it is; a signed one is first looked at for its sign.
    return x.at[tuple(p.astype(jnp.uint32) for p in place)].get(mode="promise_in_bounds")


def block(x: Array, start: Any, size: int) -> Array:
    """A slice of the leading axis; where it would leave the array, the nearest that does not."""
    return jax.lax.dynamic_slice(x, _indices(x, start), (size, *x.shape[1:]))


def put(buffer: Array, value: Array, start: Any) -> Array:
    """Write a block into a buffer, in the dtype of the buffer."""
    return jax.lax.dynamic_update_slice(buffer, value.astype(buffer.dtype), _indices(buffer, start))


def _indices(x: Array, start: Any) -> list[Array]:
    return [jnp.asarray(i, jnp.uint32) for i in (start, *[0] * (x.ndim - 1))]
