"""The command line of all suites: measure, store, and write tables and charts of what is stored."""

import argparse
import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import store, tables

MODULES = {  # by the name of a suite; `SUITES` of a module has it, and its docstring is the help
    **{name: name for name in ("models", "attention", "recurrent", "growth", "goals", "train")},
    **dict.fromkeys(("calibrate", "unroll"), "choice"),
    **{name: name for name in ("ragged", "compiling", "checking", "devices")},
    **dict.fromkeys(("overhead", "gaps"), "masks"),
    **dict.fromkeys(("serve", "streaming"), "serving"),
    **dict.fromkeys(("packing", "padding"), "host"),
}


class Suite(NamedTuple):
    """`key` has the fields that name a row of results.

    `measure(options)` gives row after row: each is stored as soon as it is there, and rows with
    other keys stay. `table(found)` is the text of the table, or texts by name; `draw(found, path)`
    makes a chart. `load(options)` is for a suite that reads more than its own results.
    """

    key: tuple[str, ...]
    measure: Callable[[argparse.Namespace], Iterator[store.Row]]
    table: Callable[[Any], str | dict[str, str]]
    options: dict[str, dict[str, Any]] = {}  # noqa: RUF012
    rounds: int = 0
    draw: Callable[[Any, Path], None] = lambda found, path: None
    load: Callable[[argparse.Namespace], Any] = lambda options: store.load(
        options.out, options.machine
    )


def of_name(name: str) -> Suite:
    return importlib.import_module(f"bench.{MODULES[name]}").SUITES[name]


def some(values: Iterable[Any], default: Sequence[Any] | None = None, **more: Any) -> dict:
    """Settings of an option that takes any of some values, by default all."""
    values = list(values)
    default = values if default is None else default
    return {"nargs": "*", "choices": values, "type": type(values[0]), "default": default} | more


def parser(name: str) -> argparse.ArgumentParser:
    suite, text = of_name(name), importlib.import_module(f"bench.{MODULES[name]}").__doc__ or ""
    summary, _, details = text.partition("\n")
    raw = argparse.RawDescriptionHelpFormatter
    command = argparse.ArgumentParser(
        prog=f"python -m bench {name}", description=summary, epilog=details, formatter_class=raw
    )
    add: Any = command.add_argument
    if suite.rounds:
        add("--rounds", type=int, default=suite.rounds, help="samples of each")
    for flag, settings in suite.options.items():
        add(flag, **settings)
    add("--table", action="store_true", help="measure nothing, show what is stored")
    add("--machine", help="whose results to show (default: those of this machine)")
    add("--out", type=Path, default=store.path(name), help="the results (default: %(default)s)")
    return command


def main(arguments: Sequence[str]) -> None:
    """Run a suite, and write `NAME.json`, `NAME.md` and the pages of the docs that show it."""
    name, *rest = arguments or ["--help"]
    if name not in MODULES:
        raise SystemExit(f"usage: python -m bench [{' | '.join(MODULES)}] [options]")
    suite, options = of_name(name), parser(name).parse_args(rest)
    for row in () if options.table else suite.measure(options):
        print(*(row[field] for field in suite.key), flush=True)
        store.merge(options.out, row, suite.key)
    found = suite.load(options)
    for stem, text in tables.texts(suite.table(found), options.out.stem).items():
        tables.show(text, options.out.with_name(f"{stem}.md"))
        print(text)
    suite.draw(found, options.out.with_suffix(".png"))
    print(f"wrote tables and charts of {options.out}")
