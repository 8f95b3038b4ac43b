"""Markdown tables of results: on the screen, beside the JSON, and in the docs."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"


def markdown(about: str, head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A sentence about a table, if any, and the table."""
    head = list(head)
    lines = [_line(head), "|" + "---|" * len(head), *map(_line, rows)]
    return "\n".join([about, "", *lines] if about else lines) + "\n"


def _line(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def show(table: str, results: Path, page: str | None = None) -> None:
    """Write a table beside `results`, and into a page of the docs."""
    results.with_suffix(".md").write_text(table)
    if page:
        insert(table, results.stem, page)


def insert(text: str, name: str, page: str) -> None:
    """Write a text between the marks of that name in a page."""
    path = DOCS / page
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", flags=re.DOTALL)
    whole, count = marked.subn(lambda found: f"{found[1]}\n{text}\n{found[2]}", path.read_text())
    if count != 1:
        raise ValueError(f"{path}: expected one pair of marks for {name}, got {count}")
    path.write_text(whole)


def printed(page: str) -> str:
    """What the last Python example of a page prints, run from the top of the repository."""
    examples = re.findall(
        r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )
    command = [sys.executable, "-c", examples[-1]]
    done = subprocess.run(command, cwd=DOCS.parent, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout
