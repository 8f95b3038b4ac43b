"""Recurrent layers over ragged rows: jaxmask against Flax, Keras, SequenceLayers and PyTorch.

    python -m bench recurrent                                 what the goals are about
    python -m bench recurrent --shapes A --fills .36 --what train --rounds 30
    python -m bench recurrent --shapes --workloads imdb wmt   lengths as in real data
    python -m bench recurrent --everything                    hours
    python -m bench recurrent --side-by-side                  compile all at once, on accelerators

Every rival gets the same weights, input, lengths and loss, in one process and in turn, and must
agree with the plain masked scan before it is timed: in its outputs at real steps, or in its loss
and the gradients of the input and of every weight. A row of results holds all rivals of one
problem. Rows are merged into `bench/results/recurrent.json` as they are done, so that a run of a
part brings that part up to date; run all rivals, since ratios hold within one run alone. On an
accelerator the file is named after its kind, such as `recurrent-gpu.json`.
"""

import argparse
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import agreement, problem, rivals, roofline, side_by_side, store, tables, timing
from bench.problem import GATES, WHAT, Problem
from bench.rivals.jaxmask import reference
from bench.workloads import FILLS, SHAPES, WORKLOADS

RESULTS = timing.RESULTS / "recurrent.json"
KEY = ("machine", "cell", "shape", "fill", "what", "dtype", "layers", "directions")
DTYPES = ("float32", "bfloat16")
REST, LEAST = 0.02, 0.1  # seconds


def measure(
    task: Problem,
    names: tuple[str, ...],
    rounds: int,
    tick: Callable[[str], None] = lambda stage: None,
    least: float = LEAST,
) -> store.Row:
    """Build, compare and time all rivals on one problem."""
    programs, left_out = rivals.build_all(task, names, lambda name: tick(f"compiling {name}"))
    tick("comparing")
    apart = agreement.differences(task, programs, reference(task))
    tick("measuring rates")
    limit = roofline.bound(task)
    tick("timing")
    runs = {name: program.run for name, program in programs.items()}
    times = timing.interleaved(runs, rounds, rest=REST, least=least)
    ours = times[rivals.OURS]["median"] if rivals.OURS in times else None
    return {
        "machine": timing.machine_name(),
        **{name: getattr(task, name) for name in ("cell", "shape")},
        "fill": round(task.fill, 2),
        **{name: getattr(task, name) for name in ("what", "dtype", "layers", "directions")},
        "sizes": [task.batch, task.time, task.feature, task.hidden],
        "real_steps": task.real,
        "longest": max(task.lengths),
        "bound": limit,
        "rivals": {
            name: {
                "milliseconds": spread,
                "real_steps_per_second": round(1e3 * task.real / spread["median"]),
                "ratio": ours and round(spread["median"] / ours, 3),
                "of_bound": round(limit["milliseconds"] / spread["median"], 3),
                "of_tile_rate": round(roofline.share_of_tile_rate(limit, spread["median"]), 3),
                "difference": float(f"{apart[name]:.2g}"),
                **programs[name].cost,
            }
            for name, spread in times.items()
        },
        "left_out": left_out,
    }


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


def run(options: argparse.Namespace, console: Console) -> list[store.Row]:
    """Measure all problems, and keep each row as soon as it is there."""
    tasks, rows = list(problems(options)), []
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
    ) as progress:
        bar = progress.add_task("", total=len(tasks))

        def tell(text: str) -> None:
            progress.update(bar, description=text)

        if options.side_by_side:
            done = side_by_side.measure(functools.partial(_measure, options), tasks)
        else:
            done = _in_turn(options, tasks, tell)
        for row in done:
            rows.append(row)
            store.merge(options.out, [row], KEY)
            progress.advance(bar)
    return rows


def _in_turn(
    options: argparse.Namespace, tasks: list[Problem], tell: Callable[[str], None]
) -> Iterator[store.Row]:
    for task in tasks:
        about = f"{task.cell} {task.shape} {task.fill:.0%} {task.what} {task.dtype}"
        yield _measure(options, task, lambda stage, about=about: tell(f"{about}: {stage}"))


def _measure(options: argparse.Namespace, task: Problem, tick: Callable[[str], None]) -> store.Row:
    return measure(task, tuple(options.rivals), options.rounds, tick, options.least)


def results() -> Path:
    """Where the rows of this kind of device are kept."""
    backend = jax.default_backend()
    return RESULTS if backend == "cpu" else RESULTS.with_stem(f"{RESULTS.stem}-{backend}")


def parser() -> argparse.ArgumentParser:
    summary, _, details = __doc__.partition("\n")
    command = argparse.ArgumentParser(
        prog="python -m bench recurrent",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("--cells", nargs="*", choices=GATES, default=list(GATES))
    add("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    add("--workloads", nargs="*", choices=WORKLOADS, default=[])
    add("--fills", nargs="*", type=float, default=list(FILLS), help="shares of real steps")
    add("--what", nargs="*", choices=WHAT, default=list(WHAT))
    add("--dtypes", nargs="*", choices=DTYPES, default=["float32"])
    add("--layers", nargs="*", type=int, default=[1])
    add("--directions", nargs="*", type=int, choices=(1, 2), default=[1])
    add("--rivals", nargs="*", choices=rivals.NAMES, default=list(rivals.NAMES))
    add("--rounds", type=int, default=15, help="samples of each rival (default: 15)")
    add("--quick", action="store_true", help="the small shape, one fill, three rounds")
    add("--everything", action="store_true", help="all shapes, workloads, dtypes and depths")
    add("--least", type=float, default=LEAST, help="seconds that a sample takes at least")
    add("--side-by-side", action="store_true", help="all problems at once, a process each")
    add("--out", type=Path, help="the JSON to merge into (default: that of the kind of device)")
    return command


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = parser().parse_args(arguments)
    if options.quick:
        options.shapes, options.fills, options.rounds = ["S"], [0.36], 3
    if options.everything:
        everything: dict[str, Any] = {
            "workloads": list(WORKLOADS),
            "dtypes": list(DTYPES),
            "layers": [1, 2],
            "directions": [1, 2],
        }
        vars(options).update(everything)
    options.out = options.out or results()
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options, console = parse(arguments), tables.console()
    rows = run(options, console)
    console.print(tables.of_rows(rows))
    for reason in sorted({f"{n}: {why}" for row in rows for n, why in row["left_out"].items()}):
        console.print(f"left out: {reason}", highlight=False, soft_wrap=True)
    console.print(f"merged {len(rows)} rows into {options.out}", soft_wrap=True)


if __name__ == "__main__":
    main()
