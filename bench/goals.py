"""The goals of the recurrent engine beside what was measured, as a table in Markdown.

    python -m bench goals

It reads `recurrent.json` and `growth.json`, and writes a table for each machine into `goals.md`. A
ratio is the time of a rival over that of jaxmask, both medians of one run in one process.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench import growth, recurrent, rivals, store, tables
from bench.problem import GATES
from bench.workloads import SHAPES

PASSES = ("forward", "train")
BEST_OF_JAX = ("flax", "keras", "sequence-layers", "cudnn")
ALL_RIVALS = tuple(name for name in rivals.NAMES if not name.startswith("jaxmask"))

Values = dict[str, float]  # by shape, or by pass and shape
Figure = Callable[[dict[str, Any]], float]


class Results:
    """The rows of one cell on one machine."""

    def __init__(self, rows: list[store.Row], along: list[store.Row], cell: str):
        self.rows = [row for row in rows if row["cell"] == cell]
        self.along = [row for row in along if row["cell"] == cell]

    def find(self, what: str, fill: float, dtype: str = "float32") -> dict[str, store.Row]:
        """The rows of one layer in one direction, by shape, in which jaxmask takes part."""
        wanted = {"what": what, "dtype": dtype, "layers": 1, "directions": 1}
        return {
            row["shape"]: row
            for row in self.rows
            if row["shape"] in SHAPES
            and rivals.OURS in row["rivals"]
            and abs(row["fill"] - fill) < 0.05
            and all(row[name] == value for name, value in wanted.items())
        }


class Goal(NamedTuple):
    """What is promised; `values` finds what was measured, `overall` makes one figure of it.

    It is judged only if there are `count` values. `most`: a figure to stay under, not to reach.
    """

    what: str
    must: float
    aim: float | None
    values: Callable[[Results], Values]
    overall: Callable[[list[float]], float] = min
    count: int = len(SHAPES)
    most: bool = False


def _median(rival: dict[str, Any]) -> float:
    return rival["milliseconds"]["median"]


def _ratio(
    what: str, fill: float, names: Sequence[str], figure: Figure = _median
) -> Callable[[Results], Values]:
    """The best rival's figure over ours, by shape."""

    def values(results: Results) -> Values:
        best = {}
        for shape, row in results.find(what, fill).items():
            theirs = [figure(row["rivals"][name]) for name in names if name in row["rivals"]]
            if theirs:
                best[shape] = min(theirs) / figure(row["rivals"][rivals.OURS])
        return best

    return values


def _cost(cost: str, names: Sequence[str]) -> Callable[[Results], Values]:
    return _ratio("train", 0.36, names, lambda rival: rival[cost])


def _both(values: Callable[[str, Results], Values]) -> Callable[[Results], Values]:
    """The values of both passes."""
    return lambda results: {
        f"{what} {shape}": value
        for what in PASSES
        for shape, value in values(what, results).items()
    }


def _full(names: Sequence[str]) -> Callable[[Results], Values]:
    return _both(lambda what, results: _ratio(what, 1.0, names)(results))


@_both
def _share_of_rate(what: str, results: Results) -> Values:
    rows = _wide(results.find(what, 0.36))
    return {shape: row["rivals"][rivals.OURS]["of_tile_rate"] for shape, row in rows.items()}


@_both
def _half_precision(what: str, results: Results) -> Values:
    """Our own time in float32 over that in bfloat16; from two runs, unlike all other ratios."""
    both = [_wide(results.find(what, 0.36, dtype)) for dtype in recurrent.DTYPES]
    shapes = sorted(both[0].keys() & both[1].keys())
    times = {s: [_median(rows[s]["rivals"][rivals.OURS]) for rows in both] for s in shapes}
    return {shape: whole / half for shape, (whole, half) in times.items()}


def _wide(rows: dict[str, store.Row]) -> dict[str, store.Row]:
    return {shape: row for shape, row in rows.items() if SHAPES[shape].hidden >= 256}


def _flatness(results: Results) -> Values:
    flat = growth.flatness(results.along)
    return {} if flat is None else {"padding": flat}


MEAN = statistics.geometric_mean
JAX, TORCH = rivals.JAX_RIVALS, rivals.TORCH_RIVALS
TRAIN = "forward and backward"
OF_JAX = "over the better of Flax and Keras"
OF_TORCH = "over the better of PyTorch packed and padded (geometric mean)"
RATE = "share of XLA's own rate at the engine's tile, hidden 256 and more"
FLAT = "same real steps, rectangle up to ten times as large: longest over shortest time"
COMPILE = "compile time of a training step, the faster of Flax and Keras over ours"
MEMORY = "temporary memory of a training step, Flax over ours"
ALONE = "inference, one row of 64 steps, over the best rival"
GOALS = (
    Goal(f"forward, fill .36, {OF_JAX}", 1.8, 2.2, _ratio("forward", 0.36, JAX)),
    Goal(f"forward, fill .36, {OF_TORCH}", 1.0, 1.3, _ratio("forward", 0.36, TORCH), MEAN),
    Goal(f"{TRAIN}, fill .36, {OF_JAX}", 2.0, 2.6, _ratio("train", 0.36, JAX)),
    Goal(f"{TRAIN}, fill .36, {OF_TORCH}", 1.4, 2.0, _ratio("train", 0.36, TORCH), MEAN),
    Goal(f"{TRAIN}, fill .1, {OF_JAX}", 5.0, 8.0, _ratio("train", 0.1, JAX)),
    Goal("fill 1, both passes, over the best in JAX", 1.0, 1.3, _full(BEST_OF_JAX), count=6),
    Goal("fill 1, both passes, over PyTorch padded", 0.65, 1.0, _full(("torch padded",)), count=6),
    Goal(ALONE, 1.0, 1.5, _ratio("inference", 1.0, ALL_RIVALS)),
    Goal(COMPILE, 0.15, 0.3, _cost("compile_seconds", JAX)),
    Goal(MEMORY, 3.0, 4.5, _cost("temporary_mebibytes", ("flax",))),
    Goal(RATE, 0.6, 0.85, _share_of_rate, count=4),
    Goal("bfloat16 over float32, hidden 256 and more", 1.25, None, _half_precision, count=4),
    Goal(FLAT, 1.1, None, _flatness, max, count=1, most=True),
)


def load(options: argparse.Namespace) -> dict[str, dict[str, Results]]:
    """By machine and cell, from two files in the folder of `--out`."""
    both = [store.read(options.out.with_name(f"{name}.json")) for name in ("recurrent", "growth")]

    def of(machine: str) -> list[list[store.Row]]:
        return [[row for row in found["rows"] if row["machine"] == machine] for found in both]

    return {
        name: {cell: Results(*of(name), cell) for cell in GATES}
        for name in sorted(both[0]["machines"])
        if options.machine in (None, name)
    }


def table(found: dict[str, dict[str, Results]]) -> str:
    return "\n".join(_table(*item) for item in found.items())


def _table(machine: str, results: dict[str, Results]) -> str:
    """A line a goal, with the figure of each cell and where it comes from."""
    sizes = "{} is batch {}, time {}, {} to {} features"

    def cells(goal: Goal) -> list[str]:
        aim = "" if goal.aim is None else f"{goal.aim:g}"
        figures = (_measured(goal, goal.values(one)) for one in results.values())
        return [goal.what, f"{goal.must:g}", aim, *figures]

    return tables.markdown(
        f"Measured on {machine}. A figure is the worst of the shapes named in its brackets, unless "
        "it is a mean;\n"
        + ", ".join(sizes.format(name, *shape) for name, shape in SHAPES.items())
        + ".",
        ["what", "must", "aim", *results],
        map(cells, GOALS),
    )


def _measured(goal: Goal, values: Values) -> str:
    if not values:
        return "not measured"
    figure = goal.overall(list(values.values()))
    parts = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
    verdict = _verdict(goal, figure) if len(values) == goal.count else "incomplete"
    return f"**{figure:.2f}** {verdict} ({parts})"


def _verdict(goal: Goal, figure: float) -> str:
    def meets(limit: float) -> bool:
        return figure <= limit if goal.most else figure >= limit

    if goal.aim is not None and meets(goal.aim):
        return "aim met"
    return "met" if meets(goal.must) else "falls short"
