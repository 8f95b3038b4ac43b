"""Fill and speed of packing and bucketing on the host, against Grain and `keras.utils`.

    python -m bench.packing

Sequences of token ids are drawn from each workload; rows are as long as the longest of them, and
twice as long where hardly two fit into one. Every pipeline must give back every step, which is
checked before it is timed; one that takes more than a second for that is timed once. Fill is the
share of real steps; speed is real steps a second of the pipeline alone. Results go to
`bench/results/packing.json`, and as a table beside it and into `docs/batching.md`.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import grain
import keras
import numpy as np

import jaxmask as jm
from bench import pages, timing
from bench.workloads import SEED, WORKLOADS
from jaxmask._host.plan import best_fit_decreasing

# Records in memory are read fifteen times as fast without threads: Grain's own advice.
IN_MEMORY = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
BATCH, BINS = 32, 16 * 32  # rows of a batch; rows that a stream, ours or Grain's, keeps open


def draw(name: str, count: int) -> tuple[np.ndarray, int]:
    """Lengths, and the length of a row."""
    workload = WORKLOADS[name]
    lengths = workload.draw(np.random.default_rng(SEED), count)
    lengths = np.clip(np.round(lengths), workload.least, workload.most).astype(int)
    return lengths, int(lengths.max()) * (2 if name == "librispeech" else 1)


Masks = Iterable[np.ndarray]


def grain_packing(name: str, rows: list[np.ndarray], row_length: int) -> Masks:
    pack = getattr(grain.experimental, f"{name}PackIterDataset")
    source = grain.MapDataset.source(rows).map(lambda row: {"x": row})
    source = source.to_iter_dataset(IN_MEMORY)
    packed = pack(source, length_struct={"x": row_length}, num_packing_bins=BINS)
    for batch in packed.batch(BATCH):
        yield batch["x_segment_ids"] > 0


def grain_of_ours(make: Callable[[grain.IterDataset], Iterable], rows: list[np.ndarray]) -> Masks:
    for batch in make(grain.MapDataset.source(rows).to_iter_dataset(IN_MEMORY)):
        yield batch["mask"] if isinstance(batch, dict) else batch[1]


def keras_padding(rows: list[np.ndarray]) -> Masks:
    order = np.random.default_rng(0).permutation(len(rows))
    for at in range(0, len(rows), BATCH):
        chosen = [rows[k] for k in order[at : at + BATCH]]
        yield keras.utils.pad_sequences(chosen, padding="post") != 0


def contenders(lengths: np.ndarray, row_length: int) -> dict[str, Callable[[], Masks]]:
    """Each gives the masks of its batches, and makes all that a model needs."""
    values = np.random.default_rng(0).integers(1, 30_000, lengths.sum()).astype(np.int32)
    flat = jm.Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))
    rows = np.split(values, flat.offsets[1:-1])
    boundaries = jm.bucket_batches(flat, BATCH).boundaries

    def plan_only() -> Masks:
        plan = best_fit_decreasing(lengths, row_length)
        yield np.repeat([True, False], [lengths.sum(), plan.row_count * row_length - lengths.sum()])

    return {
        "plan alone": plan_only,
        "pack_sequences": lambda: [jm.pack_sequences(flat, row_length).mask],
        "pack_stream": lambda: (p.mask for p in jm.pack_stream(rows, row_length, BATCH)),
        "bucket_batches": lambda: (
            mask for _, mask, _ in jm.bucket_batches(flat, BATCH, shuffle_seed=0)
        ),
        "jm.grain.Pack": lambda: grain_of_ours(
            lambda dataset: jm.grain.Pack(dataset, row_length, BATCH), rows
        ),
        "jm.grain.Bucket": lambda: grain_of_ours(
            lambda dataset: jm.grain.Bucket(dataset, BATCH, boundaries=boundaries), rows
        ),
        "Grain, first fit": lambda: grain_packing("FirstFit", rows, row_length),
        "Grain, best fit": lambda: grain_packing("BestFit", rows, row_length),
        "Keras, padded at random": lambda: keras_padding(rows),
    }


def measure(make: Callable[[], Masks], steps: int, rounds: int) -> dict[str, float]:
    start = time.perf_counter()
    real = size = 0
    for mask in make():
        real, size = real + int(mask.sum()), size + mask.size
    if real != steps:
        raise SystemExit(f"{steps - real} of {steps} steps are lost")
    seconds = [time.perf_counter() - start]
    if seconds[0] < 1:
        seconds = [_seconds(make) for _ in range(rounds)]
    median = float(np.median(seconds))
    return {
        "fill": round(real / size, 4),
        "seconds": round(median, 4),
        "million_steps_a_second": round(steps / median / 1e6, 2),
    }


def _seconds(make: Callable[[], Masks]) -> float:
    start = time.perf_counter()
    for _ in make():
        pass
    return time.perf_counter() - start


def run(name: str, count: int, rounds: int) -> dict[str, Any]:
    lengths, row_length = draw(name, count)
    steps = int(lengths.sum())
    results = {
        who: measure(make, steps, rounds) for who, make in contenders(lengths, row_length).items()
    }
    return {"workload": name, "row_length": row_length, "sequences": count, "results": results}


def table(rows: list[dict], machine: dict[str, Any]) -> str:
    names = list(rows[0]["results"])
    lines = [
        "Fill, and in brackets million real steps a second of the pipeline alone, on "
        f"{machine['processor']}, from {rows[0]['sequences']:,} sequences.",
        "",
        f"| workload | row | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for row in rows:
        found = row["results"].values()
        cells = [f"{cell['fill']:.3f} ({cell['million_steps_a_second']:.1f})" for cell in found]
        lines.append(f"| {row['workload']} | {row['row_length']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=20_000)
    arguments = parser.parse_args()
    rows = []
    for name in WORKLOADS:
        print(f"{name} ...", flush=True)
        rows.append(run(name, arguments.sequences, arguments.rounds))
    path = timing.save("packing", {"batch": BATCH, "bins": BINS, "workloads": rows})
    text = table(rows, timing.machine())
    pages.show(text, path, "batching.md")
    print(text, f"wrote {path}, and its table beside it and into docs/batching.md", sep="\n")


if __name__ == "__main__":
    main()
