"""The goals of the recurrent engine beside what was measured, as a table in markdown.

    python -m bench.goals
    python -m bench.goals --machine "AMD EPYC (family 25, model 17), 2 cores"

It reads `bench/results/recurrent.json` and `growth.json` and writes `bench/results/goals.md`. A
ratio is the time of a rival over that of jaxmask, both medians of one run in one process.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import growth, recurrent, rivals, store
from bench.workloads import SHAPES

CELLS = ("lstm", "gru")
GOALS_FILE = "goals.md"
BEST_OF_JAX = ("flax", "keras", "sequence-layers", "cudnn")
ALL_RIVALS = tuple(name for name in rivals.NAMES if not name.startswith("jaxmask"))

Values = dict[str, float]  # by where they were measured


class Goal(NamedTuple):
    """What is promised; `values` finds what was measured, `overall` makes one figure of it.

    It is judged only if it was measured in all of its places.
    """

    what: str
    must: float
    aim: float | None
    values: Callable[["Results"], Values]
    overall: Callable[[list[float]], float] = min
    places: int = len(SHAPES)
    most: bool = False  # a figure to stay under, not to reach


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

    def ratios(self, what: str, fill: float, names: Sequence[str]) -> Values:
        """The best rival's time over ours, by shape."""
        return _best(self.find(what, fill), names, lambda rival: rival["milliseconds"]["median"])

    def costs(self, cost: str, names: Sequence[str]) -> Values:
        """The best rival's cost of a training step over ours, by shape."""
        return _best(self.find("train", 0.36), names, lambda rival: rival[cost])


def _best(
    rows: dict[str, store.Row], names: Sequence[str], figure: Callable[[dict[str, Any]], float]
) -> Values:
    best = {}
    for shape, row in rows.items():
        theirs = [figure(row["rivals"][name]) for name in names if name in row["rivals"]]
        if theirs:
            best[shape] = min(theirs) / figure(row["rivals"][rivals.OURS])
    return best


def _full(names: Sequence[str]) -> Callable[[Results], Values]:
    def values(results: Results) -> Values:
        return {
            f"{what} {shape}": ratio
            for what in ("forward", "train")
            for shape, ratio in results.ratios(what, 1.0, names).items()
        }

    return values


def _share_of_rate(results: Results) -> Values:
    return {
        f"{what} {shape}": row["rivals"][rivals.OURS]["of_tile_rate"]
        for what in ("forward", "train")
        for shape, row in results.find(what, 0.36).items()
        if SHAPES[shape].hidden >= 256
    }


def _half_precision(results: Results) -> Values:
    """Our own time in float32 over that in bfloat16; from two runs, unlike all other ratios."""

    def median(row: store.Row) -> float:
        return row["rivals"][rivals.OURS]["milliseconds"]["median"]

    gain = {}
    for what in ("forward", "train"):
        whole, half = results.find(what, 0.36), results.find(what, 0.36, "bfloat16")
        for shape in whole.keys() & half.keys():
            if SHAPES[shape].hidden >= 256:
                gain[f"{what} {shape}"] = median(whole[shape]) / median(half[shape])
    return dict(sorted(gain.items()))


def _flatness(results: Results) -> Values:
    flat = growth.flatness(results.along)
    return {} if flat is None else {"padding": flat}


def _ratio(what: str, fill: float, names: Sequence[str]) -> Callable[[Results], Values]:
    return lambda results: results.ratios(what, fill, names)


def _cost(cost: str, names: Sequence[str]) -> Callable[[Results], Values]:
    return lambda results: results.costs(cost, names)


def _mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


JAX, TORCH = rivals.JAX_RIVALS, rivals.TORCH_RIVALS
GOALS = (
    Goal(
        "forward, fill .36, over the better of Flax and Keras",
        1.8,
        2.2,
        _ratio("forward", 0.36, JAX),
    ),
    Goal(
        "forward, fill .36, over the better of PyTorch packed and padded (geometric mean)",
        1.0,
        1.3,
        _ratio("forward", 0.36, TORCH),
        _mean,
    ),
    Goal(
        "forward and backward, fill .36, over the better of Flax and Keras",
        2.0,
        2.6,
        _ratio("train", 0.36, JAX),
    ),
    Goal(
        "forward and backward, fill .36, over the better of PyTorch packed and padded "
        "(geometric mean)",
        1.4,
        2.0,
        _ratio("train", 0.36, TORCH),
        _mean,
    ),
    Goal(
        "forward and backward, fill .1, over the better of Flax and Keras",
        5.0,
        8.0,
        _ratio("train", 0.1, JAX),
    ),
    Goal("fill 1, both passes, over the best in JAX", 1.0, 1.3, _full(BEST_OF_JAX), places=6),
    Goal("fill 1, both passes, over PyTorch padded", 0.65, 1.0, _full(("torch padded",)), places=6),
    Goal(
        "inference, one row of 64 steps, over the best rival",
        1.0,
        1.5,
        _ratio("inference", 1.0, ALL_RIVALS),
    ),
    Goal(
        "compile time of a training step, the faster of Flax and Keras over ours",
        0.15,
        0.3,
        _cost("compile_seconds", JAX),
    ),
    Goal(
        "temporary memory of a training step, Flax over ours",
        3.0,
        4.5,
        _cost("temporary_mebibytes", ("flax",)),
    ),
    Goal(
        "share of XLA's own rate at the engine's tile, hidden 256 and more",
        0.6,
        0.85,
        _share_of_rate,
        places=4,
    ),
    Goal("bfloat16 over float32, hidden 256 and more", 1.25, None, _half_precision, places=4),
    Goal(
        "same real steps, rectangle up to ten times as large: longest over shortest time",
        1.1,
        None,
        _flatness,
        max,
        places=1,
        most=True,
    ),
)


def table(machine: str, results: dict[str, Results]) -> str:
    """A line a goal, with the figure of each cell and where it comes from."""
    head = " | ".join(results)
    lines = [
        f"Measured on {machine}. A figure is the worst of the shapes named in its brackets, unless "
        "it is a mean;",
        ", ".join(f"{name} is {_sizes(name)}" for name in SHAPES) + ".",
        "",
        f"| what | must | aim | {head} |",
        "|---|---|---|" + "---|" * len(results),
    ]
    for goal in GOALS:
        aim = "" if goal.aim is None else f"{goal.aim:g}"
        cells = " | ".join(_measured(goal, goal.values(one)) for one in results.values())
        lines.append(f"| {goal.what} | {goal.must:g} | {aim} | {cells} |")
    return "\n".join(lines) + "\n"


def _sizes(name: str) -> str:
    batch, time, feature, hidden = SHAPES[name]
    return f"batch {batch}, time {time}, {feature} to {hidden} features"


def _measured(goal: Goal, values: Values) -> str:
    if not values:
        return "not measured"
    figure = goal.overall(list(values.values()))
    parts = ", ".join(f"{where} {value:.2f}" for where, value in values.items())
    verdict = _verdict(goal, figure) if len(values) == goal.places else "incomplete"
    return f"**{figure:.2f}** {verdict} ({parts})"


def _verdict(goal: Goal, figure: float) -> str:
    def meets(limit: float) -> bool:
        return figure <= limit if goal.most else figure >= limit

    if goal.aim is not None and meets(goal.aim):
        return "aim met"
    return "met" if meets(goal.must) else "falls short"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", help="whose results (default: a table for each machine)")
    parser.add_argument("--results", type=Path, default=recurrent.RESULTS.parent, help="the folder")
    options = parser.parse_args(arguments)
    rows, along = (
        store.load(options.results / path.name) for path in (recurrent.RESULTS, growth.RESULTS)
    )
    machines = sorted({row["machine"] for row in rows if options.machine in (None, row["machine"])})
    if not machines:
        raise SystemExit(f"{options.results} has no results of that machine")
    text = "\n".join(_of_machine(machine, rows, along) for machine in machines)
    (options.results / GOALS_FILE).write_text(text)
    print(text, f"wrote {options.results / GOALS_FILE}", sep="\n")


def _of_machine(machine: str, rows: list[store.Row], along: list[store.Row]) -> str:
    rows, along = (store.of_machine(all_rows, machine) for all_rows in (rows, along))
    return table(machine, {cell: Results(rows, along, cell) for cell in CELLS})


if __name__ == "__main__":
    main()
