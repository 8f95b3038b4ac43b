"""Models that serve: requests of random length, and rows that arrive step by step.

    python -m bench serve
    python -m bench streaming

`serve`: how long a request takes, one at a time. One jitted model answers the same requests at the
length of each request, padded to a bucket (compiled when first met, or before the first request),
and padded to the longest. Answers must agree, and nothing may compile more often than once for each
length it meets, each bucket, or once. Takes minutes, nearly all to compile.

`streaming`: the time of one jitted step of models that stream, beside one call over the whole row.
Each model runs step by step with its carry, and over the whole row at once; both must agree before
anything is timed.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm
from bench import contest, store, tables, timing
from bench.rivals.models import bilstm
from bench.suite import Suite
from bench.workloads import SEED

VOCABULARY, EMBED, HIDDEN = 1000, 64, 128
LONGEST, BUCKETS = 256, (8, 16, 32, 64, 128, 256)


def draw_requests(count: int) -> list[np.ndarray]:
    """Ids in log-normal lengths, as words of a sentence or a search have them."""
    draw = np.random.default_rng(SEED)
    lengths = np.clip(np.round(draw.lognormal(3.2, 0.8, count)), 1, LONGEST).astype(int)
    return [draw.integers(0, VOCABULARY, n).astype(np.int32) for n in lengths]


class Server:
    """Pads each request to the smallest size that holds it, and counts compilations."""

    def __init__(self, sizes: Sequence[int]):
        self.sizes, self.compiled, rngs = np.array(sizes), 0, nnx.Rngs(0)
        model = jm.nn.Sequential(
            jm.nn.Embed(VOCABULARY, EMBED, rngs=rngs),
            bilstm(EMBED, HIDDEN, rngs),
            jm.nn.GlobalMeanPool(),
            nnx.Linear(2 * HIDDEN, 2, rngs=rngs),
        )

        @jax.jit
        def run(ids: jax.Array, mask: jax.Array) -> jax.Array:
            self.compiled += 1
            return model(ids, mask)[0]

        self._run = run

    def __call__(self, request: np.ndarray) -> np.ndarray:
        size = int(self.sizes[np.searchsorted(self.sizes, len(request))])
        return np.asarray(self._run(*jm.pad_sequences([request], size)))

    def warm_up(self) -> None:
        for size in self.sizes.tolist():
            self(np.zeros(size, np.int32))


def serve(requests: Sequence[np.ndarray]) -> Iterator[store.Row]:
    every, expected = sorted({len(request) for request in requests}), None
    for name, sizes, warm in (
        ("length of each request", every, False),
        ("buckets, compiled on first use", BUCKETS, False),
        ("buckets, compiled before", BUCKETS, True),
        ("padded to the longest", BUCKETS[-1:], True),
    ):
        server = Server(sizes)
        warming = timing.seconds_of(server.warm_up) if warm else 0.0
        answers, seconds = zip(*(timing.timed(server, one) for one in requests), strict=True)
        expected = expected or answers
        contest.require_same(answers, expected, name, tolerance=1e-4)
        if server.compiled > len(server.sizes):
            raise SystemExit(f"{name}: compiled {server.compiled} times, {len(server.sizes)} sizes")
        p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
        yield {
            "padded_to": name,
            "compiled": server.compiled,
            "warm_up_seconds": round(warming, 2),
            "p50_milliseconds": round(float(p50), 3),
            "p99_milliseconds": round(float(p99), 3),
            "total_seconds": round(sum(seconds), 2),
        }


def measure_serving(options: argparse.Namespace) -> Iterator[store.Row]:
    return serve(draw_requests(options.requests))


def table_of_serving(found: dict[str, Any]) -> str:
    return tables.markdown(
        f"On {found['on']}.",
        ["requests padded to", "compiled", "warm-up, s", "p50, ms", "p99, ms", "all, s"],
        (list(row.values())[1:] for row in found["rows"]),  # the first is the machine
    )


# --------------------------------------------------------------------------------------- streaming

BATCHES, TIME, FEATURE = (1, 32), 64, 128


def models(rngs: nnx.Rngs) -> dict[str, Any]:
    def block() -> nnx.Module:
        options = {"causal": True, "rotary": True, "max_length": TIME}
        return jm.nn.TransformerEncoderBlock(4, FEATURE, **options, rngs=rngs)

    def convolution() -> nnx.Module:
        return jm.nn.Conv1D(FEATURE, FEATURE, 5, padding="causal", rngs=rngs)

    lstm, last = jm.nn.LSTM(FEATURE, FEATURE, rngs=rngs), nnx.Linear(FEATURE, FEATURE, rngs=rngs)
    return {
        "LSTM": jm.nn.LSTM(FEATURE, FEATURE, rngs=rngs),
        "GRU": jm.nn.GRU(FEATURE, FEATURE, rngs=rngs),
        "minGRU": jm.nn.MinGRU(FEATURE, FEATURE, rngs=rngs),
        "causal convolution of 5": convolution(),
        "causal transformer block": block(),
        "stack of all": jm.nn.Sequential(convolution(), nnx.gelu, lstm, block(), last),
    }


def stream(name: str, model: Any, batch: int, rounds: int) -> store.Row:
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(batch, TIME, FEATURE)), jnp.float32)
    mask = jnp.asarray(np.arange(TIME) < draw.integers(TIME // 2, TIME + 1, (batch, 1)))
    graph, state = nnx.split(model)
    step = jax.jit(lambda state, *given: nnx.merge(graph, state).run(*given))
    whole = jax.jit(lambda state, *given: nnx.merge(graph, state)(*given))

    carry, parts = model.initial_carry(batch), []
    for t in range(TIME):
        carry, (y, _) = step(state, carry, x[:, t : t + 1], mask[:, t : t + 1])
        parts.append(y)
    steps, rows = jnp.concatenate(parts, axis=1), whole(state, x, mask)[0]
    difference = contest.require_same(steps, rows, f"{name}, step by step", 1e-4)
    one = x[:, :1], mask[:, :1]
    runs = {"step": lambda: step(state, carry, *one), "whole": lambda: whole(state, x, mask)}
    times = timing.interleaved(runs, rounds)
    rivals = {name: {"milliseconds": spread} for name, spread in times.items()}
    return {"model": name, "batch": batch, "difference": difference, "rivals": rivals}


def measure_streaming(options: argparse.Namespace) -> Iterator[store.Row]:
    for name, model in models(nnx.Rngs(0)).items():
        for batch in BATCHES:
            yield stream(name, model, batch, options.rounds)


def table_of_streaming(found: dict[str, Any]) -> str:
    def cells(row: store.Row) -> list[Any]:
        step, whole = (1e3 * tables.median(row["rivals"][name]) for name in ("step", "whole"))
        return [row["model"], row["batch"], f"{step:.1f}", f"{whole / TIME:.1f}"]

    return tables.markdown(
        f"Rows of {TIME} steps, {FEATURE} features, on {found['on']}.",
        ["model", "rows", "one step, µs", "a step of the whole row, µs"],
        map(cells, found["rows"]),
    )


SUITES = {
    "serve": Suite(
        ("padded_to",),
        measure_serving,
        table_of_serving,
        {"--requests": {"type": int, "default": 300}},
    ),
    "streaming": Suite(("model", "batch"), measure_streaming, table_of_streaming, rounds=100),
}
