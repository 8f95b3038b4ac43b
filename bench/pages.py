"""Tables of results, as a file beside the JSON and in the page of the docs that shows them."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def show(table: str, results: Path, page: str) -> None:
    """Write a Markdown table beside `results`, and between the marks of that name in a page."""
    results.with_suffix(".md").write_text(table)
    put(table, results.stem, page)


def put(text: str, name: str, page: str) -> None:
    """Write a text between the marks of that name in a page."""
    path = DOCS / page
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", flags=re.DOTALL)
    whole, count = marked.subn(lambda found: f"{found[1]}\n{text}\n{found[2]}", path.read_text())
    if count != 1:
        raise ValueError(f"{path} has {count} places for {name}, expected one")
    path.write_text(whole)


def printed(page: str) -> str:
    """What the last Python of a page prints when it runs at the top of the repository."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )
    command = [sys.executable, "-c", blocks[-1]]
    done = subprocess.run(command, cwd=DOCS.parent, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout
