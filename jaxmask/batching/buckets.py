"""Batches of near-equal length, in few shapes, so that little is padded and little is compiled."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask.batching.flatten import Ragged, flatten
from jaxmask.batching.rectangle import fill_value, rectangle, take

Batch: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


def bucket_batches(
    sequences: Iterable[Any],
    batch_size: int,
    *,
    boundaries: Sequence[int] | None = None,
    max_shapes: int = 8,
    shuffle_seed: int | None = None,
    drop_remainder: bool = False,
    value: Any = 0,
    dtype: DTypeLike | None = None,
) -> "BucketBatches":
    """Batch sequences with others of about their length, in a bounded number of shapes.

    A sequence goes into the bucket of the smallest boundary that it does not exceed, and a batch
    is padded on the right to the boundary of its bucket. So there are at most `len(boundaries)`
    shapes, all `[batch_size, boundary, feature...]`: a jitted step compiles once for each.

    Args:
      sequences: as in `pad_sequences`; they are read once and kept flat.
      batch_size: rows of a batch. The last batch of a bucket is filled up with empty rows.
      boundaries: the time sizes of the buckets, increasing. None chooses the at most `max_shapes`
        sizes that give the fewest steps in all batches together, filler rows included (among at
        most 512 candidate sizes, spread evenly over the sorted sequences).
      max_shapes: how many boundaries to choose where none are given.
      shuffle_seed: None goes from short to long, sequences of one length by index. An int shuffles
        the sequences within their buckets, and the batches, in the same way each time.
      drop_remainder: leave out the batches that are not full, up to `batch_size - 1` sequences of
        each bucket (other ones in each shuffled epoch), instead of filling them up.
      value: what stands in the padding.
      dtype: as in `pad_sequences`, and the same for every batch.

    Returns:
      A `BucketBatches`: iterate over it, as often as you like, for `(x, mask, indices)`.

    Raises:
      TypeError, ValueError: as `pad_sequences`; if an option is no int or too small; if
        `boundaries` do not increase, or a sequence is longer than the last of them.

    Example:
      >>> import jaxmask as jm
      >>> sequences = [[1], [2, 2, 2], [3], [4, 4], [5]]
      >>> for x, mask, indices in jm.bucket_batches(sequences, 2, boundaries=[1, 3]):
      ...     print(x.tolist(), indices.tolist())
      [[1], [3]] [0, 2]
      [[5], [0]] [4, -1]
      [[4, 4, 0], [2, 2, 2]] [3, 1]
    """
    where = "bucket_batches"
    batch_size = _check.count(batch_size, where, "batch_size", least=1)
    max_shapes = _check.count(max_shapes, where, "max_shapes", least=1)
    if shuffle_seed is not None:
        shuffle_seed = _check.count(shuffle_seed, where, "shuffle_seed")
    ragged = flatten(sequences, dtype, where)
    if boundaries is None:
        sizes = fewest_steps(ragged.lengths, batch_size, max_shapes)
    else:
        sizes = _check_boundaries(boundaries, ragged.lengths, where)
    filler = fill_value(value, ragged.values.dtype, where)
    members = _members(ragged.lengths, sizes)
    return BucketBatches(ragged, sizes, members, batch_size, filler, shuffle_seed, drop_remainder)


@dataclass(frozen=True, eq=False)
class BucketBatches:
    """What `bucket_batches` returns: an iterable of `(x, mask, indices)`, of a known length.

    Each batch is of NumPy arrays: `x [batch, boundary, feature...]`, `mask [batch, boundary]`,
    boolean, and `indices [batch]`, int32, the position of each row in the sequences, or -1 in a
    filler row, whose mask is all False. Gather labels by `indices`, with `indices >= 0` as the row
    mask of the loss: -1 gathers the last label.

    Attributes:
      ragged: all sequences.
      boundaries: the time sizes of the buckets, increasing.
      members: for each boundary, the indices of its sequences, from short to long.
      batch_size: rows of each batch.
      value: what stands in the padding, a scalar array.
      shuffle_seed: None if batches come in order.
      drop_remainder: True if batches that are not full are left out.

    Example:
      >>> import jaxmask as jm
      >>> batches = jm.bucket_batches([[1], [2, 2], [3]], 2, shuffle_seed=0)
      >>> len(batches), sum(int(mask.sum()) for x, mask, indices in batches.epoch(1))
      (2, 4)
    """

    ragged: Ragged
    boundaries: tuple[int, ...]
    members: tuple[np.ndarray, ...]
    batch_size: int
    value: np.ndarray
    shuffle_seed: int | None
    drop_remainder: bool

    def __len__(self) -> int:
        """The number of batches, the same in each epoch."""
        spare = 0 if self.drop_remainder else self.batch_size - 1
        return sum((len(rows) + spare) // self.batch_size for rows in self.members)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of epoch 0."""
        return self.epoch(0)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches in the order of one epoch, which depends on nothing but seed and number.

        Args:
          number: from 0; without a `shuffle_seed` all epochs are alike.

        Returns:
          An iterator of `(x, mask, indices)`.
        """
        number = _check.count(number, "epoch", "number")
        plan = self._plan(number)
        return (self._batch(boundary, rows) for boundary, rows in plan)

    def _plan(self, number: int) -> list[tuple[int, np.ndarray]]:
        seed, size = self.shuffle_seed, self.batch_size
        random = None if seed is None else np.random.default_rng([seed, number])
        plan = []
        for boundary, members in zip(self.boundaries, self.members, strict=True):
            rows = members if random is None else random.permutation(members)
            stop = len(rows) - len(rows) % size if self.drop_remainder else len(rows)
            plan += [(boundary, rows[at : at + size]) for at in range(0, stop, size)]
        return plan if random is None else [plan[k] for k in random.permutation(len(plan))]

    def _batch(self, boundary: int, rows: np.ndarray) -> Batch:
        indices = np.full(self.batch_size, -1, np.int32)
        indices[: len(rows)] = rows
        starts = self.ragged.offsets[indices]
        lengths = np.where(indices < 0, 0, self.ragged.offsets[indices + 1] - starts)
        values = take(self.ragged.values, starts, lengths)
        return *rectangle(values, lengths, boundary, self.value), indices


def fewest_steps(
    lengths: np.ndarray, batch_size: int, max_shapes: int, candidates: int = 512
) -> tuple[int, ...]:
    """Choose time sizes so that all batches together have the fewest steps, padding included.

        steps = sum over buckets: ceil(sequences / batch_size) * batch_size * boundary

    Dynamic programming over the sorted sizes, with one more bucket in each round: exact where there
    are no more than `candidates` different lengths. Of equally good choices the one with the fewest
    shapes is taken.

    Args:
      lengths: `[sequences]`, integer.
      batch_size: rows of a batch.
      max_shapes: the most sizes to return.
      candidates: the most sizes to choose from.

    Returns:
      Increasing sizes, at least 1 each, the last one the longest length; `()` for no sequence.

    Example:
      >>> fewest_steps(np.array([1, 1, 9, 10]), batch_size=2, max_shapes=2)
      (1, 10)
    """
    ordered = np.sort(np.maximum(lengths, 1))
    if not len(ordered):
        return ()
    sizes = np.unique(ordered)
    if len(sizes) > candidates:
        sizes = np.unique(ordered[np.linspace(0, len(ordered) - 1, candidates).astype(int)])
    edges = np.concatenate([[0], np.searchsorted(ordered, sizes, side="right")])
    rows = edges[1:] - edges[:-1, None]  # [first size, last size] of a bucket
    cost = np.where(rows > 0, -(-rows // batch_size) * batch_size * sizes, np.inf)
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
    chosen = []
    for first in reversed(firsts):
        chosen.append(int(sizes[last]))
        last = int(first[last]) - 1
    return tuple(reversed(chosen))


def _members(lengths: np.ndarray, boundaries: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    order = np.argsort(lengths, kind="stable")
    ends = np.searchsorted(lengths[order], boundaries, side="right").tolist()
    return tuple(order[start:end] for start, end in zip([0, *ends], ends, strict=False))


def _check_boundaries(
    boundaries: Sequence[int], lengths: np.ndarray, where: str
) -> tuple[int, ...]:
    if not isinstance(boundaries, Iterable):
        raise TypeError(
            f"{where}: `boundaries` must be a sequence of ints, got {type(boundaries).__name__}."
        )
    sizes = tuple(_check.count(size, where, "boundaries", least=1) for size in boundaries)
    if not sizes or any(low >= high for low, high in itertools.pairwise(sizes)):
        raise ValueError(
            f"{where}: `boundaries` must be at least one time size, increasing, got {sizes}."
        )
    longest = int(np.argmax(lengths)) if len(lengths) else None
    if longest is not None and lengths[longest] > sizes[-1]:
        raise ValueError(
            f"{where}: `sequences[{longest}]` has {lengths[longest]} steps, more than the last of "
            f"`boundaries`, {sizes[-1]}. Nothing is cut off in silence: add a boundary, or cut or "
            "leave out long sequences first."
        )
    return sizes
