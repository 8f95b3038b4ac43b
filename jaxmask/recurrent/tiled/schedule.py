"""Which pairs (tile of rows, chunk of time) hold a real step, and who works on them when."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
    last: Int[Array, "tile"]  # the last chunk of each tile
    rounds: Int[Array, ""]


class Pair(NamedTuple):
    """One pair: where it stands, its inputs, and what its steps are."""

    tile: Int[Array, ""]
    chunk: Int[Array, ""]
    row: Int[Array, ""]
    time: Int[Array, ""]
    alive: Bool[Array, ""]
    is_last: Bool[Array, ""]  # no later chunk of the tile has a real step
    x: Float[Array, "rows steps feature"]
    real: Bool[Array, "rows steps"]
    starts: Bool[Array, "rows steps"] | None


def queues(lengths: Int[Array, "row"], tiles: Tiles, chunks: int) -> Queues:
    """Deal the tiles to the lanes to and fro, the longest first, and line up their chunks.

    Example:
      >>> import jax.numpy as jnp
      >>> lengths = jnp.array([5, 4, 2, 0])
      >>> line = queues(lengths, Tiles(rows=1, steps=2, lanes=2), chunks=3)
      >>> line.tile[:, :3].tolist(), line.chunk[0, :3].tolist(), int(line.rounds)
      ([[0, 0, 0], [1, 1, 2]], [0, 1, 2], 3)
    """
    number = lengths.shape[0] // tiles.rows
    longest = jnp.max(lengths.reshape(number, tiles.rows), axis=1)
    counts = -(-longest // tiles.steps)
    order = np.arange(number)
    turn = order % (2 * tiles.lanes)
    lane_of = np.where(turn < tiles.lanes, turn, 2 * tiles.lanes - 1 - turn)
    lanes = [order[lane_of == lane] for lane in range(tiles.lanes)]
    rounds = jnp.arange(chunks * max(map(len, lanes)))

    def line_up(own: np.ndarray) -> tuple[Array, Array, Array]:
        ends = jnp.cumsum(counts[own])
        place = jnp.searchsorted(ends, rounds, side="right")
        inside = jnp.minimum(place, len(own) - 1)
        chunk = rounds - (ends[inside] - counts[own][inside])
        alive = rounds < ends[-1]
        tile = jnp.where(alive, jnp.asarray(own)[inside], own[0])
        return tile, jnp.where(alive, chunk, 0), alive, ends[-1]

    *lines, totals = map(jnp.stack, zip(*map(line_up, lanes), strict=True))
    return Queues(*lines, counts - 1, jnp.max(totals))


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
        tile, chunk, alive = (a[lane, turn] for a in (line.tile, line.chunk, line.alive))
        row, time = tile * tiles.rows, chunk * tiles.steps
        own = block(lengths, (row,), (tiles.rows,))
        real = time + jnp.arange(tiles.steps) < own[:, None]
        begins = None if starts is None else block(starts, (row, time), size)
        is_last = chunk == line.last[tile]
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
    return jax.lax.dynamic_slice(x, (*start, *(0 for _ in whole)), (*size, *whole))


def put(buffer: Array, value: Array, *start: Any) -> Array:
    """Write a block into a buffer, in the dtype of the buffer.

    Example:
      >>> import jax.numpy as jnp
      >>> put(jnp.zeros((3, 1)), jnp.ones((1, 1)), 2).tolist()
      [[0.0], [0.0], [1.0]]
    """
    rest = (0,) * (buffer.ndim - len(start))
    return jax.lax.dynamic_update_slice(buffer, value.astype(buffer.dtype), (*start, *rest))
