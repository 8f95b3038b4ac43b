"""Markdown tables of results: beside the JSON, and in the pages of the docs."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench import store

DOCS = Path(__file__).parents[1] / "docs"


def markdown(about: str, head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A sentence about a table, and the table."""
    head = list(head)
    lines = [_line(head), "|" + "---|" * len(head), *map(_line, rows)]
    return "\n".join([about, "", *lines]) + "\n"


def _line(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def median(rival: dict[str, Any]) -> float:
    return rival["milliseconds"]["median"]


def milliseconds(rival: dict[str, Any]) -> str:
    time = median(rival)
    return f"{time:.0f}" if time >= 100 else f"{time:.3g}"


def over(rivals: dict[str, Any], one: str, other: str, form: str = ".2f") -> str:
    """The time of one over that of another; nothing where either was not measured."""
    if not {one, other} <= rivals.keys():
        return ""
    return f"{median(rivals[one]) / median(rivals[other]):{form}}"


def each(
    passes: list[dict[str, dict]], name: str, figure: Callable[[dict], str] = milliseconds
) -> str:
    """A figure of a rival, forward / training."""
    found = [figure(rivals[name]) if name in rivals else "" for rivals in passes]
    return " / ".join(found) if any(found) else ""


def texts(found: str | dict[str, str], stem: str) -> dict[str, str]:
    return found if isinstance(found, dict) else {stem: found}


def show(text: str, path: Path) -> None:
    """Write a file; if it is one of our results, also between the marks of its name in a page."""
    path.write_text(text)
    marked = re.compile(rf"(<!-- {path.stem} -->\n).*?(<!-- end of {path.stem} -->)", re.DOTALL)
    for page in DOCS.glob("*.md") if path.parent == store.FOLDER else ():
        old = page.read_text()
        new = marked.sub(lambda marks: f"{marks[1]}\n{text}\n{marks[2]}", old)
        if new != old:
            page.write_text(new)
