"""A scan whose state and weights stay on the chip, as a Pallas kernel for TPUs.

    grid        rows in tiles, and for each of them time in chunks, one after the other
    in VMEM     the weights, the state of a tile's rows, and one chunk of what goes in and out

Between steps nothing goes to the memory of the device, where a `lax.scan` reads the weights and
moves the state at every step. A chunk in which a tile has nothing to do is not computed.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxmask._types import Array, PyTree, StepMask
from jaxmask.recurrent._engine.forward import zeros
from jaxmask.recurrent._engine.kinds import State

ROOM = 8 * 2**20  # bytes of VMEM for what goes in and out, which is there twice


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
    """A `lax.scan` of rows that do not depend on one another.

    On a TPU a kernel; elsewhere the same kernel is interpreted, which is right and slow.

    Args:
      step: `(weights, state, inputs) -> (state, outputs)`: arithmetic, and products with weights.
      weights: each `[a, b]`.
      carry: the first state, each `[batch, hidden]`.
      inputs: each `[time, batch, n]`.
      needed: `[time, batch]`. A chunk that no row of a tile needs leaves the state and gives zeros.
        Time is filled up with steps that are not needed, and all inputs 0 or False: `step` must
        leave the state then.
      rows: of a tile, at most.
      steps: of a chunk.
      reverse: from the last step to the first.

    Returns:
      The last state, and what came out of the steps, each `[time, batch, n]`.
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
        # In a `shard_map` what comes out varies as what goes in.
        return jax.eval_shape(lambda: zeros(needed, (*leading, like.shape[-1]), like.dtype))

    def whole(a: Any) -> pl.BlockSpec:
        return pl.BlockSpec(a.shape, lambda tile, chunk: (0,) * a.ndim)

    def of_rows(a: Any) -> pl.BlockSpec:
        return pl.BlockSpec((rows, *a.shape[1:]), lambda tile, chunk: (tile, 0))

    def of_steps(a: Any) -> pl.BlockSpec:
        def place(tile: Any, chunk: Any) -> tuple[Any, ...]:
            return chunks - 1 - chunk if reverse else chunk, tile, 0

        return pl.BlockSpec((steps, rows, a.shape[-1]), place)

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
    """The rows of a tile: as many as have room, in eights, as the chip has them."""
    widths = (-(-a.shape[-1] // 128) * 128 for a in jax.tree.leaves(streams))
    fit = ROOM // (2 * 4 * steps * sum(widths))
    return min(most, max(8, fit // 8 * 8))


def _fill_up(a: Array, *sizes: int) -> Array:
    """Whole tiles and chunks; what is boolean becomes numbers, which a tile can hold."""
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
            jax.tree.map(functools.partial(_put, t), outputs, out)
        jax.tree.map(functools.partial(_put, ...), states, state)

    @pl.when(~is_needed)
    def _() -> None:
        jax.tree.map(lambda ref: _put(..., ref, jnp.zeros(ref.shape, ref.dtype)), outputs)

    _write(ends, states)


def _write(into: PyTree, refs: PyTree) -> None:
    jax.tree.map(lambda a, b: _put(..., a, b[...]), into, refs)


def _put(place: Any, ref: Any, value: Array) -> None:
    ref[place] = value
