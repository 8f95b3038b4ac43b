"""Serving: how long a request takes, one at a time, at random lengths, with buckets and without.

    python -m bench.serve

The same jitted model answers the same requests in four ways: at the length of each request, padded
to a bucket (compiled when first met, or all before the first request), and padded to the longest.
Answers must agree before anything is timed, and every way may compile no oftener than it promises:
once for each length that it meets, each bucket, or once. Results go to `bench/results/serve.json`,
and as a table beside it and into `docs/serving.md`. Takes minutes, nearly all to compile.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

import jaxmask as jm
from bench import pages, timing
from bench.workloads import SEED

VOCABULARY, EMBED, HIDDEN = 1000, 64, 128
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
    """Pads each request to the smallest of some sizes, and counts how often that compiles."""

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

    def warm_up(self) -> float:
        """Compile every size; the seconds that takes."""
        start = time.perf_counter()
        for size in self.sizes.tolist():
            self(np.zeros(size, np.int32))
        return time.perf_counter() - start


def ways(requests: Sequence[np.ndarray]) -> dict[str, tuple[Server, bool]]:
    """Servers, and whether each is warmed up."""
    every = sorted({len(request) for request in requests})
    return {
        "length of each request": (Server(every), False),
        "buckets, compiled when met": (Server(BUCKETS), False),
        "buckets, compiled before": (Server(BUCKETS), True),
        "padded to the longest": (Server(BUCKETS[-1:]), True),
    }


def run(requests: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Serve all requests in each way."""
    rows, expected = [], None
    for name, (server, warm) in ways(requests).items():
        print(f"{name} ...", flush=True)
        warming = server.warm_up() if warm else 0.0
        milliseconds, answers = [], []
        for request in requests:
            start = time.perf_counter()
            answers.append(server(request))
            milliseconds.append(1e3 * (time.perf_counter() - start))
        found = np.concatenate(answers)
        expected = found if expected is None else expected
        if not np.max(np.abs(found - expected)) < 1e-4:
            raise SystemExit(f"{name}: answers differ")
        if server.compiled > len(server.sizes):
            raise SystemExit(f"{name}: compiled {server.compiled} times, {len(server.sizes)} sizes")
        p50, p99 = np.percentile(milliseconds, [50, 99])
        rows.append(
            {
                "way": name,
                "sizes": len(server.sizes),
                "compiled": server.compiled,
                "warm_up_seconds": round(warming, 2),
                "p50_milliseconds": round(float(p50), 3),
                "p99_milliseconds": round(float(p99), 3),
                "total_seconds": round(sum(milliseconds) / 1e3, 2),
            }
        )
    return rows


def table(rows: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    lines = [
        f"On {machine['processor']}.",
        "",
        "| requests padded to | compiled | warm-up, s | p50, ms | p99, ms | all, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = (row["compiled"], row["warm_up_seconds"], row["p50_milliseconds"])
        figures = (*figures, row["p99_milliseconds"], row["total_seconds"])
        lines.append(f"| {row['way']} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300)
    rows = run(draw_requests(parser.parse_args().requests))
    path = timing.save("serve", {"buckets": BUCKETS, "rows": rows})
    text = table(rows, timing.machine())
    pages.show(text, path, "serving.md")
    print(text, f"wrote {path}, and its table beside it and into docs/serving.md", sep="\n")


if __name__ == "__main__":
    main()
