"""Our own: `method="auto"`, and the plain masked scan, which is the reference as well."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import jaxmask as jm
from bench.contest import Entrant
from bench.problem import Problem, Weights
from bench.rivals.program import Layout, Result, compile_jax

FUNCTIONS = {"lstm": jm.recurrent.lstm, "gru": jm.recurrent.gru}
MODULES = {"lstm": jm.nn.LSTM, "gru": jm.nn.GRU}


def auto(problem: Problem) -> Entrant:
    return compile_jax(problem, _layout(problem, "auto"))


def scan(problem: Problem) -> Entrant:
    return compile_jax(problem, _layout(problem, "scan"))


def reference(problem: Problem) -> Result:
    """The plain scan in float32, on values that the problem's dtype holds exactly."""
    exact = dataclasses.replace(problem, dtype="float32", rounded_to=problem.dtype)
    program = scan(exact)
    return program.result(program.run())


def _layout(problem: Problem, method: str) -> Layout:
    if problem.layers == problem.directions == 1:
        return Layout(_function(problem.cell, method))
    return _modules(problem, method)


def _function(cell: str, method: str) -> Any:
    def apply(weights: Weights, x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
        [[only]] = weights
        return FUNCTIONS[cell](x, mask, only, method=method)[1][0]

    return apply


def _modules(problem: Problem, method: str) -> Layout:
    """The modules that a user would take: they may do better than one call a layer."""
    # Weights are put in later, and an orthogonal matrix cannot be drawn in bfloat16.
    zeros = nnx.initializers.zeros
    options = {"param_dtype": jnp.dtype(problem.dtype), "recurrent_kernel_init": zeros}

    def layer(size: int) -> nnx.Module:
        module = functools.partial(MODULES[problem.cell], method=method, rngs=nnx.Rngs(0))
        one, *more = (module(size, problem.hidden, **options) for _ in range(problem.directions))
        return jm.nn.Bidirectional(one, *more) if more else one

    graph, state = nnx.split(jm.nn.StackedRNN(*(layer(size) for size in problem.inputs)))

    def apply(weights: Weights, x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
        stack = nnx.merge(graph, state, copy=True)
        for layer, directions in zip(stack.layers, weights, strict=True):
            modules = [layer] if problem.directions == 1 else [layer.forward, layer.backward]
            for module, (w_x, w_h, b) in zip(modules, directions, strict=True):
                module.w_x[...], module.w_h[...], module.b[...] = w_x, w_h, b
        return stack(x, mask)[0]

    if problem.cell == "lstm":
        return Layout(apply)
    return Layout(apply, _with_two_biases, _with_one_bias)


def _with_two_biases(weights: Weights) -> Weights:
    """The module has a bias of the input and one of the state, which is 0 here."""
    return [[w._replace(b=jnp.stack([w.b, jnp.zeros_like(w.b)])) for w in one] for one in weights]


def _with_one_bias(weights: Weights) -> Weights:
    return [[w._replace(b=w.b[0]) for w in one] for one in weights]
