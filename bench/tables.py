"""Results on the screen."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from bench import rivals
from bench.store import Row


def console() -> Console:
    """As wide as the terminal, or as the tables where the output goes into a file."""
    return Console(width=None if sys.stdout.isatty() else 160)


def of_rows(rows: list[Row]) -> Table:
    """One line a problem: the time of jaxmask, and that of each rival over it."""
    names = [name for name in rivals.NAMES if any(name in row["rivals"] for row in rows)]
    others = [name for name in names if name != rivals.OURS]
    title = "jaxmask: ms, median (quartiles); rivals: their time over jaxmask's"
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in ("problem", rivals.OURS, *others, "of the bound", "of XLA's rate"):
        wide = name in ("problem", rivals.OURS)
        table.add_column(name, justify="left" if name == "problem" else "right", no_wrap=wide)
    for row in rows:
        table.add_row(
            about(row), _time(row), *(_ratio(row, name) for name in others), *_shares(row)
        )
    return table


def about(row: Row) -> str:
    depth = f" x{row['layers']}" if row["layers"] > 1 else ""
    ways = " both ways" if row["directions"] > 1 else ""
    dtype = "" if row["dtype"] == "float32" else f" {row['dtype']}"
    return f"{row['cell']}{depth} {row['shape']} {row['fill']:.0%} {row['what']}{dtype}{ways}"


def _time(row: Row) -> str:
    if rivals.OURS not in row["rivals"]:
        return ""
    spread = row["rivals"][rivals.OURS]["milliseconds"]
    return f"{spread['median']:.3g} ({spread['low']:.3g}-{spread['high']:.3g})"


def _ratio(row: Row, name: str) -> str:
    rival = row["rivals"].get(name)
    return "" if rival is None or rival["ratio"] is None else f"{rival['ratio']:.2f}"


def _shares(row: Row) -> tuple[str, str]:
    ours = row["rivals"].get(rivals.OURS)
    if ours is None or "bound" not in row:
        return "", ""
    return f"{ours['of_bound']:.0%} {row['bound']['bound_by']}", f"{ours['of_tile_rate']:.0%}"
