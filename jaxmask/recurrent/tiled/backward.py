"""The engine's backward: the same rounds, walked from the last to the first.

The gates of a chunk are rebuilt with one product, the steps are pulled back one by one, and the
chunk's share of the weights' gradients is taken with one product each.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array, Steps
from jaxmask.recurrent.tiled.forward import (
    Plan,
    Weights,
    anew,
    member,
    number,
    product,
    with_bias,
    zeros,
)
from jaxmask.recurrent.tiled.kinds import State
from jaxmask.recurrent.tiled.schedule import Schedule, Turn, at, block, gather, put, take


def backward(
    plan: Plan,
    line: Schedule,
    x: Steps,
    weights: Weights,
    carry: State,
    kept: State,
    d_ends: State,
    d_h: Array,
) -> tuple[Array, Weights, State]:
    """Cotangents of `x`, of each member's weights and of the states before each chunk.

    Args:
      plan: what is static.
      line: the schedule of the rows.
      x: `[row, time, feature]`.
      weights: see `Weights`.
      carry: the first states, each `[row, hidden]`.
      kept: the states after each step, from `forward`.
      d_ends: cotangents of the last states, each `[row, hidden]`.
      d_h: `[row, time, hidden]`, cotangent of `h` after each step, where `x` has the step.

    Returns:
      That of `x`, `[unit, step, feature]`; those of the weights `[member, ...]`, added up in
      the dtype of the state; those of the states `[unit, hidden]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.forward import forward
      >>> from jaxmask.recurrent.tiled.kinds import SIMPLE
      >>> from jaxmask.recurrent.tiled.arrange import arrange, line_up
      >>> from jaxmask.recurrent.tiled.schedule import Tiles
      >>> plan = Plan(SIMPLE["relu"], Tiles((1,), 2))
      >>> weights = Weights(jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1)), jnp.zeros((1, 1)), None)
      >>> line = line_up(plan.tiles, arrange(plan.tiles, jnp.ones((1, 1, 2), bool)))
      >>> x, carry = jnp.ones((1, 2, 1)), (jnp.zeros((1, 1)),)
      >>> options = plan, line, x, weights, carry
      >>> d_x, _, _ = backward(*options, forward(*options), carry, jnp.ones((1, 2, 1)))
      >>> d_x[0, :, 0].tolist()
      [2.0, 1.0]
    """
    tiles, units, hidden, dtype = plan.tiles, len(line.units.row), carry[0].shape[1], carry[0].dtype
    # Transposed once: a transposed product in the loop is slow.
    turned = weights._replace(w_x=weights.w_x.mT, w_h=weights.w_h.mT)
    # XLA copies a cheap chain of arithmetic into each of its consumers, here into all later steps;
    # it copies no division, and does not know that this is 1.
    one = jnp.where(line.numbers[0] >= 0, 1, 2).astype(dtype)

    def loop(index: int, done: Any) -> Any:
        def body(i: Array, loop: Any) -> Any:
            (d_x, total, firsts), d = loop
            turn = take(line, tiles, index, line.numbers[index] - 1 - i)
            own, own_turned = (member(plan, w, turn, line) for w in (weights, turned))
            inputs, before = gather(x, turn), _before(carry, kept, turn)
            factors = _rebuild(plan, own, turn, inputs, before, kept)
            given = tuple(g / one for g in _given(d_h, d_ends, turn))
            d = tuple(jnp.where(turn.goes_on[:, None], a, 0) for a in d)
            d, d_zs = _steps_back(plan, turn, factors, given, d, own_turned.w_h, one)
            d_x = put(d_x, product(d_zs[0], own_turned.w_x, dtype), turn.begin)
            firsts = tuple(put(f, a, turn.begin) for f, a in zip(firsts, d, strict=True))
            total = _add(plan, line, total, share(own, inputs, before[0], *d_zs), turn)
            return (d_x, total, firsts), d

        d = tuple(zeros(x, (tiles.slots[index], hidden), dtype) for _ in carry)
        return jax.lax.fori_loop(0, line.numbers[index], body, (done, d))[0]

    done = (
        zeros(x, (units, tiles.steps, x.shape[2]), dtype),
        jax.tree.map(lambda w: zeros(x, (plan.members, *w.shape[1:]), dtype), weights),
        tuple(zeros(x, (units, hidden), dtype) for _ in carry),
    )
    for index in range(len(tiles.slots)):
        done = loop(index, done)
    return done


def _given(d_h: Array, d_ends: State, turn: Turn) -> State:
    """The cotangents of the states after each step that do not come through the next step.

    Behind the end of a row they are 0, so that all is 0 there: no factor needs a mask.
    """

    def at_the_end(d_end: Array) -> Array:
        return jnp.where(turn.ends[..., None], at(d_end, turn.row)[:, None], 0)

    last = tuple(map(at_the_end, d_ends))
    return gather(d_h, turn).astype(last[0].dtype) + last[0], *last[1:]


def _before(carry: State, kept: State, turn: Turn) -> State:
    """The states before each step of a chunk."""
    slots = len(turn.row)

    def shifted(first: Array, after: Array) -> Array:
        # The round before has the chunk before; where there is none the index may be anywhere.
        before = block(after, turn.begin - jnp.uint32(slots), slots)[:, -1:]
        before = jnp.where(turn.is_first[:, None, None], at(first, turn.row)[:, None], before)
        inside = block(after, turn.begin, slots)[:, :-1]
        before = jnp.concatenate([before, inside], axis=1)
        return before if turn.starts is None else jnp.where(turn.starts[..., None], 0, before)

    return tuple(map(shifted, carry, kept))


def _rebuild(
    plan: Plan, own: Weights, turn: Turn, x: Array, before: State, kept: State
) -> tuple[State, State]:
    """What pulls a cotangent back through each step of a chunk."""
    dtype = kept[0].dtype
    z_x = product(x, own.w_x, dtype) + own.b_x
    z_h = with_bias(product(before[0], own.w_h, dtype), own.b_h)
    after = tuple(block(k, turn.begin, len(turn.row)) for k in kept)
    return plan.kind.factors(z_x, z_h, before, after)


def _steps_back(
    plan: Plan,
    turn: Turn,
    factors: tuple[State, State],
    given: State,
    d: State,
    w_h: Array,
    one: Array,
) -> tuple[State, tuple[Array, Array]]:
    """The cotangents of the states before a chunk, and those of both products at each step."""
    passed: list[tuple[Array, Array]] = []
    for step in reversed(range(plan.tiles.steps)):
        d_new = tuple(a + g[:, step] for a, g in zip(d, given, strict=True))
        taken, held = jax.tree.map(lambda a, step=step: a[:, step], factors)
        d_zx, d_zh, d_read = plan.kind.pull(taken, held, d_new)
        d_zx, d_zh = side_by_side(d_zx) / one, side_by_side(d_zh) / one
        passed.insert(0, (d_zx, d_zh))
        d_h = product(d_zh, w_h, d_zh.dtype)
        d_state = [jnp.zeros_like(d_h) if a is None else a / one for a in d_read]
        d = anew(turn, step, (d_h + d_state[0], *d_state[1:]))
    d_zxs, d_zhs = (jnp.stack(steps, axis=1) for steps in zip(*passed, strict=True))
    return d, (d_zxs, d_zhs)


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
        return put(into, (old + new)[None], number(plan, turn, line))

    return jax.tree.map(add, total, share, member(plan, total, turn, line))
