"""Markdown tables of results: beside the JSON, and in the pages of the docs."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
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


def milliseconds(rival: dict[str, Any]) -> str:
    median = rival["milliseconds"]["median"]
    return f"{median:.0f}" if median >= 100 else f"{median:.3g}"


def each(
    passes: list[dict[str, dict]], name: str, figure: Callable[[dict], str] = milliseconds
) -> str:
    """A figure of a rival, forward / training."""
    found = [figure(rivals[name]) if name in rivals else "" for rivals in passes]
    return " / ".join(found) if any(found) else ""


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
