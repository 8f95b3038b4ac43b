"""LSTM, GRU and simple cells with other activations, `cell_clip` and peepholes.

JAX differentiates their activations; `kinds.py` has the usual derivatives written out.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmask._types import Activation, Array
from jaxmask.recurrent._cells import activation_of
from jaxmask.recurrent._engine.kinds import GRU, LSTM, SIMPLE, Kind, Pulled, State

# Blocks of `z`: i, f, g, o; with peepholes also the peephole weight of each.
BLOCKS, BLOCKS_WITH_PEEPHOLES = 4, 8


@functools.cache  # one object for each, since it is static under `jit`
def lstm_kind(
    activation: Activation, gate_activation: Activation, cell_clip: float | None, peepholes: bool
) -> Kind:
    if (activation, gate_activation, cell_clip, peepholes) == ("tanh", "sigmoid", None, False):
        return LSTM
    act, gate = activation_of(activation), activation_of(gate_activation)
    gates = BLOCKS_WITH_PEEPHOLES if peepholes else BLOCKS

    def split(z: Array) -> tuple[list[Array], list[Array]]:
        parts = jnp.split(z, gates, axis=-1)
        return parts[:BLOCKS], parts[BLOCKS:] or [jnp.zeros((), z.dtype)] * BLOCKS

    def update(z: Array, state: State) -> State:
        (i, f, g, o), (p_i, p_f, _, p_o) = split(z)
        c = gate(f + p_f * state[1]) * state[1] + gate(i + p_i * state[1]) * act(g)
        c = c if cell_clip is None else jnp.clip(c, -cell_clip, cell_clip)
        return gate(o + p_o * c) * act(c), c

    def factors(z: Array, before: State, after: State) -> tuple[State, State]:
        ((i, f, g, o), (p_i, p_f, _, p_o)), old, new = split(z), before[1], after[1]
        (i, d_i), (f, d_f) = (
            _value_and_slope(gate, i + p_i * old),
            _value_and_slope(gate, f + p_f * old),
        )
        (g, d_g), (o, d_o) = _value_and_slope(act, g), _value_and_slope(gate, o + p_o * new)
        squashed, d_squashed = _value_and_slope(act, new)
        unclipped = 1 if cell_clip is None else (abs(new) < cell_clip).astype(z.dtype)
        each = jnp.stack([g * d_i, old * d_f, i * d_g, squashed * d_o], axis=-2)
        through = o * d_squashed + squashed * d_o * p_o
        holds = f + g * d_i * p_i + old * d_f * p_f
        read = (jnp.stack([old, old, jnp.zeros_like(old), new], axis=-2),) if peepholes else ()
        return (each, through, jnp.broadcast_to(unclipped, old.shape), *read), (holds,)

    def pull(factors: State, holds: State, d_state: State) -> Pulled:
        (each, through, unclipped, *read), (d_h, d_c) = factors, d_state
        d_c = (d_c + d_h * through) * unclipped
        is_output = jnp.arange(BLOCKS)[:, None] == BLOCKS - 1
        d_z = each * jnp.where(is_output, d_h[..., None, :], d_c[..., None, :])
        d_peepholes = [d_z * r for r in read]
        return jnp.concatenate([d_z, *d_peepholes], axis=-2), d_z, (None, d_c * holds[0])

    def join(z_x: Array, z_h: Array) -> Array:
        fed = z_h.shape[-1]
        return jnp.concatenate([z_x[..., :fed] + z_h, z_x[..., fed:]], axis=-1)

    joined = join if peepholes else jnp.add
    return Kind(joined, update, factors, pull, gates, adds=not peepholes, bounded=False)


@functools.cache
def gru_kind(activation: Activation, gate_activation: Activation) -> Kind:
    if (activation, gate_activation) == ("tanh", "sigmoid"):
        return GRU
    act, gate = activation_of(activation), activation_of(gate_activation)

    def update(z: Array, state: State) -> State:
        r, z, x_n, h_n = jnp.split(z, 4, axis=-1)
        z = gate(z)
        return ((1 - z) * act(x_n + gate(r) * h_n) + z * state[0],)

    def factors(z: Array, before: State, after: State) -> tuple[State, State]:
        r, z, x_n, h_n = jnp.split(z, 4, axis=-1)
        (r, d_r), (z, d_z) = _value_and_slope(gate, r), _value_and_slope(gate, z)
        n, d_n = _value_and_slope(act, x_n + r * h_n)
        new = (1 - z) * d_n
        reset, updated = new * h_n * d_r, (before[0] - n) * d_z
        each = ((reset, updated, new), (reset, updated, new * r))
        return tuple(jnp.stack(gates, axis=-2) for gates in each), (z,)

    return GRU._replace(update=update, factors=factors, bounded=False)


@functools.cache
def simple_kind(activation: Activation) -> Kind:
    if activation in ("tanh", "relu"):
        return SIMPLE[activation]
    act = activation_of(activation)
    return SIMPLE["tanh"]._replace(
        update=lambda z, state: (act(z),),
        factors=lambda z, before, after: ((_value_and_slope(act, z)[1],), ()),
        bounded=False,
    )


def _value_and_slope(f: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """An elementwise function at `x`, and its derivative."""
    return jax.jvp(f, (x,), (jnp.ones_like(x),))
