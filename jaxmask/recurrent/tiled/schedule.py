"""Which pairs (tile of rows, chunk of time) hold a real step, and who works on them when."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxmask._types import Array


class Tiles(NamedTuple):
    """Static sizes: rows of a tile, steps of a chunk, and pairs that are worked on at once."""

    rows: int
    steps: int
    lanes: int


class Queues(NamedTuple):
    """Which pair each lane takes in each round; a lane that has run out does its first again.

    Forward that writes what stands there already. Backward it comes before the lane's own pairs,
    the first of which is the last to write.
    """

    tile: Int[Array, "lane round"]
    chunk: Int[Array, "lane round"]
    alive: Bool[Array, "lane round"]  # False where a lane has run out
    is_last: Bool[Array, "lane round"]  # no later chunk of the tile has a real step
    rounds: Int[Array, ""]


class Rows(NamedTuple):
    """Rows to be run, sorted from long to short within each member, real steps in front.

    What comes with a step, such as `x`, stays where it was: of the step at `[row, time]` it stands
    at `[source_rows[row], source_steps[row, time]]`.
    """

    x: Float[Array, "source time feature"]
    lengths: Int[Array, "row"]
    source_rows: Int[Array, "row"]
    source_steps: Int[Array, "row time"]
    starts: Bool[Array, "row time"] | None  # where the state is zeros before the step


class Pair(NamedTuple):
    """One pair: where it stands, and what its steps are."""

    tile: Int[Array, ""]
    chunk: Int[Array, ""]
    row: Int[Array, ""]
    time: Int[Array, ""]
    is_alive: Bool[Array, ""]
    is_last: Bool[Array, ""]
    source_rows: Int[Array, "rows"]
    source_steps: Int[Array, "rows steps"]
    real: Bool[Array, "rows steps"]
    ends: Bool[Array, "rows steps"]  # the last step of its row
    starts: Bool[Array, "rows steps"] | None


def queues(lengths: Int[Array, "row"], tiles: Tiles, chunks: int) -> Queues:
    """Deal the tiles to the lanes, each to the one with the least to do, and line up their chunks.

    Example:
      >>> import jax.numpy as jnp
      >>> lengths = jnp.array([5, 4, 2, 0])
      >>> line = queues(lengths, Tiles(rows=1, steps=2, lanes=2), chunks=3)
      >>> line.tile[:, :3].tolist(), line.chunk[0, :3].tolist(), int(line.rounds)
      ([[0, 0, 0], [1, 1, 2]], [0, 1, 2], 3)
    """
    number = lengths.shape[0] // tiles.rows
    counts = -(-jnp.max(lengths.reshape(number, tiles.rows), axis=1) // tiles.steps)
    lane_of, totals = _deal(counts, tiles.lanes)
    most = number - tiles.lanes + 1  # every lane has a tile, so one has no more than these
    rounds = jnp.arange(chunks * most)

    def line_up(lane: int) -> tuple[Array, ...]:
        own = jnp.where(lane_of == lane, counts, 0)
        ends = jnp.cumsum(own)
        alive = rounds < totals[lane]
        tile = jnp.where(alive, jnp.searchsorted(ends, rounds, side="right"), lane)
        chunk = jnp.where(alive, rounds - (ends - own)[tile], 0)
        # Unsigned, an index is used as it is; a signed one is first looked at for its sign.
        numbers = tile.astype(jnp.uint32), chunk.astype(jnp.uint32)
        return *numbers, alive, chunk == counts[tile] - 1

    tile, chunk, alive, is_last = map(
        jnp.stack, zip(*map(line_up, range(tiles.lanes)), strict=True)
    )
    return Queues(tile, chunk, alive, is_last, jnp.max(totals))


def _deal(counts: Int[Array, "tile"], lanes: int) -> tuple[Int[Array, "tile"], Int[Array, "lane"]]:
    """The lane of each tile, tile k < lanes in lane k, and what each lane has to do."""

    def give(totals: Array, count: Array) -> tuple[Array, Array]:
        lane = jnp.argmin(totals)
        return totals.at[lane].add(count), lane

    totals, later = jax.lax.scan(give, counts[:lanes], counts[lanes:])
    return jnp.concatenate([jnp.arange(lanes, dtype=later.dtype), later]), totals


def take(line: Queues, turn: Array, tiles: Tiles, rows: Rows) -> list[Pair]:
    """The pair of each lane in a round.

    Example:
      >>> import jax.numpy as jnp
      >>> tiles, rows = Tiles(rows=1, steps=2, lanes=1), rows_of(jnp.ones((1, 4, 1)))
      >>> line = queues(jnp.array([3]), tiles, chunks=2)
      >>> pair = take(line, jnp.array(1), tiles, rows._replace(lengths=jnp.array([3])))[0]
      >>> int(pair.time), pair.real.tolist()
      (2, [[True, False]])
    """
    size = tiles.rows, tiles.steps

    def pair(lane: int) -> Pair:
        tile, chunk, alive, is_last = (block(a, (lane, turn), (1, 1))[0, 0] for a in line[:4])
        row, time = tile * tiles.rows, chunk * tiles.steps
        left = block(rows.lengths, (row,), size[:1])[:, None] - time.astype(jnp.int32)
        step = jnp.arange(tiles.steps, dtype=jnp.int32)
        source_rows = block(rows.source_rows, (row,), size[:1])
        source_steps = block(rows.source_steps, (row, time), size)
        starts = None if rows.starts is None else block(rows.starts, (row, time), size)
        source = source_rows, source_steps
        return Pair(
            tile, chunk, row, time, alive, is_last, *source, step < left, step == left - 1, starts
        )

    return [pair(lane) for lane in range(tiles.lanes)]


def rows_of(x: Array) -> Rows:
    """Rows of real steps alone, in their order.

    Example:
      >>> import jax.numpy as jnp
      >>> rows_of(jnp.ones((2, 3, 1))).lengths.tolist()
      [3, 3]
    """
    number, time = x.shape[:2]
    step = jnp.broadcast_to(jnp.arange(time, dtype=jnp.int32), (number, time))
    lengths = jnp.full(number, time, jnp.int32)
    return Rows(x, lengths, jnp.arange(number, dtype=jnp.int32), step, None)


def gather(x: Array, pair: Pair) -> Array:
    """What comes with the steps of a pair, and 0 past the end of a row.

    Example:
      >>> import jax.numpy as jnp
      >>> tiles, rows = Tiles(rows=1, steps=2, lanes=1), rows_of(jnp.ones((1, 2, 1)))
      >>> rows = rows._replace(lengths=jnp.array([1]))
      >>> pair = take(queues(rows.lengths, tiles, 1), jnp.array(0), tiles, rows)[0]
      >>> gather(rows.x, pair)[0, :, 0].tolist()
      [1.0, 0.0]
    """
    place = pair.source_rows[:, None], pair.source_steps
    steps = x.at[place].get(mode="promise_in_bounds")
    return jnp.where(pair.real[..., None], steps, 0)


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
    return [jnp.asarray(i, jnp.uint32) for i in (*start, *[0] * (x.ndim - len(start)))]
