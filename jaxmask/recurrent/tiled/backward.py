"""The engine's backward: the same rounds, walked from the last to the first.

The gates of a chunk are rebuilt with one product, the steps are pulled back one by one, and the
chunk's share of the weights' gradients is taken with one product each.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask import masks
from jaxmask._types import Array
from jaxmask.recurrent.tiled.forward import (
    Plan,
    Weights,
    anew,
    choose,
    member,
    product,
    products,
    with_bias,
    zeros,
)
from jaxmask.recurrent.tiled.kinds import State
from jaxmask.recurrent.tiled.schedule import Rows, Schedule, Turn, at, block, gather, put, take


def backward(
    plan: Plan,
    line: Schedule,
    rows: Rows,
    weights: Weights,
    carry: State,
    kept: State,
    d_ends: State,
    d_h: Array,
) -> tuple[Array, Weights, State]:
    """Cotangents of `rows.x`, of each member's weights and of the states before each chunk.

    Args:
      plan: what is static.
      line: the schedule of the rows.
      rows: the inputs.
      weights: see `Weights`.
      carry: the first states, each `[row, hidden]`.
      kept: the states after each step, from `forward`.
      d_ends: cotangents of the last states, each `[row, hidden]`.
      d_h: `[row, time, hidden]`, cotangent of `h` after each step, where `rows.x` has the step.

    Returns:
      That of `x`, `[round, slot, step, feature]`; those of the weights `[member, ...]`, added up in
      the dtype of the state; those of the states `[round, slot, hidden]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.forward import forward
      >>> from jaxmask.recurrent.tiled.kinds import SIMPLE
      >>> from jaxmask.recurrent.tiled.schedule import Tiles, deal, rows_of, schedule
      >>> plan = Plan(SIMPLE["relu"], Tiles(rows=1, steps=2, lanes=1))
      >>> weights = Weights(jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1)), jnp.zeros((1, 1)), None)
      >>> rows, carry = rows_of(jnp.ones((1, 2, 1))), (jnp.zeros((1, 1)),)
      >>> line = schedule(deal(rows.lengths[None], plan.tiles, 1))
      >>> options = plan, line, rows, weights, carry
      >>> d_x, _, _ = backward(*options, forward(*options), carry, jnp.ones((1, 2, 1)))
      >>> d_x[0, 0, :, 0].tolist()
      [2.0, 1.0]
    """
    tiles, hidden, dtype = plan.tiles, carry[0].shape[1], carry[0].dtype
    # Transposed once: a transposed product in the loop is slow.
    turned = weights._replace(w_x=weights.w_x.mT, w_h=weights.w_h.mT)
    one = jnp.where(line.number >= 0, 1, 2).astype(dtype)
    shared = plan.members == 1

    def body(i: Array, loop: Any) -> Any:
        d_x, total, firsts, ds = loop
        turns = take(line, line.number - 1 - i, tiles, rows)
        x = [gather(rows.x, t) for t in turns]
        before = [_before(carry, kept, t) for t in turns]
        factors = _rebuild(plan, line, weights, turns, x, before, kept)
        given = [_given(d_h, d_ends[0], t) for t in turns]
        ds = [_begin(d_ends, t, d) for t, d in zip(turns, ds, strict=True)]
        own = [member(plan, turned, t, len(line.queues.row)) for t in turns]
        ds, d_zs = _steps_back(plan, turns, factors, given, ds, [w.w_h for w in own], one)
        d_xs = products([d for d, _ in d_zs], [w.w_x for w in own], shared=shared, state=dtype)
        for turn, d, lane_d_x in zip(turns, ds, d_xs, strict=True):
            d_x = put(d_x, lane_d_x[None], turn.round, turn.slot)
            firsts = tuple(
                put(f, a[None], turn.round, turn.slot) for f, a in zip(firsts, d, strict=True)
            )
        # All lanes of a round are of one member.
        inputs = jnp.concatenate(x), jnp.concatenate([b[0] for b in before])
        outputs = (jnp.concatenate(d) for d in zip(*d_zs, strict=True))
        part = share(own[0], *inputs, *outputs)
        total = _add(plan, line, total, part, turns[0])
        return d_x, total, firsts, ds

    start = (
        zeros(rows.x, (*line.queues.row.shape, tiles.steps, rows.x.shape[2]), dtype),
        jax.tree.map(lambda w: zeros(rows.x, (plan.members, *w.shape[1:]), dtype), weights),
        tuple(zeros(rows.x, (*line.queues.row.shape, hidden), dtype) for _ in carry),
        [tuple(zeros(rows.x, (tiles.rows, hidden), dtype) for _ in carry)] * tiles.lanes,
    )
    return jax.lax.fori_loop(0, line.number, body, start)[:3]


def _begin(d_ends: State, turn: Turn, d: State) -> State:
    """The cotangents after a chunk: those of the last states where the row ends in it.

    That of the last `h` comes with its step instead.
    """
    last = jnp.zeros_like(d[0]), *(at(a, turn.row) for a in d_ends[1:])
    return choose(turn.is_last[:, None], last, d)


def _given(d_h: Array, d_end: Array, turn: Turn) -> Array:
    """The cotangents of `h` after each step, that of the last one included."""
    last = at(d_end, turn.row)[:, None]
    return gather(d_h, turn).astype(last.dtype) + jnp.where(turn.ends[..., None], last, 0)


def _before(carry: State, kept: State, turn: Turn) -> State:
    """The states before each step of a chunk."""

    def shifted(first: Array, after: Array) -> Array:
        number = len(turn.row)
        # The round before has the chunk before; where there is none the index may be anywhere.
        before = block(after, (turn.round - 1, turn.slot), (1, number))[0][:, -1:]
        before = jnp.where(turn.is_first[:, None, None], at(first, turn.row)[:, None], before)
        inside = block(after, (turn.round, turn.slot), (1, number))[0][:, :-1]
        before = jnp.concatenate([before, inside], axis=1)
        return before if turn.starts is None else jnp.where(turn.starts[..., None], 0, before)

    return tuple(map(shifted, carry, kept))


def _rebuild(
    plan: Plan,
    line: Schedule,
    weights: Weights,
    turns: list[Turn],
    x: list[Array],
    before: list[State],
    kept: State,
) -> list[tuple[State, State]]:
    """What pulls a cotangent back through each step of a chunk, for each lane."""
    number, dtype = plan.tiles.rows, kept[0].dtype
    own = [member(plan, weights, t, len(line.queues.row)) for t in turns]
    multiply = functools.partial(products, shared=plan.members == 1, state=dtype)
    z_xs = multiply(x, [w.w_x for w in own])
    z_hs = multiply([b[0] for b in before], [w.w_h for w in own])
    factors = []
    for t, b, z_x, z_h, w in zip(turns, before, z_xs, z_hs, own, strict=True):
        after = tuple(block(k, (t.round, t.slot), (1, number))[0] for k in kept)
        taken, held = plan.kind.factors(z_x + w.b_x, with_bias(z_h, w.b_h), b, after)
        taken = tuple(jnp.where(masks.expand(t.real, a.ndim), a, 0) for a in taken)
        held = tuple(jnp.where(t.real[..., None], a, 1) for a in held)
        factors.append((taken, held))
    return factors


def _steps_back(
    plan: Plan,
    turns: list[Turn],
    factors: list[tuple[State, State]],
    given: list[Array],
    ds: list[State],
    w_h: list[Array],
    one: Array,
) -> tuple[list[State], list[tuple[Array, Array]]]:
    """The cotangents of the states before a chunk, and those of both products at each step."""
    passed: list[list[State]] = [[] for _ in turns]
    for step in reversed(range(plan.tiles.steps)):
        for k, turn in enumerate(turns):
            d_new = ds[k][0] + given[k][:, step], *ds[k][1:]
            passed[k].insert(0, d_new)
            taken, held = jax.tree.map(lambda a, step=step: a[:, step], factors[k])
            _, d_zh, d_read = plan.kind.pull(taken, held, d_new)
            d_h = product(side_by_side(d_zh), w_h[k], d_zh.dtype)
            # XLA copies cheap chains into every consumer, here all later steps; it copies no
            # division.
            d_state = [jnp.zeros_like(d_h) if d is None else d / one for d in d_read]
            ds[k] = anew(turn, step, (d_h + d_state[0], *d_state[1:]))
    d_zs = []
    for steps, factor in zip(passed, factors, strict=True):
        d_new = tuple(jnp.stack(d, axis=1) for d in zip(*steps, strict=True))
        d_zx, d_zh, _ = plan.kind.pull(*factor, d_new)
        d_zs.append((side_by_side(d_zx), side_by_side(d_zh)))
    return ds, d_zs


def side_by_side(d: Array) -> Array:
    """Gates side by side, as the products have them.

    Example:
      >>> side_by_side(jnp.zeros((5, 4, 3))).shape
      (5, 12)
    """
    return d.reshape(*d.shape[:-2], -1)


def share(weights: Weights, x: Array, h: Array, d_zx: Array, d_zh: Array) -> Weights:
    """The share that some steps have in the weights' gradients, one product each.

    Args:
      weights: of one member.
      x: `[..., feature]`.
      h: `[..., hidden]`, the state that each step read.
      d_zx: `[..., gates]`, cotangent of `x @ w_x + b_x`.
      d_zh: that of `h @ w_h + b_h`.

    Example:
      >>> own = Weights(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.ones(1), None)
      >>> x, h, d = (jnp.full((2, 1), a) for a in (3.0, 5.0, 1.0))
      >>> [d.tolist() for d in share(own, x, h, d, d)[:3]]
      [[[6.0]], [[10.0]], [2.0]]
    """

    def flat(a: Array) -> Array:
        return a.reshape(-1, a.shape[-1])

    def outer(inputs: Array, d: Array) -> Array:
        compute = weights.w_x.dtype
        return product(flat(inputs).T.astype(compute), flat(d).astype(compute), d.dtype)

    d_b = flat(d_zx).sum(axis=0), None if weights.b_h is None else flat(d_zh).sum(axis=0)
    return Weights(outer(x, d_zx), outer(h, d_zh), *d_b)


def _add(plan: Plan, line: Schedule, total: Weights, share: Weights, turn: Turn) -> Weights:
    def add(into: Array, new: Array, old: Array) -> Array:
        if plan.members == 1:
            return into + new
        return put(into, (old + new)[None], turn.round // (len(line.queues.row) // plan.members))

    return jax.tree.map(add, total, share, member(plan, total, turn, len(line.queues.row)))
