"""The rate of the products within a loop over time, measured here at the engine's tile."""

import functools

import jax
import jax.numpy as jnp

import jaxmask as jm
from bench.problem import GATES, Problem
from bench.timing import seconds_of
from jaxmask.recurrent._engine.scheduling import cheapest  # the lengths choose, as it runs

REPEATS, ITERATIONS = 5, 64


def tile_rate(problem: Problem) -> dict[str, float]:
    """GFLOP of a problem, and GFLOP/s of XLA at the rows that the engine steps at once."""
    rows = tile_rows(problem)
    rate = step_rate(rows, problem.hidden, GATES[problem.cell], problem.dtype)
    return {
        "gflop": round(work(problem) / 1e9, 4),
        "tile_rows": rows,
        "tile_gflops": round(rate, 1),
    }


def work(problem: Problem) -> float:
    """Operations at real steps; a training step is three forwards."""
    inputs = sum(problem.inputs) + problem.layers * problem.hidden
    weights = inputs * GATES[problem.cell] * problem.hidden * problem.directions
    return 2 * problem.real * weights * (3 if problem.trains else 1)


def tile_rows(problem: Problem) -> int:
    """The number of slots that the engine chooses for the lengths of a problem."""
    sizes = problem.batch, problem.time, problem.hidden
    choice = jm.recurrent.explain(*sizes, method="tiled")
    chunks = -(-jnp.asarray(problem.lengths) // choice.steps)
    return choice.slots[int(cheapest(chunks, choice.slots))]


@functools.cache
def step_rate(rows: int, hidden: int, gates: int, dtype: str) -> float:
    """GFLOP/s of `[rows, hidden] @ [hidden, gates * hidden]`, again and again in a loop."""
    w = jax.random.normal(jax.random.key(1), (hidden, gates * hidden)) / hidden**0.5
    h = jax.random.normal(jax.random.key(0), (rows, hidden)).astype(dtype)
    unroll = jm.recurrent.explain(1, ITERATIONS, 1, method="dense").unroll  # as the engine does

    @jax.jit
    def loop(h: jax.Array, w: jax.Array) -> jax.Array:
        def step(_: int, h: jax.Array) -> jax.Array:
            # Every column is used, lest the product shrink, and the norm stays.
            return sum(jnp.split(h @ w, gates, axis=-1)) / gates**0.5

        return jax.lax.fori_loop(0, ITERATIONS, step, h, unroll=unroll)

    given = h, w.astype(dtype)
    seconds = min([seconds_of(loop, *given) for _ in range(1 + REPEATS)][1:])  # after a warm-up
    return ITERATIONS * 2 * rows * hidden * gates * hidden / seconds / 1e9
