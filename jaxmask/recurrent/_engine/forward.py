"""The engine's forward: a loop over the rounds that hold a real step.

There is a loop for each number of slots that may be chosen; those not chosen take no turn.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxmask._types import Array, Steps
from jaxmask.recurrent._cells import with_bias
from jaxmask.recurrent._choice import Choice
from jaxmask.recurrent._engine.kinds import Kind, State
from jaxmask.recurrent._engine.room import Room, at_gates, at_states
from jaxmask.recurrent._engine.schedule import Schedule, Turn, at, block, gather, put, take


class Plan(NamedTuple):
    """What is static: the recurrence, the sizes, and how many members there are.

    A member is a set of rows that may have weights of its own; members' rows follow one another.
    """

    kind: Kind
    choice: Choice
    room: Room
    members: int = 1


class Weights(NamedTuple):
    """Matrices in the dtype to multiply in, biases in that of the state; one member serves all."""

    w_x: Float[Array, "member feature gates"]
    w_h: Float[Array, "member hidden gates"]
    b_x: Float[Array, "member gates"]
    b_h: Float[Array, "member gates"] | None


def member(plan: Plan, arrays: Any, turn: Turn) -> Any:
    """The weights that a turn's rows are multiplied by."""
    shared = jax.tree.leaves(arrays)[0].shape[0] == 1
    place = number(plan, turn)
    return jax.tree.map(lambda w: w[0] if shared else block(w, place, 1)[0], arrays)


def number(plan: Plan, turn: Turn) -> Array:
    """Which member a turn's rows are of."""
    if plan.members == 1:
        return jnp.zeros_like(turn.begin)
    return turn.begin // jnp.uint32(plan.room.states)


def product(a: Array, w: Array, state: Any) -> Array:
    """Multiply in the dtype of `w`, add up in that of the state."""
    # Two axes, whatever `a` has: XLA makes `a` once for each form that products want.
    flat = a.reshape(-1, a.shape[-1]).astype(w.dtype)
    return jnp.matmul(flat, w, preferred_element_type=state).reshape(*a.shape[:-1], w.shape[-1])


def join(kind: Kind, own: Weights, z_x: Array, h: Array) -> Array:
    """What a step reads of both products, from `x @ w_x` and `h`; the weights are of one member."""
    return kind.join(with_bias(z_x, own.b_x), with_bias(product(h, own.w_h, h.dtype), own.b_h))


def zeros(like: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros that vary over the axes of a `shard_map` that an array varies over."""
    return jnp.zeros_like(like, shape=shape, dtype=dtype)


def choose(condition: Array, on_true: State, on_false: State) -> State:
    """A select over a state."""
    return tuple(jnp.where(condition, a, b) for a, b in zip(on_true, on_false, strict=True))


def anew(turn: Turn, t: int, state: State) -> State:
    """The state before a step: zeros where a segment or an episode begins."""
    if turn.starts is None:
        return state
    return choose(turn.starts[:, t, None], tuple(jnp.zeros_like(s) for s in state), state)


def side_by_side(room: Room, state: State) -> tuple[Array, ...]:
    """A state as it is kept: in one array if gates stand behind, or XLA drops what nobody reads."""
    return (jnp.concatenate(state, axis=-1),) if room.gates else state


def keeps_gates(plan: Plan, index: int) -> bool:
    """Whether the gates of rounds with this number of slots are kept where there is room.

    Not those of the largest, which is chosen where next to no room is left.
    """
    return plan.room.gates > 0 and index < len(plan.choice.slots) - 1


def gates_of(plan: Plan, turn: Turn, line: Schedule) -> tuple[Array, Array]:
    """Where a round's gates begin in the room of all members, and whether they stay there."""
    place = number(plan, turn)
    return at_gates(plan.room, place, turn.begin, len(turn.row), at(line.used, place))


def forward(
    plan: Plan, line: Schedule, x: Steps, weights: Weights, carry: State
) -> tuple[Float[Array, "unit step states"], ...]:
    """The states after each step, in the unit that takes it, and gates behind them.

    Args:
      plan: what is static.
      line: the schedule of the rows.
      x: `[row, time, feature]`; as many rows for each member.
      weights: see `Weights`.
      carry: the first states, each `[row, hidden]`.

    Returns:
      What is kept, see `Room` and `side_by_side`. What stands past the end of a row is finite.
    """
    choice, hidden, dtype = plan.choice, carry[0].shape[1], carry[0].dtype

    def loop(index: int, kept: State) -> State:
        def body(i: Array, loop: tuple[State, State]) -> tuple[State, State]:
            kept, state = loop
            turn = take(line, choice, index, i)
            state = choose(turn.is_first[:, None], tuple(at(a, turn.row) for a in carry), state)
            own = member(plan, weights, turn)
            state, passed, gates = _chunk(plan, own, gather(x, turn), turn, state)
            begin = at_states(plan.room, number(plan, turn), turn.begin)
            kept = tuple(put(k, a, begin) for k, a in zip(kept, passed, strict=True))
            if keeps_gates(plan, index):
                gates = gates.reshape(-1, *kept[0].shape[1:])
                kept = (put(kept[0], gates, gates_of(plan, turn, line)[0]),)
            return kept, state

        state = tuple(zeros(x, (choice.slots[index], hidden), dtype) for _ in carry)
        return jax.lax.fori_loop(0, line.numbers[index], body, (kept, state))[0]

    units = plan.members * plan.room.all
    kept = tuple(
        zeros(x, (units, choice.steps, a.shape[1]), dtype) for a in side_by_side(plan.room, carry)
    )
    for index in range(len(choice.slots)):
        kept = loop(index, kept)
    return kept


def _chunk(
    plan: Plan, own: Weights, x: Array, turn: Turn, state: State
) -> tuple[State, State, Array]:
    """The states after a chunk in each slot, what is kept of each of its steps, and its gates."""
    z_x = product(x, own.w_x, state[0].dtype)
    passed: list[State] = []
    gates: list[Array] = []
    for step in range(plan.choice.steps):  # written out: a loop in the loop is slow
        state = anew(turn, step, state)
        z, new = _step(plan.kind, own, z_x[:, step], state)
        gates.append(z)
        # Past its end a row goes on with zeros: finite, and nobody reads it.
        state = new if plan.kind.bounded else choose(turn.real[:, step, None], new, state)
        passed.append(side_by_side(plan.room, state))
    kept = tuple(jnp.stack(steps, axis=1) for steps in zip(*passed, strict=True))
    return state, kept, jnp.stack(gates, axis=1)


@functools.partial(jax.jit, static_argnums=0, inline=True)  # traced once for all steps
def _step(kind: Kind, own: Weights, z_x: Array, state: State) -> tuple[Array, State]:
    z = join(kind, own, z_x, state[0])
    return z, kind.update(z, state)
