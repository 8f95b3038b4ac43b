"""What it costs to check a function for leaks with `leak.check`, in CPU seconds of the process.

    python -m bench checking

A mean, a small classifier and encoders of transformer blocks, each in a new process, so that the
first check also pays for the first compilation of a process. The second check of the same function
has another batch of the same shape, and the same mask. CPU seconds, unlike seconds on the clock, do
not count what else the machine does.
"""

import argparse
import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from flax import nnx

import jaxmask as jm
from bench import store, tables
from bench.suite import Suite

LENGTHS, TIME, FEATURES = (16, 12, 7, 1), 16, 16


def classifier() -> nnx.Module:
    return jm.nn.Sequential(
        jm.nn.GRU(FEATURES, 16, return_sequences=False, rngs=nnx.Rngs(0)),
        nnx.Linear(16, 3, rngs=nnx.Rngs(1)),
    )


def encoder(layers: int) -> nnx.Module:
    block = jm.nn.TransformerEncoderBlock
    return jm.nn.Sequential(
        *(block(4, FEATURES, 32, rngs=nnx.Rngs(k)) for k in range(layers)), jm.nn.GlobalMeanPool()
    )


MODELS: dict[str, Callable[[], Any]] = {
    "jm.pool.mean": lambda: jm.pool.mean,
    "GRU classifier": classifier,
    "encoder of 2 blocks": lambda: encoder(2),
    "encoder of 12 blocks": lambda: encoder(12),
}


def seconds(name: str) -> list[float]:
    """CPU seconds of two checks."""
    model, found = MODELS[name](), []
    mask = np.arange(TIME)[None] < np.array(LENGTHS)[:, None]
    for seed in (0, 1):
        draw = np.random.default_rng(seed)
        x = draw.normal(size=(*mask.shape, FEATURES)).astype(np.float32)
        start = time.process_time()
        report = jm.leak.check(model, x, mask)
        found.append(round(time.process_time() - start, 2))
        assert report.ok, report
    return found


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    context = multiprocessing.get_context("spawn")
    for name in MODELS:
        with concurrent.futures.ProcessPoolExecutor(1, context) as alone:
            first, second = alone.submit(seconds, name).result()
        yield {"model": name, "first": first, "second": second}


def table(found: dict[str, Any]) -> str:
    rows = sorted(found["rows"], key=lambda row: row["first"])
    return tables.markdown(
        f"CPU seconds of `jm.leak.check`, on {found['on']}.",
        ["function", "first check of a process", "second check of the function"],
        ([row["model"], f"{row['first']:.2f}", f"{row['second']:.2f}"] for row in rows),
    )


SUITES = {"checking": Suite(("model",), measure, table)}
