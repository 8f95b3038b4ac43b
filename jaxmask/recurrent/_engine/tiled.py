"""`method="tiled"`: only real steps are run, forward and backward.

Both functions take members: batches of padded rows, each with its own weights or all with the same.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxmask._types import Array, Steps
from jaxmask.recurrent._engine.backward import backward
from jaxmask.recurrent._engine.buffers import Layout, layout_for, lookup
from jaxmask.recurrent._engine.forward import forward
from jaxmask.recurrent._engine.kinds import Batch, Setting, State, Weights
from jaxmask.recurrent._engine.scheduling import (
    Schedule,
    all_rounds,
    flat,
    flat_index,
    schedule,
    units_for,
)

# What the backward needs besides the arguments: `[member, unit, step, states]`, and the order.
Kept = tuple[State, Schedule]


def forward_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State
) -> tuple[tuple[State, Steps], Kept]:
    """The last states and `h` after each step, each `[member, batch, ...]`, and what is kept."""
    kind, choice, members = setting.kind, setting.choice, len(batch.real)
    layout = _layout(setting, batch, carry)
    order = schedule(choice, batch.real, batch.starts, reverse=setting.reverse)
    rounds = all_rounds(choice, order)
    kept = forward(kind, layout, rounds, flat(batch.x), weights, jax.tree.map(flat, carry))
    some = order.lengths[..., None] > 0
    ends = tuple(
        jnp.where(some, _collect(kept, order.last, i, c.shape[2]), c) for i, c in enumerate(carry)
    )
    h = _collect(kept, order.positions, 0, carry[0].shape[2])
    kept = jax.tree.map(lambda a: a.reshape(members, -1, *a.shape[1:]), kept)
    return (_reset_ends(order, ends), h.astype(batch.x.dtype)), (kept, order)


def backward_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State, saved: Kept, given: Any
) -> tuple[Array, Weights, State]:
    """Cotangents of `x`, of each member's weights and of the carry."""
    kept, order = saved
    layout = _layout(setting, batch, carry)
    d_ends = _reset_ends(order, given[0])
    x, *rest = jax.tree.map(flat, (batch.x, carry, kept, d_ends, given[1]))
    rounds = all_rounds(setting.choice, order)
    d_x, d_weights, d_carry = backward(setting.kind, layout, rounds, x, weights, *rest)
    d_carry = tuple(d.reshape(c.shape) for d, c in zip(d_carry, carry, strict=True))
    d_x = d_x.reshape(-1, d_x.shape[2])
    positions = flat_index(order.positions, len(d_x) // len(batch.real))
    d_x = d_x.at[positions, : x.shape[2]].get(mode="promise_in_bounds")
    return d_x.reshape(batch.x.shape), d_weights, d_carry


def _layout(setting: Setting, batch: Batch, carry: State) -> Layout:
    members, *sizes = batch.real.shape
    gates = setting.kind.gates if setting.keeps else 0
    units = units_for(setting.choice, *sizes)
    return layout_for(setting.choice, units, len(carry), gates, members)


def _collect(
    units: tuple[Float[Array, "unit step features"], ...],
    positions: Int[Array, "member *n"],
    which: int,
    feature: int,
) -> Array:
    """One array of the state, at positions within the units of each member.

    Each array has its own units, or all are side by side in one.
    """
    held = units[which if len(units) > 1 else 0]
    size, n = held.shape[0] * held.shape[1] // len(positions), held.shape[2] // feature
    # Not a slice of the buffer, which XLA would copy.
    found = lookup(held.reshape(-1, feature), flat_index(positions, size) * n + which % n)
    return found.reshape(*positions.shape, feature)


def _reset_ends(order: Schedule, ends: State) -> State:
    if order.ends_reset is None:
        return ends
    return tuple(jnp.where(order.ends_reset[..., None], 0, a) for a in ends)
