"""`python -m tests.report_picture` makes `docs/report.svg` by the Python of `docs/report.md`."""

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "report.md"


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


if __name__ == "__main__":
    run(blocks("python")[0])["flow"].to_svg(PAGE.with_name("report.svg"))
