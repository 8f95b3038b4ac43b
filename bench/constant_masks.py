"""What it costs to compile a function that closes over its masks: every entry of the registry.

    python -m bench constant_masks

XLA's interpreter folds what is computed from constants, so a constant mask may take many times as
long to compile as a mask that is an argument. The first call of the values is timed both ways, at
64 rows of 2048 steps; functions whose time or memory grows with the square of the steps run at 256.
The target is at most twice the time.
"""

import jax
import numpy as np

from bench import suite, tables, timing
from tests import rows as tools
from tests.registry import REGISTRY, Entry

BATCH, TIME, SHORT = 64, 2048, 256
TARGET = 2.0
# Time or memory grows with the square of the steps, or of the items of the batch.
SQUARE = (
    *("attention.", "Attention", "Transformer", "unrolled", "pallas", "ragged_vmap", "Ragged"),
    *("ntxent", "info_nce", "triplet", "ranking"),
)
# The registry gives these a table or a cache of that length.
FEW = {"nn.LearnedPositions": 5, "attention.attend_cached": 5, "attention.attend_cached:window": 5}


def time_of(entry: Entry, time: int) -> int:
    """How many steps the entry runs at."""
    if entry.name in FEW:
        return FEW[entry.name]
    return min(time, SHORT) if any(word in entry.name for word in SQUARE) else time


def measure(entry: Entry, batch: int, steps: int) -> dict:
    """Seconds of the first call, masks as arguments and closed over, the better of two."""
    draw = np.random.default_rng(0)
    count = 1 + max(spec.mask for spec in entry.inputs)
    lengths = [tuple(draw.integers(1, steps // (1 + 3 * k), batch)) for k in range(count)]
    masks = tools.masks_for(entry, "right", steps, lengths)
    rows = np.arange(batch, dtype=np.int32)
    xs = tools.arguments(entry, masks, rows)

    def first_call(*masks_given: list) -> float:
        def call(xs: list, masks: list = masks) -> list:
            return jax.tree.leaves(entry.call(entry.params, xs, masks, rows))

        jax.clear_caches()  # nothing left from another function
        return timing.seconds_of(jax.jit(call), xs, *masks_given)

    seconds = {
        "argument": min(first_call(masks) for _ in range(2)),
        "closed_over": min(first_call() for _ in range(2)),
    }
    ratio = seconds["closed_over"] / seconds["argument"]
    row = {"name": entry.name, "size": [batch, steps], "seconds": seconds, "ratio": ratio}
    print(row, flush=True)
    return row


def table(found: dict) -> str:
    """One line an entry, the worst first."""
    rows, machine = found["rows"], found["machine"]
    over = sum(row["ratio"] > TARGET for row in rows)

    def cells(row: dict) -> list[str]:
        figures = *row["seconds"].values(), row["ratio"]
        return [row["name"], "x".join(map(str, row["size"])), *(f"{x:.2f}" for x in figures)]

    return tables.markdown(
        "First call with the masks closed over, over first call with the masks as arguments, on "
        f"{machine['processor']}, jax {machine['jax']}.\n"
        f"{len(rows)} entries, {over} of them above {TARGET:g}.",
        ["entry", "size", "argument, s", "closed over, s", "ratio"],
        map(cells, sorted(rows, key=lambda row: -row["ratio"])),
    )


def main() -> None:
    command = suite.parser(__doc__, rounds=0)
    command.add_argument("--only", default="", help="entries whose name contains this")
    command.add_argument("--batch", type=int, default=BATCH)
    command.add_argument("--time", type=int, default=TIME)
    options = command.parse_args()

    def every() -> dict:
        entries = [entry for entry in REGISTRY if options.only in entry.name]
        rows = [measure(one, options.batch, time_of(one, options.time)) for one in entries]
        return {"target": TARGET, "rows": rows}

    suite.run("constant_masks", options, every, table)


if __name__ == "__main__":
    main()
