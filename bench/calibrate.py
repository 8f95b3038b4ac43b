"""How many slots the engine should have, and from what size on it beats the plain scan.

    python -m bench calibrate
    python -m bench calibrate --grids few

Times a training step of one LSTM layer by the scan, by the engine with several counts of slots and
with those of the rule, from which it chooses, and by `"dense"`: for a range of hidden sizes, on
ragged rows and on full ones, for short rows, and for few rows, all full. The constants at the head
of `jaxmask/recurrent/_choice.py` and `ROUND` of the engine are chosen by hand from the results.
"""

import argparse
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

from bench import store, tables, timing
from bench.workloads import log_normal
from jaxmask import recurrent
from jaxmask.recurrent import Choice

BATCH, TIME = 64, 128
HIDDEN = (8, 16, 32, 64, 128, 256, 512)
SLOTS = (4, 8, 16, 24, 32, 64)
FILLS = (0.1, 0.36, 1.0)
SHORT, SHORT_HIDDEN, SHORT_FILL = (8, 16, 24, 32, 48), (64, 128, 256), 0.7
FEW, FEW_HIDDEN = (1, 4, 16, 32, 64), (16, 32, 64, 128, 256)
SIZES = ("batch", "time", "hidden", "fill")
GRIDS = {
    "sizes": [(BATCH, TIME, hidden, fill) for hidden in HIDDEN for fill in FILLS],
    "short": [(BATCH, time, hidden, SHORT_FILL) for hidden in SHORT_HIDDEN for time in SHORT],
    "few": [(batch, TIME, hidden, 1.0) for batch in FEW for hidden in FEW_HIDDEN],
}
KEY, ROUNDS = ("grid", *SIZES), 7
OPTIONS = {"--grids": {"nargs": "*", "choices": GRIDS, "default": list(GRIDS)}}


def layer(method: str | Choice, weights: Any, x: jax.Array, mask: jax.Array) -> Any:
    """The outputs of one layer."""
    return recurrent.lstm(x, mask, weights, method=method)[1][0]


def training_step(method: str | Choice) -> Any:
    """The gradient of one layer."""

    def loss(weights: recurrent.LSTMWeights, x: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.sum(layer(method, weights, x, mask) ** 2)

    return jax.jit(jax.grad(loss))


def arguments(batch: int, time: int, hidden: int, fill: float) -> tuple[Any, ...]:
    """Weights, `x` and the mask."""
    draw = np.random.default_rng(0)
    mask = np.arange(time) < np.asarray(log_normal(batch, time, fill))[:, None]
    x = jnp.asarray(draw.normal(size=(batch, time, hidden)), jnp.float32)
    shapes = (hidden, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)
    weights = recurrent.LSTMWeights(*(jnp.asarray(0.1 * draw.normal(size=s), "f4") for s in shapes))
    return weights, x, jnp.asarray(mask)


def run(batch: int, time: int, hidden: int, fill: float, rounds: int) -> dict[str, float]:
    """Median milliseconds of a step by the scan, each count of slots, and `"dense"`."""
    data = arguments(batch, time, hidden, fill)
    rule = recurrent.explain(batch, time, hidden, method="tiled")
    choices = {"scan": "scan", "dense": "dense", "chosen": rule}
    slots = [count for count in SLOTS if count <= max(batch, SLOTS[0])]
    choices |= {str(count): Choice("tiled", (count,), rule.steps) for count in slots}
    steps = {name: training_step(choice) for name, choice in choices.items()}
    runs = {name: functools.partial(step, *data) for name, step in steps.items()}
    return timing.medians(timing.interleaved(runs, rounds, least=0.02))


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    every = [(grid, sizes) for grid in options.grids for sizes in GRIDS[grid]]
    for grid, sizes in track(every, "calibrating"):
        named = dict(zip(SIZES, sizes, strict=True))
        yield {"grid": grid, **named, "ms": run(*sizes, options.rounds)}


def table(found: dict[str, Any]) -> dict[str, str]:
    """One line a size: the time of the scan over that of each method; and one a number of rows."""
    methods, machine = ("dense", "chosen", *map(str, SLOTS)), store.machine_name(found["machine"])
    times = {(row["grid"], *(row[name] for name in SIZES)): row["ms"] for row in found["rows"]}

    def cells(key: tuple) -> list[str]:
        ms, sizes = times[key], key[1:]
        ratios = (f"{ms['scan'] / ms[name]:.2f}" if name in ms else "" for name in methods)
        return [*(f"{size:g}" for size in sizes), *ratios]

    def cells_of_few(batch: int) -> list[Any]:
        every = (times["few", batch, TIME, hidden, 1.0] for hidden in FEW_HIDDEN)
        ratios = [[ms["scan"] / ms[name] for name in ("dense", "chosen")] for ms in every]
        return [batch, *(f"{dense:.2f} / {engine:.2f}" for dense, engine in ratios)]

    about = f"Time of the plain scan over that of each method, on {machine}."
    head = ["rows", *(f"{hidden} features" for hidden in FEW_HIDDEN)]
    keys = [(grid, *sizes) for grid in ("sizes", "short") for sizes in GRIDS[grid]]
    lines = [cells(key) for key in keys if key in times]
    texts = {"calibrate": tables.markdown(about, [*SIZES, *methods], lines)}
    if any(grid == "few" for grid, *_ in times):
        about = f"Dense / the engine, on {machine}."
        texts["calibrate-few"] = tables.markdown(about, head, map(cells_of_few, FEW))
    return texts
