"""The time sizes of buckets, chosen or checked, and the rows of their batches."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np

from jaxmask import _check

RowsOf: TypeAlias = Callable[[np.ndarray], np.ndarray]  # the rows of a batch for each time size


def fewest_steps(
    lengths: np.ndarray, rows_of: RowsOf, max_shapes: int, candidates: int = 512
) -> tuple[int, ...]:
    """Choose at most `max_shapes` time sizes so that all batches together have the fewest steps.

        steps = sum over buckets: ceil(sequences / rows) * rows * boundary

    Dynamic programming over the sorted sizes, with one more bucket in each round: exact where
    there are at most `candidates` different lengths. Of equally good choices, the one with the
    fewest shapes is taken.
    """
    ordered = np.sort(np.maximum(lengths, 1))
    if not len(ordered):
        return ()
    sizes = np.unique(ordered)
    if len(sizes) > candidates:
        sizes = np.unique(ordered[np.linspace(0, len(ordered) - 1, candidates).astype(int)])
    edges = np.concatenate([[0], np.searchsorted(ordered, sizes, side="right")])
    sequences = edges[1:] - edges[:-1, None]  # [first size, last size] of a bucket
    rows = rows_of(sizes)
    cost = np.where(sequences > 0, -(-sequences // rows) * rows * sizes, np.inf)
    best = cost[0]
    totals, firsts = [best[-1]], [np.zeros(len(sizes), int)]
    for _ in range(1, min(max_shapes, len(sizes))):
        through = best[:-1, None] + cost[1:]
        firsts.append(np.argmin(through, axis=0) + 1)
        best = np.min(through, axis=0)
        totals.append(best[-1])
    return _traced_back(sizes, firsts[: int(np.argmin(totals)) + 1])


def _traced_back(sizes: np.ndarray, firsts: list[np.ndarray]) -> tuple[int, ...]:
    """From the first size of each best last bucket to the boundaries of all buckets."""
    last = len(sizes) - 1
    boundaries = []
    for first in reversed(firsts):
        boundaries.append(int(sizes[last]))
        last = int(first[last]) - 1
    return tuple(reversed(boundaries))


def check_boundaries(boundaries: Sequence[int], where: str) -> tuple[int, ...]:
    """At least one time size, and all of them increasing."""
    if not isinstance(boundaries, Iterable):
        raise TypeError(
            f"{where}: `boundaries` must be a sequence of ints, got {type(boundaries).__name__}."
        )
    sizes = tuple(_check.count(size, where, "boundaries", least=1) for size in boundaries)
    if not sizes or any(low >= high for low, high in itertools.pairwise(sizes)):
        raise ValueError(
            f"{where}: `boundaries` must be at least one time size, increasing, got {sizes}."
        )
    return sizes


def check_lengths(
    lengths: np.ndarray, longest: int, where: str, indices: np.ndarray | None = None
) -> None:
    """No sequence exceeds the last boundary; `indices` name the sequences."""
    if len(lengths) and lengths.max() > longest:
        worst = int(np.argmax(lengths))
        raise ValueError(
            f"{where}: `sequences[{worst if indices is None else indices[worst]}]` has "
            f"{lengths[worst]} steps, more than the last of `boundaries`, {longest}. Nothing is "
            "cut off in silence: add a boundary, or cut or leave out long sequences first."
        )


def rows_of_batches(batch_size: int | None, tokens: int | None, shards: int, where: str) -> RowsOf:
    """The rows of a batch, of all processes together, for each of an array of time sizes."""
    if (batch_size is None) == (tokens is None):
        raise TypeError(
            f"{where}: give either `batch_size`, the rows of each batch, or `tokens`, its most "
            f"steps, got {batch_size} and {tokens}."
        )
    if tokens is None:
        rows = _check.count(batch_size, where, "batch_size", least=1)
        if rows % shards:
            raise ValueError(
                f"{where}: `batch_size` must be a multiple of the {shards} processes of `shard`, "
                f"got {rows}."
            )
        return lambda sizes: np.full(len(sizes), rows)
    most = _check.count(tokens, where, "tokens", least=1)

    def rows_of(sizes: np.ndarray) -> np.ndarray:
        rows = most // sizes // shards * shards
        if not rows.all():
            raise ValueError(
                f"{where}: `tokens` must hold a row of {sizes.max()} steps for each process, got "
                f"{tokens}. Raise it, or cut or leave out long sequences first."
            )
        return rows

    return rows_of
