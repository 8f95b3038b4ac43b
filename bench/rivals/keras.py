"""Keras 3 on JAX, with a mask: `LSTM`, and `GRU` with `reset_after`."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras

from bench.contest import Entrant, LeftOut
from bench.problem import WEIGHTS, Problem, Weights
from bench.rivals.program import Layout, PyTree, compile_jax

LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}


def build(problem: Problem) -> Entrant:
    if keras.backend.backend() != "jax":
        raise LeftOut(f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax")
    layers = [_layer(problem, size) for size in problem.inputs]
    rest = [[v.value for v in layer.non_trainable_variables] for layer in layers]

    def apply(params: PyTree, x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
        for layer, own, others in zip(layers, params, rest, strict=True):
            x, _ = layer.stateless_call(own, others, x, mask=mask)
        return x

    def params(weights: Weights) -> PyTree:
        return [[leaf for one in layer for leaf in _to_keras(problem, one)] for layer in weights]

    def weights(params: PyTree) -> Weights:
        return [
            [_from_keras(problem, own[k : k + 3]) for k in range(0, len(own), 3)] for own in params
        ]

    return compile_jax(problem, Layout(apply, params, weights))


def _layer(problem: Problem, size: int) -> keras.Layer:
    # Weights are put in later, and an orthogonal matrix cannot be drawn in bfloat16.
    options = {"dtype": problem.dtype, "recurrent_initializer": "zeros"}
    layer = LAYERS[problem.cell](problem.hidden, return_sequences=True, **options)
    if problem.directions == 2:
        layer = keras.layers.Bidirectional(layer, dtype=problem.dtype)
    layer.build((None, None, size))
    return layer


def _swap(gates: jax.Array) -> jax.Array:
    """From r, z, n to Keras's z, r, n, and back."""
    r, z, n = jnp.split(gates, 3, axis=-1)
    return jnp.concatenate([z, r, n], axis=-1)


def _to_keras(problem: Problem, weights: tuple) -> tuple:
    if problem.cell == "lstm":
        return tuple(weights)
    w_x, w_h, b = map(_swap, weights)
    return w_x, w_h, jnp.stack([b, jnp.zeros_like(b)])


def _from_keras(problem: Problem, params: tuple) -> tuple:
    if problem.cell == "gru":
        w_x, w_h, b = map(_swap, params)
        params = w_x, w_h, b[0]
    return WEIGHTS[problem.cell](*params)
