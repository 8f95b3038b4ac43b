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


class Pair(NamedTuple):
    """One pair: where it stands, its inputs, and what its steps are."""

    tile: Int[Array, ""]
    chunk: Int[Array, ""]
    row: Int[Array, ""]
    time: Int[Array, ""]
    alive: Bool[Array, ""]
    is_last: Bool[Array, ""]
    x: Float[Array, "rows steps feature"]
    real: Bool[Array, "rows steps"]
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


def take(
    line: Queues, turn: Array, tiles: Tiles, x: Array, lengths: Array, starts: Array | None
) -> list[Pair]:
    """The pair of each lane in a round.

    Example:
      >>> import jax.numpy as jnp
      >>> tiles, lengths = Tiles(rows=1, steps=2, lanes=1), jnp.array([3])
      >>> line = queues(lengths, tiles, chunks=2)
      >>> pair = take(line, jnp.array(1), tiles, jnp.ones((1, 4, 1)), lengths, None)[0]
      >>> int(pair.time), pair.real.tolist()
      (2, [[True, False]])
    """
    size = tiles.rows, tiles.steps

    def pair(lane: int) -> Pair:
        tile, chunk, alive, is_last = (block(a, (lane, turn), (1, 1))[0, 0] for a in line[:4])
        row, time = tile * tiles.rows, chunk * tiles.steps
        own = block(lengths, (row,), (tiles.rows,))
        real = time + jnp.arange(tiles.steps, dtype=jnp.uint32) < own[:, None].astype(jnp.uint32)
        begins = None if starts is None else block(starts, (row, time), size)
        return Pair(
            tile, chunk, row, time, alive, is_last, block(x, (row, time), size), real, begins
        )

    return [pair(lane) for lane in range(tiles.lanes)]


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
