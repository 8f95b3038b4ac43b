"""An LSTM that works only where real steps are, in tiles of rows and chunks of time.

    rows, longest first      chunks of time ->
    tile 0   | 0 | 1 | 2 | 3 |
    tile 1   | 4 | 5 | 6 |           one loop over the pairs (tile, chunk) that hold a real step,
    tile 2   | 7 |                   two pairs a body, one from each of two queues ("lanes")

The backward walks the same pairs in reverse, rebuilds the gates of a chunk with one product, and
takes each chunk's share of the weights' gradients with one product. All of it is for rows that are
right-padded and sorted; `arrange` brings any mask there.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxmask import masks
from jaxmask._types import Array, Mask, Steps
from jaxmask.recurrent.arrange import Places, arrange, back, there
from jaxmask.recurrent.cells import LSTMCarry, LSTMWeights

LANES = 2


class Tiles(NamedTuple):
    """Static sizes: rows of a tile and steps of a chunk."""

    rows: int
    steps: int


class Queues(NamedTuple):
    """Which pair each lane takes in each round; a lane that has run out takes the spare tile."""

    tile: Int[Array, "lane round"]
    chunk: Int[Array, "lane round"]
    last: Int[Array, "tile"]  # the last chunk of each tile
    rounds: Int[Array, ""]


class Kept(NamedTuple):
    """What the forward keeps: the state after each step, and the cell before each chunk."""

    h: Float[Array, "row time hidden"]
    c: Float[Array, "tile chunk rows hidden"]


def queues(lengths: Int[Array, "row"], tiles: Tiles, chunks: int) -> Queues:
    """Deal the tiles to the lanes, longest first and to and fro, and line up their chunks.

    Example:
      >>> import jax.numpy as jnp
      >>> line = queues(jnp.array([5, 4, 2, 0]), Tiles(rows=1, steps=2), chunks=3)
      >>> line.tile[:, :3].tolist(), line.chunk[0, :3].tolist(), int(line.rounds)
      ([[0, 0, 0], [1, 1, 2]], [0, 1, 2], 3)
    """
    number = lengths.shape[0] // tiles.rows
    longest = jnp.max(lengths.reshape(number, tiles.rows), axis=1)
    counts = -(-longest // tiles.steps)
    order = np.arange(number)
    lane_of = np.where(order % (2 * LANES) < LANES, order % LANES, LANES - 1 - order % LANES)
    lanes = [order[lane_of == lane] for lane in range(LANES)]
    rounds = jnp.arange(chunks * max(map(len, lanes)))

    def line_up(own: np.ndarray) -> tuple[Array, Array, Array]:
        if not len(own):
            spare = jnp.full(rounds.shape, number)
            return spare, jnp.zeros_like(spare), jnp.zeros((), counts.dtype)
        ends = jnp.cumsum(counts[own])
        place = jnp.searchsorted(ends, rounds, side="right")
        inside = jnp.minimum(place, len(own) - 1)
        chunk = rounds - (ends[inside] - counts[own][inside])
        alive = place < len(own)
        tile = jnp.where(alive, jnp.asarray(own)[inside], number)
        return tile, jnp.where(alive, chunk, 0), ends[-1]

    tile, chunk, totals = zip(*map(line_up, lanes), strict=True)
    return Queues(jnp.stack(tile), jnp.stack(chunk), counts - 1, jnp.max(jnp.stack(totals)))


def _product(a: Array, w: Array, state: Any) -> Array:
    return jnp.matmul(a.astype(w.dtype), w, preferred_element_type=state)


def _gates(z: Array) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(z, 4, axis=-1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


class _Lane(NamedTuple):
    """One pair: where it stands, its inputs, and which of its steps are real."""

    tile: Array
    chunk: Array
    row: Array
    time: Array
    x: Float[Array, "rows steps feature"]
    real: Array


def _take(lane: int, i: Array, line: Queues, x: Array, lengths: Array, tiles: Tiles) -> _Lane:
    tile, chunk = line.tile[lane, i], line.chunk[lane, i]
    row, time = tile * tiles.rows, chunk * tiles.steps
    inputs = jax.lax.dynamic_slice(x, (row, time, 0), (*tiles, x.shape[2]))
    own = jax.lax.dynamic_slice(lengths, (row,), (tiles.rows,))
    # Past the end a slice is moved back inside: the spare tile has no real step.
    alive = tile * tiles.rows < lengths.shape[0]
    real = (time + jnp.arange(tiles.steps) < own[:, None]) & alive
    return _Lane(tile, chunk, row, time, inputs, real)


def _zeros(like: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    # Made like an array, zeros vary over the axes of a `shard_map` that it varies over.
    return jnp.zeros_like(like, shape=shape, dtype=dtype)


def _rows(x: Array, row: Array, tiles: Tiles) -> Array:
    return jax.lax.dynamic_slice(x, (row, 0), (tiles.rows, x.shape[1]))


def _put(buffer: Array, value: Array, *start: Array) -> Array:
    rest = (0,) * (buffer.ndim - len(start))
    return jax.lax.dynamic_update_slice(buffer, value.astype(buffer.dtype), (*start, *rest))


def forward(
    tiles: Tiles, x: Array, lengths: Array, weights: LSTMWeights, carry: LSTMCarry
) -> tuple[LSTMCarry, Kept]:
    """The carry after the last real step of each row, and the state after each step.

    Args:
      tiles: their rows divide the rows of `x`, their steps its time.
      x: `[row, time, feature]`, right-padded and finite in the padding.
      lengths: `[row]`, the longest first.
      weights: in the dtype to multiply in.
      carry: `h` and `c`, each `[row, hidden]`.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = LSTMWeights(jnp.ones((1, 4)), jnp.ones((1, 4)), jnp.zeros(4))
      >>> carry = LSTMCarry(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> carry, kept = forward(Tiles(1, 2), jnp.ones((1, 2, 1)), jnp.array([1]), weights, carry)
      >>> kept.h.shape, bool(carry.h[0, 0] == kept.h[0, 0, 0]), float(kept.h[0, 1, 0])
      ((2, 2, 1), True, 0.0)
    """
    (number, time), hidden, state = x.shape[:2], carry.h.shape[1], carry.c.dtype
    chunks, spare = time // tiles.steps, number + tiles.rows
    line = queues(lengths, tiles, chunks)
    bias = weights.b.astype(state)

    def body(i: Array, loop: Any) -> Any:
        kept, ends, states = loop
        pairs = [_take(lane, i, line, x, lengths, tiles) for lane in range(LANES)]
        states = [
            LSTMCarry(*(jnp.where(p.chunk == 0, _rows(a, p.row, tiles), b)
                        for a, b in zip(carry, s, strict=True)))
            for p, s in zip(pairs, states, strict=True)
        ]  # fmt: skip
        c = kept.c
        for p, s in zip(pairs, states, strict=True):
            c = _put(c, s.c[None, None], p.tile, p.chunk)
        z = [_product(p.x, weights.w_x, state) + bias for p in pairs]
        said: list[list[Array]] = [[] for _ in pairs]
        for t in range(tiles.steps):  # written out, and by turns: the lanes overlap
            for k, p in enumerate(pairs):
                i_, f, g, o = _gates(z[k][:, t] + _product(states[k].h, weights.w_h, state))
                real = p.real[:, t, None]
                new_c = f * states[k].c + i_ * g
                new_h = o * jnp.tanh(new_c)
                said[k].append(jnp.where(real, new_h, 0))
                states[k] = LSTMCarry(
                    jnp.where(real, new_h, states[k].h), jnp.where(real, new_c, states[k].c)
                )
        h = kept.h
        for k, p in enumerate(pairs):
            h = _put(h, jnp.stack(said[k], axis=1), p.row, p.time)
            ends = LSTMCarry(*(_put(a, b, p.row) for a, b in zip(ends, states[k], strict=True)))
        return Kept(h, c), ends, states

    zeros = _zeros(x, (tiles.rows, hidden), state)
    kept = Kept(
        _zeros(x, (spare, time, hidden), state),
        _zeros(x, (number // tiles.rows + 1, chunks, tiles.rows, hidden), state),
    )
    ends = LSTMCarry(*(jnp.pad(a, ((0, tiles.rows), (0, 0))) for a in carry))
    start = kept, ends, [LSTMCarry(zeros, zeros)] * LANES
    kept, ends, _ = jax.lax.fori_loop(0, line.rounds, body, start)
    return LSTMCarry(ends.h[:number], ends.c[:number]), kept


class _Rebuilt(NamedTuple):
    """What a chunk's backward needs: gates and cells of every step, and the state before each."""

    gates: tuple[Array, Array, Array, Array]
    before: list[Array]
    tanh_c: list[Array]
    h_before: Array


def _rebuild(p: _Lane, kept: Kept, weights: LSTMWeights, h_0: Array, tiles: Tiles) -> _Rebuilt:
    state, size = kept.c.dtype, (*tiles, kept.h.shape[2])
    said = jax.lax.dynamic_slice(kept.h, (p.row, p.time, 0), size)
    before = jax.lax.dynamic_slice(kept.h, (p.row, p.time - 1, 0), (tiles.rows, 1, size[2]))
    before = jnp.where(p.chunk == 0, _rows(h_0, p.row, tiles)[:, None], before)
    h_before = jnp.concatenate([before, said[:, :-1]], axis=1)
    z = _product(p.x, weights.w_x, state) + _product(h_before, weights.w_h, state)
    gates = _gates(z + weights.b.astype(state))
    c = jax.lax.dynamic_slice(kept.c, (p.tile, p.chunk, 0, 0), (1, 1, *kept.c.shape[2:]))[0, 0]
    befores, tanhs = [], []
    for t in range(tiles.steps):
        i, f, g, _ = (gate[:, t] for gate in gates)
        befores.append(c)
        c = f * c + i * g
        tanhs.append(jnp.tanh(c))
    return _Rebuilt(gates, befores, tanhs, h_before)


def _step_back(
    r: _Rebuilt, t: int, real: Array, given: Array, d: LSTMCarry, w_h_t: Array, one: Array
) -> tuple[Array, LSTMCarry]:
    """The cotangent of the gates' inputs at a step, and that of the state before it."""
    i, f, g, o = (gate[:, t] for gate in r.gates)
    d_h = given[:, t] + d.h
    # XLA copies cheap chains into every consumer, here all later steps; it copies no division.
    d_c = (d.c + d_h * o * (1 - r.tanh_c[t] ** 2)) / one
    parts = (
        d_c * g * i * (1 - i),
        d_c * r.before[t] * f * (1 - f),
        d_c * i * (1 - g**2),
        d_h * r.tanh_c[t] * o * (1 - o),
    )
    d_z = jnp.where(real, jnp.concatenate(parts, axis=-1), 0)
    new = LSTMCarry(_product(d_z, w_h_t, d_c.dtype), d_c * f)
    return d_z, LSTMCarry(*(jnp.where(real, a, b) for a, b in zip(new, d, strict=True)))


def backward(
    tiles: Tiles,
    x: Array,
    lengths: Array,
    weights: LSTMWeights,
    carry: LSTMCarry,
    kept: Kept,
    d_carry: LSTMCarry,
    d_h: Array,
) -> tuple[Array, LSTMWeights, LSTMCarry]:
    """Cotangents of `x`, the weights and the first carry, from those of what `forward` gives.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = LSTMWeights(jnp.ones((1, 4)), jnp.ones((1, 4)), jnp.zeros(4))
      >>> x, lengths = jnp.ones((1, 2, 1)), jnp.array([1])
      >>> carry = LSTMCarry(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> end, kept = forward(Tiles(1, 2), x, lengths, weights, carry)
      >>> d_x, d_weights, _ = backward(
      ...     Tiles(1, 2), x, lengths, weights, carry, kept, end, jnp.zeros((1, 2, 1))
      ... )
      >>> float(d_x[0, 1, 0]), d_weights.w_x.shape
      (0.0, (1, 4))
    """
    (number, time, feature), hidden, state = x.shape, carry.h.shape[1], carry.c.dtype
    line = queues(lengths, tiles, time // tiles.steps)
    w_x_t, w_h_t = weights.w_x.T, weights.w_h.T  # once: a transposed product in the loop is slow
    one = jnp.where(line.rounds >= 0, 1, 2).astype(state)

    def body(back: Array, loop: Any) -> Any:
        i = line.rounds - 1 - back
        d_x, total, firsts, ds = loop
        pairs = [_take(lane, i, line, x, lengths, tiles) for lane in range(LANES)]
        size = (*tiles, hidden)
        given = [
            jnp.where(p.real[..., None], jax.lax.dynamic_slice(d_h, (p.row, p.time, 0), size), 0)
            for p in pairs
        ]
        rebuilt = [_rebuild(p, kept, weights, carry.h, tiles) for p in pairs]
        ds = [
            LSTMCarry(*(jnp.where(p.chunk == line.last[p.tile], _rows(a, p.row, tiles), b)
                        for a, b in zip(d_carry, d, strict=True)))
            for p, d in zip(pairs, ds, strict=True)
        ]  # fmt: skip
        d_zs: list[list[Array]] = [[] for _ in pairs]
        for t in reversed(range(tiles.steps)):
            for k, p in enumerate(pairs):
                real = p.real[:, t, None]
                d_z, ds[k] = _step_back(rebuilt[k], t, real, given[k], ds[k], w_h_t, one)
                d_zs[k].insert(0, d_z)
        for k, p in enumerate(pairs):
            d_z = jnp.stack(d_zs[k], axis=1)
            d_x = _put(d_x, _product(d_z, w_x_t, state), p.row, p.time)
            firsts = LSTMCarry(*(_put(a, b, p.row) for a, b in zip(firsts, ds[k], strict=True)))
            total = _add_chunk(total, p.x, rebuilt[k].h_before, d_z, weights.w_x.dtype)
        return d_x, total, firsts, ds

    zeros = _zeros(x, (tiles.rows, hidden), state)
    firsts = LSTMCarry(*(jnp.pad(a, ((0, tiles.rows), (0, 0))) for a in d_carry))
    start = (
        _zeros(x, (number + tiles.rows, time, feature), state),
        LSTMWeights(*(_zeros(x, w.shape, state) for w in weights)),
        firsts,
        [LSTMCarry(zeros, zeros)] * LANES,
    )
    d_x, total, firsts, _ = jax.lax.fori_loop(0, line.rounds, body, start)
    d_weights = LSTMWeights(*(g.astype(w.dtype) for g, w in zip(total, weights, strict=True)))
    first = LSTMCarry(firsts.h[:number], firsts.c[:number])
    return d_x[:number].astype(x.dtype), d_weights, first


def _add_chunk(total: LSTMWeights, x: Array, h: Array, d_z: Array, dtype: Any) -> LSTMWeights:
    """Add a chunk's share of the weights' gradients, one product each."""
    flat = d_z.reshape(-1, d_z.shape[-1])

    def share(inputs: Array) -> Array:
        inputs = inputs.reshape(-1, inputs.shape[-1])
        return _product(inputs.T.astype(dtype), flat.astype(dtype), flat.dtype)

    return LSTMWeights(total.w_x + share(x), total.w_h + share(h), total.b + flat.sum(axis=0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def run_sorted(
    tiles: Tiles, x: Array, lengths: Array, weights: LSTMWeights, carry: LSTMCarry
) -> tuple[LSTMCarry, Array]:
    """`forward`, differentiated by `backward`.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = LSTMWeights(jnp.ones((1, 4)), jnp.ones((1, 4)), jnp.zeros(4))
      >>> carry = LSTMCarry(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> run_sorted(Tiles(1, 2), jnp.ones((1, 2, 1)), jnp.array([1]), weights, carry)[1].shape
      (1, 2, 1)
    """
    carry, kept = forward(tiles, x, lengths, weights, carry)
    return carry, kept.h[: len(x)]


def _run_forward(
    tiles: Tiles, x: Array, lengths: Array, weights: LSTMWeights, carry: LSTMCarry
) -> tuple[Any, Any]:
    end, kept = forward(tiles, x, lengths, weights, carry)
    return (end, kept.h[: len(x)]), (x, lengths, weights, carry, kept)


def _run_backward(tiles: Tiles, saved: Any, given: Any) -> Any:
    d_x, d_weights, d_carry = backward(tiles, *saved, *given)
    return d_x, None, d_weights, d_carry


run_sorted.defvjp(_run_forward, _run_backward)


def tiles_for(batch: int, hidden: int) -> Tiles:
    """Small tiles skip more padding, large ones multiply faster; flat within a factor of two.

    Example:
      >>> tiles_for(batch=64, hidden=256)
      Tiles(rows=8, steps=8)
    """
    size = Tiles(4, 4) if hidden <= 100 else Tiles(8, 8)
    return size._replace(rows=max(1, min(size.rows, batch // 2)))


def run(
    x: Steps, mask: Mask, weights: LSTMWeights, carry: LSTMCarry, *, reverse: bool
) -> tuple[LSTMCarry, tuple[Array, Mask]]:
    """An LSTM over any boolean mask, for `x` that is finite in the padding.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = LSTMWeights(jnp.ones((1, 4)), jnp.ones((1, 4)), jnp.zeros(4))
      >>> carry = LSTMCarry(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> carry, (y, _) = run(jnp.ones((1, 2, 1)), None, weights, carry, reverse=False)
      >>> bool((carry.h == y[:, -1]).all())
      True
    """
    batch, time = x.shape[:2]
    real = jnp.ones((batch, time), bool) if mask is None else masks.steps(mask)
    places, lengths = arrange(real, reverse=reverse)
    if mask is None and not reverse:
        places = Places(places.rows, places.row_places, None, None)
    tiles = tiles_for(batch, weights.w_h.shape[0])
    rows, steps = -batch % tiles.rows, -time % tiles.steps
    compute = jnp.promote_types(x.dtype, weights.w_x.dtype)
    arranged = jnp.pad(there(x, places), ((0, rows), (0, steps), (0, 0)))
    first = LSTMCarry(
        *(jnp.pad(a[places.rows], ((0, rows), (0, 0))) + _zeros(x, (), a.dtype) for a in carry)
    )
    # In a `shard_map` this sum makes the weights vary, so that their gradients are added up.
    weights = LSTMWeights(*(w.astype(compute) + _zeros(x, (), compute) for w in weights))
    end, h = run_sorted(tiles, arranged, jnp.pad(lengths, (0, rows)), weights, first)
    end = LSTMCarry(*(a[:batch][places.row_places] for a in end))
    return end, (back(h[:batch, :time], places).astype(x.dtype), mask)
