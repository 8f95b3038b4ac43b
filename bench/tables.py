"""Markdown tables of results: beside the JSON, and in the pages of the docs."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import store

DOCS = Path(__file__).parents[1] / "docs"


def markdown(about: str, head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A sentence about a table, if any, and the table."""
    head = list(head)
    lines = [_line(head), "|" + "---|" * len(head), *map(_line, rows)]
    return "\n".join([about, "", *lines] if about else lines) + "\n"


def _line(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def show(text: str, path: Path) -> None:
    """Write a file; if it is one of our results, also between the marks of its name in a page."""
    path.write_text(text)
    marked = re.compile(rf"(<!-- {path.stem} -->\n).*?(<!-- end of {path.stem} -->)", re.DOTALL)
    for page in DOCS.glob("*.md") if path.parent == store.FOLDER else ():
        old = page.read_text()
        new = marked.sub(lambda marks: f"{marks[1]}\n{text}\n{marks[2]}", old)
        if new != old:
            page.write_text(new)


def printed(page: str) -> str:
    """What the last Python example of a page prints, run from the top of the repository."""
    examples = re.findall(
        r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )
    command = [sys.executable, "-c", examples[-1]]
    done = subprocess.run(command, cwd=DOCS.parent, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout
