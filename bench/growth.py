"""How time grows: with padding around the same real steps, with time, with the batch, with width.

    python -m bench growth
    python -m bench growth --axes padding --rounds 30

Along `padding` every row has the same real steps, so that the work and the longest chain stay,
while the rectangle grows to ten times their size: a layer that skips padding takes the same time.
Along the other axes 36 % of the steps are real. Training steps of one LSTM; results are merged into
`bench/results/growth.json` and drawn in `bench/results/growth.png`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from bench import chart, recurrent, rivals, store, suite, workloads
from bench.problem import Problem

RESULTS = store.FOLDER / "growth.json"
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
KEY = ("machine", "axis", "at", "cell")


def problem_at(axis: str, at: float, cell: str = "lstm", most: float = float("inf")) -> Problem:
    """One point of an axis; sizes stop at `most`, for a quick look."""
    sizes = {"batch": BATCH, "time": TIME, "feature": FEATURE, "hidden": HIDDEN}
    if axis != "padding":
        sizes[axis] = int(at)
    batch, time, feature, hidden = (int(min(size, most)) for size in sizes.values())
    if axis == "padding":
        lengths, time = [time] * batch, round(time / at)
    else:
        lengths = workloads.log_normal(batch, time, FILL).tolist()
    return Problem(cell, axis, tuple(lengths), time, feature, hidden)


def run(options: argparse.Namespace) -> None:
    every = [
        (axis, at, cell) for cell in options.cells for axis in options.axes for at in AXES[axis]
    ]
    for axis, at, cell in track(every, "measuring"):
        task = problem_at(axis, at, cell, options.most)
        row = recurrent.measure(task, options.rivals, options.rounds)
        store.merge(options.out, [{"axis": axis, "at": at, **row}], KEY)


def draw(rows: list[store.Row], path: Path) -> None:
    """Four panels, milliseconds along each axis."""

    def x_of(row: store.Row) -> float:
        return 1 / row["at"] if row["axis"] == "padding" else row["at"]

    about = chart.title(rows, "how long a training step takes")
    figure, panels = chart.panels(1, len(AXES), about)
    for panel, axis in zip(panels.flat, AXES, strict=True):
        along = sorted((row for row in rows if row["axis"] == axis), key=x_of)
        chart.lines(panel, along, x_of, lambda row, rival: rival["milliseconds"])
        panel.set(xscale="log", yscale="log", xlabel=LABELS[axis])
        ticks = [x_of(row) for row in along]
        panel.set_xticks(ticks, [f"{round(tick, 2):g}" for tick in ticks], fontsize=8)
        panel.minorticks_off()
        panel.set_ylim(*_decade(along))
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


def main(arguments: Sequence[str] | None = None) -> None:
    command = suite.parser(__doc__, 15)
    add = command.add_argument
    add("--axes", nargs="*", choices=AXES, default=list(AXES))
    add("--cells", nargs="*", choices=("lstm", "gru"), default=["lstm"])
    add("--rivals", nargs="*", choices=rivals.NAMES, default=list(NAMES))
    add("--most", type=float, default=float("inf"), help="no size above this, for a quick look")
    add("--out", type=Path, default=RESULTS, help="the JSON to merge into")
    options = command.parse_args(arguments)
    if not options.table:
        run(options)
    rows = store.of_machine(store.load(options.out), None)
    for cell in options.cells:
        of_cell = [row for row in rows if row["cell"] == cell]
        suffix = ".png" if cell == "lstm" else f"-{cell}.png"
        draw(of_cell, options.out.with_name(options.out.stem + suffix))
        flat = flatness(of_cell)
        if flat is not None:
            print(f"{cell}: from the least to the most padding, time varies {flat:.2f}x")
    print(f"wrote {options.out} and its figure")


if __name__ == "__main__":
    main()
