"""Training where there is nothing to skip, or nothing gained by it: a scan, and its own backward.

Both loops are over all rows and all steps, `Choice.unroll` of them in a turn: one on a CPU, several
where a turn must be launched. The forward keeps what a step computed, so that nothing is computed
twice, and the backward leaves to one product after the loop what autodiff adds up in it: the
gradient of each weight, and that of `x`. With `"pallas"` the forward's loop is a kernel.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxmask._types import Array, Steps
from jaxmask.recurrent._cells import with_bias
from jaxmask.recurrent._engine.arrange import each
from jaxmask.recurrent._engine.backward import flat_gates
from jaxmask.recurrent._engine.forward import Weights, choose, product
from jaxmask.recurrent._engine.kinds import State
from jaxmask.recurrent._engine.members import Batch, Setting
from jaxmask.recurrent._scan import time_first


class Kept(NamedTuple):
    """What the backward needs of each step: the states that it read, and its products."""

    before: tuple[Float[Array, "*member time batch hidden"], ...]
    z: Float[Array, "*member time batch gates"]  # see `Kind.join`


def forward_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State
) -> tuple[tuple[State, Steps], Kept | None]:
    """The last states and `h` after each step, each `[member, batch, ...]`, and what is kept."""
    return _each(functools.partial(_forward, setting), weights, batch, carry)


def back_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State, kept: Kept, given: Any
) -> tuple[Array, Weights, State]:
    """Cotangents of `x`, of each member's weights and of the carry."""
    return _each(functools.partial(_back, setting), weights, batch, kept, given)


def _each(f: Callable, weights: Weights, *rest: Any) -> Any:
    """`f` of each member, with weights of its own or those of all."""
    if weights.w_x.shape[0] > 1:
        return each(f, weights, *rest)
    return each(functools.partial(f, jax.tree.map(lambda w: w[0], weights)), *rest)


def _inputs(setting: Setting, batch: Batch) -> tuple[Array, Array, Array | None]:
    """Time first, in whole chunks; masks `[time, batch, 1]`.

    The padding of `x` is 0: a product with nan is nan.
    """
    x = jnp.where(batch.real[..., None], batch.x, 0)
    masks = (None if m is None else m[..., None] for m in (batch.real, batch.starts))
    return jax.tree.map(functools.partial(_in_chunks, setting), (x, *masks))


def _in_chunks(setting: Setting, a: Array) -> Array:
    """Time first, and filled up with zeros to whole chunks."""
    rest = -a.shape[1] % setting.choice.unroll
    return jnp.pad(time_first(a), ((0, rest), (0, 0), (0, 0)))


def _by_chunk(
    setting: Setting, chunk: Callable, state: State, inputs: Any, *, reverse: bool
) -> tuple[State, Any]:
    """A scan whose turns are chunks: `chunk(state, inputs [step, batch, ...])`, time in and out."""
    steps = setting.choice.unroll
    inputs = jax.tree.map(lambda a: a.reshape(-1, steps, *a.shape[1:]), inputs)
    state, out = jax.lax.scan(chunk, state, inputs, reverse=reverse)
    return state, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), out)


def _anew(starts: Array | None, state: State) -> State:
    if starts is None:
        return state
    return choose(starts, tuple(jnp.zeros_like(s) for s in state), state)


def _forward(
    setting: Setting, own: Weights, batch: Batch, carry: State
) -> tuple[tuple[State, Steps], Kept | None]:
    x, real, starts = _inputs(setting, batch)
    step, reverse = functools.partial(_step, setting), setting.reverse
    recurrent = own.w_h, None if own.b_h is None else own.b_h[None]

    def project(x: Array) -> Array:
        return with_bias(_along_time(x, own.w_x, carry[0].dtype), own.b_x)

    def chunk(state: State, inputs: Any) -> tuple[State, Any]:
        inputs = project(inputs[0]), *inputs[1:]
        each_step = functools.partial(step, recurrent)
        return jax.lax.scan(each_step, state, inputs, reverse=reverse, unroll=True)

    if setting.choice.method == "pallas":
        from jaxmask.recurrent._engine import on_chip

        inputs, needed = (project(x), real, starts), real if starts is None else real | starts
        result = on_chip.scan(
            *(step, recurrent, carry, inputs, needed[..., 0]),
            reverse=reverse,
            rows=setting.choice.slots[-1],
            steps=setting.choice.steps,
        )
    else:
        result = _by_chunk(setting, chunk, carry, (x, real, starts), reverse=reverse)
    ends, (h, kept) = result
    return (ends, time_first(h[: batch.x.shape[1]]).astype(batch.x.dtype)), kept


def _step(
    setting: Setting, weights: tuple[Array, Array | None], state: State, inputs: Any
) -> tuple[State, tuple[Array, Kept | None]]:
    kind, reverse = setting.kind, setting.reverse
    (w_h, b_h), (z_x, real, starts) = weights, inputs
    before = state if reverse else _anew(starts, state)
    z_h = with_bias(product(before[0], w_h, before[0].dtype), b_h)
    z = kind.join(z_x, z_h)
    new = choose(real, kind.update(z, before), before)
    h = jnp.where(real, new[0], 0)
    kept = Kept(before, z) if setting.keeps else None
    # The boundary lies before the step, so going backward one meets it after.
    return _anew(starts, new) if reverse else new, (h, kept)


def _back(
    setting: Setting, own: Weights, batch: Batch, kept: Kept, given: Any
) -> tuple[Array, Weights, State]:
    kind, reverse, time = setting.kind, setting.reverse, batch.x.shape[1]
    d_ends, d_h = given
    dtype = d_ends[0].dtype
    x, real, starts = _inputs(setting, batch)
    turned = own._replace(w_x=own.w_x.mT, w_h=own.w_h.mT)  # once: in the loop it would be slow
    # XLA copies cheap chains into every consumer, here the product and the result; it copies no
    # division, and does not know that this is 1.
    one = jnp.where(jnp.sum(real) >= 0, 1, 2).astype(dtype)

    def step(d: State, inputs: Any) -> tuple[State, Any]:
        (before, z), d_y, real, starts = inputs
        d = _anew(starts, d) if reverse else d
        factors, holds = kind.factors(z, before, kind.update(z, before))
        d_new = d[0] + d_y, *d[1:]
        *d_zs, d_read = kind.pull(factors, holds, d_new)
        d_zx, d_zh = (jnp.where(real, flat_gates(d_z) / one, 0) for d_z in d_zs)
        through = product(d_zh, turned.w_h, dtype)
        d_state = [jnp.zeros_like(through) if a is None else a for a in d_read]
        d_before = choose(real, (d_state[0] + through, *d_state[1:]), d)
        d_before = d_before if reverse else _anew(starts, d_before)
        return d_before, (d_zx,) if kind.adds else (d_zx, d_zh)

    def chunk(d: State, inputs: Any) -> tuple[State, Any]:
        return jax.lax.scan(step, d, inputs, reverse=not reverse, unroll=True)

    d_y = _in_chunks(setting, d_h).astype(dtype)
    inputs = kept, jnp.where(real, d_y, 0), real, starts
    d_carry, d_zs = _by_chunk(setting, chunk, d_ends, inputs, reverse=not reverse)
    d_zx, d_zh = d_zs[0], d_zs[-1]
    d_x = time_first(_along_time(d_zx[:time], turned.w_x, dtype))
    d_b = d_zx.sum(axis=(0, 1)), None if own.b_h is None else d_zh.sum(axis=(0, 1))
    outer = functools.partial(_outer, setting, own)
    return d_x, Weights(outer(x, d_zx), outer(kept.before[0], d_zh), *d_b), d_carry


def _along_time(a: Array, w: Array, dtype: Any) -> Array:
    """A product for all steps. As one axis, time and rows would be gathered by a mesh."""
    return jnp.matmul(a.astype(w.dtype), w, preferred_element_type=dtype)


def _outer(setting: Setting, own: Weights, read: Array, d: Array) -> Array:
    """The gradient of a matrix, from what it read and the cotangent of what it gave."""
    if setting.choice.unroll == 1:  # XLA:CPU transposes what is to be added up along two axes
        read, d = (a.reshape(-1, a.shape[-1]) for a in (read, d))
    axes = tuple(range(read.ndim - 1))
    compute = own.w_x.dtype
    return jnp.tensordot(
        read.astype(compute), d.astype(compute), (axes, axes), preferred_element_type=d.dtype
    )
