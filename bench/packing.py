"""Fill and speed of packing and bucketing on the host, against Grain and `keras.utils`.

    python -m bench packing

Sequences of token ids are drawn from each workload; rows are as long as the longest of them, and
twice as long if hardly two fit into one. Every pipeline must give back every step, which is checked
before it is timed; one that takes more than a second for that is timed once. Fill is the share of
real steps; speed is real steps a second of the pipeline alone.
"""

import argparse
import os
from collections.abc import Callable, Iterable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import grain
import keras
import numpy as np

import jaxmask as jm
from bench import tables, timing
from bench.workloads import WORKLOADS
from jaxmask._host.plan import best_fit_decreasing

# Records in memory are read fifteen times as fast without threads: Grain's own advice.
IN_MEMORY = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
BATCH, BINS = 32, 16 * 32  # rows of a batch; rows that a stream, ours or Grain's, keeps open
ROUNDS, OPTIONS = 5, {"--sequences": {"type": int, "default": 20_000}}

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


def contenders(lengths: np.ndarray, row_length: int) -> dict[str, Callable[[], Masks]]:
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


def pipeline(make: Callable[[], Masks], steps: int, rounds: int) -> dict[str, float]:
    def sizes() -> np.ndarray:
        return np.sum([(mask.sum(), mask.size) for mask in make()], axis=0)

    def drain() -> None:
        for _ in make():
            pass

    (real, size), first = timing.timed(sizes)
    if real != steps:
        raise SystemExit(f"{steps - real} of {steps} steps are lost")
    seconds = [timing.seconds_of(drain) for _ in range(rounds)] if first < 1 else [first]
    median = float(np.median(seconds))
    return {
        "fill": round(float(real / size), 4),
        "seconds": round(median, 4),
        "million_steps_a_second": round(steps / median / 1e6, 2),
    }


def run(name: str, count: int, rounds: int) -> dict[str, Any]:
    print(f"{name} ...", flush=True)
    lengths = WORKLOADS[name].lengths(count)
    row_length, steps = int(lengths.max()) * (2 if name == "librispeech" else 1), int(lengths.sum())
    made = contenders(lengths, row_length)
    results = {who: pipeline(make, steps, rounds) for who, make in made.items()}
    return {"workload": name, "row_length": row_length, "sequences": count, "results": results}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    rows = [run(name, options.sequences, options.rounds) for name in WORKLOADS]
    return {"batch": BATCH, "bins": BINS, "workloads": rows}


def table(found: dict[str, Any]) -> str:
    rows = found["workloads"]

    def cells(row: dict) -> list[str]:
        every = row["results"].values()
        return [f"{one['fill']:.3f} ({one['million_steps_a_second']:.1f})" for one in every]

    return tables.markdown(
        "Fill, and in brackets million real steps a second of the pipeline alone, on "
        f"{found['machine']['processor']}, from {rows[0]['sequences']:,} sequences.",
        ["workload", "row", *rows[0]["results"]],
        ([row["workload"], row["row_length"], *cells(row)] for row in rows),
    )
