"""What it costs to compile a function that closes over its masks: every entry of the registry.

    python -m bench.constant_masks

XLA folds what is computed from constants by an interpreter, so a constant mask may take many times
as long to compile as a mask that is an argument. The first call of the values is timed both ways,
at 64 rows of 2048 steps; functions whose time or memory grows with the square of the steps run at
256. The target is at most twice the time. Results go to `bench/results/constant_masks.json`, and as
a table to `bench/results/constant_masks.md`.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bench import timing
from tests import rows as tools
from tests.registry import REGISTRY, Entry

BATCH, TIME, SHORT = 64, 2048, 256
TARGET = 2.0
# The square of the steps, or a program of each step.
SQUARE = ("attention.", "Attention", "Transformer", "unrolled", "pallas", "ragged_vmap", "Ragged")
ITEMS = ("ntxent", "info_nce", "triplet", "ranking")  # the square of the items of the batch


# The registry gives these a table or a cache of so many places.
FEW = {"nn.LearnedPositions": 5, "attention.attend_cached": 5, "attention.attend_cached:window": 5}


def time_of(entry: Entry, time: int) -> int:
    """How many steps the entry runs at."""
    if entry.name in FEW:
        return FEW[entry.name]
    return min(time, SHORT) if any(word in entry.name for word in SQUARE + ITEMS) else time


def problem(entry: Entry, batch: int, time: int) -> tuple[list, list, np.ndarray]:
    """Arrays, ragged masks and row ids."""
    draw = np.random.default_rng(0)
    count = 1 + max(spec.mask for spec in entry.inputs)
    lengths = [tuple(draw.integers(1, time // (1 + 3 * k), batch)) for k in range(count)]
    masks = tools.masks_for(entry, "right", time, lengths)
    rows = np.arange(batch, dtype=np.int32)
    return tools.arguments(entry, masks, rows), masks, rows


def first_call(function: Callable, *arguments: Any) -> float:
    """Trace, compile and run, with nothing left from another function."""
    jax.clear_caches()
    start = time.perf_counter()
    jax.block_until_ready(jax.tree.leaves(jax.jit(function)(*arguments)))
    return time.perf_counter() - start


def measure(entry: Entry, batch: int, steps: int) -> dict:
    """Seconds of the first call, both ways, the better of two."""
    xs, masks, rows = problem(entry, batch, steps)

    def with_masks(xs: list, masks: list) -> list:
        return entry.call(entry.params, xs, masks, rows)

    def closed_over(xs: list) -> list:
        return entry.call(entry.params, xs, masks, rows)

    seconds = {
        "argument": min(first_call(with_masks, xs, masks) for _ in range(2)),
        "closed_over": min(first_call(closed_over, xs) for _ in range(2)),
    }
    ratio = seconds["closed_over"] / seconds["argument"]
    return {"name": entry.name, "size": [batch, steps], "seconds": seconds, "ratio": ratio}


def table(rows: list[dict], machine: dict[str, Any]) -> str:
    """One line an entry, the worst first."""
    over = sum(row["ratio"] > TARGET for row in rows)
    lines = [
        f"First call with the masks closed over, over first call with the masks as arguments, on "
        f"{machine['processor']}, jax {machine['jax']}.",
        f"{len(rows)} entries, {over} of them above {TARGET:g}.",
        "",
        "| entry | size | argument, s | closed over, s | ratio |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row["ratio"]):
        seconds, size = row["seconds"], "x".join(map(str, row["size"]))
        lines.append(
            f"| {row['name']} | {size} | {seconds['argument']:.2f} | "
            f"{seconds['closed_over']:.2f} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="entries whose name contains this")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--time", type=int, default=TIME)
    options = parser.parse_args()
    rows = []
    for entry in REGISTRY:
        if options.only in entry.name:
            rows.append(measure(entry, options.batch, time_of(entry, options.time)))
            print(rows[-1], flush=True)
    text = table(rows, timing.machine())
    if not options.only:
        path = timing.save("constant_masks", {"target": TARGET, "rows": rows})
        path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
