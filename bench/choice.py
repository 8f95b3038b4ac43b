"""What constants the recurrent engine should have: they are chosen by hand from the results.

    python -m bench calibrate
    python -m bench calibrate --grids few
    python -m bench unroll

`calibrate` times a training step of one LSTM layer by the scan, by the engine with several counts
of slots and with those of the rule, from which it chooses, and by `"dense"`: for a range of hidden
sizes, on ragged rows and on full ones, for short rows, and for few rows, all full. `unroll` times
one LSTM layer over full rows on an accelerator, by the scan and by `"dense"` with several counts of
steps an iteration. The constants are those at the head of `jaxmask/recurrent/_choice.py`, and
`ROUND` of the engine.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import contest, store, tables
from bench.contest import Entrant
from bench.suite import Suite, some
from bench.workloads import log_normal
from jaxmask import recurrent
from jaxmask.recurrent import Choice

BATCH, TIME = 64, 128
HIDDEN = (8, 16, 32, 64, 128, 256, 512)
SLOTS = (4, 8, 16, 24, 32, 64)
FEW, FEW_HIDDEN = (1, 4, 16, 32, 64), (16, 32, 64, 128, 256)
SIZES = ("batch", "time", "hidden", "fill")
GRIDS = {
    "sizes": [(BATCH, TIME, hidden, fill) for hidden in HIDDEN for fill in (0.1, 0.36, 1.0)],
    "short": [
        (BATCH, time, hidden, 0.7) for hidden in (64, 128, 256) for time in (8, 16, 24, 32, 48)
    ],
    "few": [(batch, TIME, hidden, 1.0) for batch in FEW for hidden in FEW_HIDDEN],
}
KEY, LEAST = ("grid", *SIZES), 0.02  # seconds that a sample takes at least


def layer(method: str | Choice, weights: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
    return recurrent.lstm(x, mask, weights, method=method)[1][0]


def slope(method: str | Choice, weights: Any, x: jax.Array, mask: jax.Array) -> Any:
    """The gradients of a training step."""
    return jax.grad(lambda weights: jnp.sum(layer(method, weights, x, mask) ** 2))(weights)


def arguments(batch: int, time: int, hidden: int, fill: float) -> tuple[Any, ...]:
    """Weights, `x` and the mask."""
    draw = np.random.default_rng(0)
    mask = np.arange(time) < np.asarray(log_normal(batch, time, fill))[:, None]
    x = jnp.asarray(draw.normal(size=(batch, time, hidden)), jnp.float32)
    shapes = (hidden, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)
    weights = recurrent.LSTMWeights(*(jnp.asarray(0.1 * draw.normal(size=s), "f4") for s in shapes))
    return weights, x, jnp.asarray(mask)


def run(function: Callable, choices: dict[str, Any], given: tuple, rounds: int) -> dict[str, Any]:
    lowered = [jax.jit(functools.partial(function, one)).lower(*given) for one in choices.values()]
    with ThreadPoolExecutor() as pool:  # to compile takes most of the time
        programs = pool.map(lambda one: one.compile(), lowered)
        made = dict(zip(choices, map(Entrant, programs), strict=True))
    how = {"rest": 0.0, "least": LEAST, "tolerance": 1e-2}
    return contest.run(made, given, "the same weights", rounds, **how)


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    """A step by the scan, each count of slots, and `"dense"`."""
    for grid in options.grids:
        for sizes in GRIDS[grid]:
            rule = recurrent.explain(*sizes[:3], method="tiled")
            choices = {"scan": "scan", "dense": "dense", "chosen": rule}
            slots = [count for count in SLOTS if count <= max(sizes[0], SLOTS[0])]
            choices |= {str(count): Choice("tiled", (count,), rule.steps) for count in slots}
            found = run(slope, choices, arguments(*sizes), options.rounds)
            yield {"grid": grid, **dict(zip(SIZES, sizes, strict=True)), "rivals": found}


def table(found: dict[str, Any]) -> dict[str, str]:
    """One line a size: the time of the scan over that of each method; and one a number of rows."""
    methods = ("dense", "chosen", *map(str, SLOTS))
    times = {tuple(row[name] for name in KEY): row["rivals"] for row in found["rows"]}

    def cells(key: tuple) -> list[str]:
        ratios = (tables.over(times[key], "scan", name) for name in methods)
        return [*(f"{size:g}" for size in key[1:]), *ratios]

    def cells_of_few(batch: int) -> list[Any]:
        every = (times["few", batch, TIME, hidden, 1.0] for hidden in FEW_HIDDEN)
        both = ("dense", "chosen")
        return [batch, *(" / ".join(tables.over(t, "scan", name) for name in both) for t in every)]

    about = f"Time of the plain scan over that of each method, on {found['on']}."
    keys = [(grid, *sizes) for grid in ("sizes", "short") for sizes in GRIDS[grid]]
    lines = [cells(key) for key in keys if key in times]
    texts = {"calibrate": tables.markdown(about, [*SIZES, *methods], lines)}
    if any(grid == "few" for grid, *_ in times):
        head = ["rows", *(f"{hidden} features" for hidden in FEW_HIDDEN)]
        about = f"Dense / the engine, on {found['on']}."
        texts["calibrate-few"] = tables.markdown(about, head, map(cells_of_few, FEW))
    return texts


# ------------------------------------------------------------ steps an iteration of `"dense"`

UNROLL = (1, 4, 8, 16)
UNROLL_SIZES = (  # batch, time, hidden
    (1, 128, 256),
    *((64, 128, hidden) for hidden in (16, 256, 1024)),
    (64, 16, 256),
    (512, 128, 256),
)
UNROLL_KEY = ("batch", "time", "hidden", "what")
# Without gradients one step at a time is the engine's forward: a round of one step.
METHODS = {"scan": Choice("scan")} | {str(n): Choice("dense", steps=1, unroll=n) for n in UNROLL}


def measure_unrolled(options: argparse.Namespace) -> Iterator[store.Row]:
    for sizes in UNROLL_SIZES:
        for what, function in {"forward": layer, "train": slope}.items():
            named = dict(zip(UNROLL_KEY, (*sizes, what), strict=True))
            found = run(function, METHODS, arguments(*sizes, fill=1.0), options.rounds)
            yield {**named, "rivals": found}


def table_unrolled(found: dict[str, Any]) -> str:
    def cells(row: store.Row) -> list[str]:
        ratios = (tables.over(row["rivals"], "scan", str(n)) for n in UNROLL)
        time = f"{tables.median(row['rivals']['scan']):.2f}"
        return [f"{row['batch']} x {row['time']}, {row['hidden']}", row["what"], time, *ratios]

    return tables.markdown(
        f'Time of the plain scan over that of `"dense"`, by steps an iteration, on {found["on"]}.',
        [
            *("rows x steps, features", "pass", "plain scan, ms"),
            *(f"{n} at a time" for n in UNROLL),
        ],
        map(cells, found["rows"]),
    )


SUITES = {
    "calibrate": Suite(KEY, measure, table, {"--grids": some(GRIDS)}, rounds=7),
    "unroll": Suite(UNROLL_KEY, measure_unrolled, table_unrolled, rounds=9),
}
