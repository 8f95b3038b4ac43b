"""The time sizes of buckets, chosen or checked, and the rows of their batches."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxmask import _check
from jaxmask._host.fields import by_length

# The rows of a batch for each number of steps of a row; 0 where not even one row fits.
RowsOf: TypeAlias = Callable[[np.ndarray], np.ndarray]


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
    cost = np.where(sequences > 0, -(-sequences // np.maximum(rows, 1)) * rows * sizes, np.inf)
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


def fewest_steps_of_several(
    lengths: np.ndarray, rows_of: RowsOf, max_shapes: int, candidates: int = 64
) -> np.ndarray:
    """Choose at most `max_shapes` shapes for records of several lengths, `[records, lengths]`.

    One bucket holds all records, and is as large as the largest of them. As long as there may be
    more, the bucket and the bound of one length are found whose cut saves the most steps. Greedy,
    so not always the best choice; of one length, `fewest_steps` is exact.
    """
    if not len(lengths):
        return np.zeros((0, lengths.shape[1]), np.int64)
    buckets = [_cut(np.maximum(lengths, 1), rows_of, candidates)]
    while len(buckets) < max_shapes:
        best = int(np.argmax([saved for _, saved, _ in buckets]))
        if buckets[best][1] <= 0:
            break
        parts = buckets.pop(best)[2]
        buckets += [_cut(part, rows_of, candidates) for part in parts]
    return np.unique(np.stack([records.max(0) for records, _, _ in buckets]), axis=0)


def _cut(
    records: np.ndarray, rows_of: RowsOf, candidates: int
) -> tuple[np.ndarray, float, tuple[np.ndarray, ...]]:
    """A bucket, what its best cut saves, and the two parts."""
    whole = _steps_of(np.array([len(records)]), records.max(0)[None], rows_of)[0]
    best, parts = 0.0, tuple[np.ndarray, ...]()
    for axis in range(records.shape[1]):
        ordered = records[np.argsort(records[:, axis], kind="stable")]
        ends = np.flatnonzero(np.diff(ordered[:, axis])) + 1
        if not len(ends):
            continue
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, candidates).astype(int))]
        below = np.maximum.accumulate(ordered)[ends - 1]
        above = np.maximum.accumulate(ordered[::-1])[::-1][ends]
        left = _steps_of(ends, below, rows_of)
        saved = whole - left - _steps_of(len(records) - ends, above, rows_of)
        if saved.max() > best:
            end = ends[np.argmax(saved)]
            best, parts = float(saved.max()), (ordered[:end], ordered[end:])
    return records, best, parts


def _steps_of(counts: np.ndarray, sizes: np.ndarray, rows_of: RowsOf) -> np.ndarray:
    steps = sizes.sum(1)
    rows = rows_of(steps)
    # What does not fit costs more than anything that does: it is cut again.
    return np.where(rows > 0, -(-counts // np.maximum(rows, 1)) * rows * steps, 1e12 * counts)


class Boundaries(NamedTuple):
    """The shapes of buckets, from few steps to many.

    Attributes:
      names: of the lengths; None where the caller named none, since there is one.
      sizes: `[shapes, lengths]`, int64.
    """

    names: tuple[str, ...] | None
    sizes: np.ndarray

    def of(self, names: Sequence[str], where: str) -> np.ndarray:
        """The sizes in the order of the lengths that the records have."""
        if self.names is None and len(names) == 1:
            return self.sizes
        if self.names is None:
            raise ValueError(
                f"{where}: the records have the lengths {', '.join(map(repr, names))}: give "
                "`boundaries` of each in a dict, or a list of dicts, one for each shape."
            )
        columns = by_length(dict(zip(self.names, self.sizes.T, strict=True)), names, where, _NAME)
        return np.stack(columns, 1)


_NAME = "boundaries"


def check_boundaries(boundaries: Any, where: str) -> Boundaries:
    """Time sizes; of several lengths a dict of them, or the shapes as a list of dicts."""
    if isinstance(boundaries, Mapping):
        every = [_increasing(sizes, where) for sizes in boundaries.values()]
        shapes = np.array([*itertools.product(*every)], np.int64)
        return Boundaries(tuple(boundaries), _by_steps(shapes))
    if not isinstance(boundaries, Iterable):
        raise TypeError(
            f"{where}: `boundaries` must be a sequence of ints, got {type(boundaries).__name__}."
        )
    boundaries = list(boundaries)
    if not (boundaries and isinstance(boundaries[0], Mapping)):
        return Boundaries(None, np.array(_increasing(boundaries, where), np.int64)[:, None])
    names = tuple(boundaries[0])
    rows = [by_length(shape, names, where, _NAME) for shape in boundaries]
    shapes = np.array([[_check.count(size, where, _NAME, least=1) for size in row] for row in rows])
    return Boundaries(names, _by_steps(shapes))


def _by_steps(shapes: np.ndarray) -> np.ndarray:
    return shapes[np.argsort(shapes.sum(1), kind="stable")]


def _increasing(boundaries: Any, where: str) -> tuple[int, ...]:
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


def assigned(
    lengths: np.ndarray,
    sizes: np.ndarray,
    names: Sequence[str],
    where: str,
    indices: np.ndarray | None = None,
) -> np.ndarray:
    """`[records]`: the first shape that holds each record; `indices` name the records."""
    if not len(lengths):
        return np.zeros(0, np.int64)
    holds = np.stack([np.all(lengths <= size, axis=1) for size in sizes])
    refused = ~holds.any(0)
    if refused.any():
        worst = int(np.argmax(np.where(refused, lengths.sum(1), -1)))
        _refuse(lengths[worst], worst if indices is None else indices[worst], sizes, names, where)
    return np.argmax(holds, axis=0)


def _refuse(
    lengths: np.ndarray, index: int, sizes: np.ndarray, names: Sequence[str], where: str
) -> None:
    if len(names) == 1:
        text = f"`sequences[{index}]` has {lengths[0]} steps, more than the last of `boundaries`, "
        text += f"{sizes[-1, 0]}"
    else:
        each = [f"{length} of {name!r}" for length, name in zip(lengths, names, strict=True)]
        text = f"record {index} has steps {' and '.join(each)}, which none of `boundaries` holds"
    raise ValueError(
        f"{where}: {text}. Nothing is cut off in silence: add a boundary, or cut or leave out long "
        "sequences first."
    )


def rows_of_batches(batch_size: int | None, tokens: int | None, shards: int, where: str) -> RowsOf:
    """The rows of a batch, of all processes together, for each of an array of sizes."""
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
    return lambda sizes: most // sizes // shards * shards


def require_rows(rows_of: RowsOf, sizes: np.ndarray, tokens: int | None, where: str) -> list[int]:
    """The rows of a batch of each shape, at least 1, where `sizes` are the steps of a row."""
    rows = rows_of(sizes)
    if not rows.all():
        raise ValueError(
            f"{where}: `tokens` must hold a row of {sizes.max()} steps for each process, got "
            f"{tokens}. Raise it, or cut or leave out long sequences first."
        )
    found: list[int] = rows.tolist()
    return found
