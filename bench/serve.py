"""Serving: how long a request takes, one at a time, at random lengths, with buckets and without.

    python -m bench serve

One jitted model answers the same requests at the length of each request, padded to a bucket
(compiled when first met, or before the first request), and padded to the longest. Answers must
agree, and nothing may compile more often than once for each length it meets, each bucket, or once.
Takes minutes, nearly all to compile.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

import jaxmask as jm
from bench import tables, timing
from bench.agreement import require_same
from bench.workloads import SEED

VOCABULARY, EMBED, HIDDEN = 1000, 64, 128
OPTIONS = {"--requests": {"type": int, "default": 300}}
LONGEST, BUCKETS = 256, (8, 16, 32, 64, 128, 256)


def draw_requests(count: int) -> list[np.ndarray]:
    """Ids in log-normal lengths, as words of a sentence or a search have them."""
    draw = np.random.default_rng(SEED)
    lengths = np.clip(np.round(draw.lognormal(3.2, 0.8, count)), 1, LONGEST).astype(int)
    return [draw.integers(0, VOCABULARY, n).astype(np.int32) for n in lengths]


def model() -> Callable[[jax.Array, jax.Array], jax.Array]:
    rngs = nnx.Rngs(0)
    lstms = (jm.nn.LSTM(EMBED, HIDDEN, rngs=rngs) for _ in range(2))
    classifier = jm.nn.Sequential(
        jm.nn.Embed(VOCABULARY, EMBED, rngs=rngs),
        jm.nn.Bidirectional(*lstms),
        jm.nn.GlobalMeanPool(),
        nnx.Linear(2 * HIDDEN, 2, rngs=rngs),
    )
    graph, state = nnx.split(classifier)
    return lambda ids, mask: nnx.merge(graph, state)(ids, mask)[0]


class Server:
    """Pads each request to the smallest size that holds it, and counts compilations."""

    def __init__(self, sizes: Sequence[int]):
        self.sizes, self.compiled = np.array(sizes), 0
        answer = model()

        @jax.jit
        def run(ids: jax.Array, mask: jax.Array) -> jax.Array:
            self.compiled += 1
            return answer(ids, mask)

        self._run = run

    def __call__(self, request: np.ndarray) -> np.ndarray:
        size = int(self.sizes[np.searchsorted(self.sizes, len(request))])
        return np.asarray(self._run(*jm.pad_sequences([request], size)))

    def warm_up(self) -> None:
        for size in self.sizes.tolist():
            self(np.zeros(size, np.int32))


def servers(requests: Sequence[np.ndarray]) -> dict[str, tuple[Server, bool]]:
    """Servers, and whether each is warmed up."""
    every = sorted({len(request) for request in requests})
    return {
        "length of each request": (Server(every), False),
        "buckets, compiled when met": (Server(BUCKETS), False),
        "buckets, compiled before": (Server(BUCKETS), True),
        "padded to the longest": (Server(BUCKETS[-1:]), True),
    }


def run(requests: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    rows, expected = [], None
    for name, (server, warm) in servers(requests).items():
        print(f"{name} ...", flush=True)
        warming = timing.seconds_of(server.warm_up) if warm else 0.0
        answers, seconds = zip(*(timing.timed(server, one) for one in requests), strict=True)
        expected = expected or answers
        require_same(answers, expected, name, tolerance=1e-4)
        if server.compiled > len(server.sizes):
            raise SystemExit(f"{name}: compiled {server.compiled} times, {len(server.sizes)} sizes")
        p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
        rows.append(
            {
                "padded_to": name,
                "sizes": len(server.sizes),
                "compiled": server.compiled,
                "warm_up_seconds": round(warming, 2),
                "p50_milliseconds": round(float(p50), 3),
                "p99_milliseconds": round(float(p99), 3),
                "total_seconds": round(sum(seconds), 2),
            }
        )
    return rows


def measure(options: argparse.Namespace) -> dict[str, Any]:
    return {"buckets": BUCKETS, "rows": run(draw_requests(options.requests))}


def table(found: dict[str, Any]) -> str:
    return tables.markdown(
        f"On {found['machine']['processor']}.",
        ["requests padded to", "compiled", "warm-up, s", "p50, ms", "p99, ms", "all, s"],
        ([value for name, value in row.items() if name != "sizes"] for row in found["rows"]),
    )
