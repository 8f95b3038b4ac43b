"""A scan whose state and weights stay on the chip, as a Pallas kernel for TPUs.

    grid        tiles of rows, and for each of them chunks of time, one after the other
    in VMEM     the weights, the state of a tile's rows, one chunk of inputs and outputs

A `lax.scan` reads the weights from the memory of the device at every step, and its state too; here
nothing leaves the chip between steps. A chunk in which a tile has nothing to do is skipped.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxmask._types import Array, PyTree, StepMask
from jaxmask.recurrent._engine.kinds import State, zeros

STREAMED = 8 * 2**20  # bytes of VMEM for the inputs and outputs, which are double-buffered


def scan(
    step: Callable,
    weights: PyTree,
    carry: State,
    inputs: PyTree,
    needed: StepMask,
    *,
    rows: int,
    steps: int,
    reverse: bool = False,
) -> tuple[State, PyTree]:
    """A `lax.scan` over rows that do not depend on one another.

    A kernel on a TPU; elsewhere the same kernel, interpreted, which is slow.

    Args:
      step: `(weights, state, inputs) -> (state, outputs)`: arithmetic, and products with weights.
      weights: each `[a, b]`.
      carry: the first state, each `[batch, hidden]`.
      inputs: each `[time, batch, n]`.
      needed: `[time, batch]`. A chunk that no row of a tile needs keeps the state and gives zeros.
        Time is padded with steps that are not needed, whose inputs are 0 or False: `step` must not
        change the state there.
      rows: of a tile, at most.
      steps: of a chunk.
      reverse: from the last step to the first.

    Returns:
      The last state, and the outputs of the steps, each `[time, batch, n]`.
    """
    call = functools.partial(_call, step, reverse, rows, steps)
    return jax.lax.platform_dependent(
        weights,
        carry,
        inputs,
        needed,
        tpu=functools.partial(call, interpret=False),
        default=functools.partial(call, interpret=True),
    )


def _call(
    step: Callable,
    reverse: bool,
    most_rows: int,
    steps: int,
    weights: PyTree,
    carry: State,
    inputs: PyTree,
    needed: StepMask,
    *,
    interpret: bool,
) -> tuple[State, PyTree]:
    time, batch = needed.shape
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), inputs)
    _, out = jax.eval_shape(step, weights, carry, one)
    rows = _rows(min(batch, most_rows), steps, (one, needed[0, :, None], out))
    tiles, chunks = -(-batch // rows), -(-time // steps)

    def shape(like: Any, *leading: int) -> jax.ShapeDtypeStruct:
        # In a `shard_map` outputs vary over the axes that the inputs vary over.
        return jax.eval_shape(lambda: zeros(needed, (*leading, like.shape[-1]), like.dtype))

    def whole(a: Any) -> pl.BlockSpec:
        return pl.BlockSpec(a.shape, lambda tile, chunk: (0,) * a.ndim)

    def of_rows(a: Any) -> pl.BlockSpec:
        return pl.BlockSpec((rows, *a.shape[1:]), lambda tile, chunk: (tile, 0))

    def of_steps(a: Any) -> pl.BlockSpec:
        def block_index(tile: Any, chunk: Any) -> tuple[Any, ...]:
            return chunks - 1 - chunk if reverse else chunk, tile, 0

        return pl.BlockSpec((steps, rows, a.shape[-1]), block_index)

    streams = jax.tree.map(
        lambda a: _fill_up(a, chunks * steps, tiles * rows), (inputs, needed[..., None])
    )
    states = jax.tree.map(lambda a: _fill_up(a, tiles * rows), carry)
    out = jax.tree.map(lambda a: shape(a, chunks * steps, tiles * rows), out)
    ends, outputs = pl.pallas_call(
        functools.partial(
            _kernel, step, steps, reverse, jax.tree.map(lambda a: a.dtype == bool, inputs)
        ),
        grid=(tiles, chunks),
        in_specs=(
            jax.tree.map(whole, weights),
            jax.tree.map(of_rows, states),
            jax.tree.map(of_steps, streams),
        ),
        out_specs=(jax.tree.map(of_rows, states), jax.tree.map(of_steps, out)),
        out_shape=(jax.tree.map(lambda a: shape(a, tiles * rows), states), out),
        scratch_shapes=[pltpu.VMEM((rows, a.shape[1]), a.dtype) for a in carry],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
        name="jaxmask_recurrence",
    )(weights, states, streams)
    ends = jax.tree.map(lambda a: a[:batch], ends)
    return ends, jax.tree.map(lambda a: a[:time, :batch], outputs)


def _rows(most: int, steps: int, streams: PyTree) -> int:
    """The rows of a tile: as many as fit, in multiples of eight, the height of a register."""
    widths = (-(-a.shape[-1] // 128) * 128 for a in jax.tree.leaves(streams))
    fit = STREAMED // (2 * 4 * steps * sum(widths))
    return min(most, max(8, fit // 8 * 8))


def _fill_up(a: Array, *sizes: int) -> Array:
    """Pad to whole tiles and chunks; a block cannot hold booleans, so they become numbers."""
    a = a.astype(jnp.float32) if a.dtype == bool else a
    ends = [size - n for size, n in zip(sizes, a.shape, strict=False)]
    return jnp.pad(a, [(0, end) for end in ends] + [(0, 0)] * (a.ndim - len(ends)))


def _kernel(
    step: Callable,
    steps: int,
    reverse: bool,
    boolean: PyTree,
    weights: PyTree,
    carry: PyTree,
    streams: PyTree,
    ends: PyTree,
    outputs: PyTree,
    *states: Any,
) -> None:
    inputs, needed = streams
    is_needed = jnp.max(needed[...]) > 0

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        _write(states, carry)

    @pl.when(is_needed)
    def _() -> None:
        own, state = (jax.tree.map(lambda ref: ref[...], tree) for tree in (weights, states))
        for t in reversed(range(steps)) if reverse else range(steps):
            now = jax.tree.map(lambda ref, b, t=t: ref[t] > 0 if b else ref[t], inputs, boolean)
            state, out = step(own, state, now)
            jax.tree.map(functools.partial(_store, t), outputs, out)
        jax.tree.map(functools.partial(_store, ...), states, state)

    @pl.when(~is_needed)
    def _() -> None:
        jax.tree.map(lambda ref: _store(..., ref, jnp.zeros(ref.shape, ref.dtype)), outputs)

    _write(ends, states)


def _write(into: PyTree, refs: PyTree) -> None:
    jax.tree.map(lambda a, b: _store(..., a, b[...]), into, refs)


def _store(index: Any, ref: Any, value: Array) -> None:
    ref[index] = value
