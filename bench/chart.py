"""Charts, from results alone: lines with bands from the lower to the upper quartile, and bars."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import store

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
    "jaxmask, skip_padding(pack)": "#e85d04",
    "jaxmask reference": "#e9a3a8",
    "torch": "#4f7a28",
    "torch nested": "#9bbf6b",
    "jax.nn": "#1f77b4",
}


def chosen(rows: list[store.Row], **wanted: Any) -> list[store.Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


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
    for name, colour in COLOURS.items():
        present = [row for row in rows if name in row["rivals"]]
        if not present:
            continue
        x = [x_of(row) for row in present]
        spreads = [spread_of(row, row["rivals"][name]) for row in present]
        low, median, high = ([s[key] for s in spreads] for key in ("low", "median", "high"))
        width = 2.2 if name == "jaxmask" else 1.2
        panel.plot(x, median, "o-", ms=3, lw=width, color=colour, label=name)
        panel.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)


def bars(
    panel: Any, spreads: Sequence[dict[str, float]], names: Sequence[str], labels: Sequence[str]
) -> None:
    """A bar each, its quartiles on top, in the colours of the names."""
    medians = [s["median"] for s in spreads]
    errors = [[s["median"] - s["low"] for s in spreads], [s["high"] - s["median"] for s in spreads]]
    heights, colours = range(len(spreads))[::-1], [COLOURS[name] for name in names]
    drawn = panel.barh(heights, medians, xerr=errors, color=colours)
    panel.bar_label(drawn, fmt="%.3g", padding=4, fontsize=8)
    panel.set_yticks(heights, labels, fontsize=8)
    panel.margins(x=0.15)


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
