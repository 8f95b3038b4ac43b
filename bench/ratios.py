"""Every problem of the recurrent layers, and how much longer each rival takes, in Markdown.

A ratio is the time of a rival over that of jaxmask, both medians of one run in one process; below 1
the rival is faster.
"""

from collections.abc import Callable
from typing import Any

from bench import rivals, store, tables
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


def text(rows: list[store.Row]) -> str:
    """A table of the shapes, and one of lengths as in real data."""
    shapes = [row for row in rows if row["shape"] in SHAPES]
    workloads = [row for row in rows if row["shape"] not in SHAPES]
    about = f"Log-normal lengths, on {rows[0]['machine']}, forward / training:"
    found = _table(about, shapes, "rows x steps, features", _sizes)
    if workloads:
        about = "Lengths as in real data (`--workloads`, named after what they are fits to):"
        found += "\n" + _table(
            about, workloads, "workload", lambda row: f"{row['shape']}, {_sizes(row)}"
        )
    return found


def _table(
    about: str, rows: list[store.Row], name: str, name_of: Callable[[store.Row], str]
) -> str:
    names = [one for one in TITLES if any(one in row["rivals"] for row in rows)]

    def cells(problem: Problem) -> list[str]:
        row = next(iter(problem.values()))
        both = [problem[what]["rivals"] if what in problem else {} for what in PASSES]
        ratios = (tables.each(both, one, lambda rival: f"{rival['ratio']:.2f}") for one in names)
        times = tables.each(both, rivals.OURS)
        return [_layer(row), name_of(row), f"{row['fill']:.0%}", times, *ratios]

    head = ["layer", name, "real steps", "jaxmask, ms", *(TITLES[one] for one in names)]
    return tables.markdown(about, head, map(cells, _problems(rows)))


def _problems(rows: list[store.Row]) -> list[Problem]:
    def order(key: tuple[Any, ...]) -> tuple[Any, ...]:
        cell, layers, directions, shape, fill, dtype = key
        return dtype != "float32", cell != "lstm", layers, directions, shape, fill

    found: dict[tuple[Any, ...], Problem] = {}
    for row in rows:
        if row["what"] in PASSES and rivals.OURS in row["rivals"]:
            found.setdefault(tuple(row[name] for name in PROBLEM), {})[row["what"]] = row
    return [found[key] for key in sorted(found, key=order)]


def _layer(row: store.Row) -> str:
    depth = f"{row['layers']} layers" if row["layers"] > 1 else ""
    both = "bidirectional" if row["directions"] > 1 else ""
    half = "" if row["dtype"] == "float32" else row["dtype"]
    return ", ".join(filter(None, (row["cell"].upper(), depth, both, half)))


def _sizes(row: store.Row) -> str:
    batch, time, feature, hidden = row["sizes"]
    return f"{batch} x {time}, {feature} -> {hidden}"
