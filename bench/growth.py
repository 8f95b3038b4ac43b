"""How time grows: with padding around the same real steps, with time, with the batch, with width.

    python -m bench growth
    python -m bench growth --axes padding --rounds 30

Along `padding` every row has the same real steps, so that the work and the longest chain stay,
while the rectangle grows to ten times their size: a layer that skips padding takes the same time.
Along the other axes 36 % of the steps are real. Training steps of one layer.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import chart, recurrent, store, tables, workloads
from bench.problem import GATES, Problem
from bench.rivals import recurrent as rivals
from bench.suite import Suite, some

SIZES, FILL = {"batch": 32, "time": 64, "feature": 128, "hidden": 128}, 0.36
AXES = {
    "padding": (1.0, 0.75, 0.5, 0.36, 0.2, 0.1),
    "time": (32, 64, 128, 256, 512, 1024),
    "batch": (1, 4, 16, 64, 256),
    "hidden": (32, 64, 128, 256, 512, 1024),
}
LABELS = {
    "padding": "steps of the rectangle over real steps",
    "time": "steps of the longest row",
    "batch": "rows",
    "hidden": "hidden features",
}
NAMES = [name for name in rivals.NAMES if name not in ("jaxmask scan", "sequence-layers")]


def problem_at(axis: str, at: float, cell: str = "lstm") -> Problem:
    """One point of an axis."""
    sizes = SIZES if axis == "padding" else SIZES | {axis: int(at)}
    batch, time, *features = sizes.values()
    if axis == "padding":
        return Problem(cell, axis, (time,) * batch, round(time / at), *features)
    lengths = tuple(workloads.log_normal(batch, time, FILL).tolist())
    return Problem(cell, axis, lengths, time, *features)


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    for cell in options.cells:
        for axis in options.axes:
            for at in AXES[axis]:
                task = problem_at(axis, at, cell)
                row = recurrent.run(task, recurrent.build(task, options.rivals), options.rounds)
                yield {"axis": axis, "at": at, **row}


def table(found: dict[str, Any]) -> str:
    """How flat the time is along `padding`."""
    cells = sorted({row["cell"] for row in found["rows"]})
    flat = (flatness(chart.chosen(found["rows"], cell=cell)) for cell in cells)
    about = f"The longest over the shortest time along `padding`, on {found['on']}."
    return tables.markdown(about, cells, [["" if one is None else f"{one:.2f}" for one in flat]])


def flatness(rows: list[store.Row]) -> float | None:
    """Our longest over our shortest time along `padding`: 1.1 is what the goal allows."""
    along = [row["rivals"] for row in rows if row["axis"] == "padding"]
    medians = [tables.median(each[rivals.OURS]) for each in along if rivals.OURS in each]
    return max(medians) / min(medians) if medians else None


def draw(found: dict[str, Any], path: Path) -> None:
    for cell, suffix in {"lstm": "", "gru": "-gru"}.items():
        rows = chart.chosen(found["rows"], cell=cell)
        if rows:
            about = f"One {cell.upper()} in float32: how long a training step takes\n{found['on']}"
            draw_one(rows, about, path.with_stem(path.stem + suffix))


def draw_one(rows: list[store.Row], about: str, path: Path) -> None:
    """Four panels, milliseconds along each axis."""
    from matplotlib.ticker import LogLocator

    def x_of(row: store.Row) -> float:
        return 1 / row["at"] if row["axis"] == "padding" else row["at"]

    figure, panels = chart.panels(1, len(AXES), about)
    for panel, axis in zip(panels.flat, AXES, strict=True):
        along = sorted(chart.chosen(rows, axis=axis), key=x_of)
        chart.lines(panel, along, x_of, lambda row, rival: rival["milliseconds"])
        ticks = [x_of(row) for row in along]
        panel.set(xscale="log", yscale="log", xlabel=LABELS[axis])
        panel.set_xticks(ticks, [f"{round(tick, 2):g}" for tick in ticks], fontsize=8)
        times = [tables.median(one) for row in along for one in row["rivals"].values()]
        if times:  # limits a factor of ten apart at least, lest a flat line look rugged
            low = min(times) / 1.3
            panel.set_ylim(low, max(1.3 * max(times), 10 * low))
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
    panels[0, 0].set_ylabel("ms")
    chart.finish(figure, panels, path)


OPTIONS = {
    "--axes": some(AXES),
    "--cells": some(GATES, ["lstm"]),
    "--rivals": some(rivals.NAMES, NAMES),
}
SUITES = {"growth": Suite(("axis", "at", "cell"), measure, table, OPTIONS, 15, draw)}
