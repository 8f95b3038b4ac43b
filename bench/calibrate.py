"""How many slots the engine should have, and from what size on it beats the plain scan.

    python -m bench calibrate
    python -m bench calibrate --few

Times a training step of one LSTM layer, by the scan, by the engine with each of several numbers of
slots and with those of the rule, from which it chooses, and by `"dense"`: for a range of hidden
sizes, on ragged rows and on full ones, and for short rows; with `--few`, for few rows, all full.
The constants at the head of `jaxmask/recurrent/_choice.py` and `ROUND` of the engine are chosen by
hand from what this writes to `bench/results/calibration.json` and `calibration-few.json`.
"""

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

from bench import pages, timing
from bench.workloads import log_normal
from jaxmask import recurrent
from jaxmask.recurrent import Choice

BATCH, TIME = 64, 128
HIDDEN = (8, 16, 32, 64, 128, 256, 512)
SLOTS = (4, 8, 16, 24, 32, 64)
FILLS = (0.1, 0.36, 1.0)
SHORT, SHORT_HIDDEN, SHORT_FILL = (8, 16, 24, 32, 48), (64, 128, 256), 0.7
FEW, FEW_HIDDEN = (1, 4, 16, 32, 64), (16, 32, 64, 128, 256)


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


def measure(batch: int, time: int, hidden: int, fill: float, rounds: int) -> dict[str, float]:
    """Median milliseconds of a step by the scan, by each number of slots, and by `"dense"`."""
    data = arguments(batch, time, hidden, fill)
    rule = recurrent.explain(batch, time, hidden, method="tiled")
    choices = {"scan": "scan", "dense": "dense", "chosen": rule}
    choices |= {
        str(slots): Choice("tiled", (slots,), rule.steps)
        for slots in SLOTS
        if slots <= max(batch, SLOTS[0])
    }
    steps = {name: training_step(choice) for name, choice in choices.items()}
    run = {name: functools.partial(step, *data) for name, step in steps.items()}
    return {name: t["median"] for name, t in timing.interleaved(run, rounds, least=0.02).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--few", action="store_true", help="few rows, all full, and nothing else")
    options = parser.parse_args()
    grid = [(BATCH, TIME, hidden, fill) for hidden in HIDDEN for fill in FILLS]
    grid += [(BATCH, time, hidden, SHORT_FILL) for hidden in SHORT_HIDDEN for time in SHORT]
    if options.few:
        grid = [(batch, TIME, hidden, 1.0) for batch in FEW for hidden in FEW_HIDDEN]
    results = []
    for sizes in track(grid, "calibrating"):
        named = dict(zip(("batch", "time", "hidden", "fill"), sizes, strict=True))
        results.append(named | {"ms": measure(*sizes, options.rounds)})
    path = timing.save("calibration-few" if options.few else "calibration", {"steps": results})
    for row in results:
        scan = row["ms"]["scan"]
        ratios = {name: round(scan / ms, 2) for name, ms in row["ms"].items() if name != "scan"}
        sizes = "  ".join(f"{name} {row[name]}" for name in ("batch", "time", "hidden", "fill"))
        print(f"{sizes}  scan over {ratios}")
    if options.few:
        pages.show(table(results), path, "recurrent.md")
    print(f"wrote {path}")


def table(results: list[dict[str, Any]]) -> str:
    """One line per number of rows: the scan over `"dense"`, and over the engine."""

    def ratio(row: dict[str, Any]) -> str:
        ms = row["ms"]
        return f"{ms['scan'] / ms['dense']:.2f} / {ms['scan'] / ms['chosen']:.2f}"

    lines = [
        f"Dense / the engine, on {timing.machine_name()}.",
        "",
        "| rows | " + " | ".join(f"{hidden} features" for hidden in FEW_HIDDEN) + " |",
        "|---" * (1 + len(FEW_HIDDEN)) + "|",
    ]
    for batch in FEW:
        cells = [ratio(row) for row in results if row["batch"] == batch]
        lines.append(f"| {batch} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
