"""How fast could it be? Work and traffic of a problem against rates measured on this machine.

    time >= max(parallel / P + max(parallel_steps * latency, sequential / R), bytes / B)

`parallel` are the products that leave the loop over time, `P` the best rate of a large product;
`sequential` those within, `R` the best rate of `[rows, hidden] @ [hidden, gates]` in a loop; the
latency is that of an empty iteration of a loop, or of one kernel after another on an accelerator,
where steps are unrolled; `B` is the bandwidth of a copy. Only real steps count.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench.problem import GATES, Problem
from bench.timing import seconds_of
from jaxmask import recurrent
from jaxmask.recurrent._engine.scheduling import cheapest

REPEATS = 5
ITERATIONS = 64
# On a CPU and on an accelerator, whose large product is larger, and which must be busy for longer
# than it takes to launch something.
LARGE = 1024, 8192
COPIED = 2**24, 2**28  # float32 values: far more than caches hold


def bound(problem: Problem) -> dict[str, Any]:
    """The least milliseconds, the term that says so, and the rates behind it."""
    rates = measured_rates(problem)
    sequential, parallel = work(problem)
    steps = max(problem.lengths) * problem.layers * (2 if problem.trains else 1)
    hoisted = parallel / (1e9 * rates["large_gflops"])
    terms = {
        "matmul": hoisted + sequential / (1e9 * max(rates["tile_gflops"], rates["step_gflops"])),
        "latency": hoisted + steps * 1e-6 * rates["turn_microseconds"],
        "memory": traffic(problem) / (1e9 * rates["copy_gigabytes"]),
    }
    binding = max(terms, key=terms.__getitem__)
    return {
        "milliseconds": round(1e3 * terms[binding], 4),
        "bound_by": binding,
        "gflop": round((sequential + parallel) / 1e9, 4),
        **rates,
    }


def share_of_tile_rate(bound: dict[str, Any], milliseconds: float) -> float:
    """The rate of the whole pass over XLA's own rate at the engine's tile."""
    return bound["gflop"] / (milliseconds / 1e3) / bound["tile_gflops"]


def work(problem: Problem) -> tuple[float, float]:
    """Flop within the loop over time, and outside of it; a training step is three forwards."""
    per_weight = 2 * problem.real * problem.directions
    gates = GATES[problem.cell] * problem.hidden
    recurrent = per_weight * problem.layers * problem.hidden * gates
    forward = recurrent + per_weight * sum(problem.inputs) * gates
    if not problem.trains:
        return recurrent, forward - recurrent
    return 2 * recurrent, 3 * forward - 2 * recurrent


def traffic(problem: Problem) -> float:
    """Bytes read and written at least: inputs, states, outputs, and each weight once a pass."""
    size, hidden = jnp.dtype(problem.dtype).itemsize, problem.hidden
    gates = GATES[problem.cell] * hidden
    total = 0
    for inputs in problem.inputs:
        forward = (inputs + hidden) * problem.real + gates * (inputs + hidden)
        # The backward pass reads the same and the cotangent, and writes that of the input.
        total += 3 * forward if problem.trains else forward
    return size * problem.directions * total


def measured_rates(problem: Problem) -> dict[str, float]:
    rows, gates = tile_rows(problem), GATES[problem.cell]
    return {
        "large_gflops": round(large_rate(problem.dtype), 1),
        "step_gflops": round(step_rate(problem.batch, problem.hidden, gates, problem.dtype), 1),
        "tile_gflops": round(step_rate(rows, problem.hidden, gates, problem.dtype), 1),
        "tile_rows": rows,
        "turn_microseconds": round(1e6 * iteration_seconds(), 3),
        "copy_gigabytes": round(copy_bandwidth(), 2),
    }


def tile_rows(problem: Problem) -> int:
    """The number of slots that the engine chooses for the lengths of a problem."""
    sizes = problem.batch, problem.time, problem.hidden
    choice = recurrent.explain(*sizes, method="tiled")
    chunks = -(-jnp.asarray(problem.lengths) // choice.steps)
    return choice.slots[int(cheapest(chunks, choice.slots))]


def on_accelerator() -> bool:
    return jax.default_backend() != "cpu"


@functools.cache
def large_rate(dtype: str) -> float:
    """GFLOP/s of a large product: XLA's, or PyTorch's where that is installed and faster."""
    size = LARGE[on_accelerator()]
    a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    seconds = _least(jax.jit(lambda a: a @ a), a)
    if not on_accelerator():
        seconds = min(seconds, _torch_seconds(size, dtype))
    return 2 * size**3 / seconds / 1e9


def _torch_seconds(size: int, dtype: str) -> float:
    try:
        import torch
    except ModuleNotFoundError:
        return float("inf")
    a = torch.randn(size, size).to(getattr(torch, dtype))
    return _least(lambda a: a @ a, a)


def _loop(step: Callable[[jax.Array], jax.Array], count: int, first: jax.Array) -> jax.Array:
    """A loop, unrolled as the recurrence is on an accelerator."""
    unroll = recurrent.explain(1, count, 1, method="dense").unroll
    return jax.lax.fori_loop(0, count, lambda _, value: step(value), first, unroll=unroll)


@functools.cache
def step_rate(rows: int, hidden: int, gates: int, dtype: str) -> float:
    """GFLOP/s of `[rows, hidden] @ [hidden, gates * hidden]`, again and again in a loop."""
    w = jax.random.normal(jax.random.key(1), (hidden, gates * hidden)) / hidden**0.5
    h = jax.random.normal(jax.random.key(0), (rows, hidden)).astype(dtype)

    @jax.jit
    def loop(h: jax.Array, w: jax.Array) -> jax.Array:
        def step(h: jax.Array) -> jax.Array:
            # Every column is used, lest the product shrink, and the norm stays.
            return sum(jnp.split(h @ w, gates, axis=-1)) / gates**0.5

        return _loop(step, ITERATIONS, h)

    seconds = _least(loop, h, w.astype(dtype)) / ITERATIONS
    return 2 * rows * hidden * gates * hidden / seconds / 1e9


@functools.cache
def iteration_seconds() -> float:
    """One iteration of a loop that does next to nothing; unrolled, a kernel of its own."""
    count = 1000

    def step(h: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier(jnp.tanh(h))

    return _least(jax.jit(lambda h: _loop(step, count, h)), jnp.ones((8, 8))) / count


@functools.cache
def copy_bandwidth() -> float:
    """GB/s read and written by a copy."""
    size = COPIED[on_accelerator()]
    return 2 * 4 * size / _least(jax.jit(lambda a: a + 1), jnp.ones(size)) / 1e9


def _least(function: Any, *args: Any) -> float:
    """Seconds, after a warm-up."""
    return min([seconds_of(function, *args) for _ in range(1 + REPEATS)][1:])
