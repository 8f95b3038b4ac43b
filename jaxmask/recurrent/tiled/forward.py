"""The engine's forward: one loop over the rounds that hold a real step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxmask._types import Array
from jaxmask.recurrent.tiled.kinds import Kind, State
from jaxmask.recurrent.tiled.schedule import (
    Rows,
    Schedule,
    Tiles,
    Turn,
    at,
    block,
    gather,
    put,
    take,
)


class Plan(NamedTuple):
    """What is static: the recurrence, the sizes, and how many members there are.

    A member is a set of rows that may have weights of its own; members' rows follow one another.
    """

    kind: Kind
    tiles: Tiles
    members: int = 1


class Weights(NamedTuple):
    """Matrices in the dtype to multiply in, biases in that of the state; one member serves all."""

    w_x: Float[Array, "member feature gates"]
    w_h: Float[Array, "member hidden gates"]
    b_x: Float[Array, "member gates"]
    b_h: Float[Array, "member gates"] | None


def member(plan: Plan, arrays: Any, turn: Turn, rounds: int) -> Any:
    """The weights that a turn's rows are multiplied by.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.kinds import LSTM
      >>> from jaxmask.recurrent.tiled.schedule import deal, rows_of, schedule
      >>> plan, rows = Plan(LSTM, Tiles(rows=1, steps=1, lanes=1), 2), rows_of(jnp.ones((2, 1, 1)))
      >>> line = schedule(deal(rows.lengths[:, None], plan.tiles, 1))
      >>> turn = take(line, jnp.array(1), plan.tiles, rows)[0]
      >>> member(plan, jnp.array([[3.0], [4.0]]), turn, 2).tolist()
      [4.0]
    """
    shared = jax.tree.leaves(arrays)[0].shape[0] == 1
    place = (turn.round // (rounds // plan.members),)
    return jax.tree.map(lambda w: w[0] if shared else block(w, place, (1,))[0], arrays)


def product(a: Array, w: Array, state: Any) -> Array:
    """Multiply in the dtype of `w`, add up in that of the state.

    Example:
      >>> import jax.numpy as jnp
      >>> product(jnp.ones((1, 2)), jnp.ones((2, 1), jnp.bfloat16), jnp.float32).dtype
      dtype('float32')
    """
    return jnp.matmul(a.astype(w.dtype), w, preferred_element_type=state)


def products(
    inputs: list[Array], matrices: list[Array], *, shared: bool, state: Any
) -> list[Array]:
    """A product for each lane: one for all where they share the matrix, which is faster.

    Example:
      >>> import jax.numpy as jnp
      >>> w = jnp.full((1, 1), 2.0)
      >>> lanes = [jnp.ones((1, 1)), jnp.zeros((1, 1))]
      >>> [z.tolist() for z in products(lanes, [w, w], shared=True, state=jnp.float32)]
      [[[2.0]], [[0.0]]]
    """
    if not shared:
        return [product(a, w, state) for a, w in zip(inputs, matrices, strict=True)]
    return jnp.split(product(jnp.concatenate(inputs), matrices[0], state), len(inputs))


def with_bias(z: Array, b: Array | None) -> Array:
    """Add a bias where there is one.

    Example:
      >>> with_bias(jnp.ones(2), None).tolist()
      [1.0, 1.0]
    """
    return z if b is None else z + b


def update(kind: Kind, own: Weights, z_x: Array, state: State) -> State:
    """The state after a step, from `x @ w_x`; the weights are those of one member.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.kinds import SIMPLE
      >>> own = Weights(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.ones(1), None)
      >>> update(SIMPLE["relu"], own, jnp.array([[2.0]]), (jnp.array([[3.0]]),))[0].tolist()
      [[6.0]]
    """
    z_h = with_bias(product(state[0], own.w_h, state[0].dtype), own.b_h)
    return kind.update(z_x + own.b_x, z_h, state)


def zeros(like: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros that vary over the axes of a `shard_map` that an array varies over.

    Example:
      >>> import jax.numpy as jnp
      >>> zeros(jnp.ones(3), (2,), jnp.float32).tolist()
      [0.0, 0.0]
    """
    return jnp.zeros_like(like, shape=shape, dtype=dtype)


def choose(condition: Array, on_true: State, on_false: State) -> State:
    """A select over a state.

    Example:
      >>> import jax.numpy as jnp
      >>> [a.tolist() for a in choose(jnp.array(True), (jnp.ones(2),), (jnp.zeros(2),))]
      [[1.0, 1.0]]
    """
    return tuple(jnp.where(condition, a, b) for a, b in zip(on_true, on_false, strict=True))


def anew(turn: Turn, t: int, state: State) -> State:
    """The state before a step: zeros where a segment or an episode begins.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.schedule import deal, rows_of, schedule
      >>> tiles = Tiles(rows=1, steps=1, lanes=1)
      >>> rows = rows_of(jnp.ones((1, 1, 1)))._replace(starts=jnp.array([[True]]))
      >>> turn = take(schedule(deal(rows.lengths[None], tiles, 1)), jnp.array(0), tiles, rows)[0]
      >>> anew(turn, 0, (jnp.ones((1, 1)),))[0].tolist()
      [[0.0]]
    """
    if turn.starts is None:
        return state
    return choose(turn.starts[:, t, None], tuple(jnp.zeros_like(s) for s in state), state)


def forward(
    plan: Plan, line: Schedule, rows: Rows, weights: Weights, carry: State
) -> tuple[Float[Array, "round slot step hidden"], ...]:
    """The states after each step, where the round that takes it keeps them.

    Args:
      plan: what is static.
      line: the schedule of the rows.
      rows: the inputs; as many rows for each member.
      weights: see `Weights`.
      carry: the first states, each `[row, hidden]`.

    Returns:
      The states. What stands past the end of a row is finite.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.kinds import SIMPLE
      >>> from jaxmask.recurrent.tiled.schedule import deal, rows_of, schedule
      >>> weights = Weights(jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1)), jnp.zeros((1, 1)), None)
      >>> plan, rows = Plan(SIMPLE["relu"], Tiles(1, 2, 1)), rows_of(jnp.ones((1, 2, 1)))
      >>> line = schedule(deal(rows.lengths[None], plan.tiles, 1))
      >>> forward(plan, line, rows, weights, (jnp.zeros((1, 1)),))[0][0, 0, :, 0].tolist()
      [1.0, 2.0]
    """
    tiles, hidden, dtype = plan.tiles, carry[0].shape[1], carry[0].dtype

    def body(i: Array, loop: Any) -> Any:
        kept, states = loop
        turns = take(line, i, tiles, rows)
        states = [
            choose(t.is_first[:, None], tuple(at(a, t.row) for a in carry), s)
            for t, s in zip(turns, states, strict=True)
        ]
        states, passed = _chunk(plan, line, rows, weights, turns, states)
        for turn, chunk in zip(turns, passed, strict=True):
            kept = tuple(
                put(k, a[None], turn.round, turn.slot) for k, a in zip(kept, chunk, strict=True)
            )
        return kept, states

    state = tuple(zeros(rows.x, (tiles.rows, hidden), dtype) for _ in carry)
    kept = tuple(zeros(rows.x, (*line.queues.row.shape, tiles.steps, hidden), dtype) for _ in carry)
    return jax.lax.fori_loop(0, line.number, body, (kept, [state] * tiles.lanes))[0]


def _chunk(
    plan: Plan,
    line: Schedule,
    rows: Rows,
    weights: Weights,
    turns: list[Turn],
    states: list[State],
) -> tuple[list[State], list[State]]:
    """The states after a chunk of each lane, and those after each of its steps."""
    dtype = states[0][0].dtype
    own = [member(plan, weights, t, len(line.queues.row)) for t in turns]
    z_x = products(
        [gather(rows.x, t) for t in turns],
        [w.w_x for w in own],
        shared=plan.members == 1,
        state=dtype,
    )
    passed: list[list[State]] = [[] for _ in turns]
    for step in range(plan.tiles.steps):  # written out, and by turns: the lanes overlap
        for k, (turn, w) in enumerate(zip(turns, own, strict=True)):
            state = anew(turn, step, states[k])
            new = update(plan.kind, w, z_x[k][:, step], state)
            # Past its end a row goes on with zeros: finite, and nobody reads it.
            states[k] = new if plan.kind.bounded else choose(turn.real[:, step, None], new, state)
            passed[k].append(states[k])
    return states, [
        tuple(jnp.stack(steps, axis=1) for steps in zip(*lane, strict=True)) for lane in passed
    ]
