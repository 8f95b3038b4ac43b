"""The time of one jitted step of models that stream, beside one call over the whole row.

    python -m bench.streaming

Each model runs step by step with its carry, and over the whole row at once; both must agree before
anything is timed. Results go to `bench/results/streaming.json`.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm
from bench import timing

BATCHES, TIME, FEATURE = (1, 32), 64, 128


def models(rngs: nnx.Rngs) -> dict[str, Callable]:
    def heads() -> nnx.Module:
        return jm.nn.TransformerEncoderBlock(
            4, FEATURE, causal=True, rotary=True, max_length=TIME, rngs=rngs
        )

    return {
        "LSTM": jm.nn.LSTM(FEATURE, FEATURE, rngs=rngs),
        "GRU": jm.nn.GRU(FEATURE, FEATURE, rngs=rngs),
        "minGRU": jm.nn.MinGRU(FEATURE, FEATURE, rngs=rngs),
        "causal convolution of 5": jm.nn.Conv1D(FEATURE, FEATURE, 5, padding="causal", rngs=rngs),
        "causal transformer block": heads(),
        "stack of all": jm.nn.Sequential(
            jm.nn.Conv1D(FEATURE, FEATURE, 5, padding="causal", rngs=rngs),
            nnx.gelu,
            jm.nn.LSTM(FEATURE, FEATURE, rngs=rngs),
            heads(),
            nnx.Linear(FEATURE, FEATURE, rngs=rngs),
        ),
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
    difference = float(jnp.max(jnp.abs(jnp.concatenate(parts, axis=1) - whole(state, x, mask)[0])))
    if not difference < 1e-4:
        raise SystemExit(f"{name}: step by step differs by {difference:.1e}")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    rows = [
        run(name, model, batch, rounds)
        for name, model in models(nnx.Rngs(0)).items()
        for batch in BATCHES
    ]
    for row in rows:
        print({key: row[key] for key in list(row)[:4]})
    print("wrote", timing.save("streaming", {"time": TIME, "feature": FEATURE, "rows": rows}))


if __name__ == "__main__":
    main()
