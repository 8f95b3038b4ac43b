"""The README's Python runs, and its first two lines of bash are the main job and the tests."""

import re
from pathlib import Path

from tests.parity import table

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_python_runs(capsys):
    code = compile("\n".join(blocks("python")), "README.md", "exec")
    names: dict = {}
    exec(code, names)
    assert names["logits"].shape == (3, 2)
    assert names["row_mask"].tolist() == [True, True, False]
    assert "`Conv`, got a mask" in capsys.readouterr().out


def test_first_bash_lines():
    main_job, tests, *_ = "".join(blocks("bash")).splitlines()
    assert main_job.startswith("python -m pip install")
    assert "examples/pronounce.py" in main_job
    assert tests.startswith("python -m pip install")
    assert "pytest" in tests


def test_pictures_exist():
    root = Path(__file__).parents[1]
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert all((root / picture).exists() for picture in pictures)


def test_counts_are_those_of_the_page():
    page = table.PAGE.read_text()
    assert table.with_counts(README, page) == README, table.HOW_TO_WRITE
    assert table.with_counts(README, page.replace("| right | ", "| right | 1")) != README
