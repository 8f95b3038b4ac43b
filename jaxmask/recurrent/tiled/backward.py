"""The engine's backward: the same pairs, walked from the last to the first.

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
    choose,
    member,
    product,
    products,
    state_of,
    zeros,
)
from jaxmask.recurrent.tiled.kinds import State
from jaxmask.recurrent.tiled.schedule import Pair, Rows, block, gather, put, queues, take


def backward(
    plan: Plan,
    rows: Rows,
    weights: Weights,
    carry: State,
    kept: State,
    d_ends: State,
    d_h: Array,
) -> tuple[Array, Weights, State]:
    """Cotangents of `rows.x`, of each member's weights and of the carry.

    Args:
      plan: as in `forward`.
      rows: the inputs.
      weights: see `Weights`.
      carry: the first states.
      kept: the states after each step, from `forward`.
      d_ends: cotangents of the last states.
      d_h: `[source, time, hidden]`, cotangent of `h` after each step, where `rows.x` has the step.

    Returns:
      Cotangents, those of the weights `[member, ...]`, added up in the dtype of the state; that of
      the carry is meaningless for a row without a step.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.forward import forward
      >>> from jaxmask.recurrent.tiled.kinds import SIMPLE
      >>> from jaxmask.recurrent.tiled.schedule import Tiles, rows_of
      >>> plan = Plan(SIMPLE["relu"], Tiles(rows=1, steps=2, lanes=1))
      >>> weights = Weights(jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1)), jnp.zeros((1, 1)), None)
      >>> rows, carry = rows_of(jnp.ones((1, 2, 1))), (jnp.zeros((1, 1)),)
      >>> kept = forward(plan, rows, weights, carry)
      >>> d_x, _, _ = backward(plan, rows, weights, carry, kept, carry, jnp.ones((1, 2, 1)))
      >>> d_x[0, :, 0].tolist()
      [2.0, 1.0]
    """
    (number, time), hidden, dtype = rows.source_steps.shape, carry[0].shape[1], carry[0].dtype
    tiles = plan.tiles
    line = queues(rows.lengths, tiles, time // tiles.steps)
    # Transposed once: a transposed product in the loop is slow.
    turned = weights._replace(w_x=weights.w_x.mT, w_h=weights.w_h.mT)
    one = jnp.where(line.rounds >= 0, 1, 2).astype(dtype)

    def body(back: Array, loop: Any) -> Any:
        d_x, total, firsts, ds = loop
        pairs = take(line, line.rounds - 1 - back, tiles, rows)
        pairs = [p._replace(real=p.real & p.is_alive) for p in pairs]
        x = [gather(rows.x, p) for p in pairs]
        before = [_before(plan, carry, kept, p) for p in pairs]
        factors = _rebuild(plan, rows, weights, pairs, x, before, kept)
        given = [_given(d_h, d_ends[:1], p, tiles.rows) for p in pairs]
        ds = [
            choose(p.is_last, (jnp.zeros_like(d[0]), *state_of(d_ends[1:], p, tiles.rows)), d)
            for p, d in zip(pairs, ds, strict=True)
        ]
        own = [member(plan, turned, rows, p) for p in pairs]
        ds, d_zs = _steps_back(plan, pairs, factors, given, ds, [w.w_h for w in own], one)
        d_xs = products([d for d, _ in d_zs], [w.w_x for w in own], shared=shared, state=dtype)
        for p, d, own_d_x in zip(pairs, ds, d_xs, strict=True):
            d_x = put(d_x, own_d_x, p.row, p.time)
            firsts = tuple(put(f, a, p.row) for f, a in zip(firsts, d, strict=True))
        if shared:
            ins = jnp.concatenate(x), jnp.concatenate([b[0] for b in before])
            outs = (jnp.concatenate(d) for d in zip(*d_zs, strict=True))
            total = _add(plan, rows, total, _share(own[0], *ins, *outs), pairs[0])
        else:
            for p, inputs, b, d_z, w in zip(pairs, x, before, d_zs, own, strict=True):
                total = _add(plan, rows, total, _share(w, inputs, b[0], *d_z), p)
        return d_x, total, firsts, ds

    shared = plan.members == 1
    start = (
        zeros(rows.x, (number, time, rows.x.shape[2]), dtype),
        jax.tree.map(lambda w: zeros(rows.x, (plan.members, *w.shape[1:]), dtype), weights),
        tuple(zeros(rows.x, a.shape, dtype) for a in carry),
        [tuple(zeros(rows.x, (tiles.rows, hidden), dtype) for _ in carry)] * tiles.lanes,
    )
    d_x, total, firsts, _ = jax.lax.fori_loop(0, line.rounds, body, start)
    return d_x, total, firsts


def _given(d_h: Array, d_end: State, pair: Pair, number: int) -> Array:
    """The cotangents of `h` after each step, that of the last one included."""
    last = state_of(d_end, pair, number)[0][:, None]
    return gather(d_h, pair).astype(last.dtype) + jnp.where(pair.ends[..., None], last, 0)


def _before(plan: Plan, carry: State, kept: State, pair: Pair) -> State:
    """The states before each step of a chunk."""
    number, steps, _ = plan.tiles

    def shifted(first: Array, after: Array) -> Array:
        before = block(after, (pair.row, pair.time - 1), (number, 1))
        before = jnp.where(pair.chunk == 0, block(first, (pair.row,), (number,))[:, None], before)
        inside = block(after, (pair.row, pair.time), (number, steps))[:, :-1]
        before = jnp.concatenate([before, inside], axis=1)
        return before if pair.starts is None else jnp.where(pair.starts[..., None], 0, before)

    return tuple(map(shifted, carry, kept))


def _rebuild(
    plan: Plan,
    rows: Rows,
    weights: Weights,
    pairs: list[Pair],
    x: list[Array],
    before: list[State],
    kept: State,
) -> list[tuple[State, State]]:
    """What pulls a cotangent back through each step of a chunk, for each lane."""
    (number, steps, _), dtype = plan.tiles, kept[0].dtype
    own = [member(plan, weights, rows, p) for p in pairs]
    multiply = functools.partial(products, shared=plan.members == 1, state=dtype)
    z_xs = multiply(x, [w.w_x for w in own])
    z_hs = multiply([b[0] for b in before], [w.w_h for w in own])
    factors = []
    for p, b, z_x, z_h, w in zip(pairs, before, z_xs, z_hs, own, strict=True):
        after = tuple(block(k, (p.row, p.time), (number, steps)) for k in kept)
        z_h = z_h if w.b_h is None else z_h + w.b_h
        taken, held = plan.kind.factors(z_x + w.b_x, z_h, b, after)
        taken = tuple(jnp.where(masks.expand(p.real, a.ndim), a, 0) for a in taken)
        held = tuple(jnp.where(p.real[..., None], a, 1) for a in held)
        if p.starts is not None:
            held = tuple(jnp.where(p.starts[..., None], 0, a) for a in held)
        factors.append((taken, held))
    return factors


def _steps_back(
    plan: Plan,
    pairs: list[Pair],
    factors: list[tuple[State, State]],
    given: list[Array],
    ds: list[State],
    w_h: list[Array],
    one: Array,
) -> tuple[list[State], list[tuple[Array, Array]]]:
    """The cotangents of the states before a chunk, and those of both products at each step."""
    passed: list[list[State]] = [[] for _ in pairs]
    for t in reversed(range(plan.tiles.steps)):
        for k, p in enumerate(pairs):
            d_new = ds[k][0] + given[k][:, t], *ds[k][1:]
            passed[k].insert(0, d_new)
            taken, held = jax.tree.map(lambda a, t=t: a[:, t], factors[k])
            _, d_zh, d_read = plan.kind.pull(taken, held, d_new)
            d_h = product(_side_by_side(d_zh), w_h[k], d_zh.dtype)
            if p.starts is not None:
                d_h = jnp.where(p.starts[:, t, None], 0, d_h)
            # XLA copies cheap chains into every consumer, here all later steps; it copies no
            # division.
            d_state = [jnp.zeros_like(d_h) if d is None else d / one for d in d_read]
            ds[k] = d_h + d_state[0], *d_state[1:]
    d_zs = []
    for steps, factor in zip(passed, factors, strict=True):
        d_new = tuple(jnp.stack(d, axis=1) for d in zip(*steps, strict=True))
        d_zx, d_zh, _ = plan.kind.pull(*factor, d_new)
        d_zs.append((_side_by_side(d_zx), _side_by_side(d_zh)))
    return ds, d_zs


def _side_by_side(d: Array) -> Array:
    return d.reshape(*d.shape[:-2], -1)


def _share(weights: Weights, x: Array, h: Array, d_zx: Array, d_zh: Array) -> Weights:
    """A chunk's share of the weights' gradients, one product each."""

    def flat(a: Array) -> Array:
        return a.reshape(-1, a.shape[-1])

    def outer(inputs: Array, d: Array) -> Array:
        return product(
            flat(inputs).T.astype(weights.w_x.dtype), flat(d).astype(weights.w_x.dtype), d.dtype
        )

    d_b = flat(d_zx).sum(axis=0), None if weights.b_h is None else flat(d_zh).sum(axis=0)
    return Weights(outer(x, d_zx), outer(h, d_zh), *d_b)


def _add(plan: Plan, rows: Rows, total: Weights, share: Weights, pair: Pair) -> Weights:
    def add(into: Array, new: Array, old: Array) -> Array:
        if plan.members == 1:
            return into + new
        each = len(rows.lengths) // plan.tiles.rows // plan.members
        return put(into, (old + new)[None], pair.tile // each)

    return jax.tree.map(add, total, share, member(plan, total, rows, pair))
