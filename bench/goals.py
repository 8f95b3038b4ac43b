"""The goals of the recurrent engine beside what was measured, as a table in Markdown.

    python -m bench goals

It reads `recurrent.json` and `growth.json`, and writes a table for each machine into `goals.md`. A
ratio is the time of a rival over that of jaxmask, both medians of one run in one process.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench import chart, growth, store, tables
from bench.problem import GATES, PASSES
from bench.rivals.recurrent import OURS
from bench.suite import Suite
from bench.tables import median
from bench.workloads import SHAPES

Values = dict[str, float]  # by shape, or by pass and shape
Rows = list[store.Row]


class Goal(NamedTuple):
    """What is promised; `values` finds what was measured, `overall` makes one figure of it.

    It is judged only if there are `count` values. `most`: a figure to stay under, not to reach.
    """

    what: str
    must: float
    aim: float | None
    values: Callable[[Rows, Rows], Values]
    overall: Callable[[list[float]], float] = min
    count: int = len(SHAPES)
    most: bool = False

    def measured(self, *rows: Rows) -> str:
        values = self.values(*rows)
        if not values:
            return "not measured"
        figure, verdict = self.overall(list(values.values())), "falls short"
        for limit, name in ((self.must, "met"), (self.aim, "aim met")):
            if limit is not None and (figure <= limit if self.most else figure >= limit):
                verdict = name
        parts = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
        verdict = verdict if len(values) == self.count else "incomplete"
        return f"**{figure:.2f}** {verdict} ({parts})"


def find(rows: Rows, what: str, fill: float, dtype: str = "float32") -> dict[str, dict]:
    """The rivals on one layer in one direction, by shape, where jaxmask takes part."""
    near = chart.chosen(rows, what=what, dtype=dtype, layers=1, directions=1)
    near = [row for row in near if row["shape"] in SHAPES and abs(row["fill"] - fill) < 0.05]
    return {row["shape"]: row["rivals"] for row in near if OURS in row["rivals"]}


def best(whats: Sequence[str], fill: float, names: Sequence[str], figure: Callable = median) -> Any:
    """The best rival's figure over ours, by pass and shape."""

    def values(rows: Rows, along: Rows) -> Values:
        found = {}
        for what in whats:
            for shape, each in find(rows, what, fill).items():
                theirs = [figure(each[name]) for name in names if name in each]
                if theirs:
                    name = shape if len(whats) == 1 else f"{what} {shape}"
                    found[name] = min(theirs) / figure(each[OURS])
        return found

    return values


def cost(name: str, names: Sequence[str]) -> Any:
    return best(["train"], 0.36, names, lambda rival: rival[name])


def half_precision(rows: Rows, along: Rows) -> Values:
    """Our own time in float32 over that in bfloat16; from two runs, unlike all other ratios."""
    found = {}
    for what in PASSES:
        whole, half = (find(rows, what, 0.36, dtype) for dtype in ("float32", "bfloat16"))
        for shape in sorted(whole.keys() & half.keys()):
            if SHAPES[shape].hidden >= 256:
                found[f"{what} {shape}"] = median(whole[shape][OURS]) / median(half[shape][OURS])
    return found


def flatness(rows: Rows, along: Rows) -> Values:
    flat = growth.flatness(along)
    return {} if flat is None else {"padding": flat}


MEAN = statistics.geometric_mean
JAX, TORCH = ("flax", "keras"), ("torch packed", "torch padded")
IN_JAX = (*JAX, "sequence-layers", "cudnn")
FORWARD, TRAIN = ("forward", ["forward"]), ("forward and backward", ["train"])
OF_JAX = "over the better of Flax and Keras"
OF_TORCH = "over the better of PyTorch packed and padded (geometric mean)"
FULL = "fill 1, both passes, over"
GOALS = (
    Goal(f"{FORWARD[0]}, fill .36, {OF_JAX}", 1.8, 2.2, best(FORWARD[1], 0.36, JAX)),
    Goal(f"{FORWARD[0]}, fill .36, {OF_TORCH}", 1.0, 1.3, best(FORWARD[1], 0.36, TORCH), MEAN),
    Goal(f"{TRAIN[0]}, fill .36, {OF_JAX}", 2.0, 2.6, best(TRAIN[1], 0.36, JAX)),
    Goal(f"{TRAIN[0]}, fill .36, {OF_TORCH}", 1.4, 2.0, best(TRAIN[1], 0.36, TORCH), MEAN),
    Goal(f"{TRAIN[0]}, fill .1, {OF_JAX}", 5.0, 8.0, best(TRAIN[1], 0.1, JAX)),
    Goal(f"{FULL} the best in JAX", 1.0, 1.3, best(PASSES, 1.0, IN_JAX), count=6),
    Goal(f"{FULL} PyTorch padded", 0.65, 1.0, best(PASSES, 1.0, TORCH[1:]), count=6),
    Goal(
        "inference, one row of 64 steps, over the best rival",
        *(1.0, 1.5, best(["inference"], 1.0, (*IN_JAX, *TORCH))),
    ),
    Goal(
        "compile time of a training step, the faster of Flax and Keras over ours",
        *(0.15, 0.3, cost("compile_seconds", JAX)),
    ),
    Goal(
        "temporary memory of a training step, Flax over ours",
        *(3.0, 4.5, cost("temporary_mebibytes", ("flax",))),
    ),
    Goal("bfloat16 over float32, hidden 256 and more", 1.25, None, half_precision, count=4),
    Goal(
        "same real steps, rectangle up to ten times as large: longest over shortest time",
        *(1.1, None, flatness, max),
        count=1,
        most=True,
    ),
)


def load(options: argparse.Namespace) -> dict[str, dict[str, list[Rows]]]:
    """Rows of both files in the folder of `--out`, by machine and cell."""
    both = [store.read(options.out.with_name(f"{name}.json")) for name in ("recurrent", "growth")]
    machines = [one for one in sorted(both[0]["machines"]) if options.machine in (None, one)]

    def of(machine: str, cell: str) -> list[Rows]:
        return [chart.chosen(one["rows"], machine=machine, cell=cell) for one in both]

    return {machine: {cell: of(machine, cell) for cell in GATES} for machine in machines}


def table(found: dict[str, dict[str, list[Rows]]]) -> str:
    """A line a goal, with the figure of each cell and where it comes from."""
    sizes = "{} is batch {}, time {}, {} to {} features"
    shapes = ", ".join(sizes.format(name, *shape) for name, shape in SHAPES.items())

    def cells(goal: Goal, results: dict[str, list[Rows]]) -> list[str]:
        aim = "" if goal.aim is None else f"{goal.aim:g}"
        figures = (goal.measured(*rows) for rows in results.values())
        return [goal.what, f"{goal.must:g}", aim, *figures]

    return "\n".join(
        tables.markdown(
            f"Measured on {machine}. A figure is the worst of the shapes named in its brackets, "
            f"unless it is a mean;\n{shapes}.",
            ["what", "must", "aim", *results],
            [cells(goal, results) for goal in GOALS],
        )
        for machine, results in found.items()
    )


SUITES = {"goals": Suite((), lambda options: iter(()), table, load=load)}
