"""What a rival makes of a problem: something to run, its results in one layout, and its cost."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bench import timing
from bench.contest import Entrant
from bench.problem import Problem, Weights, loss

PyTree = Any

COMPILES = 3  # of each program, for the time that it takes


class Result(NamedTuple):
    """Outputs or gradients as float32 in NumPy, the padding left out."""

    y: np.ndarray | None = None  # [real steps, directions * hidden]
    loss: np.ndarray | None = None
    dx: np.ndarray | None = None  # [real steps, feature]
    weights: Weights | None = None  # gradients, in jaxmask's layout


class Layout(NamedTuple):
    """How a JAX library keeps the weights, and how it applies its layers.

    `params(weights)` and `weights(params)` are permutations and paddings, so that the second one
    takes gradients too. They run outside of what is timed.
    """

    apply: Callable[[PyTree, jax.Array, jax.Array, jax.Array], jax.Array]
    params: Callable[[Weights], PyTree] = lambda weights: weights
    weights: Callable[[PyTree], Weights] = lambda params: params


def as_float32(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)


def compile_jax(problem: Problem, layout: Layout) -> Entrant:
    """Jit the forward or the training pass, with weights, input, mask and lengths as arguments."""
    traces = []

    def forward(params: PyTree, x: jax.Array, mask: jax.Array, lengths: jax.Array) -> jax.Array:
        traces.append(x.shape)
        return layout.apply(params, x, mask, lengths)

    def train(params: PyTree, x: Any, mask: Any, lengths: Any, cotangent: Any) -> PyTree:
        def of(params: PyTree, x: jax.Array) -> jax.Array:
            return loss(forward(params, x, mask, lengths), mask, cotangent)

        return jax.value_and_grad(of, argnums=(0, 1))(params, x)

    weights, x, mask, lengths, cotangent = problem.data
    arguments = layout.params(weights), x, mask, lengths
    if problem.trains:
        arguments = *arguments, cotangent
    function = train if problem.trains else forward
    _, cost = timing.compiled_cost(function, *arguments, times=COMPILES)
    jitted = jax.jit(function)
    # Other lengths must not compile anew.
    others = jnp.flip(mask, 0), jnp.flip(lengths)
    jax.block_until_ready(jitted(*arguments))
    jax.block_until_ready(jitted(*arguments[:2], *others, *arguments[4:]))
    cost["traces"] = len(traces) - COMPILES + 1

    def result(value: PyTree) -> Result:
        if not problem.trains:
            return Result(y=as_float32(value)[problem.mask])
        total, (params, dx) = value
        return Result(
            loss=as_float32(total),
            dx=as_float32(dx)[problem.mask],
            weights=as_float32(layout.weights(params)),
        )

    return Entrant(lambda: jax.block_until_ready(jitted(*arguments)), result, cost)
