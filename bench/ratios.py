"""Every problem of the recurrent layers, and how much longer each rival takes, in markdown.

    python -m bench.ratios
    python -m bench.ratios --machine "AMD EPYC (family 25, model 17), 2 cores"
    python -m bench.ratios --results bench/results/recurrent-gpu.json

It is written from `bench/results/recurrent.json` or another file alone, into the page of the docs
and beside the results. A ratio is the time of a rival over that of jaxmask, both medians of one run
in one process; below 1 the rival is faster.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import pages, recurrent, rivals, store
from bench.workloads import SHAPES

TITLES = {
    "jaxmask scan": "plain scan",
    "flax": "Flax",
    "keras": "Keras",
    "sequence-layers": "SequenceLayers",
    "torch packed": "PyTorch packed",
    "torch padded": "PyTorch padded",
    "cudnn": "cuDNN",
}
PASSES = ("forward", "train")
PROBLEM = ("cell", "layers", "directions", "shape", "fill", "dtype")

Problem = dict[str, store.Row]  # the rows of one problem, by pass
Text = Callable[[store.Row], str]


def text(rows: list[store.Row]) -> str:
    """A table of the shapes, and one of lengths as in real data."""
    shapes = [row for row in rows if row["shape"] in SHAPES]
    workloads = [row for row in rows if row["shape"] not in SHAPES]
    lines = [
        f"Log-normal lengths, on {rows[0]['machine']}, forward / training:",
        "",
        *_table(shapes, "rows x steps, features", _sizes),
        "",
    ]
    if workloads:
        lines += [
            "Lengths as in real data (`--workloads`, named after what they are fits to):",
            "",
            *_table(workloads, "workload", lambda row: f"{row['shape']}, {_sizes(row)}"),
            "",
        ]
    return "\n".join(lines)


def _table(rows: list[store.Row], about: str, name: Text) -> list[str]:
    problems = _problems(rows)
    names = [one for one in TITLES if any(one in row["rivals"] for row in rows)]
    head = ["layer", about, "real steps", "jaxmask, ms", *(TITLES[one] for one in names)]
    lines = [_line(head), "|---" * len(head) + "|"]
    for problem in problems:
        row = next(iter(problem.values()))
        times = _both(problem, _time)
        ratios = (_both(problem, lambda row, one=one: _ratio(row, one)) for one in names)
        lines.append(_line([_layer(row), name(row), f"{row['fill']:.0%}", times, *ratios]))
    return lines


def _problems(rows: list[store.Row]) -> list[Problem]:
    found: dict[tuple[Any, ...], Problem] = {}
    for row in rows:
        if row["what"] in PASSES and rivals.OURS in row["rivals"]:
            found.setdefault(tuple(row[name] for name in PROBLEM), {})[row["what"]] = row
    return [found[key] for key in sorted(found, key=_order)]


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    cell, layers, directions, shape, fill, dtype = key
    return dtype != "float32", cell != "lstm", layers, directions, shape, fill


def _both(problem: Problem, figure: Text) -> str:
    found = [figure(problem[what]) if what in problem else "" for what in PASSES]
    return " / ".join(found) if any(found) else ""


def _time(row: store.Row) -> str:
    median = row["rivals"][rivals.OURS]["milliseconds"]["median"]
    return f"{median:.0f}" if median >= 100 else f"{median:.3g}"


def _ratio(row: store.Row, name: str) -> str:
    return f"{row['rivals'][name]['ratio']:.2f}" if name in row["rivals"] else ""


def _layer(row: store.Row) -> str:
    depth = f"{row['layers']} layers" if row["layers"] > 1 else ""
    ways = "both ways" if row["directions"] > 1 else ""
    half = "" if row["dtype"] == "float32" else row["dtype"]
    return ", ".join(filter(None, (row["cell"].upper(), depth, ways, half)))


def _sizes(row: store.Row) -> str:
    batch, time, feature, hidden = row["sizes"]
    return f"{batch} x {time}, {feature} -> {hidden}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", help="whose results (default: those of this machine)")
    parser.add_argument("--results", type=Path, default=recurrent.RESULTS, help="the JSON to read")
    options = parser.parse_args(arguments)
    rows = store.of_machine(store.load(options.results), options.machine)
    if not rows:
        raise SystemExit(f"{options.results} has no results of that machine")
    pages.show(text(rows), options.results, "recurrent.md")


if __name__ == "__main__":
    main()
