"""How many slots the engine should have, and from what size on it beats the plain scan.

    python -m bench calibrate

Times a training step of one LSTM layer, by the scan and by the engine with several numbers of
slots: for a range of hidden sizes, on ragged rows and on full ones, and for short rows. The
constants at the head of `jaxmask/recurrent/methods.py` are chosen by hand from what this writes to
`bench/results/calibration.json`: what is best at 36 % of real steps and loses little elsewhere.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

from bench import timing
from bench.workloads import log_normal
from jaxmask import recurrent
from jaxmask.recurrent import methods
from jaxmask.recurrent.tiled.schedule import Tiles

BATCH, TIME = 64, 128
HIDDEN = (8, 16, 32, 64, 128, 256, 512)
SLOTS = (4, 8, 16, 32)
FILLS = (0.1, 0.36, 1.0)
SHORT, SHORT_HIDDEN, SHORT_FILL = (8, 16, 24, 32, 48), (64, 128, 256), 0.7


def training_step(method: str, tiles: Tiles | None) -> Any:
    """The gradient of one layer; the tiles are put in the place of the rule."""

    def loss(weights: recurrent.LSTMWeights, x: jax.Array, mask: jax.Array) -> jax.Array:
        rule, methods.tiles_for = methods.tiles_for, lambda *sizes: tiles
        try:
            _, (y, _) = recurrent.lstm(x, mask, weights, method=method)
        finally:
            methods.tiles_for = rule
        return jnp.sum(y**2)

    return jax.jit(jax.grad(loss))


def measure(time: int, hidden: int, fill: float, rounds: int) -> dict[str, float]:
    """Median milliseconds of a step by the scan and by each number of slots."""
    draw = np.random.default_rng(0)
    mask = np.arange(time) < np.asarray(log_normal(BATCH, time, fill))[:, None]
    x = jnp.asarray(draw.normal(size=(BATCH, time, hidden)), jnp.float32)
    shapes = (hidden, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)
    weights = recurrent.LSTMWeights(*(jnp.asarray(0.1 * draw.normal(size=s), "f4") for s in shapes))
    choices = {"scan": ("scan", None)}
    choices |= {str(slots): ("tiled", Tiles(slots, 8, 1)) for slots in SLOTS}
    steps = {name: training_step(*choice) for name, choice in choices.items()}
    run = {n: lambda s=s: s(weights, x, jnp.asarray(mask)) for n, s in steps.items()}
    return {name: t["median"] for name, t in timing.interleaved(run, rounds, least=0.02).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    grid = [(TIME, hidden, fill) for hidden in HIDDEN for fill in FILLS]
    grid += [(time, hidden, SHORT_FILL) for hidden in SHORT_HIDDEN for time in SHORT]
    results = []
    for sizes in track(grid, "calibrating"):
        jax.clear_caches()  # the layer is jitted by its tiles alone
        named = dict(zip(("time", "hidden", "fill"), sizes, strict=True))
        results.append(named | {"ms": measure(*sizes, rounds)})
    path = timing.save("calibration", {"batch": BATCH, "steps": results})
    for row in results:
        scan = row["ms"]["scan"]
        ratios = {name: round(scan / ms, 2) for name, ms in row["ms"].items() if name != "scan"}
        sizes = f"time {row['time']:3d}  hidden {row['hidden']:4d}  fill {row['fill']:.2f}"
        print(f"{sizes}  scan over {ratios}")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
