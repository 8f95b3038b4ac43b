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

from rich.progress import track

from bench import chart, recurrent, rivals, store, tables, workloads
from bench.problem import GATES, Problem

FILL = 0.36
BATCH, TIME, FEATURE, HIDDEN = 32, 64, 128, 128
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
NAMES = tuple(name for name in rivals.NAMES if name not in ("jaxmask scan", "sequence-layers"))
KEY = ("axis", "at", "cell")
ROUNDS = 15
OPTIONS = {
    "--axes": {"nargs": "*", "choices": AXES, "default": list(AXES)},
    "--cells": {"nargs": "*", "choices": GATES, "default": ["lstm"]},
    "--rivals": {"nargs": "*", "choices": rivals.NAMES, "default": list(NAMES)},
}


def problem_at(axis: str, at: float, cell: str = "lstm") -> Problem:
    """One point of an axis."""
    sizes = {"batch": BATCH, "time": TIME, "feature": FEATURE, "hidden": HIDDEN}
    if axis == "padding":
        return Problem(cell, axis, (TIME,) * BATCH, round(TIME / at), FEATURE, HIDDEN)
    batch, time, feature, hidden = (sizes | {axis: int(at)}).values()
    lengths = tuple(workloads.log_normal(batch, time, FILL).tolist())
    return Problem(cell, axis, lengths, time, feature, hidden)


def measure(options: argparse.Namespace) -> Iterator[store.Row]:
    every = [
        (axis, at, cell) for cell in options.cells for axis in options.axes for at in AXES[axis]
    ]
    for axis, at, cell in track(every, "measuring"):
        row = recurrent.run(problem_at(axis, at, cell), options.rivals, options.rounds)
        yield {"axis": axis, "at": at, **row}


def table(found: dict[str, Any]) -> str:
    """How flat the time is along `padding`."""
    cells = dict.fromkeys(row["cell"] for row in found["rows"])
    flat = {cell: flatness(chart.chosen(found["rows"], cell=cell)) for cell in cells}
    return tables.markdown(
        f"The longest over the shortest time along `padding`, on {found['machine']['processor']}.",
        flat,
        [["" if figure is None else f"{figure:.2f}" for figure in flat.values()]],
    )


def draw(found: dict[str, Any], path: Path) -> None:
    for cell, suffix in {"lstm": "", "gru": "-gru"}.items():
        rows = chart.chosen(found["rows"], cell=cell)
        if rows:
            draw_one(rows, path.with_stem(path.stem + suffix))


def draw_one(rows: list[store.Row], path: Path) -> None:
    """Four panels, milliseconds along each axis."""
    from matplotlib.ticker import LogLocator

    def x_of(row: store.Row) -> float:
        return 1 / row["at"] if row["axis"] == "padding" else row["at"]

    about = chart.title(rows, "how long a training step takes")
    figure, panels = chart.panels(1, len(AXES), about)
    for panel, axis in zip(panels.flat, AXES, strict=True):
        along = sorted(chart.chosen(rows, axis=axis), key=x_of)
        chart.lines(panel, along, x_of, lambda row, rival: rival["milliseconds"])
        panel.set(xscale="log", yscale="log", xlabel=LABELS[axis])
        ticks = [x_of(row) for row in along]
        panel.set_xticks(ticks, [f"{round(tick, 2):g}" for tick in ticks], fontsize=8)
        panel.set_ylim(*_decade(along))
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
    panels[0, 0].set_ylabel("ms")
    chart.finish(figure, panels, path)


def _decade(rows: list[store.Row]) -> tuple[float | None, float | None]:
    """Limits a whole factor of ten apart at least, lest a flat line look rugged."""
    medians = [r["milliseconds"]["median"] for row in rows for r in row["rivals"].values()]
    if not medians:
        return None, None
    low, high = min(medians) / 1.3, max(medians) * 1.3
    return low, max(high, 10 * low)


def flatness(rows: list[store.Row], name: str = rivals.OURS) -> float | None:
    """The longest over the shortest time along `padding`: 1.1 is what the goal allows."""
    along = [row for row in rows if row["axis"] == "padding" and name in row["rivals"]]
    medians = [row["rivals"][name]["milliseconds"]["median"] for row in along]
    return max(medians) / min(medians) if medians else None
