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
from bench.rivals import recurrent as rivals
from bench.rivals.recurrent import OURS
from bench.suite import Suite
from bench.tables import median
from bench.workloads import SHAPES

Values = dict[str, float]  # by pass and shape


class Results(NamedTuple):
    """The rows of one cell on one machine."""

    rows: list[store.Row]
    along: list[store.Row]

    def find(self, what: str, fill: float, dtype: str = "float32") -> dict[str, dict[str, Any]]:
        """The rivals on one layer in one direction, by shape, where jaxmask takes part."""
        rows = chart.chosen(self.rows, what=what, dtype=dtype, layers=1, directions=1)
        near = [row for row in rows if row["shape"] in SHAPES and abs(row["fill"] - fill) < 0.05]
        return {row["shape"]: row["rivals"] for row in near if OURS in row["rivals"]}


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


def _best(
    whats: Sequence[str], fill: float, names: Sequence[str], figure: Callable = median
) -> Callable[[Results], Values]:
    """The best rival's figure over ours, by pass and shape."""

    def values(results: Results) -> Values:
        found = {}
        for what in whats:
            for shape, each in results.find(what, fill).items():
                theirs = [figure(each[name]) for name in names if name in each]
                if theirs:
                    name = shape if len(whats) == 1 else f"{what} {shape}"
                    found[name] = min(theirs) / figure(each[OURS])
        return found

    return values


def _half_precision(results: Results) -> Values:
    """Our own time in float32 over that in bfloat16; from two runs, unlike all other ratios."""
    found = {}
    for what in PASSES:
        whole, half = (results.find(what, 0.36, dtype) for dtype in ("float32", "bfloat16"))
        for shape in sorted(whole.keys() & half.keys()):
            if SHAPES[shape].hidden >= 256:
                ratio = median(whole[shape][OURS]) / median(half[shape][OURS])
                found[f"{what} {shape}"] = ratio
    return found


def _flatness(results: Results) -> Values:
    flat = growth.flatness(results.along)
    return {} if flat is None else {"padding": flat}


MEAN = statistics.geometric_mean
JAX, TORCH = ("flax", "keras"), ("torch packed", "torch padded")
IN_JAX = (*JAX, "sequence-layers", "cudnn")
ALL = [name for name in rivals.NAMES if not name.startswith("jaxmask")]
FORWARD, TRAIN, BOTH = ("forward",), ("train",), "forward and backward"
OF_JAX = "over the better of Flax and Keras"
OF_TORCH = "over the better of PyTorch packed and padded (geometric mean)"
FLAT = "same real steps, rectangle up to ten times as large: longest over shortest time"
COMPILE = "compile time of a training step, the faster of Flax and Keras over ours"
MEMORY = "temporary memory of a training step, Flax over ours"
ALONE = "inference, one row of 64 steps, over the best rival"


def _cost(name: str, names: Sequence[str]) -> Callable[[Results], Values]:
    return _best(TRAIN, 0.36, names, lambda rival: rival[name])


def _full(names: Sequence[str]) -> Callable[[Results], Values]:
    return _best(PASSES, 1.0, names)


GOALS = (
    Goal(f"forward, fill .36, {OF_JAX}", 1.8, 2.2, _best(FORWARD, 0.36, JAX)),
    Goal(f"forward, fill .36, {OF_TORCH}", 1.0, 1.3, _best(FORWARD, 0.36, TORCH), MEAN),
    Goal(f"{BOTH}, fill .36, {OF_JAX}", 2.0, 2.6, _best(TRAIN, 0.36, JAX)),
    Goal(f"{BOTH}, fill .36, {OF_TORCH}", 1.4, 2.0, _best(TRAIN, 0.36, TORCH), MEAN),
    Goal(f"{BOTH}, fill .1, {OF_JAX}", 5.0, 8.0, _best(TRAIN, 0.1, JAX)),
    Goal("fill 1, both passes, over the best in JAX", 1.0, 1.3, _full(IN_JAX), count=6),
    Goal("fill 1, both passes, over PyTorch padded", 0.65, 1.0, _full(TORCH[1:]), count=6),
    Goal(ALONE, 1.0, 1.5, _best(("inference",), 1.0, ALL)),
    Goal(COMPILE, 0.15, 0.3, _cost("compile_seconds", JAX)),
    Goal(MEMORY, 3.0, 4.5, _cost("temporary_mebibytes", ("flax",))),
    Goal("bfloat16 over float32, hidden 256 and more", 1.25, None, _half_precision, count=4),
    Goal(FLAT, 1.1, None, _flatness, max, count=1, most=True),
)


def load(options: argparse.Namespace) -> dict[str, dict[str, Results]]:
    """By machine and cell, from two files in the folder of `--out`."""
    both = [store.read(options.out.with_name(f"{name}.json")) for name in ("recurrent", "growth")]

    def of(machine: str, cell: str) -> Results:
        return Results(*(chart.chosen(one["rows"], machine=machine, cell=cell) for one in both))

    machines = [one for one in sorted(both[0]["machines"]) if options.machine in (None, one)]
    return {machine: {cell: of(machine, cell) for cell in GATES} for machine in machines}


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
        f"it is a mean;\n{', '.join(sizes.format(name, *SHAPES[name]) for name in SHAPES)}.",
        ["what", "must", "aim", *results],
        map(cells, GOALS),
    )


def _measured(goal: Goal, values: Values) -> str:
    if not values:
        return "not measured"
    figure = goal.overall(list(values.values()))
    parts = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
    met = [
        limit is not None and (figure <= limit if goal.most else figure >= limit)
        for limit in (goal.aim, goal.must)
    ]
    verdict = "aim met" if met[0] else "met" if met[1] else "falls short"
    return f"**{figure:.2f}** {verdict if len(values) == goal.count else 'incomplete'} ({parts})"


SUITES = {"goals": Suite((), lambda options: iter(()), table, load=load)}
