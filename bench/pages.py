"""Tables of results, as a file beside the JSON and in the page of the docs that shows them."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def show(table: str, results: Path, page: str) -> None:
    """Write a Markdown table beside `results`, and between the marks of that name in a page."""
    results.with_suffix(".md").write_text(table)
    path, name = DOCS / page, results.stem
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", flags=re.DOTALL)
    text, count = marked.subn(lambda found: f"{found[1]}\n{table}\n{found[2]}", path.read_text())
    if count != 1:
        raise ValueError(f"{path} has {count} places for {name}, expected one")
    path.write_text(text)
