"""`method="dense"`: a scan over all rows and all steps, and a hand-written backward.

For batches where there is nothing to skip, or skipping gains nothing. Both loops unroll
`Choice.unroll` steps per iteration: one on a CPU, several where launching kernels dominates. The
forward keeps what a step computed, so nothing is computed twice. The gradients of each weight and
of `x` are one product after the loop, where autodiff adds them up step by step. With `"pallas"` the
loop of the forward is a kernel.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array, Steps
from jaxmask.recurrent._cells import with_bias
from jaxmask.recurrent._engine.kinds import (
    Batch,
    Setting,
    State,
    Weights,
    fed,
    flat_gates,
    product,
    reset,
    select,
    with_wide_bias,
)
from jaxmask.recurrent._engine.scheduling import each
from jaxmask.recurrent._scan import time_first

# What the backward needs of each step: the states that it read, `[*member, time, batch, hidden]`,
# and its products, see `Kind.join`.
Kept = tuple[State, Array]


def forward_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State
) -> tuple[tuple[State, Steps], Kept | None]:
    """The last states and `h` after each step, each `[member, batch, ...]`, and what is kept."""
    return _each(functools.partial(_forward, setting), weights, batch, carry)


def backward_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State, kept: Kept, given: Any
) -> tuple[Array, Weights, State]:
    """Cotangents of `x`, of each member's weights and of the carry, which itself is not read."""
    return _each(functools.partial(_backward, setting), weights, batch, kept, given)


def _each(f: Callable, weights: Weights, *rest: Any) -> Any:
    """`f` of each member, with its own weights or the shared ones."""
    if weights.w_x.shape[0] > 1:
        return each(f, weights, *rest)
    return each(functools.partial(f, jax.tree.map(lambda w: w[0], weights)), *rest)


def _inputs(setting: Setting, batch: Batch) -> tuple[Array, Array, Array | None]:
    """Time first, in whole iterations; masks `[time, batch, 1]`."""
    # A product with a nan in the padding would be nan.
    x = jnp.where(batch.real[..., None], batch.x, 0)
    masks = (None if m is None else m[..., None] for m in (batch.real, batch.starts))
    return jax.tree.map(functools.partial(_whole, setting), (x, *masks))


def _whole(setting: Setting, a: Array) -> Array:
    """Time first, and padded with zeros to whole iterations."""
    rest = -a.shape[1] % setting.choice.unroll
    return jnp.pad(time_first(a), ((0, rest), (0, 0), (0, 0)))


def _unrolled_scan(
    setting: Setting, chunk: Callable, state: State, inputs: Any, *, reverse: bool
) -> tuple[State, Any]:
    """A scan of `chunk(state, inputs [unroll, batch, ...])` over `[time, batch, ...]`."""
    steps = setting.choice.unroll
    inputs = jax.tree.map(lambda a: a.reshape(-1, steps, *a.shape[1:]), inputs)
    state, out = jax.lax.scan(chunk, state, inputs, reverse=reverse)
    return state, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), out)


def _forward(
    setting: Setting, own: Weights, batch: Batch, carry: State
) -> tuple[tuple[State, Steps], Kept | None]:
    x, real, starts = _inputs(setting, batch)
    step, reverse = functools.partial(_step, setting), setting.reverse
    recurrent = own.w_h, None if own.b_h is None else own.b_h[None]

    def project(x: Array) -> Array:
        return with_wide_bias(_along_time(x, own.w_x, carry[0].dtype), own.b_x)

    def chunk(state: State, inputs: Any) -> tuple[State, Any]:
        inputs = project(inputs[0]), *inputs[1:]
        each_step = functools.partial(step, recurrent)
        return jax.lax.scan(each_step, state, inputs, reverse=reverse, unroll=True)

    if setting.choice.method == "pallas":
        from jaxmask.recurrent._engine import pallas

        inputs, needed = (project(x), real, starts), real if starts is None else real | starts
        result = pallas.scan(
            *(step, recurrent, carry, inputs, needed[..., 0]),
            reverse=reverse,
            rows=setting.choice.slots[-1],
            steps=setting.choice.steps,
        )
    else:
        result = _unrolled_scan(setting, chunk, carry, (x, real, starts), reverse=reverse)
    ends, (h, kept) = result
    return (ends, time_first(h[: batch.x.shape[1]]).astype(batch.x.dtype)), kept


def _step(
    setting: Setting, weights: tuple[Array, Array | None], state: State, inputs: Any
) -> tuple[State, tuple[Array, Kept | None]]:
    kind, reverse = setting.kind, setting.reverse
    (w_h, b_h), (z_x, real, starts) = weights, inputs
    before = state if reverse else reset(starts, state)
    z_h = with_bias(product(before[0], w_h, before[0].dtype), b_h)
    z = kind.join(z_x, z_h)
    new = select(real, kind.update(z, before), before)
    h = jnp.where(real, new[0], 0)
    kept = (before, z) if setting.keeps else None
    # The boundary lies before the step, so going backward it comes after.
    return reset(starts, new) if reverse else new, (h, kept)


def _backward(
    setting: Setting, own: Weights, batch: Batch, kept: Kept, given: Any
) -> tuple[Array, Weights, State]:
    kind, reverse, time = setting.kind, setting.reverse, batch.x.shape[1]
    d_ends, d_h = given
    dtype = d_ends[0].dtype
    x, real, starts = _inputs(setting, batch)
    transposed = own._replace(w_x=own.w_x.mT, w_h=own.w_h.mT)  # once: slow in the loop
    # XLA duplicates cheap chains in every consumer, here the product and the result. It does not
    # duplicate a division, and cannot know that this is 1.
    one = jnp.where(jnp.sum(real) >= 0, 1, 2).astype(dtype)

    def step(d: State, inputs: Any) -> tuple[State, Any]:
        (before, z), d_y, real, starts = inputs
        d = reset(starts, d) if reverse else d
        factors, holds = kind.factors(z, before, kind.update(z, before))
        d_new = d[0] + d_y, *d[1:]
        *d_zs, d_read = kind.pull(factors, holds, d_new)
        d_zx, d_zh = (jnp.where(real, flat_gates(d_z) / one, 0) for d_z in d_zs)
        through = product(d_zh, transposed.w_h, dtype)
        d_state = [jnp.zeros_like(through) if a is None else a for a in d_read]
        d_before = select(real, (d_state[0] + through, *d_state[1:]), d)
        d_before = d_before if reverse else reset(starts, d_before)
        return d_before, (d_zx,) if kind.adds else (d_zx, d_zh)

    def chunk(d: State, inputs: Any) -> tuple[State, Any]:
        return jax.lax.scan(step, d, inputs, reverse=not reverse, unroll=True)

    d_y = _whole(setting, d_h).astype(dtype)
    inputs = kept, jnp.where(real, d_y, 0), real, starts
    d_carry, d_zs = _unrolled_scan(setting, chunk, d_ends, inputs, reverse=not reverse)
    d_zx, d_zh = d_zs[0], d_zs[-1]
    d_fed = fed(d_zx, own.w_x)
    d_x = time_first(_along_time(d_fed[:time], transposed.w_x, dtype))
    d_b = d_zx.sum(axis=(0, 1)), None if own.b_h is None else d_zh.sum(axis=(0, 1))
    outer = functools.partial(_outer, setting, own)
    return d_x, Weights(outer(x, d_fed), outer(kept[0][0], d_zh), *d_b), d_carry


def _along_time(a: Array, w: Array, dtype: Any) -> Array:
    """A product for all steps. With time and rows as one axis, a mesh would gather the rows."""
    return jnp.matmul(a.astype(w.dtype), w, preferred_element_type=dtype)


def _outer(setting: Setting, own: Weights, read: Array, d: Array) -> Array:
    """The gradient of a matrix, from what it multiplied and the cotangent of the product."""
    if setting.choice.unroll == 1:  # XLA:CPU transposes operands that it sums over two axes
        read, d = (a.reshape(-1, a.shape[-1]) for a in (read, d))
    axes = tuple(range(read.ndim - 1))
    compute = own.w_x.dtype
    return jnp.tensordot(
        read.astype(compute), d.astype(compute), (axes, axes), preferred_element_type=d.dtype
    )
