"""Recurrent layers over ragged rows: jaxmask against Flax, Keras, SequenceLayers and PyTorch.

    python -m bench recurrent                                 what the goals are about
    python -m bench recurrent --shapes A --fills .36 --what train --rounds 30
    python -m bench recurrent --shapes --workloads imdb wmt   lengths as in real data
    python -m bench recurrent --side-by-side                  compile all at once, on accelerators
    python -m bench recurrent --table --machine "AMD EPYC (family 25, model 17), 2 cores"

Every rival gets the same weights, input, lengths and loss, in one process and in turn, and must
agree with the plain masked scan before it is timed: in its outputs at real steps, or in its loss
and the gradients of the input and of every weight. A row of results holds all rivals of one
problem: run all of them, since ratios hold within one run alone. A ratio is the time of a rival
over that of jaxmask, both medians of one run; below 1 the rival is faster. On an accelerator the
file is named after its kind, such as `recurrent-gpu.json`.
"""

import argparse
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from bench import chart, contest, problem, store, tables
from bench.contest import Entrant
from bench.problem import GATES, PASSES, WHAT, Problem
from bench.rivals import recurrent as rivals
from bench.rivals.recurrent import Result, reference
from bench.suite import Suite, some
from bench.workloads import FILLS, SHAPES, WORKLOADS

KEY = ("cell", "shape", "fill", "what", "dtype", "layers", "directions")
DTYPES = ("float32", "bfloat16")
REST, LEAST = 0.02, 0.1  # seconds
# A GPU multiplies float32 by TF32 unless told otherwise, and some libraries add up the gradients of
# hundreds of steps in bfloat16.
TOLERANCE = {("cpu", "float32"): 1e-4, ("gpu", "float32"): 1e-2}
OPTIONS = {
    "--cells": some(GATES),
    "--shapes": some(SHAPES),
    "--workloads": some(WORKLOADS, []),
    "--fills": some(FILLS, choices=None, help="shares of real steps"),
    "--what": some(WHAT),
    "--dtypes": some(DTYPES, ["float32"]),
    "--layers": some((1, 2), [1]),
    "--directions": some((1, 2), [1]),
    "--rivals": some(rivals.NAMES),
    "--least": {"type": float, "default": LEAST, "help": "seconds that a sample takes at least"},
    "--side-by-side": {"action": "store_true", "help": "compile all problems at once, untimed"},
}
TITLES = {
    "jaxmask scan": "plain scan",
    "flax": "Flax",
    "keras": "Keras",
    "sequence-layers": "SequenceLayers",
    "torch packed": "PyTorch packed",
    "torch padded": "PyTorch padded",
    "cudnn": "cuDNN",
}


def agreement(task: Problem, expected: Result) -> dict[str, Any]:
    about = f"the plain scan on {task.cell} {task.shape} {task.what} in {task.dtype}"
    tolerance = TOLERANCE.get((jax.default_backend(), task.dtype), 1e-1)
    return {"expected": expected, "about": about, "tolerance": tolerance}


def differences(task: Problem, programs: dict[str, Entrant], expected: Result) -> dict[str, float]:
    return contest.compare(programs, (), **agreement(task, expected))


Made = tuple[dict[str, Entrant], dict[str, str], Result]


def build(task: Problem, names: Sequence[str], compiles: int = rivals.COMPILES) -> Made:
    """Who takes part, why others do not, and what all must compute."""
    return *rivals.build_all(task, names, compiles), reference(task)


def run(task: Problem, made: Made, rounds: int, least: float = LEAST) -> store.Row:
    """Compare and time all rivals on one problem."""
    programs, left_out, expected = made
    given = agreement(task, expected)
    found = contest.run(programs, (), rounds=rounds, rest=REST, least=least, **given)
    for one in found.values():
        one["real_steps_per_second"] = round(1e3 * task.real / tables.median(one))
    return {
        **{name: getattr(task, name) for name in KEY},
        "fill": round(task.fill, 2),
        "sizes": [task.batch, task.time, task.feature, task.hidden],
        "real_steps": task.real,
        "longest": max(task.lengths),
        "rivals": found,
        "left_out": left_out,
    }


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    tasks = list(problems(options))
    made: Iterable[Made] = (build(task, options.rivals) for task in tasks)
    if options.side_by_side:
        with ThreadPoolExecutor() as pool:  # to compile takes most of the time
            one = functools.partial(build, names=options.rivals, compiles=0)
            made = list(pool.map(one, tasks))
    for task, entered in zip(tasks, made, strict=True):
        yield run(task, entered, options.rounds, options.least)


def problems(options: argparse.Namespace) -> Iterator[Problem]:
    """The product of the options; inference only once for each shape, since it has no fill."""
    deep = itertools.product(
        options.cells, options.dtypes, options.layers, options.directions, options.what
    )
    for cell, dtype, layers, directions, what in deep:
        more = {"dtype": dtype, "layers": layers, "directions": directions}
        for shape in options.shapes:
            for fill in (1.0,) if what == "inference" else options.fills:
                yield problem.of_shape(cell, shape, fill, what, **more)
        if what != "inference":
            for name in options.workloads:
                yield problem.of_workload(cell, name, what, **more)


def table(found: dict[str, Any]) -> str:
    """Every problem of the shapes, and of lengths as in real data."""
    shapes, workloads = [], []
    for row in found["rows"]:
        (shapes if row["shape"] in SHAPES else workloads).append(row)
    about = f"Log-normal lengths, on {found['on']}, forward / training:"
    text = _table(about, shapes, "rows x steps, features", _sizes)
    if workloads:
        about = "Lengths as in real data (`--workloads`, named after what they are fits to):"
        text += "\n" + _table(about, workloads, "workload", _of_workload)
    return text


def _table(about: str, rows: list[store.Row], name: str, name_of: Callable) -> str:
    names = [one for one in TITLES if any(one in row["rivals"] for row in rows)]

    def order(row: store.Row) -> tuple:
        cell, shape, fill, _, dtype, *deep = (row[field] for field in KEY)
        return dtype != "float32", cell != "lstm", deep, shape, fill

    def cells(rows: Iterator[store.Row]) -> list[str]:
        row, *_ = passes = list(rows)
        both = [{}, {}]
        for one in passes:
            both[PASSES.index(one["what"])] = one["rivals"]
        ratios = (tables.each(both, one, lambda rival: f"{rival['ratio']:.2f}") for one in names)
        times = tables.each(both, rivals.OURS)
        return [_layer(row), name_of(row), f"{row['fill']:.0%}", times, *ratios]

    kept = [row for row in rows if row["what"] in PASSES and rivals.OURS in row["rivals"]]
    groups = itertools.groupby(sorted(kept, key=order), order)
    head = ["layer", name, "real steps", "jaxmask, ms", *(TITLES[one] for one in names)]
    return tables.markdown(about, head, (cells(rows) for _, rows in groups))


def _layer(row: store.Row) -> str:
    depth = f"{row['layers']} layers" if row["layers"] > 1 else ""
    both = "bidirectional" if row["directions"] > 1 else ""
    half = "" if row["dtype"] == "float32" else row["dtype"]
    return ", ".join(filter(None, (row["cell"].upper(), depth, both, half)))


def _of_workload(row: store.Row) -> str:
    return f"{row['shape']}, {_sizes(row)}"


def _sizes(row: store.Row) -> str:
    return "{} x {}, {} -> {}".format(*row["sizes"])


def draw(found: dict[str, Any], path: Path) -> None:
    """A chart a cell, of single layers in float32: a panel a shape and pass."""
    wanted, title = {"dtype": "float32", "layers": 1, "directions": 1}, "forward and backward"
    for cell in GATES:
        rows = chart.chosen(found["rows"], cell=cell, **wanted)
        shapes = [name for name in SHAPES if any(row["shape"] == name for row in rows)]
        if not shapes:
            continue
        about = f"One {cell.upper()} in float32: real steps a second, against the share of steps "
        figure, axes = chart.panels(2, len(shapes), f"{about}that are real\n{found['on']}")
        for across, what in zip(axes, PASSES, strict=True):
            for panel, shape in zip(across, shapes, strict=True):
                along = sorted(chart.chosen(rows, shape=shape, what=what), key=_fill)
                chart.lines(panel, along, _fill, _millions_a_second)
                sizes = "batch {}, time {}, {} to {} features".format(*SHAPES[shape])
                name = f"{what if what == 'forward' else title}\n{sizes}"
                panel.set_title(name if along else "not measured", fontsize=9)
                panel.set(xlabel="share of steps that are real", ylim=(0, None), xlim=(0, 1.05))
            across[0].set_ylabel("million real steps a second")
        chart.finish(figure, axes, path.with_stem(f"{path.stem}-{cell}"))


def _fill(row: store.Row) -> float:
    return row["fill"]


def _millions_a_second(row: store.Row, rival: dict[str, Any]) -> dict[str, float]:
    times = rival["milliseconds"]
    quartiles = {"median": "median", "low": "high", "high": "low"}  # long times are low rates
    return {name: row["real_steps"] / times[other] / 1e3 for name, other in quartiles.items()}


SUITES = {"recurrent": Suite(KEY, measure, table, OPTIONS, 15, draw)}
