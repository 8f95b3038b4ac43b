"""Padding on the host: `jm.pad_sequences` and `jm.pad_ragged` against `keras.utils.pad_sequences`.

    python -m bench padding

All give the same rectangle, which is checked before anything is timed; jaxmask gives the mask too.
"""

import argparse
import itertools
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import jaxmask as jm
from bench import tables, timing

ROUNDS = 15
WORKLOADS = {  # rows, fewest steps, most steps, features
    "short": (100_000, 1, 24, ()),
    "middling": (10_000, 20, 200, ()),
    "long": (500, 200, 2000, ()),
    "40 features": (200, 200, 1000, (40,)),
}
SOURCES = {
    "jaxmask, arrays": "a list of arrays",
    "jaxmask, lists": "lists",
    "jaxmask, values and offsets": "`(values, offsets)`",
}


def contenders(rows: int, least: int, most: int, features: tuple[int, ...]) -> dict[str, Callable]:
    draw = np.random.default_rng(0)
    lengths = draw.integers(least, most + 1, rows)
    dtype = np.float32 if features else np.int32
    values = draw.integers(1, 10_000, (lengths.sum(), *features)).astype(dtype)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    arrays = [values[a:b] for a, b in itertools.pairwise(offsets)]

    def theirs(sequences: list) -> np.ndarray:
        return keras.utils.pad_sequences(sequences, padding="post", dtype=dtype)

    found = {
        "Keras, arrays": lambda: theirs(arrays),
        "jaxmask, arrays": lambda: jm.pad_sequences(arrays)[0],
        "jaxmask, values and offsets": lambda: jm.pad_ragged(values, offsets)[0],
    }
    if not features:
        lists = [row.tolist() for row in arrays]
        found["Keras, lists"] = lambda: theirs(lists)
        found["jaxmask, lists"] = lambda: jm.pad_sequences(lists)[0]
    return found


def run(name: str, rounds: int) -> dict[str, Any]:
    functions = contenders(*WORKLOADS[name])
    expected = functions["Keras, arrays"]()
    for function in functions.values():
        np.testing.assert_array_equal(function(), expected, strict=True)
    times = timing.interleaved(functions, rounds)
    ratios = {}
    for ours in SOURCES.keys() & times.keys():
        rival = "Keras, lists" if ours.endswith("lists") else "Keras, arrays"
        ratios[ours] = timing.ratio(times, rival, ours)
    return {"workload": name, "keras_over_jaxmask": ratios, "milliseconds": times}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    return {"workloads": [run(name, options.rounds) for name in WORKLOADS]}


def table(found: dict[str, Any]) -> str:
    rows = []
    for result in found["workloads"]:
        count, least, most, _ = WORKLOADS[result["workload"]]
        ratios = [result["keras_over_jaxmask"].get(source) for source in SOURCES]
        cells = ["" if ratio is None else f"{ratio:.1f}" for ratio in ratios]
        rows.append([f"{result['workload']}: {count:,} of {least} to {most:,}", *cells])
    return tables.markdown(
        "The time of `keras.utils.pad_sequences` over ours, mask included, on "
        f"{found['machine']['processor']}.",
        ["sequences, steps", *(f"from {source}" for source in SOURCES.values())],
        rows,
    )
