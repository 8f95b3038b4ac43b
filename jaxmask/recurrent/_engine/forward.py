"""The forward of `"tiled"`: a loop over the rounds that hold a real step.

There is one loop for each number of slots; a loop whose number is not chosen runs no iteration.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxmask._types import Array, Steps
from jaxmask.recurrent._engine.buffers import (
    Layout,
    gates_begin,
    lookup,
    read_block,
    states_begin,
    write_block,
)
from jaxmask.recurrent._engine.kinds import (
    Kind,
    State,
    Weights,
    join,
    product,
    reset,
    select,
    zeros,
)
from jaxmask.recurrent._engine.scheduling import Round, Rounds, gather, round_at, scratch_for


def member_of(layout: Layout, now: Round) -> Array:
    """Which member the rows of a round belong to."""
    if layout.members == 1:
        return jnp.zeros_like(now.begin)
    return now.begin // jnp.uint32(layout.states)


def of_member(layout: Layout, arrays: Any, now: Round) -> Any:
    """The arrays of the member whose rows a round runs, from those of all members or the one."""
    shared = jax.tree.leaves(arrays)[0].shape[0] == 1
    member = member_of(layout, now)
    return jax.tree.map(lambda w: w[0] if shared else read_block(w, member, 1)[0], arrays)


def side_by_side(layout: Layout, state: State) -> State:
    """A state as it is kept: one array if gates follow, else several: XLA drops the unread ones."""
    return (jnp.concatenate(state, axis=-1),) if layout.gates else state


def keeps_gates(layout: Layout, index: int) -> bool:
    """Whether rounds with this number of slots keep their gates where they fit.

    Rounds with the most slots do not: these are chosen where almost no space is left.
    """
    return layout.gates > 0 and index < len(layout.slots) - 1


def gates_of(layout: Layout, now: Round, rounds: Rounds) -> tuple[Array, Array]:
    """Where a round's gates begin in the buffer of all members, and whether they stay there."""
    member = member_of(layout, now)
    used = lookup(rounds.used, member)
    return gates_begin(layout, member, now.begin, len(now.row), used)


def forward(
    kind: Kind, layout: Layout, rounds: Rounds, x: Steps, weights: Weights, carry: State
) -> tuple[Float[Array, "unit step states"], ...]:
    """The states after each step, stored in the step's unit, and gates behind them.

    `x [row, time, feature]` and the carry, each `[row, hidden]`, have the rows of all members, the
    same number of each. Values past the end of a row are finite.
    """
    hidden, dtype = carry[0].shape[1], carry[0].dtype

    def loop(index: int, kept: State) -> State:
        def body(number: Array, loop: tuple[State, State, Array]) -> tuple[State, State, Array]:
            kept, state, scratch = loop
            now = round_at(rounds, layout, index, number)
            state = select(now.is_first[:, None], tuple(lookup(a, now.row) for a in carry), state)
            own = of_member(layout, weights, now)
            inputs, scratch = gather(rounds, now, x, scratch)
            state, passed, gates = _chunk(kind, layout, order, own, inputs, now, state)
            begin = states_begin(layout, member_of(layout, now), now.begin)
            kept = tuple(write_block(k, a, begin) for k, a in zip(kept, passed, strict=True))
            if keeps_gates(layout, index):
                gates = gates.reshape(-1, *kept[0].shape[1:])
                kept = (write_block(kept[0], gates, gates_of(layout, now, rounds)[0]),)
            return kept, state, scratch

        state = tuple(zeros(x, (layout.slots[index], hidden), dtype) for _ in carry)
        done = kept, state, scratch_for(x, layout, index)
        return jax.lax.fori_loop(0, rounds.counts[index], body, done)[0]

    # XLA compiles equal kernels once: all steps for one if they differ in no constant.
    order = [rounds.zero + step for step in range(layout.steps)]
    units = layout.members * layout.units
    kept = tuple(
        zeros(x, (units, layout.steps, a.shape[1]), dtype) for a in side_by_side(layout, carry)
    )
    for index in range(len(layout.slots)):
        kept = loop(index, kept)
    return kept


def _chunk(
    kind: Kind, layout: Layout, order: list[Array], own: Weights, x: Array, now: Round, state: State
) -> tuple[State, State, Array]:
    """The states after a chunk in each slot, what is kept of each of its steps, and its gates."""
    z_x = product(x, own.w_x, state[0].dtype)
    passed: list[State] = []
    gates: list[Array] = []
    for step in order:  # unrolled: a loop in the loop is slow
        state = reset(starts_at(now, step), state)
        z, new = _step(kind, own, at(z_x, step), state)
        gates.append(z)
        # Past the end of a row the steps run on zeros: finite, and nothing reads their results.
        state = new if kind.bounded else select(at(now.real, step)[:, None], new, state)
        passed.append(side_by_side(layout, state))
    kept = tuple(jnp.stack(steps, axis=1) for steps in zip(*passed, strict=True))
    return state, kept, jnp.stack(gates, axis=1)


def at(a: Array, step: Array | int) -> Array:
    """A step of a chunk `[slot, step, ...]`."""
    slots = jnp.arange(len(a), dtype=jnp.uint32)
    return lookup(a.reshape(-1, *a.shape[2:]), slots * a.shape[1] + step)


def starts_at(now: Round, step: Array | int) -> Array | None:
    """In which slots an episode begins at a step, `[slot, 1]`."""
    return None if now.starts is None else at(now.starts, step)[:, None]


@functools.partial(jax.jit, static_argnums=0, inline=True)  # traced once for all steps
def _step(kind: Kind, own: Weights, z_x: Array, state: State) -> tuple[Array, State]:
    z = join(kind, own, z_x, state[0])
    return z, kind.update(z, state)
