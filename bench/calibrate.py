"""How many slots the engine should have, and from what size on it beats the plain scan.

    python -m bench calibrate
    python -m bench calibrate --few

Times a training step of one LSTM layer by the scan, by the engine with several counts of slots and
with those of the rule, from which it chooses, and by `"dense"`: for a range of hidden sizes, on
ragged rows and on full ones, and for short rows; with `--few`, for few rows, all full. The
constants at the head of `jaxmask/recurrent/_choice.py` and `ROUND` of the engine are chosen by hand
from `bench/results/calibration.json` and `calibration-few.json`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

from bench import store, suite, tables, timing
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


def table(found: dict[str, Any]) -> str:
    """One line a size: the time of the scan over that of each method."""
    rows, methods = found["steps"], ("dense", "chosen", *map(str, SLOTS))

    def cells(row: dict) -> list[str]:
        ms = row["ms"]
        ratios = (f"{ms['scan'] / ms[name]:.2f}" if name in ms else "" for name in methods)
        return [*(f"{row[name]:g}" for name in SIZES), *ratios]

    about = f"Time of the plain scan over that of each method, on {_machine(found)}."
    return tables.markdown(about, [*SIZES, *methods], map(cells, rows))


def table_of_few(found: dict[str, Any]) -> str:
    """One line a batch: the scan over `"dense"`, and over the engine."""

    def cells(batch: int) -> list[Any]:
        times = [row["ms"] for row in found["steps"] if row["batch"] == batch]
        ratios = [[ms["scan"] / ms[name] for name in ("dense", "chosen")] for ms in times]
        return [batch, *(f"{dense:.2f} / {engine:.2f}" for dense, engine in ratios)]

    head = ["rows", *(f"{hidden} features" for hidden in FEW_HIDDEN)]
    about = f"Dense / the engine, on {_machine(found)}."
    return tables.markdown(about, head, map(cells, FEW))


def _machine(found: dict[str, Any]) -> str:
    return store.machine_name(found["machine"])


def main() -> None:
    command = suite.parser(__doc__, 7)
    command.add_argument("--few", action="store_true", help="few rows, all full, and nothing else")
    options = command.parse_args()
    grid = [(BATCH, TIME, hidden, fill) for hidden in HIDDEN for fill in FILLS]
    grid += [(BATCH, time, hidden, SHORT_FILL) for hidden in SHORT_HIDDEN for time in SHORT]
    if options.few:
        grid = [(batch, TIME, hidden, 1.0) for batch in FEW for hidden in FEW_HIDDEN]

    def measure() -> dict[str, Any]:
        steps = []
        for sizes in track(grid, "calibrating"):
            named = dict(zip(SIZES, sizes, strict=True))
            steps.append(named | {"ms": run(*sizes, options.rounds)})
        return {"steps": steps}

    if options.few:
        suite.run("calibration-few", options, measure, table_of_few, "recurrent.md")
    else:
        suite.run("calibration", options, measure, table)


if __name__ == "__main__":
    main()
