"""Padding, packing and bucketing on the host, against `keras.utils` and Grain.

    python -m bench padding
    python -m bench packing

`padding`: `jm.pad_sequences` and `jm.pad_ragged` against `keras.utils.pad_sequences`. All give the
same rectangle, which is checked before anything is timed; jaxmask gives the mask too.

`packing`: sequences of token ids are drawn from each workload; rows are as long as the longest of
them, and twice as long if hardly two fit into one. Every pipeline must give back every step, which
is checked before it is timed; one that takes more than a second for that is timed once. Fill is the
share of real steps; speed is real steps a second of the pipeline alone.
"""

import argparse
import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import grain
import keras
import numpy as np

import jaxmask as jm
from bench import contest, store, tables, timing
from bench.contest import Entrant
from bench.suite import Suite, some
from bench.workloads import WORKLOADS
from jaxmask._host.plan import best_fit_decreasing

BATCHES = {  # rows, fewest steps, most steps, features
    "short": (100_000, 1, 24, ()),
    "middling": (10_000, 20, 200, ()),
    "long": (500, 200, 2000, ()),
    "40 features": (200, 200, 1000, (40,)),
}
SOURCES = {  # ours, what it is called, and the rival
    "jaxmask, arrays": ("a list of arrays", "Keras, arrays"),
    "jaxmask, lists": ("lists", "Keras, lists"),
    "jaxmask, values and offsets": ("`(values, offsets)`", "Keras, arrays"),
}


def entrants(count: int, least: int, most: int, features: tuple[int, ...]) -> dict[str, Entrant]:
    draw = np.random.default_rng(0)
    lengths = draw.integers(least, most + 1, count)
    dtype = np.float32 if features else np.int32
    values = draw.integers(1, 10_000, (lengths.sum(), *features)).astype(dtype)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    arrays = [values[a:b] for a, b in itertools.pairwise(offsets)]
    found = {"jaxmask, values and offsets": lambda: jm.pad_ragged(values, offsets)[0]}
    kinds = {"arrays": arrays}
    if not features:
        kinds["lists"] = [row.tolist() for row in arrays]
    for kind, rows in kinds.items():
        rival = functools.partial(keras.utils.pad_sequences, rows, padding="post", dtype=dtype)
        found[f"jaxmask, {kind}"] = lambda rows=rows: jm.pad_sequences(rows)[0]
        found[f"Keras, {kind}"] = rival
    return {name: Entrant(run) for name, run in found.items()}


def measure_padding(options: argparse.Namespace) -> Iterator[store.Row]:
    for name, sizes in BATCHES.items():
        found = contest.run(entrants(*sizes), (), name, options.rounds, tolerance=0.0)
        yield {"workload": name, "rivals": found}


def table_of_padding(found: dict[str, Any]) -> str:
    def cells(row: store.Row) -> list[str]:
        count, least, most, _ = BATCHES[row["workload"]]
        ratios = (
            tables.over(row["rivals"], rival, our, ".1f") for our, (_, rival) in SOURCES.items()
        )
        return [f"{row['workload']}: {count:,} of {least} to {most:,}", *ratios]

    return tables.markdown(
        f"The time of `keras.utils.pad_sequences` over ours, mask included, on {found['on']}.",
        ["sequences, steps", *(f"from {source}" for source, _ in SOURCES.values())],
        map(cells, found["rows"]),
    )


# ----------------------------------------------------------------------------------------- packing

# Records in memory are read fifteen times as fast without threads: Grain's own advice.
IN_MEMORY = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
BATCH, BINS = 32, 16 * 32  # rows of a batch; rows that a stream, ours or Grain's, keeps open

Masks = Iterable[np.ndarray]


def grain_packing(name: str, rows: list[np.ndarray], row_length: int) -> Masks:
    pack = getattr(grain.experimental, f"{name}PackIterDataset")
    source = grain.MapDataset.source(rows).map(lambda row: {"x": row})
    source = source.to_iter_dataset(IN_MEMORY)
    packed = pack(source, length_struct={"x": row_length}, num_packing_bins=BINS)
    for batch in packed.batch(BATCH):
        yield batch["x_segment_ids"] > 0


def grain_of_ours(make: Callable[..., Iterable], rows: list[np.ndarray], *args: Any) -> Masks:
    for batch in make(grain.MapDataset.source(rows).to_iter_dataset(IN_MEMORY), *args):
        yield batch["mask"] if isinstance(batch, dict) else batch[1]


def keras_padding(rows: list[np.ndarray]) -> Masks:
    order = np.random.default_rng(0).permutation(len(rows))
    for start in range(0, len(rows), BATCH):
        chosen = [rows[k] for k in order[start : start + BATCH]]
        yield keras.utils.pad_sequences(chosen, padding="post") != 0


def pipelines(lengths: np.ndarray, row_length: int) -> dict[str, Callable[[], Masks]]:
    """Each gives the masks of its batches, and makes all that a model needs."""
    values = np.random.default_rng(0).integers(1, 30_000, lengths.sum()).astype(np.int32)
    flat = jm.Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))
    rows = np.split(values, flat.offsets[1:-1])
    bounds = jm.bucket_batches(flat, BATCH).boundaries

    def plan_only() -> Masks:
        plan = best_fit_decreasing(lengths, row_length)
        yield np.repeat([True, False], [lengths.sum(), plan.row_count * row_length - lengths.sum()])

    def bucket(dataset: Any) -> Iterable:
        return jm.grain.Bucket(dataset, BATCH, boundaries=bounds)

    def buckets() -> Masks:
        return (mask for _, mask, _ in jm.bucket_batches(flat, BATCH, shuffle_seed=0))

    return {
        "plan alone": plan_only,
        "pack_sequences": lambda: [jm.pack_sequences(flat, row_length).mask],
        "pack_stream": lambda: (p.mask for p in jm.pack_stream(rows, row_length, BATCH)),
        "bucket_batches": buckets,
        "jm.grain.Pack": lambda: grain_of_ours(jm.grain.Pack, rows, row_length, BATCH),
        "jm.grain.Bucket": lambda: grain_of_ours(bucket, rows),
        "Grain, first fit": lambda: grain_packing("FirstFit", rows, row_length),
        "Grain, best fit": lambda: grain_packing("BestFit", rows, row_length),
        "Keras, padded at random": lambda: keras_padding(rows),
    }


def run(make: Callable[[], Masks], steps: int, rounds: int) -> dict[str, float]:
    def sizes() -> np.ndarray:
        return np.sum([(mask.sum(), mask.size) for mask in make()], axis=0)

    (real, size), first = timing.timed(sizes)
    if real != steps:
        raise SystemExit(f"{steps - real} of {steps} steps are lost")
    drain = functools.partial(collections.deque, maxlen=0)
    seconds = [timing.seconds_of(lambda: drain(make())) for _ in range(rounds if first < 1 else 0)]
    median = float(np.median(seconds or [first]))
    return {
        "fill": round(float(real / size), 4),
        "seconds": round(median, 4),
        "million_steps_a_second": round(steps / median / 1e6, 2),
    }


def measure_packing(options: argparse.Namespace) -> Iterator[store.Row]:
    for name in options.workloads:
        lengths = WORKLOADS[name].lengths(options.sequences)
        row_length = int(lengths.max()) * (2 if name == "librispeech" else 1)
        made = pipelines(lengths, row_length)
        rivals = {who: run(make, int(lengths.sum()), options.rounds) for who, make in made.items()}
        sizes = {"row_length": row_length, "sequences": options.sequences}
        yield {"workload": name, **sizes, "rivals": rivals}


def table_of_packing(found: dict[str, Any]) -> str:
    rows = found["rows"]

    def cells(row: store.Row) -> list[Any]:
        each = row["rivals"].values()
        figures = (f"{one['fill']:.3f} ({one['million_steps_a_second']:.1f})" for one in each)
        return [row["workload"], row["row_length"], *figures]

    return tables.markdown(
        "Fill, and in brackets million real steps a second of the pipeline alone, on "
        f"{found['on']}, from {rows[0]['sequences']:,} sequences.",
        ["workload", "row", *rows[0]["rivals"]],
        map(cells, rows),
    )


SUITES = {
    "padding": Suite(("workload",), measure_padding, table_of_padding, rounds=15),
    "packing": Suite(
        ("workload",),
        measure_packing,
        table_of_packing,
        {"--sequences": {"type": int, "default": 20_000}, "--workloads": some(WORKLOADS)},
        rounds=5,
    ),
}
