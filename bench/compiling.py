"""What it costs to trace and compile a training step, in CPU seconds of the process.

    python -m bench compiling

One LSTM layer and a stack of three bidirectional ones by several methods and in Flax, an encoder of
two transformer blocks with and without `skip_padding`, and the first layer again from JAX's
persistent cache. CPU seconds, unlike seconds on the clock, do not count what else the machine does;
XLA compiles on all cores.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import jaxmask as jm
from bench import store, tables
from bench.problem import Problem
from bench.rivals import models
from bench.rivals import recurrent as rivals
from bench.suite import Suite
from jaxmask.recurrent import Choice

BATCH, TIME, FEATURES, HIDDEN = 64, 256, 64, 128


def recurrent(deep: bool, method: Any) -> tuple[Callable, tuple]:
    """A training step and its arguments; without a method in Flax."""
    layers = {"layers": 3, "directions": 2} if deep else {}
    task = Problem("lstm", "", (TIME,) * BATCH, TIME, FEATURES, HIDDEN, **layers)
    layout = rivals.jaxmask(task, method) if method else rivals.flax(task)
    function, given = rivals.function_of(task, layout.apply)
    return function, (layout.params(task.data.weights), *given)


def encoder(options: dict[str, Any] | None) -> tuple[Callable, tuple]:
    """A training step, under `skip_padding` where there are options."""
    sizes = models.Sizes(BATCH, TIME, FEATURES, heads=8, mlp=4 * FEATURES)
    weights, apply = models.ours("encoder", sizes)
    if options:
        apply = jm.skip_padding(apply, **options)
    x = jnp.zeros((BATCH, TIME, FEATURES))

    def loss(weights: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
        return apply(x, mask, weights)[0].sum()

    return jax.value_and_grad(loss, (0, 1)), (weights, x, jnp.ones(x.shape[:2], bool))


def steps() -> Iterator[tuple[str, str, Callable[[], tuple]]]:
    """The model, how it is run, and what makes it."""
    slots = jm.recurrent.explain(BATCH, TIME, HIDDEN, method="tiled").slots
    middle = Choice("tiled", slots=(slots[len(slots) // 2],))  # of those that `auto` has
    methods = {"auto": "auto", "scan": "scan", "one number of slots": middle, "Flax": None}
    for name, method in methods.items():
        yield "LSTM", name, functools.partial(recurrent, False, method)
    for name in ("auto", "scan", "Flax"):
        yield "3 x BiLSTM", name, functools.partial(recurrent, True, methods[name])
    ways: dict[str, Any] = {"as it is": None}
    ways |= {f"skip_padding, {n} lengths": {"lengths": n} for n in (2, 3, 4)}
    ways["skip_padding, packed"] = {"pack": True}
    for name, options in ways.items():
        yield "encoder", name, functools.partial(encoder, options)


def seconds(make: Callable[[], tuple[Callable, tuple]]) -> float:
    """CPU seconds from the function to the program."""
    function, given = make()
    jax.clear_caches()
    start = time.process_time()
    jax.jit(function).lower(*given).compile()
    return round(time.process_time() - start, 2)


def from_cache(make: Callable[[], tuple[Callable, tuple]]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        before = jax.config.jax_compilation_cache_dir
        jax.config.update("jax_compilation_cache_dir", folder)
        try:
            seconds(make)
            return seconds(make)
        finally:
            jax.config.update("jax_compilation_cache_dir", before)


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    auto, *_ = every = list(steps())
    seconds(auto[-1])  # the first compilation of a process takes longer
    for model, how, make in every:
        yield {"model": model, "how": how, "seconds": seconds(make)}
    yield {"model": "LSTM", "how": "auto, from the cache", "seconds": from_cache(auto[-1])}


def table(found: dict[str, Any]) -> str:
    rows = found["rows"]
    base = {r["model"]: r["seconds"] for r in rows if r["how"] in ("Flax", "as it is")}
    figures = ((r["seconds"], r["seconds"] / base[r["model"]]) for r in rows)
    return tables.markdown(
        f"CPU seconds to trace and compile a training step, on {found['on']}.",
        ["model", "how", "seconds", "over Flax, or over the encoder as it is"],
        (
            [row["model"], row["how"], f"{time:.2f}", f"{ratio:.1f}"]
            for row, (time, ratio) in zip(rows, figures, strict=True)
        ),
    )


SUITES = {"compiling": Suite(("model", "how"), measure, table)}
