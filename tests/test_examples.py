"""The examples that train on generated data run, in their small form, as a user starts them."""

import re
import runpy
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
SMALL = {"seq2seq": "", "infer": "", "linen": "", "rollout": ""}
SMALL |= {"migrate_keras": "keras", "migrate_torch": "torch"}  # what they need besides


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("default")  # of Keras, and of the conversion of what it does
@pytest.mark.parametrize("name", SMALL)
def test_small_form_runs(name, tmp_path, monkeypatch, capsys):
    if SMALL[name]:
        pytest.importorskip(SMALL[name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--small"])
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_enable_compilation_cache", False)  # the folder goes, the cache stays
    try:
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_enable_compilation_cache", True)
    assert capsys.readouterr().out


def test_scripts_that_the_pages_name_exist():
    for page in (*ROOT.glob("docs/*.md"), ROOT / "README.md"):
        for name in re.findall(r"examples/\w+\.py", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
