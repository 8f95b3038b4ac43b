"""Who works on which chunk of which row when.

    rows of chunks of real steps           slots, each a queue of rows      rounds ->
    a  | 0 | 1 | 2 | 3 |                   slot 0  | a0 | a1 | a2 | a3 |
    b  | 0 | 1 | 2 |                       slot 1  | b0 | b1 | b2 | d0 |
    c  | 0 | 1 |                           slot 2  | c0 | c1 | e0 |
    d  | 0 |     e  | 0 |

A round takes one chunk in every slot, so it multiplies a matrix with as many rows as there are
slots, however ragged the batch is. What a round computes is kept at its own place, so that nothing
is ever moved to where a row stands but once, at the end.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxmask._types import Array


class Tiles(NamedTuple):
    """Static sizes: slots that step together, steps of a chunk, and how many such lanes there are.

    Lanes do not wait for each other, so they overlap.
    """

    rows: int
    steps: int
    lanes: int


class Queues(NamedTuple):
    """The chunk in every slot in every round, and where each row's chunks are."""

    row: Int[Array, "*member round slot"]
    chunk: Int[Array, "*member round slot"]
    alive: Bool[Array, "*member round slot"]  # False where a slot's queue has ended
    is_last: Bool[Array, "*member round slot"]  # the last chunk of its row
    slot_of: Int[Array, "*member row"]
    first_round_of: Int[Array, "*member row"]


class Dealt(NamedTuple):
    """The queues of each member by itself, and how many of its rounds hold a real step."""

    queues: Queues
    numbers: Int[Array, "member"]


class Schedule(NamedTuple):
    """The queues of all members, one member's rounds after another's."""

    queues: Queues
    turns: Int[Array, "round"]  # the rounds with a real step, in front
    number: Int[Array, ""]  # how many they are


class Rows(NamedTuple):
    """Rows to be run, each with its real steps counted in the order in which they come.

    What comes with a step, such as `x`, stays where it was: that of a row's step `n` stands at
    `[row, steps[row, n]]`.
    """

    x: Float[Array, "row time feature"]
    lengths: Int[Array, "row"]
    steps: Int[Array, "row time"]
    starts: Bool[Array, "row time"] | None  # where the state is zeros before step `n`


class Turn(NamedTuple):
    """What a lane does in a round: chunks of as many rows as the lane has slots."""

    round: Int[Array, ""]
    slot: int
    row: Int[Array, "rows"]
    is_first: Bool[Array, "rows"]
    is_last: Bool[Array, "rows"]
    steps: Int[Array, "rows steps"]
    real: Bool[Array, "rows steps"]
    ends: Bool[Array, "rows steps"]  # the last step of its row
    starts: Bool[Array, "rows steps"] | None


def deal(lengths: Int[Array, "member row"], tiles: Tiles, chunks: int) -> Dealt:
    """Deal rows to slots, the longest first, each to the slot with the least to do.

    No slot then has more than `ceil(batch / slots) * chunks` rounds: when a row is dealt, some slot
    has at most `batch // slots` of those dealt before, and the one with the least has no more.
    (Largest processing time first: Graham, 1969, doi:10.1137/0117039.) There is one round more,
    which never comes.

    Args:
      lengths: real steps of each row of each member.
      tiles: there are `rows * lanes` slots.
      chunks: the most that a row may have.

    Example:
      >>> import jax.numpy as jnp
      >>> queues, numbers = deal(jnp.array([[2, 7, 3, 4]]), Tiles(2, 2, lanes=1), chunks=4)
      >>> queues.row[0, :4].T.tolist(), queues.chunk[0, :4].T.tolist(), numbers.tolist()
      ([[1, 1, 1, 1], [2, 2, 3, 3]], [[0, 1, 2, 3], [0, 1, 0, 1]], [5])
    """
    slots = tiles.rows * tiles.lanes
    rounds = -(-lengths.shape[1] // slots) * chunks + 1
    counts = -(-lengths // tiles.steps)
    return Dealt(*jax.vmap(_deal, (0, None, None))(counts, slots, rounds))


def schedule(dealt: Dealt) -> Schedule:
    """One member's rounds after another's.

    Example:
      >>> import jax.numpy as jnp
      >>> line = schedule(deal(jnp.array([[1], [2], [0]]), Tiles(1, 1, lanes=1), chunks=2))
      >>> line.queues.row[:, 0].tolist(), line.turns[: line.number].tolist()
      ([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 3, 4])
    """
    queues, numbers = dealt
    batch, rounds = queues.slot_of.shape[1], queues.row.shape[1]
    member = jnp.arange(len(numbers), dtype=jnp.int32)[:, None]
    queues = queues._replace(
        row=queues.row + batch * member[..., None],
        first_round_of=queues.first_round_of + rounds * member,
    )
    runs = jnp.arange(rounds) < numbers[:, None]
    turns = jnp.argsort(~runs.reshape(-1), stable=True)
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), queues)
    return Schedule(flat, turns.astype(jnp.uint32), jnp.sum(numbers))


def _deal(counts: Int[Array, "row"], slots: int, rounds: int) -> tuple[Queues, Int[Array, ""]]:
    order = jnp.argsort(-counts, stable=True)
    own = counts[order]

    def give(totals: Array, count: Array) -> tuple[Array, tuple[Array, Array]]:
        slot = jnp.argmin(totals)
        return totals.at[slot].add(count), (slot, totals[slot])

    totals, (slot, begins) = jax.lax.scan(give, jnp.zeros_like(own, shape=(slots,)), own)
    place = jnp.arange(len(order), dtype=own.dtype)
    # A slot's rows come in the order of their places, so the last one begun is the largest.
    begun = jnp.zeros((rounds, slots), own.dtype)
    begun = begun.at[jnp.where(own > 0, begins, rounds), slot].set(place, mode="drop")
    current = jax.lax.cummax(begun, axis=0)
    turn = jnp.arange(rounds)[:, None]
    chunk = turn - begins[current]
    back = jnp.argsort(order)
    queues = Queues(
        order[current].astype(jnp.int32),
        chunk.astype(jnp.int32),
        turn < totals,
        (chunk == own[current] - 1) & (turn < totals),
        slot[back],
        begins[back],
    )
    return queues, jnp.max(totals)


def take(plan: Schedule, turn: Array, tiles: Tiles, rows: Rows) -> list[Turn]:
    """What each lane does at a turn.

    Example:
      >>> import jax.numpy as jnp
      >>> tiles, rows = Tiles(rows=1, steps=2, lanes=1), rows_of(jnp.ones((1, 4, 1)))
      >>> plan = schedule(deal(jnp.array([[3]]), tiles, chunks=2))
      >>> done = take(plan, jnp.array(1), tiles, rows._replace(lengths=jnp.array([3])))[0]
      >>> done.steps.tolist(), done.real.tolist()
      ([[2, 3]], [[True, False]])
    """
    number = block(plan.turns, (turn,), (1,))[0]
    step = jnp.arange(tiles.steps, dtype=jnp.int32)

    def lane(slot: int) -> Turn:
        row, chunk, alive, is_last = (
            block(a, (number, slot), (1, tiles.rows))[0] for a in plan.queues[:4]
        )
        place = row[:, None], chunk[:, None] * tiles.steps + step
        left = at(rows.lengths, row)[:, None] - place[1]
        real, ends = (left > 0) & alive[:, None], (left == 1) & alive[:, None]
        starts = None if rows.starts is None else at(rows.starts, *place)
        return Turn(
            number, slot, row, chunk == 0, is_last, at(rows.steps, *place), real, ends, starts
        )

    return [lane(slot) for slot in range(0, tiles.lanes * tiles.rows, tiles.rows)]


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


def gather(x: Array, turn: Turn) -> Array:
    """What comes with the steps of a turn, and 0 past the end of a row.

    Example:
      >>> import jax.numpy as jnp
      >>> tiles, rows = Tiles(rows=1, steps=2, lanes=1), rows_of(jnp.ones((1, 2, 1)))
      >>> rows = rows._replace(lengths=jnp.array([1]))
      >>> turn = take(schedule(deal(rows.lengths[None], tiles, 1)), jnp.array(0), tiles, rows)[0]
      >>> gather(rows.x, turn)[0, :, 0].tolist()
      [1.0, 0.0]
    """
    return jnp.where(turn.real[..., None], at(x, turn.row[:, None], turn.steps), 0)


def at(x: Array, *place: Array) -> Array:
    """`x[place]`, for places that are inside.

    Example:
      >>> import jax.numpy as jnp
      >>> at(jnp.arange(5), jnp.array([3, 1])).tolist()
      [3, 1]
    """
    return x.at[place].get(mode="promise_in_bounds")


def block(x: Array, start: tuple[Any, ...], size: tuple[int, ...]) -> Array:
    """A slice of the leading axes, whole in the others.

    Example:
      >>> import jax.numpy as jnp
      >>> block(jnp.zeros((4, 5, 6)), (2, 1), (2, 3)).shape
      (2, 3, 6)
    """
    whole = x.shape[len(size) :]
    return jax.lax.dynamic_slice(x, _indices(x, start), (*size, *whole))


def put(buffer: Array, value: Array, *start: Any) -> Array:
    """Write a block into a buffer, in the dtype of the buffer.

    Example:
      >>> import jax.numpy as jnp
      >>> put(jnp.zeros((3, 1)), jnp.ones((1, 1)), 2).tolist()
      [[0.0], [0.0], [1.0]]
    """
    return jax.lax.dynamic_update_slice(buffer, value.astype(buffer.dtype), _indices(buffer, start))


def _indices(x: Array, start: tuple[Any, ...]) -> list[Array]:
    # Unsigned, an index is used as it is; a signed one is first looked at for its sign.
    return [jnp.asarray(i, jnp.uint32) for i in (*start, *[0] * (x.ndim - len(start)))]
