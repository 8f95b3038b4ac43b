"""The time of one jitted step of models that stream, beside one call over the whole row.

    python -m bench streaming

Each model runs step by step with its carry, and over the whole row at once; both must agree before
anything is timed.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm
from bench import tables, timing
from bench.agreement import require_same

ROUNDS = 100
BATCHES, TIME, FEATURE = (1, 32), 64, 128


def models(rngs: nnx.Rngs) -> dict[str, Any]:
    def block() -> nnx.Module:
        options = {"causal": True, "rotary": True, "max_length": TIME}
        return jm.nn.TransformerEncoderBlock(4, FEATURE, **options, rngs=rngs)

    def convolution() -> nnx.Module:
        return jm.nn.Conv1D(FEATURE, FEATURE, 5, padding="causal", rngs=rngs)

    def lstm() -> nnx.Module:
        return jm.nn.LSTM(FEATURE, FEATURE, rngs=rngs)

    last = nnx.Linear(FEATURE, FEATURE, rngs=rngs)
    return {
        "LSTM": lstm(),
        "GRU": jm.nn.GRU(FEATURE, FEATURE, rngs=rngs),
        "minGRU": jm.nn.MinGRU(FEATURE, FEATURE, rngs=rngs),
        "causal convolution of 5": convolution(),
        "causal transformer block": block(),
        "stack of all": jm.nn.Sequential(convolution(), nnx.gelu, lstm(), block(), last),
    }


def functions(model: Any) -> tuple[Any, Callable, Callable]:
    """The state, `step(state, carry, x, mask)` and `whole(state, x, mask)`, both compiled."""
    graph, state = nnx.split(model)

    @jax.jit
    def step(state: Any, carry: Any, x: jax.Array, mask: jax.Array) -> Any:
        return nnx.merge(graph, state).run(carry, x, mask)

    @jax.jit
    def whole(state: Any, x: jax.Array, mask: jax.Array) -> Any:
        return nnx.merge(graph, state)(x, mask)

    return state, step, whole


def run(name: str, model: Any, batch: int, rounds: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(batch, TIME, FEATURE)), jnp.float32)
    mask = jnp.asarray(np.arange(TIME) < draw.integers(TIME // 2, TIME + 1, (batch, 1)))
    state, step, whole = functions(model)

    carry, parts = model.initial_carry(batch), []
    for t in range(TIME):
        carry, (y, _) = step(state, carry, x[:, t : t + 1], mask[:, t : t + 1])
        parts.append(y)
    steps, rows = jnp.concatenate(parts, axis=1), whole(state, x, mask)[0]
    difference = require_same(steps, rows, f"{name}, step by step", 1e-4)
    one = x[:, :1], mask[:, :1]
    times = timing.interleaved(
        {"step": lambda: step(state, carry, *one), "whole": lambda: whole(state, x, mask)}, rounds
    )
    return {
        "model": name,
        "batch": batch,
        "microseconds_a_step": round(1e3 * times["step"]["median"], 1),
        "microseconds_a_step_of_the_whole": round(1e3 * times["whole"]["median"] / TIME, 1),
        "milliseconds": times,
        "largest_difference": difference,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    every = [(*item, batch) for item in models(nnx.Rngs(0)).items() for batch in BATCHES]
    rows = [run(*one, options.rounds) for one in every]
    return {"time": TIME, "feature": FEATURE, "rows": rows}


def table(found: dict[str, Any]) -> str:
    return tables.markdown(
        f"Rows of {found['time']} steps, {found['feature']} features, on "
        f"{found['machine']['processor']}.",
        ["model", "rows", "one step, µs", "a step of the whole row, µs"],
        (list(row.values())[:4] for row in found["rows"]),
    )
