"""The backward of `"tiled"`: the same rounds, from the last to the first.

The gates of a chunk are read if they were kept, else recomputed with one product per matrix.
Then the steps are pulled back one by one, and the chunk adds to each weight's gradient with one
product.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array, Steps
from jaxmask.recurrent._engine.buffers import Layout, lookup, read_block, states_begin, write_block
from jaxmask.recurrent._engine.forward import (
    gates_of,
    keeps_gates,
    member_of,
    of_member,
    side_by_side,
    starts_at,
)
from jaxmask.recurrent._engine.kinds import (
    Kind,
    State,
    Weights,
    fed,
    flat_gates,
    join,
    product,
    reset,
    zeros,
)
from jaxmask.recurrent._engine.scheduling import Round, Rounds, gather, round_at, scratch_for


def backward(
    kind: Kind,
    layout: Layout,
    rounds: Rounds,
    x: Steps,
    weights: Weights,
    carry: State,
    kept: State,
    d_ends: State,
    d_h: Array,
) -> tuple[Array, Weights, State]:
    """Cotangents of `x [unit, step, at least feature]`, of each member's weights, and of the carry.

    Those of `x` take the place of the kept states, which nothing reads once their round is done: a
    buffer of their own would have to be filled with zeros, most of which nothing would read.

    `kept` is what `forward` returns. `d_ends` are the cotangents of the last states, each
    `[row, hidden]`, and `d_h [row, time, hidden]` those of `h` after each step, in place. Those of
    the weights are added up in the dtype of the state.
    """
    hidden, dtype = carry[0].shape[1], carry[0].dtype
    in_place = keeps_gates(layout, 0) and x.shape[2] <= kept[0].shape[2]
    # Transposed once: a transposed product in the loop is slow.
    transposed = weights._replace(w_x=weights.w_x.mT, w_h=weights.w_h.mT)
    # XLA duplicates a cheap chain of arithmetic in each of its consumers, here in all later steps.
    # It does not duplicate a division, and cannot know that this is 1.
    one = (1 + rounds.zero).astype(dtype)

    def loop(index: int, done: Any) -> Any:
        def body(i: Array, loop: Any) -> Any:
            (d_x, total, d_carry), d, (of_x, of_d_h) = loop
            states = (d_x,) if in_place else kept
            now = round_at(rounds, layout, index, rounds.counts[index] - 1 - i)
            own, own_transposed = (of_member(layout, w, now) for w in (weights, transposed))
            inputs, of_x = gather(rounds, now, x, of_x)
            d_read, of_d_h = gather(rounds, now, d_h, of_d_h)
            before, after = _around(layout, carry, states, now)
            z = _gates(kind, layout, rounds, index, own, inputs, before[0], states, now)
            factors = kind.factors(z, before, after)
            given = tuple(g / one for g in _given(d_read, d_ends, now))
            d = tuple(jnp.where(now.goes_on[:, None], a, 0) for a in d)
            d, d_zs = _steps_back(kind, layout, now, factors, given, d, own_transposed.w_h, one)
            begin = states_begin(layout, member_of(layout, now), now.begin)
            d_inputs = product(fed(d_zs[0], own.w_x), own_transposed.w_x, dtype)
            d_x = write_block(d_x, d_inputs, begin)
            d_carry = _first_of_rows(layout, rounds, d_carry, d, now)
            total = _add(layout, total, _of_chunk(own, inputs, before[0], *d_zs), now)
            return (d_x, total, d_carry), d, (of_x, of_d_h)

        d = tuple(zeros(x, (layout.slots[index], hidden), dtype) for _ in carry)
        scratch = tuple(scratch_for(a, layout, index) for a in (x, d_h))
        return jax.lax.fori_loop(0, rounds.counts[index], body, (done, d, scratch))[0]

    units = layout.members * layout.units
    done = (
        kept[0] if in_place else zeros(x, (units, layout.steps, x.shape[2]), dtype),
        jax.tree.map(lambda w: zeros(x, (layout.members, *w.shape[1:]), dtype), weights),
        d_ends,
    )
    for index in range(len(layout.slots)):
        done = loop(index, done)
    return done


def _given(d_read: Array, d_ends: State, now: Round) -> State:
    """The cotangents of the states after each step that do not come through the next step.

    Past the end of a row they are 0, so that all cotangents are 0 there and no factor needs a mask.
    """

    def at_the_end(d_end: Array) -> Array:
        return jnp.where(now.ends[..., None], lookup(d_end, now.row)[:, None], 0)

    last = tuple(map(at_the_end, d_ends))
    return d_read.astype(last[0].dtype) + last[0], *last[1:]


def _around(layout: Layout, carry: State, kept: State, now: Round) -> tuple[State, State]:
    """The states before each step of a chunk, and those after it."""
    slots = len(now.row)
    begin = states_begin(layout, member_of(layout, now), now.begin)

    def shifted(first: Array, kept: Array, after: Array) -> Array:
        # The previous chunk is in the previous round; a row's first chunk ignores what is read.
        before = read_block(kept, begin - jnp.uint32(slots), slots)[:, -1:]
        before = jnp.where(now.is_first[:, None, None], lookup(first, now.row)[:, None], before)
        before = jnp.concatenate([before, after[:, :-1]], axis=1)
        return before if now.starts is None else jnp.where(now.starts[..., None], 0, before)

    def split(state: State) -> State:
        return tuple(jnp.split(state[0], len(carry), axis=-1)) if layout.gates else state

    after = tuple(read_block(k, begin, slots) for k in kept)
    before = map(shifted, side_by_side(layout, carry), kept, after)
    return split(tuple(before)), split(after)


def _gates(
    kind: Kind,
    layout: Layout,
    rounds: Rounds,
    index: int,
    own: Weights,
    x: Array,
    h: Array,
    kept: State,
    now: Round,
) -> Array:
    """The gates of a chunk's steps, as kept or recomputed."""
    dtype = kept[0].dtype
    # Flat, as the products for the weights' gradients take them, or XLA makes both twice.
    flat_x, flat_h = (a.reshape(-1, a.shape[-1]) for a in (x, h))

    def recompute() -> Array:
        z = join(kind, own, product(flat_x, own.w_x, dtype), flat_h)
        return z.reshape(*h.shape[:2], -1)

    if not keeps_gates(layout, index):
        return recompute()

    def read() -> Array:
        begin, _ = gates_of(layout, now, rounds)  # in here: not worth a separate kernel
        gates = read_block(kept[0], begin, len(now.row) * layout.gates)
        return gates.reshape(*h.shape[:2], -1)

    _, stay = gates_of(layout, now, rounds)
    return jax.lax.cond(stay, read, recompute)


def _first_of_rows(layout: Layout, rounds: Rounds, d_carry: State, d: State, now: Round) -> State:
    """Write the cotangents of the states before each row's first chunk to that row."""
    member, slots = member_of(layout, now), len(now.row)
    rows = rounds.first.shape[1]
    begin = (now.begin - member * layout.states).astype(jnp.int32)
    slot = read_block(rounds.first, member, 1)[0] - begin
    here = (slot >= 0) & (slot < slots)

    def add(into: Array, new: Array) -> Array:
        old = read_block(into, member * rows, rows)
        new = jnp.where(here[:, None], lookup(new, jnp.where(here, slot, 0)), old)
        return new if layout.members == 1 else write_block(into, new, member * rows)

    return tuple(add(*pair) for pair in zip(d_carry, d, strict=True))


def _steps_back(
    kind: Kind,
    layout: Layout,
    now: Round,
    factors: tuple[State, State],
    given: State,
    d: State,
    w_h: Array,
    one: Array,
) -> tuple[State, tuple[Array, Array]]:
    """The cotangents of the states before a chunk, and those of both products at each step."""
    passed: list[tuple[Array, Array]] = []
    for step in reversed(range(layout.steps)):
        d_new = tuple(a + g[:, step] for a, g in zip(d, given, strict=True))
        own = jax.tree.map(lambda a, step=step: a[:, step], factors)
        d, d_zs = _step_back(kind, w_h, one, own, d_new)
        passed.insert(0, d_zs)
        d = reset(starts_at(now, step), d)
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


def _of_chunk(own: Weights, x: Array, h: Array, d_zx: Array, d_zh: Array) -> Weights:
    """What the steps of a chunk add to the weights' gradients; `h` is what each step read."""

    def flat(a: Array) -> Array:
        return a.reshape(-1, a.shape[-1])

    def outer(inputs: Array, d: Array) -> Array:
        compute = own.w_x.dtype
        return product(flat(inputs).T.astype(compute), flat(d).astype(compute), d.dtype)

    d_b = flat(d_zx).sum(axis=0), None if own.b_h is None else flat(d_zh).sum(axis=0)
    return Weights(outer(x, fed(d_zx, own.w_x)), outer(h, d_zh), *d_b)


def _add(layout: Layout, total: Weights, new: Weights, now: Round) -> Weights:
    def add(into: Array, new: Array, old: Array) -> Array:
        if layout.members == 1:
            return into + new[None]
        return write_block(into, (old + new)[None], member_of(layout, now))

    return jax.tree.map(add, total, new, of_member(layout, total, now))
