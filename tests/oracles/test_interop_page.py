"""The blocks of docs/interop.md that need PyTorch run, and print what the text says."""

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")
PAGE = Path(__file__).parents[2] / "docs" / "interop.md"


def test_the_blocks_of_pytorch_run(capsys):
    blocks = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    space = {}
    for block in blocks:
        exec(block, space)
    behind, *same = capsys.readouterr().out.splitlines()
    layers = space["model"].layers[2].layers
    assert layers[0].kernel.shape == (32, 5)  # as the table of names has it
    assert float(re.search(r"\d\.\d+", behind)[0]) > 0
    assert same == ["True 0.0 False", "True 19"]
