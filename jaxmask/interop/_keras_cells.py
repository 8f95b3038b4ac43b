"""Cells with Keras's free choice of activations, for `jm.nn.RNN`."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from jaxmask._types import Array

Function = Callable[[Any], Any]


class _Cell(nnx.Module):
    """The weights of a cell in the layout of `jaxmask.nn`, and the functions it applies."""

    num_feature_axes: ClassVar[int] = 1
    gates: ClassVar[int]

    def __init__(
        self, activation: Function, gate: Function, *weights: Array, reset_after: bool = True
    ):
        self.w_x, self.w_h, self.b = (nnx.Param(jnp.asarray(weight)) for weight in weights)
        self.activation = activation
        self.gate = gate
        self.in_features, width = self.w_x.shape
        self.hidden_features = width // self.gates
        self.reset_after = reset_after

    def _zeros(self, input_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*input_shape[:-1], self.hidden_features))

    def initialize_carry(self, input_shape: tuple[int, ...], rngs: Any = None) -> Any:
        return self._zeros(input_shape)


class SimpleCell(_Cell):
    """h' = activation(x @ w_x + h @ w_h + b)."""

    gates = 1

    def __call__(self, carry: Array, x: Array) -> tuple[Array, Array]:
        h = self.activation(x @ self.w_x[...] + carry @ self.w_h[...] + self.b[...])
        h = h.astype(carry.dtype)
        return h, h.astype(x.dtype)


class LSTMCell(_Cell):
    """As `jm.recurrent.lstm_cell`, with other functions for sigmoid and tanh."""

    gates = 4

    def __call__(self, carry: tuple[Array, Array], x: Array) -> Any:
        h, c = carry
        gates = x @ self.w_x[...] + h @ self.w_h[...] + self.b[...]
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        new_c = self.gate(f) * c + self.gate(i) * self.activation(g)
        new_h = self.gate(o) * self.activation(new_c)
        return (new_h.astype(h.dtype), new_c.astype(c.dtype)), new_h.astype(x.dtype)

    def initialize_carry(self, input_shape: tuple[int, ...], rngs: Any = None) -> Any:
        return self._zeros(input_shape), self._zeros(input_shape)


class GRUCell(_Cell):
    """As `jm.recurrent.gru_cell`, with other functions for sigmoid and tanh."""

    gates = 3

    def __call__(self, carry: Array, x: Array) -> tuple[Array, Array]:
        size, after = self.hidden_features, self.reset_after
        bias, bias_h = self.b[...] if after else (self.b[...], jnp.zeros_like(self.b[...]))
        by_x, w_h = x @ self.w_x[...] + bias, self.w_h[...]
        by_h = carry @ w_h[:, : 2 * size] + bias_h[: 2 * size]
        r, z = jnp.split(self.gate(by_x[..., : 2 * size] + by_h), 2, axis=-1)
        if after:
            n = r * (carry @ w_h[:, 2 * size :] + bias_h[2 * size :])
        else:
            n = (r * carry) @ w_h[:, 2 * size :]
        n = self.activation(by_x[..., 2 * size :] + n)
        h = ((1 - z) * n + z * carry).astype(carry.dtype)
        return h, h.astype(x.dtype)
