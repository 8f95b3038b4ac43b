"""The arguments of the engine's methods, and the arithmetic of a step besides its two products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxmask._types import Array, StepMask, Steps
from jaxmask.recurrent._cells import with_bias
from jaxmask.recurrent._choice import Choice

State = tuple[Array, ...]
Pulled = tuple[Array, Array, tuple[Array | None, ...]]


class Kind(NamedTuple):
    """A recurrence with the step `update(join(x @ w_x + b, h @ w_h + b_h), state)`.

    Where `b` is wider than the product, the rest of it are gates that no input feeds: parameters of
    the arithmetic, such as peepholes.

    `h` is its first state. The arithmetic is element by element, so a step is pulled back by
    factors, and the factors of a whole chunk are computed at once.

    Attributes:
      join: `(z_x, z_h) -> z`, what the arithmetic reads of both products, `[..., gates]`.
      update: `(z, state) -> state`.
      factors: `(z, before, after) -> (factors, holds)`, arrays `[..., hidden]` or
        `[..., gate, hidden]`; `before` and `after` are the states, `holds` the derivative of each
        new state by the old one. Finite where the states are, so that cotangents of 0 stay 0.
      pull: `(factors, holds, d_state) -> (d_z_x, d_z_h, d_read)`, cotangents of what `update`
        reads: `[..., gate, hidden]`, and for each state an array, or None where it is not read.
      gates: the width of `z` as a multiple of that of `h`, divisible by the number of states. 0:
        keep no gates, which is correct, but the backward recomputes `z`.
      adds: whether `z` is `z_x + z_h`.
      bounded: whether the state stays finite after any number of steps on finite inputs.
    """

    join: Callable[[Array, Array], Array]
    update: Callable[[Array, State], State]
    factors: Callable[[Array, State, State], tuple[State, State]]
    pull: Callable[[State, State, State], Pulled]
    gates: int
    adds: bool = True
    bounded: bool = True


class Setting(NamedTuple):
    """Static settings of a run. `keeps`: whether to save what the backward needs."""

    kind: Kind
    choice: Choice
    reverse: bool
    keeps: bool = True


class Batch(NamedTuple):
    """Padded rows: where the real steps are, and at which of them the state starts from zeros."""

    x: Steps
    real: StepMask
    starts: StepMask | None


class Weights(NamedTuple):
    """Matrices in the dtype to multiply in, biases in that of the state; one member serves all."""

    w_x: Float[Array, "member feature gates"]
    w_h: Float[Array, "member hidden gates"]
    b_x: Float[Array, "member gates"]
    b_h: Float[Array, "member gates"] | None


def product(a: Array, w: Array, dtype: Any) -> Array:
    """Multiply in the dtype of `w`, add up in that of the state."""
    # Always two axes: XLA materialises `a` once for each shape in which products take it.
    flat = a.reshape(-1, a.shape[-1]).astype(w.dtype)
    return jnp.matmul(flat, w, preferred_element_type=dtype).reshape(*a.shape[:-1], w.shape[-1])


def join(kind: Kind, own: Weights, z_x: Array, h: Array) -> Array:
    """What a step reads of both products, from `x @ w_x` and `h`; the weights are of one member."""
    return kind.join(with_wide_bias(z_x, own.b_x), with_bias(product(h, own.w_h, h.dtype), own.b_h))


def with_wide_bias(z: Array, b: Array) -> Array:
    """Add a bias that may have more gates than the product."""
    more = b.shape[-1] - z.shape[-1]
    return with_bias(jnp.pad(z, [(0, 0)] * (z.ndim - 1) + [(0, more)]) if more else z, b)


def fed(d_z: Array, w_x: Array) -> Array:
    """Of a cotangent, the gates that the product with `w_x` feeds."""
    return d_z[..., : w_x.shape[-1]]


def zeros(like: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros that vary over the axes of a `shard_map` that an array varies over."""
    return jnp.zeros_like(like, shape=shape, dtype=dtype)


def select(condition: Array, on_true: State, on_false: State) -> State:
    return tuple(jnp.where(condition, a, b) for a, b in zip(on_true, on_false, strict=True))


def reset(starts: Array | None, state: State) -> State:
    """The state before a step: zeros where an episode begins."""
    if starts is None:
        return state
    return select(starts, tuple(jnp.zeros_like(s) for s in state), state)


def flat_gates(d: Array) -> Array:
    """`[..., gate, hidden]` as `[..., gates]`."""
    return d.reshape(*d.shape[:-2], -1)


def _by_gate(*gates: Array) -> Array:
    return jnp.stack(gates, axis=-2)


def _lstm_gates(z: Array) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(z, 4, axis=-1)
    return jax.lax.logistic(i), jax.lax.logistic(f), jnp.tanh(g), jax.lax.logistic(o)


def _lstm_update(z: Array, state: State) -> State:
    i, f, g, o = _lstm_gates(z)
    c = f * state[1] + i * g
    return o * jnp.tanh(c), c


def _lstm_factors(z: Array, before: State, after: State) -> tuple[State, State]:
    i, f, g, o = _lstm_gates(z)
    squashed = jnp.tanh(after[1])
    gates = g * i * (1 - i), before[1] * f * (1 - f), i * (1 - g**2), squashed * o * (1 - o)
    return (_by_gate(*gates), o * (1 - squashed**2)), (f,)


def _lstm_pull(factors: State, holds: State, d_state: State) -> Pulled:
    (gates, through), (d_h, d_c) = factors, d_state
    d_c = d_c + d_h * through
    is_output = jnp.arange(4)[:, None] == 3
    d_z = gates * jnp.where(is_output, d_h[..., None, :], d_c[..., None, :])
    return d_z, d_z, (None, d_c * holds[0])


def _gru_join(z_x: Array, z_h: Array) -> Array:
    x_r, x_z, x_n = jnp.split(z_x, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(z_h, 3, axis=-1)
    return jnp.concatenate([x_r + h_r, x_z + h_z, x_n, h_n], axis=-1)


def _gru_gates(z: Array) -> tuple[Array, Array, Array, Array]:
    r, z, x_n, h_n = jnp.split(z, 4, axis=-1)
    r = jax.lax.logistic(r)
    return r, jax.lax.logistic(z), jnp.tanh(x_n + r * h_n), h_n


def _gru_update(z: Array, state: State) -> State:
    _, z, n, _ = _gru_gates(z)
    return ((1 - z) * n + z * state[0],)


def _gru_factors(z: Array, before: State, after: State) -> tuple[State, State]:
    r, z, n, h_n = _gru_gates(z)
    new = (1 - z) * (1 - n**2)
    reset, update = new * h_n * r * (1 - r), (before[0] - n) * z * (1 - z)
    return (_by_gate(reset, update, new), _by_gate(reset, update, new * r)), (z,)


def _gru_pull(factors: State, holds: State, d_state: State) -> Pulled:
    d_h = d_state[0][..., None, :]
    return factors[0] * d_h, factors[1] * d_h, (d_state[0] * holds[0],)


def _tanh_update(z: Array, state: State) -> State:
    return (jnp.tanh(z),)


def _tanh_factors(z: Array, before: State, after: State) -> tuple[State, State]:
    return (1 - after[0] ** 2,), ()


def _relu_update(z: Array, state: State) -> State:
    return (jax.nn.relu(z),)


def _relu_factors(z: Array, before: State, after: State) -> tuple[State, State]:
    return ((after[0] > 0).astype(after[0].dtype),), ()


def _simple_pull(factors: State, holds: State, d_state: State) -> Pulled:
    d_z = (factors[0] * d_state[0])[..., None, :]
    return d_z, d_z, (None,)


LSTM = Kind(jnp.add, _lstm_update, _lstm_factors, _lstm_pull, 4)
GRU = Kind(_gru_join, _gru_update, _gru_factors, _gru_pull, 4, adds=False)
SIMPLE = {
    "tanh": Kind(jnp.add, _tanh_update, _tanh_factors, _simple_pull, 0),
    "relu": Kind(jnp.add, _relu_update, _relu_factors, _simple_pull, 0, bounded=False),
}
