"""What `bench.train` learns: words of a dictionary or drawn tokens, in three kinds of batches.

- `"words"`: letters to phonemes with a CTC loss, the task and the data of `examples/pronounce.py`.
- `"tokens"`: a tag for each token, a function of its id; lengths are those of the workload "wmt".

Batches are padded at random (shuffled, each as long as its longest sequence or a little longer: one
of two widths, those that pad least), bucketed, or packed. All kinds have about equally many real
steps a batch.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jaxmask as jm
from bench.workloads import SEED, WORKLOADS

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

KINDS = ("random", "bucketed", "packed")


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set, and the sizes of the model and its batches."""

    name: str
    sequences: list[list[int]]
    labels: list[list[int]] | None  # of CTC; None: a tag for each step
    vocabulary: int
    outputs: int  # features of a step; several frames where there are `labels`
    frames: int = 1
    embed: int = 64
    hidden: int = 128
    layers: int = 2
    rows: int = 64  # of a padded batch
    packed: tuple[int, int] = (16, 32)  # rows and steps of a packed one

    @property
    def widths(self) -> list[int]:
        """Features that go into each layer."""
        return [self.embed] + [2 * self.hidden] * (self.layers - 1)


class Batch(NamedTuple):
    """Padding, and rows that only fill up the batch, are False in the masks.

    In packed rows, which have `segments`, `positions [sequences, width]` are the steps of each
    sequence, counted through all rows.
    """

    ids: np.ndarray  # [rows, time]
    mask: np.ndarray  # [rows, time]
    targets: np.ndarray  # [sequences, label], or [rows, time]
    target_mask: np.ndarray  # the same
    segments: np.ndarray | None = None  # [rows, time]
    positions: np.ndarray | None = None
    position_mask: np.ndarray | None = None

    @property
    def real(self) -> int:
        return int(self.mask.sum())


def words(count: int | None = None) -> Task:
    from _pronounce import data

    entries = data.Entries.of(data.split(data.read_dictionary(), count).training).that_fit()
    frames, letters = data.FRAMES_A_LETTER, len(data.LETTERS)
    return Task(
        *("words", entries.letters, entries.phonemes),
        *(letters, frames * data.CLASSES, frames),
    )


def tokens(count: int | None = None) -> Task:
    draw = np.random.default_rng(SEED)
    lengths = WORKLOADS["wmt"].lengths(count or 20_000, draw)
    sequences = [draw.integers(0, 512, n).tolist() for n in lengths]
    return Task("tokens", sequences, None, 512, 64, packed=(16, 128))


TASKS = {"words": words, "tokens": tokens}


def batches(task: Task, kind: str, count: int, shapes: int) -> list[Batch]:
    """The first `count` batches of a shuffled epoch, in at most `shapes` shapes."""
    draw = np.random.default_rng(SEED)
    if kind == "packed":
        return list(_packed(task, draw, count))
    if kind == "random":
        order = draw.permutation(len(task.sequences))[: count * task.rows]
        order = np.pad(order, (0, -len(order) % task.rows), constant_values=-1)
        chosen = order.reshape(-1, task.rows)
        longest = np.array([*map(len, task.sequences), 0])[chosen].max(axis=1)  # row -1 has none
        rows = [np.zeros(n, bool) for n in longest]
        sizes = np.array(jm.bucket_batches(rows, 1, max_shapes=min(shapes, 2)).boundaries)
        widths = sizes[np.searchsorted(sizes, longest)].tolist()
        return [_padded(task, *one) for one in zip(chosen, widths, strict=True)]
    buckets = jm.bucket_batches(task.sequences, task.rows, max_shapes=shapes, shuffle_seed=SEED)
    found = (buckets[k] for k in range(min(count, len(buckets))))
    return [_padded(task, indices, x.shape[1]) for x, _, indices in found]


def _padded(task: Task, indices: np.ndarray, width: int) -> Batch:
    """Index -1 is a row that only fills up the batch."""
    rows = [task.sequences[k] if k >= 0 else [] for k in indices]
    ids, mask = jm.pad_sequences(rows, width, np.int32)
    return Batch(ids, mask, *_targets(task, indices, ids, mask))


def _packed(task: Task, draw: np.random.Generator, count: int) -> Iterator[Batch]:
    order, (rows, steps) = draw.permutation(len(task.sequences)), task.packed
    options = {"buffer": 4 * rows, "shuffle_seed": SEED, "dtype": np.int32}
    stream = jm.pack_stream([task.sequences[k] for k in order], steps, rows, **options)
    made = [packed for packed, _ in zip(stream, range(count), strict=False)]
    most = max(len(packed.indices) for packed in made)
    ranks = np.arange(max(map(len, task.sequences)))
    for packed in made:
        starts, indices = np.full((2, most), -1)
        starts[packed.pieces.sequence] = packed.pieces.row * steps + packed.pieces.start
        indices[: packed.count] = order[packed.indices]
        lengths = np.array([len(task.sequences[k]) if k >= 0 else 0 for k in indices])
        position_mask = ranks < lengths[:, None]
        positions = np.where(position_mask, starts[:, None] + ranks, 0).astype(np.int32)
        targets = _targets(task, indices, packed.x, packed.mask)
        yield Batch(packed.x, packed.mask, *targets, packed.segments, positions, position_mask)


def _targets(
    task: Task, indices: np.ndarray, ids: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if task.labels is None:
        return (7 * ids + 3) % task.outputs, mask
    labels = [task.labels[k] if k >= 0 else [] for k in indices]
    # As many as the frames can say, and never more than there are.
    width = min(task.frames * ids.shape[1], max(map(len, task.labels)))
    return jm.pad_sequences(labels, width, np.int32)


def alone(task: Task, batch: Batch) -> Batch:
    """The sequences of a packed batch, one a row."""
    ids, mask = (
        np.where(batch.position_mask, batch.ids.ravel()[batch.positions], 0),
        batch.position_mask,
    )
    if task.labels is None:
        return Batch(ids, mask, (7 * ids + 3) % task.outputs, mask)
    return Batch(ids, mask, batch.targets, batch.target_mask)
