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
kept in its own units: nothing is ever moved to where a row stands but once, at the end.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxmask._types import Array

# What a round costs beside its slots, in slots: the starting of its operations, and the reading of
# the matrices.
ROUND = 10
_NEVER = jnp.iinfo(jnp.int32).max // 2


class Tiles(NamedTuple):
    """Static sizes: the numbers of slots to choose from, and the steps of a chunk."""

    slots: tuple[int, ...]
    steps: int


class Dealt(NamedTuple):
    """The queues of each member by itself."""

    which: Int[Array, "member"]  # the number of slots, by its index in `Tiles.slots`
    rounds: Int[Array, "member"]  # that hold a real step
    row: Int[Array, "member unit"]
    chunk: Int[Array, "member unit"]
    left: Int[Array, "member unit"]  # real steps of the row from here on, 0 where the slot is idle
    first: Int[Array, "member row"]  # the unit of a row's first chunk


class Rows(NamedTuple):
    """Rows to be run, each with its real steps counted in the order in which they come.

    What comes with a step, such as `x`, stays where it was: that of a row's step `n` stands at
    `[row, steps[row, n]]`.
    """

    x: Float[Array, "row time feature"]
    lengths: Int[Array, "row"]
    steps: Int[Array, "row time"]
    starts: Bool[Array, "row time"] | None  # where the state is zeros before step `n`


class Units(NamedTuple):
    """What all units do, one member's after another's."""

    row: Int[Array, "unit"]
    chunk: Int[Array, "unit"]
    left: Int[Array, "unit"]
    source: Int[Array, "unit steps"]  # where what comes with a step stands, counted over all rows
    starts: Bool[Array, "unit steps"] | None


class Schedule(NamedTuple):
    """The units, and for each number of slots the rounds that it has."""

    units: Units
    begins: tuple[Int[Array, "round"], ...]  # the first units of rounds with a real step, in front
    numbers: tuple[Int[Array, ""], ...]  # how many they are


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


def deal(lengths: Int[Array, "member row"], tiles: Tiles, chunks: int) -> Dealt:
    """Deal rows to slots, the longest first, each to the slot with the least to do.

    No slot then has more than `ceil(batch / slots) * chunks` rounds: when a row is dealt, some slot
    has at most `batch // slots` of those dealt before, and the one with the least has no more.
    (Largest processing time first: Graham, 1969, doi:10.1137/0117039.) There is one unit more,
    which never has a step.

    Args:
      lengths: real steps of each row of each member.
      tiles: see `Tiles`.
      chunks: the most that a row may have.

    Example:
      >>> import jax.numpy as jnp
      >>> dealt = deal(jnp.array([[2, 7, 3, 4]]), Tiles((2,), 2), chunks=4)
      >>> dealt.row[0, :10:2].tolist(), dealt.chunk[0, :10:2].tolist()
      ([1, 1, 1, 1, 0], [0, 1, 2, 3, 0])
      >>> dealt.row[0, 1:8:2].tolist(), dealt.chunk[0, 1:8:2].tolist()
      ([2, 2, 3, 3], [0, 1, 0, 1])
    """
    batch = lengths.shape[1]
    units = 1 + chunks * max(s * -(-batch // s) for s in tiles.slots)
    way = _each_its_own if tiles.slots == (batch,) else _longest_first
    return jax.vmap(lambda own: way(own, tiles, chunks, units))(lengths)


def cheapest(counts: Int[Array, "row"], slots: tuple[int, ...]) -> Int[Array, ""]:
    """The index of the number of slots that takes the least time.

    The longest row and the sum of all bound the number of rounds, and a round costs its slots and a
    little more.

    Args:
      counts: chunks of each row.
      slots: to choose from.

    Example:
      >>> import jax.numpy as jnp
      >>> cheapest(jnp.array([9, 1, 1, 1]), (1, 2, 4)).tolist()
      1
      >>> cheapest(jnp.array([9, 9, 9, 9]), (1, 2, 4)).tolist()
      2
    """
    choices = jnp.asarray(slots, counts.dtype)
    rounds = jnp.maximum(jnp.max(counts), -(-jnp.sum(counts) // choices))
    return jnp.argmin(rounds * (choices + ROUND)).astype(jnp.int32)


def _each_its_own(lengths: Int[Array, "row"], tiles: Tiles, chunks: int, units: int) -> Dealt:
    number = jnp.zeros_like(lengths) + jnp.arange(len(lengths), dtype=jnp.int32)
    unit = jnp.arange(units, dtype=jnp.int32)
    row, chunk = unit % len(lengths), jnp.minimum(unit // len(lengths), chunks - 1)
    left = jnp.maximum(lengths[row] - unit // len(lengths) * tiles.steps, 0)
    rounds = -(-jnp.max(lengths) // tiles.steps)
    return Dealt(jnp.zeros_like(rounds), rounds, row, chunk, left, number)


def _longest_first(lengths: Int[Array, "row"], tiles: Tiles, chunks: int, units: int) -> Dealt:
    counts = -(-lengths // tiles.steps)
    which = cheapest(counts, tiles.slots)
    slots = jnp.asarray(tiles.slots, jnp.int32)[which]
    first, rounds = _first_units(counts, slots, max(tiles.slots))
    chunk = jnp.arange(chunks, dtype=jnp.int32)
    place = jnp.where(chunk < counts[:, None], first[:, None] + chunk * slots, units)
    number = jnp.arange(place.size, dtype=jnp.int32).reshape(place.shape)
    taken = jnp.full_like(number, -1, shape=units).at[place].set(number, mode="drop")
    row, chunk = jnp.maximum(taken, 0) // chunks, jnp.maximum(taken, 0) % chunks
    left = jnp.where(taken < 0, 0, at(lengths, row) - chunk * tiles.steps)
    return Dealt(which, rounds, row, chunk, left, first)


def _first_units(counts: Array, slots: Array, most: int) -> tuple[Array, Array]:
    """The unit of each row's first chunk, and how many rounds there are."""
    slot = jnp.arange(most, dtype=jnp.int32)

    def give(free: Array, count: Array) -> tuple[Array, Array]:
        first = jnp.min(free)
        return jnp.where(free == first, free + count * slots, free), first

    order = jnp.argsort(-counts, stable=True)
    # The first free unit of a slot tells how much the slot has to do, and which slot it is.
    free, firsts = jax.lax.scan(give, jnp.where(slot < slots, slot, _NEVER), counts[order])
    rounds = jnp.max(jnp.where(slot < slots, free, 0)) // slots
    return jnp.zeros_like(firsts).at[order].set(firsts, unique_indices=True), rounds


def schedule(dealt: Dealt, tiles: Tiles, rows: Rows) -> Schedule:
    """One member's rounds after another's.

    Example:
      >>> import jax.numpy as jnp
      >>> rows = rows_of(jnp.ones((3, 2, 1)))._replace(lengths=jnp.array([1, 2, 0]))
      >>> tiles = Tiles((1,), 1)
      >>> line = schedule(deal(rows.lengths[:, None], tiles, chunks=2), tiles, rows)
      >>> line.begins[0][: line.numbers[0]].tolist(), line.units.row.tolist()
      ([0, 3, 4], [0, 0, 0, 1, 1, 1, 2, 2, 2])
    """
    members, units = dealt.row.shape
    batch, time = len(rows.lengths) // members, rows.x.shape[1]
    member = jnp.arange(members, dtype=jnp.int32)[:, None]
    row, chunk, left = (a.reshape(-1) for a in (dealt.row + batch * member, *dealt[3:5]))
    step = chunk[:, None] * tiles.steps + jnp.arange(tiles.steps, dtype=jnp.int32)
    source = row[:, None] * time + at(rows.steps, row[:, None], step)
    starts = None if rows.starts is None else at(rows.starts, row[:, None], step)

    def rounds(index: int, slots: int) -> tuple[Array, Array]:
        turn = jnp.arange(units // slots, dtype=jnp.int32)
        runs = (turn < dealt.rounds[:, None]) & (dealt.which == index)[:, None]
        begin = (member * units + turn * slots).reshape(-1)
        if members > 1:
            begin = begin[jnp.argsort(~runs.reshape(-1), stable=True)]
        return begin.astype(jnp.uint32), jnp.sum(runs, dtype=jnp.int32)

    begins, numbers = zip(*(rounds(*choice) for choice in enumerate(tiles.slots)), strict=True)
    all_units = Units(row.astype(jnp.uint32), chunk, left, source.astype(jnp.uint32), starts)
    return Schedule(all_units, begins, numbers)


def take(line: Schedule, tiles: Tiles, index: int, turn: Array) -> Turn:
    """What the slots do at a turn, for one of the numbers of slots.

    Example:
      >>> import jax.numpy as jnp
      >>> tiles, rows = Tiles((1,), 2), rows_of(jnp.ones((1, 4, 1)))
      >>> rows = rows._replace(lengths=jnp.array([3]))
      >>> line = schedule(deal(rows.lengths[None], tiles, chunks=2), tiles, rows)
      >>> done = take(line, tiles, 0, jnp.array(1))
      >>> done.source.tolist(), done.real.tolist()
      ([[2, 3]], [[True, False]])
    """
    begin = block(line.begins[index], turn, 1)[0]
    row, chunk, left, source, starts = jax.tree.map(
        lambda a: block(a, begin, tiles.slots[index]), line.units
    )
    left_at = left[:, None] - jnp.arange(tiles.steps, dtype=jnp.int32)
    goes_on = left > tiles.steps
    return Turn(begin, row, chunk == 0, goes_on, source, left_at > 0, left_at == 1, starts)


def rows_of(x: Array) -> Rows:
    """Rows of real steps alone, in their order.

    Example:
      >>> import jax.numpy as jnp
      >>> rows_of(jnp.ones((2, 3, 1))).lengths.tolist()
      [3, 3]
    """
    number, time = x.shape[:2]
    step = jnp.broadcast_to(jnp.arange(time, dtype=jnp.int32), (number, time))
    return Rows(x, jnp.full(number, time, jnp.int32), step, None)


def gather(x: Float[Array, "row time feature"], turn: Turn) -> Float[Array, "slot steps feature"]:
    """What comes with the steps of a turn, and 0 past the end of a row.

    Example:
      >>> import jax.numpy as jnp
      >>> tiles, rows = Tiles((1,), 2), rows_of(jnp.ones((1, 2, 1)))
      >>> rows = rows._replace(lengths=jnp.array([1]))
      >>> line = schedule(deal(rows.lengths[None], tiles, chunks=1), tiles, rows)
      >>> gather(rows.x, take(line, tiles, 0, jnp.array(0)))[0, :, 0].tolist()
      [1.0, 0.0]
    """
    return jnp.where(turn.real[..., None], at(x.reshape(-1, x.shape[-1]), turn.source), 0)


def at(x: Array, *place: Array) -> Array:
    """`x[place]`, for places that are inside.

    Example:
      >>> import jax.numpy as jnp
      >>> at(jnp.arange(5), jnp.array([3, 1])).tolist()
      [3, 1]
    """
    # Unsigned, an index is used as it is; a signed one is first looked at for its sign.
    return x.at[tuple(p.astype(jnp.uint32) for p in place)].get(mode="promise_in_bounds")


def block(x: Array, start: Any, size: int) -> Array:
    """A slice of the leading axis; where it would leave the array, the nearest that does not.

    Example:
      >>> import jax.numpy as jnp
      >>> block(jnp.arange(4), 1, 2).tolist()
      [1, 2]
    """
    return jax.lax.dynamic_slice(x, _indices(x, start), (size, *x.shape[1:]))


def put(buffer: Array, value: Array, start: Any) -> Array:
    """Write a block into a buffer, in the dtype of the buffer.

    Example:
      >>> import jax.numpy as jnp
      >>> put(jnp.zeros((3, 1)), jnp.ones((1, 1)), 2).tolist()
      [[0.0], [0.0], [1.0]]
    """
    return jax.lax.dynamic_update_slice(buffer, value.astype(buffer.dtype), _indices(buffer, start))


def _indices(x: Array, start: Any) -> list[Array]:
    return [jnp.asarray(i, jnp.uint32) for i in (start, *[0] * (x.ndim - 1))]
