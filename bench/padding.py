"""Padding on the host: `jm.pad_sequences` and `jm.pad_ragged` against `keras.utils.pad_sequences`.

    python -m bench.padding

All give the same rectangle, which is checked before anything is timed; jaxmask gives the mask too.
Results go to `bench/results/padding.json`.
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
from bench import pages, timing

WORKLOADS = {  # rows, fewest steps, most steps, features
    "short": (100_000, 1, 24, ()),
    "middling": (10_000, 20, 200, ()),
    "long": (500, 200, 2000, ()),
    "40 features": (200, 200, 1000, (40,)),
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


def run(name: str, workload: tuple, rounds: int) -> dict[str, Any]:
    functions = contenders(*workload)
    expected = functions["Keras, arrays"]()
    for function in functions.values():
        np.testing.assert_array_equal(function(), expected, strict=True)
    times = timing.interleaved(functions, rounds)
    ratios = {}
    for who, time in times.items():
        rival = "Keras, lists" if who.endswith("lists") else "Keras, arrays"
        if who.startswith("jaxmask"):
            ratios[who] = round(times[rival]["median"] / time["median"], 2)
    return {"workload": name, "keras_over_jaxmask": ratios, "milliseconds": times}


def table(results: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """How many times as fast, one line a workload."""
    sources = {"jaxmask, arrays": "a list of arrays", "jaxmask, lists": "lists"}
    sources["jaxmask, values and offsets"] = "`(values, offsets)`"
    lines = [
        f"The time of `keras.utils.pad_sequences` over ours, mask included, on "
        f"{machine['processor']}.",
        "",
        f"| sequences, steps | {' | '.join(f'from {source}' for source in sources.values())} |",
        "|---|---|---|---|",
    ]
    for result in results:
        rows, least, most, _ = WORKLOADS[result["workload"]]
        ratios = [result["keras_over_jaxmask"].get(source) for source in sources]
        cells = ["" if ratio is None else f"{ratio:.1f}" for ratio in ratios]
        about = f"{result['workload']}: {rows:,} of {least} to {most:,}"
        lines.append(f"| {about} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    results = []
    for name, workload in WORKLOADS.items():
        results.append(run(name, workload, rounds))
        print(name, results[-1]["keras_over_jaxmask"], flush=True)
    path = timing.save("padding", {"workloads": results})
    pages.show(table(results, timing.machine()), path, "batching.md")
    print(f"wrote {path}, and its table beside it and into docs/batching.md")


if __name__ == "__main__":
    main()
