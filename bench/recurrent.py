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
part updates that part; run all rivals, since ratios hold within one run alone. On an accelerator
the file is named after its kind, such as `recurrent-gpu.json`.
"""

import argparse
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
from rich.progress import track

from bench import agreement, problem, rivals, roofline, side_by_side, store, suite, tables, timing
from bench.problem import GATES, WHAT, Problem
from bench.rivals.jaxmask import reference
from bench.workloads import FILLS, SHAPES, WORKLOADS

RESULTS = store.FOLDER / "recurrent.json"
KEY = ("machine", "cell", "shape", "fill", "what", "dtype", "layers", "directions")
DTYPES = ("float32", "bfloat16")
REST, LEAST = 0.02, 0.1  # seconds


def measure(
    task: Problem,
    names: Sequence[str],
    rounds: int,
    least: float = LEAST,
    before_timing: Callable[[], None] = lambda: None,
) -> store.Row:
    """Build, compare and time all rivals on one problem."""
    programs, left_out = rivals.build_all(task, names)
    apart = agreement.differences(task, programs, reference(task))
    before_timing()
    limit = roofline.bound(task)
    runs = {name: program.run for name, program in programs.items()}
    times = timing.interleaved(runs, rounds, rest=REST, least=least)
    ours = times[rivals.OURS]["median"] if rivals.OURS in times else None

    def figures(name: str) -> store.Row:
        spread = times[name]
        return {
            "milliseconds": spread,
            "real_steps_per_second": round(1e3 * task.real / spread["median"]),
            "ratio": ours and round(spread["median"] / ours, 3),
            "of_bound": round(limit["milliseconds"] / spread["median"], 3),
            "of_tile_rate": round(roofline.share_of_tile_rate(limit, spread["median"]), 3),
            "difference": float(f"{apart[name]:.2g}"),
            **programs[name].cost,
        }

    return {
        "machine": store.machine_name(),
        "cell": task.cell,
        "shape": task.shape,
        "fill": round(task.fill, 2),
        **{name: getattr(task, name) for name in ("what", "dtype", "layers", "directions")},
        "sizes": [task.batch, task.time, task.feature, task.hidden],
        "real_steps": task.real,
        "longest": max(task.lengths),
        "bound": limit,
        "rivals": {name: figures(name) for name in times},
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


def _measure(
    options: argparse.Namespace, task: Problem, before_timing: Callable[[], None] = lambda: None
) -> store.Row:
    return measure(task, options.rivals, options.rounds, options.least, before_timing)


def run(options: argparse.Namespace) -> list[store.Row]:
    """Measure all problems, and keep each row as soon as it is there."""
    tasks, rows, one = list(problems(options)), [], functools.partial(_measure, options)
    done = side_by_side.measure(one, tasks) if options.side_by_side else map(one, tasks)
    for row in track(done, "measuring", total=len(tasks)):
        rows.append(row)
        store.merge(options.out, [row], KEY)
    return rows


def table(rows: list[store.Row]) -> str:
    """One line a problem: the time of jaxmask, and that of each rival over it."""
    names = [name for name in rivals.NAMES if any(name in row["rivals"] for row in rows)]
    others = [name for name in names if name != rivals.OURS]

    def cells(row: store.Row) -> list[str]:
        found = row["rivals"]
        ratios = [found[name]["ratio"] if name in found else None for name in others]
        line = [about(row), "", *("" if r is None else f"{r:.2f}" for r in ratios), "", ""]
        if rivals.OURS in found:
            ours, ms = found[rivals.OURS], found[rivals.OURS]["milliseconds"]
            line[1] = f"{ms['median']:.3g} ({ms['low']:.3g}-{ms['high']:.3g})"
            bound = f"{ours['of_bound']:.0%} {row['bound']['bound_by']}"
            line[-2:] = bound, f"{ours['of_tile_rate']:.0%}"
        return line

    head = ["problem", rivals.OURS, *others, "of the bound", "of XLA's rate"]
    text = "jaxmask: ms, median (quartiles); rivals: their time over jaxmask's."
    return tables.markdown(text, head, map(cells, rows))


def about(row: store.Row) -> str:
    depth = f" x{row['layers']}" if row["layers"] > 1 else ""
    both = " bidirectional" if row["directions"] > 1 else ""
    dtype = "" if row["dtype"] == "float32" else f" {row['dtype']}"
    return f"{row['cell']}{depth} {row['shape']} {row['fill']:.0%} {row['what']}{dtype}{both}"


def results() -> Path:
    """The file of this kind of device."""
    backend = jax.default_backend()
    return RESULTS if backend == "cpu" else RESULTS.with_stem(f"{RESULTS.stem}-{backend}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    command = suite.parser(__doc__, 15)
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
    add("--quick", action="store_true", help="the small shape, one fill, three rounds")
    add("--everything", action="store_true", help="all shapes, workloads, dtypes and depths")
    add("--least", type=float, default=LEAST, help="seconds that a sample takes at least")
    add("--side-by-side", action="store_true", help="all problems at once, a process each")
    add("--out", type=Path, help="the JSON to merge into (default: that of the kind of device)")
    options = command.parse_args(arguments)
    if options.quick:
        options.shapes, options.fills, options.rounds = ["S"], [0.36], 3
    if options.everything:
        options.workloads, options.dtypes = list(WORKLOADS), list(DTYPES)
        options.layers = options.directions = [1, 2]
    options.out = options.out or results()
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.table:
        print(table(store.load(options.out)))
        return
    rows = run(options)
    print(table(rows))
    for reason in sorted({f"{n}: {why}" for row in rows for n, why in row["left_out"].items()}):
        print(f"left out: {reason}")
    print(f"merged {len(rows)} rows into {options.out}")


if __name__ == "__main__":
    main()
