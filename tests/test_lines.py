"""The lines that are named are the user's own, wherever its libraries are installed."""

import importlib.util
import sys
import sysconfig
from pathlib import Path

import flax
import jax
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from jaxmask import _lines
from jaxmask.leak._proof import causes

MASK = np.arange(6) < np.array([[6], [3]])
X = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """`_lines` as it is where nothing is installed below the prefix of this Python."""
    paths = sysconfig.get_paths() | dict.fromkeys(("purelib", "platlib"), str(tmp_path))
    spec = importlib.util.find_spec("jaxmask._lines")
    lines = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setattr(sysconfig, "get_paths", lambda: paths)
        spec.loader.exec_module(lines)
    for name in ("is_own", "is_worth_naming"):
        monkeypatch.setattr(causes, name, getattr(lines, name))
    return lines


def test_a_library_is_known_by_where_it_was_imported_from(elsewhere):
    for module in (jax, flax, np, jm):
        assert not elsewhere.is_own(str(Path(module.__file__).with_name("some.py")))
    assert not elsewhere.is_worth_naming(str(Path(jax.__file__).parent / "_src" / "core.py"))
    assert elsewhere.is_own(__file__)
    beside = Path(jax.__file__).parents[1] / "package_of_the_user" / "model.py"
    assert elsewhere.is_own(str(beside))


TYPED = """
def typed(x, mask):
    y = x.max(1)
    return y + 1, mask.any(1)
"""


@pytest.fixture
def forgetful():
    """Which files are the user's own is kept by name."""
    yield
    _lines.is_worth_naming.cache_clear()
    _lines.is_own.cache_clear()


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(("file", "argv"), [("<stdin>", "-"), ("<string>", "-c")])
def test_code_that_was_given_without_a_file_has_its_line(monkeypatch, file, argv):
    monkeypatch.setattr(sys, "argv", [argv])
    space = {}
    exec(compile(TYPED, file, "exec"), space)
    report = jm.leak.check(space["typed"], X, MASK)
    assert f"- {file}, line 3 (typed): An extreme over an axis with padding" in str(report)


def test_generated_code_is_none_of_the_users(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program.py"])
    assert not _lines.is_typed("<string>")
    assert not _lines.is_worth_naming("<frozen importlib._bootstrap>")


def test_the_standard_library_is_none_of_the_users(elsewhere):
    assert not elsewhere.is_worth_naming(importlib.util.__file__)
    standard = Path(sysconfig.get_paths()["stdlib"])
    assert elsewhere.is_own(str(standard / "site-packages" / "package_of_the_user" / "model.py"))


class TwoMistakes(nnx.Module):
    """A normalisation over time, and a mean."""

    def __init__(self, rngs):
        self.project = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x, mask):
        x = x - x.max(1, keepdims=True)
        return self.project(x).mean(1), mask.any(1)


def test_each_mistake_has_its_line_wherever_jax_is_installed(elsewhere):
    model = TwoMistakes(nnx.Rngs(0))
    for found in (jm.leak.check(model, X, MASK).findings, jm.leak.prove(model, X, MASK).blame):
        text = Path(__file__).read_text(encoding="utf-8").splitlines()
        assert [text[f.place.line - 1].strip() for f in found if f.place.file == __file__] == [
            "x = x - x.max(1, keepdims=True)",
            "return self.project(x).mean(1), mask.any(1)",
        ]


class Twice(nnx.Module):
    """Statistics that see padding, twice."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x, mask):
        x = self.norm(x)
        return self.norm(x * x), mask


def test_mistakes_without_a_line_of_the_users_say_so_and_stay_apart(monkeypatch):
    is_own = causes.is_own
    monkeypatch.setattr(causes, "is_own", lambda file: file != __file__ and is_own(file))
    findings = jm.leak.check(Twice(nnx.Rngs(0)), X, MASK).findings
    callers = [
        caller.line for f in findings for caller in f.place.callers if "Twice" in str(caller)
    ]
    assert len(set(callers)) == 2
    assert all("normalization.py" in f.place.file for f in findings)
    assert all("(in a library: no line of yours was found)" in str(f) for f in findings)
