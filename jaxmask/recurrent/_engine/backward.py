"""The engine's backward: the same rounds, walked from the last to the first.

The gates of a chunk are read where they were kept, else computed again with one product a matrix.
Then the steps are pulled back one by one, and the chunk's share of the weights' gradients is taken
with one product each.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array, Steps
from jaxmask.recurrent._engine.forward import (
    Plan,
    Weights,
    anew,
    gates_of,
    join,
    keeps_gates,
    member,
    number,
    product,
    side_by_side,
    zeros,
)
from jaxmask.recurrent._engine.kinds import Kind, State
from jaxmask.recurrent._engine.room import at_states
from jaxmask.recurrent._engine.schedule import Schedule, Turn, at, block, gather, put, take


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
    """Cotangents of `x`, of each member's weights and of the carry.

    Args:
      plan: what is static.
      line: the schedule of the rows.
      x: `[row, time, feature]`.
      weights: see `Weights`.
      carry: the first states, each `[row, hidden]`.
      kept: what `forward` returns.
      d_ends: cotangents of the last states, each `[row, hidden]`.
      d_h: `[row, time, hidden]`, cotangent of `h` after each step, where `x` has the step.

    Returns:
      That of `x`, `[unit, step, feature]`; those of the weights `[member, ...]`, added up in
      the dtype of the state; those of the carry, each `[row, hidden]`.
    """
    choice, units, hidden, dtype = (
        plan.choice,
        len(line.units.row),
        carry[0].shape[1],
        carry[0].dtype,
    )
    # Transposed once: a transposed product in the loop is slow.
    turned = weights._replace(w_x=weights.w_x.mT, w_h=weights.w_h.mT)
    # XLA copies a cheap chain of arithmetic into each of its consumers, here into all later steps;
    # it copies no division, and does not know that this is 1.
    one = jnp.where(line.numbers[0] >= 0, 1, 2).astype(dtype)

    def loop(index: int, done: Any) -> Any:
        def body(i: Array, loop: Any) -> Any:
            (d_x, total, d_carry), d = loop
            turn = take(line, choice, index, line.numbers[index] - 1 - i)
            own, own_turned = (member(plan, w, turn) for w in (weights, turned))
            inputs, (before, after) = gather(x, turn), _around(plan, carry, kept, turn)
            z = _gates(plan, line, index, own, inputs, before[0], kept, turn)
            factors = plan.kind.factors(z, before, after)
            given = tuple(g / one for g in _given(d_h, d_ends, turn))
            d = tuple(jnp.where(turn.goes_on[:, None], a, 0) for a in d)
            d, d_zs = _steps_back(plan, turn, factors, given, d, own_turned.w_h, one)
            d_x = put(d_x, product(d_zs[0], own_turned.w_x, dtype), turn.begin)
            d_carry = _first_of_rows(plan, line, d_carry, d, turn)
            total = _add(plan, total, share(own, inputs, before[0], *d_zs), turn)
            return (d_x, total, d_carry), d

        d = tuple(zeros(x, (choice.slots[index], hidden), dtype) for _ in carry)
        return jax.lax.fori_loop(0, line.numbers[index], body, (done, d))[0]

    done = (
        zeros(x, (units, choice.steps, x.shape[2]), dtype),
        jax.tree.map(lambda w: zeros(x, (plan.members, *w.shape[1:]), dtype), weights),
        d_ends,
    )
    for index in range(len(choice.slots)):
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


def _around(plan: Plan, carry: State, kept: State, turn: Turn) -> tuple[State, State]:
    """The states before each step of a chunk, and those after it."""
    slots, place = len(turn.row), number(plan, turn)
    begin = at_states(plan.room, place, turn.begin)

    def shifted(first: Array, kept: Array, after: Array) -> Array:
        # The round before has the chunk before; where there is none the index may be anywhere.
        before = block(kept, begin - jnp.uint32(slots), slots)[:, -1:]
        before = jnp.where(turn.is_first[:, None, None], at(first, turn.row)[:, None], before)
        before = jnp.concatenate([before, after[:, :-1]], axis=1)
        return before if turn.starts is None else jnp.where(turn.starts[..., None], 0, before)

    def apart(state: State) -> State:
        return tuple(jnp.split(state[0], len(carry), axis=-1)) if plan.room.gates else state

    after = tuple(block(k, begin, slots) for k in kept)
    before = map(shifted, side_by_side(plan.room, carry), kept, after)
    return apart(tuple(before)), apart(after)


def _gates(
    plan: Plan,
    line: Schedule,
    index: int,
    own: Weights,
    x: Array,
    h: Array,
    kept: State,
    turn: Turn,
) -> Array:
    """What the steps of a chunk read of their products: as kept, or computed again."""
    kind, dtype = plan.kind, kept[0].dtype
    # Flat, as the products of the weights' gradients take them, or XLA makes both twice.
    flat_x, flat_h = (a.reshape(-1, a.shape[-1]) for a in (x, h))

    def again() -> Array:
        z = join(kind, own, product(flat_x, own.w_x, dtype), flat_h)
        return z.reshape(*h.shape[:2], -1)

    if not keeps_gates(plan, index):
        return again()

    def read() -> Array:
        begin, _ = gates_of(plan, turn, line)  # in here: not worth a kernel of its own
        gates = block(kept[0], begin, len(turn.row) * plan.room.gates)
        return gates.reshape(*h.shape[:2], -1)

    _, stay = gates_of(plan, turn, line)
    return jax.lax.cond(stay, read, again)


def _first_of_rows(plan: Plan, line: Schedule, d_carry: State, d: State, turn: Turn) -> State:
    """Put the cotangents of the states before the first chunks of rows where the rows are."""
    place, slots = number(plan, turn), len(turn.row)
    rows = line.first.shape[1]
    begin = (turn.begin - place * plan.room.states).astype(jnp.int32)
    slot = block(line.first, place, 1)[0] - begin
    here = (slot >= 0) & (slot < slots)

    def add(into: Array, new: Array) -> Array:
        old = block(into, place * rows, rows)
        new = jnp.where(here[:, None], at(new, jnp.where(here, slot, 0)), old)
        return new if plan.members == 1 else put(into, new, place * rows)

    return tuple(add(*pair) for pair in zip(d_carry, d, strict=True))


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
    for step in reversed(range(plan.choice.steps)):
        d_new = tuple(a + g[:, step] for a, g in zip(d, given, strict=True))
        taken = jax.tree.map(lambda a, step=step: a[:, step], factors)
        d, d_zs = _step_back(plan.kind, w_h, one, taken, d_new)
        passed.insert(0, d_zs)
        d = anew(turn, step, d)
    d_zxs, d_zhs = (jnp.stack(steps, axis=1) for steps in zip(*passed, strict=True))
    return d, (d_zxs, d_zhs)


@functools.partial(jax.jit, static_argnums=0, inline=True)  # traced once for all steps
def _step_back(
    kind: Kind, w_h: Array, one: Array, factors: tuple[State, State], d_new: State
) -> tuple[State, tuple[Array, Array]]:
    d_zx, d_zh, d_read = kind.pull(*factors, d_new)
    d_zx, d_zh = flat_gates(d_zx) / one, flat_gates(d_zh) / one
    d_h = product(d_zh, w_h, d_zh.dtype)
    d_state = [jnp.zeros_like(d_h) if a is None else a / one for a in d_read]
    return (d_h + d_state[0], *d_state[1:]), (d_zx, d_zh)


def flat_gates(d: Array) -> Array:
    """Gates side by side, as the products have them."""
    return d.reshape(*d.shape[:-2], -1)


def share(weights: Weights, x: Array, h: Array, d_zx: Array, d_zh: Array) -> Weights:
    """The share that some steps have in the weights' gradients, one product each.

    Args:
      weights: of one member.
      x: `[..., feature]`.
      h: `[..., hidden]`, the state that each step read.
      d_zx: `[..., gates]`, cotangent of `x @ w_x + b_x`.
      d_zh: that of `h @ w_h + b_h`.
    """

    def flat(a: Array) -> Array:
        return a.reshape(-1, a.shape[-1])

    def outer(inputs: Array, d: Array) -> Array:
        compute = weights.w_x.dtype
        return product(flat(inputs).T.astype(compute), flat(d).astype(compute), d.dtype)

    d_b = flat(d_zx).sum(axis=0), None if weights.b_h is None else flat(d_zh).sum(axis=0)
    return Weights(outer(x, d_zx), outer(h, d_zh), *d_b)


def _add(plan: Plan, total: Weights, share: Weights, turn: Turn) -> Weights:
    def add(into: Array, new: Array, old: Array) -> Array:
        if plan.members == 1:
            return into + new[None]
        return put(into, (old + new)[None], number(plan, turn))

    return jax.tree.map(add, total, share, member(plan, total, turn))
