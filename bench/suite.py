"""The command line of a suite: measure, store, and write the table of what is stored."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from bench import store, tables


def parser(doc: str, rounds: int | None = None) -> argparse.ArgumentParser:
    """The docstring of a suite is its help; `rounds` is a default, or 0 where samples have none."""
    summary, _, details = doc.partition("\n")
    style = argparse.RawDescriptionHelpFormatter
    command = argparse.ArgumentParser(description=summary, epilog=details, formatter_class=style)
    if rounds:
        text = f"samples of each (default: {rounds})"
        command.add_argument("--rounds", type=int, default=rounds, help=text)
    if rounds is not None:
        command.add_argument("--table", action="store_true", help="measure nothing, show results")
    return command


def run(
    name: str,
    options: argparse.Namespace,
    measure: Callable[[], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
    page: str | None = None,
) -> None:
    """Save `results/NAME.json`, and write its table beside it and into a page of the docs.

    A run of a part (`--only`) shows its table and saves nothing.
    """
    path = store.FOLDER / f"{name}.json"
    if not options.table:
        found = measure()
        if getattr(options, "only", ""):
            print(table({"machine": store.machine(), **found}))
            return
        store.save(path, found)
    text = table(json.loads(path.read_text()))
    tables.show(text, path, page)
    print(text, f"wrote {path.with_suffix('.md')}, the table of {path.name}", sep="\n")
