"""Recurrent layers over ragged rows: jaxmask against Flax, Keras, SequenceLayers and PyTorch.

    python -m bench recurrent                                 what the goals are about
    python -m bench recurrent --shapes A --fills .36 --what train --rounds 30
    python -m bench recurrent --shapes --workloads imdb wmt   lengths as in real data
    python -m bench recurrent --side-by-side                  compile all at once, on accelerators
    python -m bench recurrent --table --machine "AMD EPYC (family 25, model 17), 2 cores"

Every rival gets the same weights, input, lengths and loss, in one process and in turn, and must
agree with the plain masked scan before it is timed: in its outputs at real steps, or in its loss
and the gradients of the input and of every weight. A row of results holds all rivals of one
problem: run all of them, since ratios hold within one run alone. On an accelerator the file is
named after its kind, such as `recurrent-gpu.json`.
"""

import argparse
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.progress import track

from bench import (
    chart,
    contest,
    problem,
    ratios,
    rivals,
    roofline,
    side_by_side,
    store,
    timing,
)
from bench.contest import Entrant
from bench.problem import GATES, WHAT, Problem
from bench.rivals.jaxmask import reference
from bench.rivals.program import Result
from bench.workloads import FILLS, SHAPES, WORKLOADS

KEY = ("cell", "shape", "fill", "what", "dtype", "layers", "directions")
DTYPES = ("float32", "bfloat16")
REST, LEAST = 0.02, 0.1  # seconds
# A GPU multiplies float32 by TF32 unless told otherwise, and some libraries add up the gradients of
# hundreds of steps in bfloat16.
TOLERANCE = {("cpu", "float32"): 1e-4, ("gpu", "float32"): 1e-2}
ROUNDS = 15


def _some(values: Any, default: Any, **settings: Any) -> dict[str, Any]:
    kind = type(next(iter(values)))
    return {"nargs": "*", "choices": values, "type": kind, "default": default, **settings}


OPTIONS = {
    "--cells": _some(GATES, list(GATES)),
    "--shapes": _some(SHAPES, list(SHAPES)),
    "--workloads": _some(WORKLOADS, []),
    "--fills": _some(FILLS, list(FILLS), choices=None, help="shares of real steps"),
    "--what": _some(WHAT, list(WHAT)),
    "--dtypes": _some(DTYPES, ["float32"]),
    "--layers": _some((1, 2), [1]),
    "--directions": _some((1, 2), [1]),
    "--rivals": _some(rivals.NAMES, list(rivals.NAMES)),
    "--least": {"type": float, "default": LEAST, "help": "seconds that a sample takes at least"},
    "--side-by-side": {"action": "store_true", "help": "all problems at once, a process each"},
}


def run(
    task: Problem,
    names: Sequence[str],
    rounds: int,
    least: float = LEAST,
    before_timing: Callable[[], None] = lambda: None,
) -> store.Row:
    """Build, compare and time all rivals on one problem."""
    programs, left_out = rivals.build_all(task, names)
    apart = differences(task, programs, reference(task))
    before_timing()
    rate = roofline.tile_rate(task)
    runs = {name: program.run for name, program in programs.items()}
    times = timing.interleaved(runs, rounds, rest=REST, least=least)
    costs = {name: program.cost for name, program in programs.items()}
    found = contest.figures(times, rivals.OURS, apart, costs)
    for one in found.values():
        seconds = one["milliseconds"]["median"] / 1e3
        one["real_steps_per_second"] = round(task.real / seconds)
        one["of_tile_rate"] = round(rate["gflop"] / seconds / rate["tile_gflops"], 3)
    return {
        "cell": task.cell,
        "shape": task.shape,
        "fill": round(task.fill, 2),
        **{name: getattr(task, name) for name in ("what", "dtype", "layers", "directions")},
        "sizes": [task.batch, task.time, task.feature, task.hidden],
        "real_steps": task.real,
        "longest": max(task.lengths),
        "rate": rate,
        "rivals": found,
        "left_out": left_out,
    }


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    tasks = list(problems(options))
    one = functools.partial(_run, options)
    done = side_by_side.measure(one, tasks) if options.side_by_side else map(one, tasks)
    yield from track(done, "measuring", total=len(tasks))


def _run(
    options: argparse.Namespace, task: Problem, before_timing: Callable[[], None] = lambda: None
) -> store.Row:
    return run(task, options.rivals, options.rounds, options.least, before_timing)


def differences(task: Problem, programs: dict[str, Entrant], expected: Result) -> dict[str, float]:
    about = f"the plain scan on {task.cell} {task.shape} {task.what} in {task.dtype}"
    tolerance = TOLERANCE.get((jax.default_backend(), task.dtype), 1e-1)
    return contest.compare(programs, (), expected, about, tolerance=tolerance)


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
    return ratios.text(found["rows"])


def draw(found: dict[str, Any], path: Path) -> None:
    """A chart a cell, of single layers in float32."""
    wanted = {"dtype": "float32", "layers": 1, "directions": 1}
    for cell in GATES:
        rows = chart.chosen(found["rows"], cell=cell, **wanted)
        if rows:
            chart.draw(rows, path.with_stem(f"{path.stem}-{cell}"))
