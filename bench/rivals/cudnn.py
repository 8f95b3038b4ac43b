"""`jax.experimental.rnn.lstm`: cuDNN behind JAX, on GPUs, for right-padded rows in float32."""

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from bench.contest import Entrant, LeftOut
from bench.problem import Problem, Weights
from bench.rivals.program import Layout, compile_jax


def build(problem: Problem) -> Entrant:
    if jax.default_backend() != "gpu":
        raise LeftOut("cuDNN needs a GPU")
    if problem.cell != "lstm" or problem.dtype != "float32":
        raise LeftOut("jax.experimental.rnn has the LSTM in float32 only")
    return compile_jax(problem, layout(problem))


def layout(problem: Problem) -> Layout:
    sizes = problem.feature, problem.hidden, problem.layers
    two = problem.directions == 2

    def apply(flat: jax.Array, x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
        state = jnp.zeros((problem.layers * problem.directions, x.shape[0], problem.hidden))
        return rnn.lstm(x, state, state, flat, lengths, *sizes, 0.0, two)[0]

    def weights(flat: jax.Array) -> Weights:
        w_x, w_h, b, _ = rnn.unpack_lstm_weights(flat, *sizes, two)
        each = [(w_x[k].T, w_h[k].T, b[k].reshape(-1)) for k in range(len(w_x))]
        return [each[k : k + problem.directions] for k in range(0, len(each), problem.directions)]

    return Layout(apply, flatten, weights)


def flatten(weights: Weights) -> jax.Array:
    """All matrices, transposed, then for each layer and direction two biases, the second one 0."""
    each = [one for layer in weights for one in layer]
    matrices = [matrix.T.ravel() for one in each for matrix in one[:2]]
    biases = [bias for one in each for bias in (one[2], jnp.zeros_like(one[2]))]
    return jnp.concatenate([*matrices, *biases])
