"""Charts, from results alone: speed against the share of steps that are real, and lines of growth.

Bands reach from the lower to the upper quartile.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import rivals, store
from bench.workloads import SHAPES

COLOURS = {
    "jaxmask": "#c1121f",
    "jaxmask scan": "#e9a3a8",
    "flax": "#1f77b4",
    "keras": "#e07b00",
    "sequence-layers": "#8e5ea2",
    "torch packed": "#4f7a28",
    "torch padded": "#9bbf6b",
    "cudnn": "#3c3c3c",
    "jaxmask, skip_padding": "#6a040f",
    "jaxmask reference": "#e9a3a8",
    "torch": "#4f7a28",
    "torch nested": "#9bbf6b",
    "jax.nn": "#1f77b4",
}
PASSES = {"forward": "forward", "train": "forward and backward"}


def chosen(rows: list[store.Row], **wanted: Any) -> list[store.Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def draw(rows: list[store.Row], path: Path) -> None:
    """One panel a shape and pass."""
    shapes = [name for name in SHAPES if any(row["shape"] == name for row in rows)]
    about = title(rows, "real steps a second, against the share of steps that are real")
    figure, axes = panels(len(PASSES), len(shapes), about)
    for across, what in zip(axes, PASSES, strict=True):
        for panel, shape in zip(across, shapes, strict=True):
            along = sorted(chosen(rows, shape=shape, what=what), key=lambda row: row["fill"])
            lines(panel, along, lambda row: row["fill"], _millions_a_second)
            sizes = "batch {}, time {}, {} to {} features".format(*SHAPES[shape])
            panel.set_title(f"{PASSES[what]}\n{sizes if along else 'not measured'}", fontsize=9)
            panel.set(xlabel="share of steps that are real", ylim=(0, None), xlim=(0, 1.05))
        across[0].set_ylabel("million real steps a second")
    finish(figure, axes, path)


def _millions_a_second(row: store.Row, rival: dict[str, Any]) -> dict[str, float]:
    times = rival["milliseconds"]
    quartiles = {"median": "median", "low": "high", "high": "low"}  # long times are low rates
    return {name: row["real_steps"] / times[other] / 1e3 for name, other in quartiles.items()}


def title(rows: list[store.Row], about: str) -> str:
    first = rows[0] if rows else {"cell": "nothing", "dtype": "", "machine": "no machine"}
    return f"One {first['cell'].upper()} in {first['dtype']}: {about}\n{first['machine']}"


def panels(
    rows: int, columns: int, title: str, size: tuple[float, float] = (3.6, 2.9)
) -> tuple[Any, Any]:
    """An empty figure, and its axes `[rows, columns]`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    whole = size[0] * max(columns, 2), size[1] * rows + 0.8
    figure, axes = pyplot.subplots(
        rows, max(columns, 1), figsize=whole, layout="constrained", squeeze=False
    )
    figure.suptitle(title, fontsize=10)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def lines(
    panel: Any,
    rows: list[store.Row],
    x_of: Callable[[store.Row], float],
    spread_of: Callable[[store.Row, dict[str, Any]], dict[str, float]],
) -> None:
    """A line a rival, with a band from the lower to the upper quartile."""
    for name in COLOURS:
        present = [row for row in rows if name in row["rivals"]]
        if not present:
            continue
        x = [x_of(row) for row in present]
        spreads = [spread_of(row, row["rivals"][name]) for row in present]
        low, median, high = ([s[key] for s in spreads] for key in ("low", "median", "high"))
        width = 2.2 if name == rivals.OURS else 1.2
        panel.plot(x, median, "o-", ms=3, lw=width, color=COLOURS[name], label=name)
        panel.fill_between(x, low, high, color=COLOURS[name], alpha=0.2, lw=0)


def bars(found: dict[str, Any], path: Path, name: str, about: str) -> None:
    """A panel a row of results, a bar a rival, its quartiles on top."""
    rows = found["rows"]
    figure, axes = panels(len(rows), 1, f"{about}\n{found['machine']['processor']}", (3.2, 1.1))
    for panel, row in zip(axes.flat, rows, strict=True):
        spreads = {who: one["milliseconds"] for who, one in row["rivals"].items()}
        medians = [spread["median"] for spread in spreads.values()]
        errors = [
            [s["median"] - s["low"] for s in spreads.values()],
            [s["high"] - s["median"] for s in spreads.values()],
        ]
        heights = range(len(spreads))[::-1]
        colours = [COLOURS[who] for who in spreads]
        drawn = panel.barh(heights, medians, xerr=errors, color=colours)
        panel.bar_label(drawn, fmt="%.3g", padding=4, fontsize=8)
        panel.set_yticks(heights, spreads, fontsize=8)
        panel.set_title(row[name], fontsize=9)
        panel.margins(x=0.15)
    figure.savefig(path, dpi=120)


def finish(figure: Any, axes: Any, path: Path) -> None:
    """One legend for all panels, and the file."""
    labels: dict[str, Any] = {}
    for panel in axes.flat:
        labels.update(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    if labels:
        about = "bands: from the lower to the upper quartile of the samples"
        where = {"loc": "outside lower center", "ncols": 4, "frameon": False}
        figure.legend(labels.values(), labels, title=about, title_fontsize=8, **where)
    figure.savefig(path, dpi=120)
