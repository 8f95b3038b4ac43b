"""`flax.nnx.RNN` with `seq_lengths`: `OptimizedLSTMCell`, the faster of its two, and `GRUCell`."""

import jax
import jax.numpy as jnp
from flax import nnx

from bench.contest import Entrant
from bench.problem import Problem, Weights
from bench.rivals.program import Layout, compile_jax

CELLS = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}


def build(problem: Problem) -> Entrant:
    rngs, dtype = nnx.Rngs(0), jnp.dtype(problem.dtype)
    graph, state = nnx.split(nnx.List([_layer(problem, s, dtype, rngs) for s in problem.inputs]))

    def apply(weights: Weights, x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
        for layer, directions in zip(nnx.merge(graph, state, copy=True), weights, strict=True):
            both = problem.directions == 2
            rnns = [layer.forward_rnn, layer.backward_rnn] if both else [layer]
            for rnn, (w_x, w_h, b) in zip(rnns, directions, strict=True):
                rnn.cell.dense_i.kernel[...] = w_x
                rnn.cell.dense_h.kernel[...] = w_h
                biased = rnn.cell.dense_h if problem.cell == "lstm" else rnn.cell.dense_i
                biased.bias[...] = b
            x = layer(x, seq_lengths=lengths)
        return x

    return compile_jax(problem, Layout(apply))


def _layer(problem: Problem, size: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
    # Weights are put in later, and an orthogonal matrix cannot be drawn in bfloat16.
    zeros = nnx.initializers.zeros
    options = {"dtype": dtype, "param_dtype": dtype, "recurrent_kernel_init": zeros, "rngs": rngs}

    def rnn() -> nnx.RNN:
        return nnx.RNN(CELLS[problem.cell](size, problem.hidden, **options))

    return rnn() if problem.directions == 1 else nnx.Bidirectional(rnn(), rnn())
