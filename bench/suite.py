"""The command line of all suites: measure, store, and write tables and charts of what is stored.

A suite is a module with `measure(options)` and `table(found)`; its docstring is its help. It may
have more: `ROUNDS`, the default of `--rounds`; `OPTIONS` of its own; `draw(found, path)`, a chart;
`load(options)`, where not the results alone are read;
and `KEY`, the fields that name a row: `measure` then gives row after row, each is stored as soon as
it is there, and those with other keys stay.
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import store, tables

NAMES = (
    *("models", "attention", "recurrent", "growth", "goals", "calibrate", "unroll"),
    *("ragged", "overhead", "streaming", "serve", "devices"),
    *("train", "packing", "padding", "gaps", "compiling", "checking"),
)


def parser(suite: Any) -> argparse.ArgumentParser:
    name = suite.__name__.rpartition(".")[2]
    summary, _, details = suite.__doc__.partition("\n")
    command = argparse.ArgumentParser(
        prog=f"python -m bench {name}",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Any = command.add_argument
    if hasattr(suite, "ROUNDS"):
        text = f"samples of each (default: {suite.ROUNDS})"
        add("--rounds", type=int, default=suite.ROUNDS, help=text)
    for flag, settings in getattr(suite, "OPTIONS", {}).items():
        add(flag, **settings)
    add("--table", action="store_true", help="measure nothing, show what is stored")
    add("--machine", help="whose results to show (default: those of this machine)")
    add("--out", type=Path, default=store.path(name), help="the results (default: %(default)s)")
    return command


def main(name: str, arguments: Sequence[str] = ()) -> None:
    """Run a suite, and write `NAME.json`, `NAME.md` and the pages of the docs that show it."""
    suite: Any = importlib.import_module(f"bench.{name}")
    options = parser(suite).parse_args(arguments)
    if not options.table and hasattr(suite, "measure"):
        found = suite.measure(options)
        if hasattr(suite, "KEY"):
            for row in found:
                store.merge(options.out, row, suite.KEY)
        else:
            store.save(options.out, found)
    load = getattr(suite, "load", lambda options: store.load(options.out, options.machine))
    found = load(options)
    texts = suite.table(found)
    for stem, text in (texts if isinstance(texts, dict) else {options.out.stem: texts}).items():
        tables.show(text, options.out.with_name(f"{stem}.md"))
        print(text)
    if hasattr(suite, "draw"):
        suite.draw(found, options.out.with_suffix(".png"))
    print(f"wrote tables and charts of {options.out}")
