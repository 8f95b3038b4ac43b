"""The pages: their Python runs, their links lead somewhere, and the reference is complete."""

import re
import sys
from pathlib import Path

import jax
import pytest

import jaxmask as jm

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS))

import pages  # noqa: E402
import reference  # noqa: E402

PAGES = sorted(DOCS.rglob("*.md"))
LINKED = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
TESTED_ELSEWHERE = {
    "devices.md": "test_devices.py",
    "serving.md": "test_serving.py",
    "report.md": "test_report.py",
}
IN_EVERY_RUN = {"index.md", "start.md"}  # the workflow that builds the site runs all of them


def page(path):
    marks = [pytest.mark.exhaustive] if path.name not in IN_EVERY_RUN else []
    return pytest.param(path, id=path.name, marks=marks)


RUN = [p for p in PAGES if pages.blocks(p) and p.name not in TESTED_ELSEWHERE]


@pytest.fixture
def _untouched(tmp_path, monkeypatch):
    """A page may write files, and set what holds for the process."""
    monkeypatch.chdir(tmp_path)
    Path("bench").symlink_to(ROOT / "bench")
    cache = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", cache)


@pytest.mark.usefixtures("_untouched")
@pytest.mark.parametrize("path", [page(path) for path in RUN])
def test_python_runs(path):
    """In one namespace, from top to bottom."""
    exec(compile("\n".join(pages.blocks(path)), path.name, "exec"), {"__name__": "__main__"})


def prose(path):
    """The text of a page without its blocks of code."""
    return pages.FENCE.sub("", path.read_text())


def slug(heading):
    """The anchor that GitHub and MyST make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path):
    return {slug(line) for line in re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)}


def broken(path):
    """Links within the project that lead nowhere."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            yield target


SAVING = re.compile(r"(?:save|restore|StandardSave|StandardRestore)\(.*nnx\.Param\b")


EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


@pytest.mark.parametrize("path", [*LINKED, *EXAMPLES], ids=lambda path: path.name)
def test_what_is_saved_is_all_of_a_model(path):
    """Parameters alone lose the statistics of batch norm and the keys of dropout."""
    assert not SAVING.findall(path.read_text())


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    assert not list(broken(path))


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "a.md").write_text("# A b\n[x](#a-b) [y](#c) [z](b.md) [w](https://a.b)\n")
    assert list(broken(tmp_path / "a.md")) == ["#c", "b.md"]


def listed():
    """The pages that the tables of contents name."""
    text = (DOCS / "index.md").read_text()
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).splitlines()
    return {line for line in lines if line and not line.startswith(":")}


def test_every_page_is_listed():
    names = {str(path.relative_to(DOCS).with_suffix("")) for path in PAGES}
    assert names - listed() == {"index"}, "list it in docs/index.md"
    assert listed() - names == {"api/index"}


def public_names():
    for name in (*jm.__all__, *jm._WITH_EXTRAS):
        yield name
    for name in reference.ROOMS:
        for attribute in getattr(jm, name).__all__:
            yield f"{name}.{attribute}"


def test_the_reference_describes_every_public_name():
    described = set()
    for name, text in reference.pages().items():
        owner = "jaxmask" if name == "index.rst" else f"jaxmask.{name.removesuffix('.rst')}"
        found = re.findall(r"^\.\. (?:auto\w+|py:class):: ([\w.]+)", text, re.MULTILINE)
        described |= {x if x.startswith("jaxmask") else f"{owner}.{x}" for x in found}
    missing = [name for name in public_names() if reference.home(name) not in described]
    assert not missing


def test_names_in_the_text_exist():
    """`` `jm.pool.mean` `` in a page is a link to its description."""
    for path in LINKED:
        for name in pages.NAME.findall(prose(path)):
            value = jm
            for part in name[1:].split("."):
                assert hasattr(value, part), f"{path.name}: jm{name}"
                value = getattr(value, part)


def test_docstrings_become_restructuredtext():
    lines = ["Sum `x` of |x|.", "", "    y = a * b", "", "Args:", "  x: `[n]` and *y*.", ""]
    lines += ["Example:", "  >>> f(*x)", "  `a`"]
    assert reference.convert(lines) == [
        r"Sum ``x`` of \|x\|.",
        "",
        ".. code-block:: text",
        "",
        "    y = a * b",
        "",
        "Args:",
        r"  x: ``[n]`` and \*y\*.",
        "",
        "Example:",
        "  >>> f(*x)",
        "  `a`",
    ]


def test_every_page_says_what_it_is_about():
    assert not [path.name for path in PAGES if len(pages.summary(path)) < 20]
