"""SequenceLayers' `LSTM`: pairs of values and mask, one layer at a time over the whole row.

Its requirements pin an old absl-py, but not the JAX side of it:

    pip install --no-deps sequence-layers einops recurrentgemma sentencepiece orbax-export
    pip install --no-deps typeguard==2.13.3 dataclasses-json "marshmallow<4" typing-inspect
"""

import jax
import jax.numpy as jnp
import sequence_layers.jax as sl

from bench.contest import Entrant, LeftOut
from bench.problem import Problem, Weights
from bench.rivals.program import Layout, PyTree, compile_jax


def build(problem: Problem) -> Entrant:
    if problem.cell != "lstm":
        raise LeftOut("SequenceLayers has no GRU")
    if problem.directions == 2:
        raise LeftOut("SequenceLayers has no reversed LSTM that skips padding")
    dtype = jnp.dtype(problem.dtype)
    config = sl.LSTM.Config(problem.hidden, compute_dtype=dtype, param_dtype=dtype, name="lstm")
    layers = [config.make() for _ in problem.inputs]

    def apply(params: PyTree, x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
        sequence = sl.Sequence(x, mask)
        for layer, own in zip(layers, params, strict=True):
            sequence = layer.apply(own, sequence, training=False, method="layer")
        return sequence.values

    return compile_jax(problem, Layout(apply, _params, _weights))


def _params(weights: Weights) -> PyTree:
    return [
        {"params": {"kernel": {"kernel": w_x}, "recurrent_kernel": {"kernel": w_h}, "bias": b}}
        for [(w_x, w_h, b)] in weights
    ]


def _weights(params: PyTree) -> Weights:
    each = (own["params"] for own in params)
    return [[(p["kernel"]["kernel"], p["recurrent_kernel"]["kernel"], p["bias"])] for p in each]
