"""The examples run in their small form, as a user starts them; a notebook holds all of each."""

import ast
import re
import runpy
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))

import notebooks  # noqa: E402

TESTED_ELSEWHERE = {"guide": "test_guide.py", "pronounce": "test_pronounce.py"}


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("default")  # of Keras, and of the conversion of what it does
@pytest.mark.parametrize("name", notebooks.SMALL.keys() - TESTED_ELSEWHERE)
def test_small_form_runs(name, tmp_path, monkeypatch, capsys):
    if needs := notebooks.SMALL[name].needs:
        pytest.importorskip(needs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *notebooks.SMALL[name].arguments.split()])
    folder = jax.config.jax_compilation_cache_dir
    try:
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
    assert capsys.readouterr().out


def test_every_script_has_a_notebook_and_a_line_in_the_page():
    scripts = {path.stem for path in (ROOT / "examples").glob("[a-z]*.py")}
    assert scripts == notebooks.SMALL.keys()
    page = (ROOT / "docs" / "examples.md").read_text()
    assert scripts == set(re.findall(r"^\| `examples/(\w+)\.py`", page, re.MULTILINE))


def statements(body):
    """Each statement as code, without imports of `sys` and what names the small form."""
    code = [ast.unparse(node) for node in body]
    return [line for line in code if line != "import sys" and "sys.argv =" not in line]


@pytest.mark.parametrize("name", notebooks.SMALL)
def test_a_notebook_holds_its_script(name):
    source = (ROOT / "examples" / f"{name}.py").read_text()
    _, *body = ast.parse(source).body
    if isinstance(body[-1], ast.If):
        body[-1:] = body[-1].body  # called at the end
    cells = notebooks.notebook(name)["cells"]
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    there = ast.parse("\n".join(each for each in code if not each.startswith("%"))).body
    titles = [line for line in statements(body) if line.startswith("title(")]
    assert statements(there) == [line for line in statements(body) if line not in titles]
    shown = " ".join(" ".join(cell["source"] for cell in cells).replace("# ", "").split())
    words = [*re.findall(r"^# (?!--)(.*)$", source, re.MULTILINE), *(t[7:-2] for t in titles)]
    assert [each for each in words if each.strip() not in shown] == []


def test_a_notebook_brings_what_its_script_imports():
    cells = notebooks.notebook("infer")["cells"]
    written = [c["source"].split()[1] for c in cells if c["source"].startswith("%%writefile")]
    assert written == ["_numbers.py", "seq2seq.py"]


def test_scripts_that_the_pages_name_exist():
    for page in (*ROOT.glob("docs/*.md"), ROOT / "README.md"):
        for name in re.findall(r"examples/\w+\.py", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
