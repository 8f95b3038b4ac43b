"""Batches of near-equal length in few shapes, for little padding and few compilations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.boundaries import (
    assigned,
    check_boundaries,
    fewest_steps,
    fewest_steps_of_several,
    require_rows,
    rows_of_batches,
)
from jaxmask._host.bucket_source import Batch
from jaxmask._host.fields import Columns, Options, read_columns, require_lengths, tree
from jaxmask._host.padding import rectangles
from jaxmask._host.rectangle import Side, fill_value
from jaxmask._host.stream import State, check_state


def bucket_batches(
    sequences: Iterable[Any] | Mapping[str, Any],
    batch_size: int | None = None,
    *,
    tokens: int | None = None,
    boundaries: Sequence[Any] | Mapping[str, Sequence[int]] | None = None,
    max_shapes: int = 8,
    shuffle_seed: int | None = None,
    drop_remainder: bool = False,
    shard: tuple[int, int] = (0, 1),
    value: Any = 0,
    dtype: DTypeLike | Mapping[str, Any] | None = None,
    padding: Side | Mapping[str, Any] = "post",
    lengths: Mapping[str, Any] | Sequence[str] | None = None,
) -> "BucketBatches":
    """Batch sequences with others of about their length, in a bounded number of shapes.

    A sequence goes into the bucket of the smallest boundary that it does not exceed, and a batch
    is padded on the right to the boundary of its bucket. So there are at most `len(boundaries)`
    shapes, `[rows, boundary, feature...]`, which `batches.shapes` lists, and a jitted step
    compiles at most once for each.

    Of records, `x` and `mask` are dicts, as in `pad_sequences`. Records of several lengths go into
    the bucket with the fewest steps that holds them in each.

    Args:
      sequences: as in `pad_sequences`, records too; they are read once and kept flat.
      batch_size: rows of a batch. The last batch of a bucket is filled up with empty rows.
      tokens: instead of `batch_size`, the most steps of a batch, padding included: a bucket of
        shorter sequences has more rows, `tokens // boundary`. Several lengths add up (fairseq
        counts the longer of source and target).
      boundaries: the time sizes of the buckets, increasing. None chooses the at most `max_shapes`
        sizes that give the fewest steps in all batches together, filler rows included, from at
        most 512 candidates, spread evenly over the sorted sequences. Of several lengths, a dict
        gives the sizes of each, and every combination is a shape; a list of dicts gives the
        shapes; and None chooses them greedily.
      max_shapes: how many boundaries to choose where none are given.
      shuffle_seed: None orders the batches from short to long, and sequences of one length by
        index. An int shuffles the sequences within their buckets, and the batches, reproducibly.
      drop_remainder: leave out batches that are not full instead of filling them up: up to
        `batch_size - 1` sequences of each bucket, others in each shuffled epoch.
      shard: `(process, processes)`: give only the rows of this process, an equal slice of each
        batch. All processes have batches of the same shape at each step, if all are given the same
        sequences. `batch_size` and `tokens` are of all processes together; `tokens` is rounded
        down to equal slices.
      value: of the padding.
      dtype: as in `pad_sequences`, and the same for every batch.
      padding: as in `pad_sequences`, like `lengths`.
      lengths: fields that do not share the length of the others.

    Returns:
      A `BucketBatches` of `(x, mask, indices)`: `batches.epoch(k)` iterates over epoch k, and
      plain iteration is epoch 0 every time. `indices` name the sequences, -1 in filler rows. Its
      iterators can be resumed.

    Raises:
      TypeError, ValueError: as `pad_sequences`; if an option is not an int or is too small; if
        not exactly one of `batch_size` and `tokens` is given, or the longest sequence exceeds
        `tokens`; if `boundaries` do not increase, or a sequence is longer than the last of them.

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
    rows_of = rows_of_batches(batch_size, tokens, _check_shard(shard, where), where)
    max_shapes = _check.count(max_shapes, where, "max_shapes", least=1)
    shuffle_seed = _check.optional_count(shuffle_seed, where, "shuffle_seed")
    columns = read_columns(sequences, Options(value, dtype, padding, "post", lengths), where)
    columns = columns._replace(parts=columns.flat)
    names, steps = [*columns.lengths], columns.steps
    require_lengths(names, where)
    if boundaries is not None:
        sizes = check_boundaries(boundaries, where).of(names, where)
    elif len(names) == 1:
        require_rows(rows_of, steps.max(0, initial=1), tokens, where)
        sizes = np.array(fewest_steps(steps[:, 0], rows_of, max_shapes), int)[:, None]
    else:
        sizes = fewest_steps_of_several(steps, rows_of, max_shapes)
        sizes = sizes[np.argsort(sizes.sum(1), kind="stable")]
    members = _members(steps, assigned(steps, sizes, names, where), len(sizes))
    rows = tuple(require_rows(rows_of, sizes.sum(1), tokens, where))
    for each, part in zip(columns.fields, columns.flat, strict=True):
        fill_value(each.value, part.values.dtype, each.where(where))
    return BucketBatches(columns, sizes, members, rows, shuffle_seed, drop_remainder, shard)


def _check_shard(shard: tuple[int, int], where: str) -> int:
    if not (isinstance(shard, tuple) and len(shard) == 2):
        raise TypeError(
            f"{where}: `shard` must be `(process, processes)`, such as `(jax.process_index(), "
            f"jax.process_count())`, got {shard!r}."
        )
    processes = _check.count(shard[1], where, "shard", least=1)
    if _check.count(shard[0], where, "shard") >= processes:
        raise ValueError(f"{where}: `shard` must name one of {processes} processes, got {shard}.")
    return processes


def _members(steps: np.ndarray, buckets: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    order = np.argsort(steps.sum(1), kind="stable")
    return tuple(order[buckets[order] == bucket] for bucket in range(count))


@dataclass(frozen=True, eq=False)
class BucketBatches:
    """What `bucket_batches` returns: an iterable of `(x, mask, indices)`, of a known length.

    Each batch holds NumPy arrays: `x [batch, boundary, feature...]`, `mask [batch, boundary]`,
    boolean, and `indices [batch]`, int32, the index of each row in the sequences, or -1 in a
    filler row, whose mask is all False. Gather labels by `indices`, with `indices >= 0` as the row
    mask of the loss: -1 gathers the last label.

    `len(batches)` is the number of batches of an epoch, the same in each. `batches[k]` is batch k
    of epoch 0, or of a later epoch beyond that, so loaders with random access, such as Grain's,
    can read it as a source.

    Attributes:
      members: for each boundary, the indices of its sequences, from short to long.
      batch_sizes: for each boundary, the rows of a batch, of all processes together.
      shuffle_seed: None if batches come in order.
      drop_remainder: True if batches that are not full are left out.
      shard: `(process, processes)`.

    Example:
      >>> import jaxmask as jm
      >>> batches = jm.bucket_batches([[1], [2, 2], [3]], 2, shuffle_seed=0)
      >>> len(batches), sum(int(mask.sum()) for x, mask, indices in batches.epoch(1))
      (2, 4)
    """

    _columns: Columns = field(repr=False)
    _sizes: np.ndarray = field(repr=False)
    members: tuple[np.ndarray, ...]
    batch_sizes: tuple[int, ...]
    shuffle_seed: int | None
    drop_remainder: bool
    shard: tuple[int, int] = (0, 1)
    _orders: dict[int, list[tuple[int, np.ndarray]]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """The number of batches, the same in each epoch."""
        partial = 0 if self.drop_remainder else 1
        return sum(
            (len(members) + partial * (size - 1)) // size
            for members, size in zip(self.members, self.batch_sizes, strict=True)
        )

    @property
    def ragged(self) -> Any:
        """All sequences, `Ragged`; of records, a dict of the fields."""
        return tree(self._columns.fields, self._columns.parts)

    @property
    def boundaries(self) -> tuple[Any, ...]:
        """The time sizes of the buckets, increasing; of records, a dict of lengths for each."""
        if not self._columns.fields[0].path:
            return tuple(self._sizes[:, 0].tolist())
        return tuple(
            dict(zip(self._columns.lengths, size, strict=True)) for size in self._sizes.tolist()
        )

    @property
    def value(self) -> Any:
        """The value of the padding, a scalar array; of records, a dict of the fields."""
        parts = zip(self._columns.fields, self._columns.flat, strict=True)
        values = [fill_value(each.value, part.values.dtype, "value") for each, part in parts]
        return tree(self._columns.fields, values)

    @property
    def shapes(self) -> tuple[Any, ...]:
        """Every shape that `x` may have, in all epochs: at most one for each boundary."""
        return tuple(map(self._shape, self.batch_sizes, self._sizes.tolist()))

    def _shape(self, rows: int, sizes: Sequence[int]) -> Any:
        times = dict(zip(self._columns.lengths, sizes, strict=True))
        found = []
        for each, part in zip(self._columns.fields, self._columns.flat, strict=True):
            time = () if each.length is None else (times[each.length],)
            found.append((rows // self.shard[1], *time, *part.values.shape[1:]))
        return tree(self._columns.fields, found)

    def __getitem__(self, index: int) -> Batch:
        """Batch `index` of epoch 0; from `len(self)` on, of the epochs after it."""
        index = _check.count(index, "BucketBatches", "index")
        if not len(self):
            raise IndexError("BucketBatches: there is no batch.")
        epoch, within = divmod(index, len(self))
        return self._batch(*self._order(epoch)[within])

    def __iter__(self) -> "BucketIterator":
        """The batches of epoch 0, in the same order every time."""
        return self.epoch(0)

    def epoch(self, index: int) -> "BucketIterator":
        """The batches in the order of one epoch, which depends only on the seed and the index.

        Args:
          index: from 0; without a `shuffle_seed`, all epochs are alike.

        Returns:
          An iterator of `(x, mask, indices)`, with `get_state()` and `set_state(state)`.
        """
        return BucketIterator(self, _check.count(index, "epoch", "index"), endless=False)

    def endless(self) -> "BucketIterator":
        """The batches of epoch 0, 1, 2, ..., one epoch after the other.

        Returns:
          An iterator of `(x, mask, indices)`, with `get_state()` and `set_state(state)`.
        """
        return BucketIterator(self, 0, endless=True)

    def _order(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """The bucket and the sequences of each batch; the last epoch asked for is kept."""
        if epoch not in self._orders:
            order = self._shuffled(epoch)
            self._orders.clear()
            self._orders[epoch] = order
            return order
        return self._orders[epoch]

    def _shuffled(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        seed = self.shuffle_seed
        random = None if seed is None else np.random.default_rng([seed, epoch])
        order = []
        for bucket, (members, size) in enumerate(zip(self.members, self.batch_sizes, strict=True)):
            rows = members if random is None else random.permutation(members)
            stop = len(rows) - len(rows) % size if self.drop_remainder else len(rows)
            order += [(bucket, rows[start : start + size]) for start in range(0, stop, size)]
        return order if random is None else [order[k] for k in random.permutation(len(order))]

    def _batch(self, bucket: int, rows: np.ndarray) -> Batch:
        process, processes = self.shard
        size = self.batch_sizes[bucket] // processes
        rows = rows[process * size : (process + 1) * size]
        indices = np.full(size, -1, np.int32)
        indices[: len(rows)] = rows
        x, mask = rectangles(self._columns, indices, self._sizes[bucket], "bucket_batches")
        return x, mask, indices


class BucketIterator(Iterator[Batch]):
    """The batches of a `BucketBatches`, with a state that can be saved and set.

    Example:
      >>> import jaxmask as jm
      >>> batches = jm.bucket_batches([[k] for k in range(9)], 2, shuffle_seed=0)
      >>> one = batches.endless()
      >>> before = [next(one)[2].tolist() for _ in range(7)]
      >>> state, other = one.get_state(), batches.endless()
      >>> other.set_state(state)
      >>> next(one)[2].tolist() == next(other)[2].tolist()
      True
    """

    def __init__(self, batches: BucketBatches, epoch: int, *, endless: bool):
        self._batches, self._epoch, self._endless = batches, epoch, endless
        self._given = 0

    def __next__(self) -> Batch:
        """The next batch."""
        count = len(self._batches)
        if self._given >= count and self._endless and count:
            self._epoch, self._given = self._epoch + 1, 0
        if self._given >= count:
            raise StopIteration
        batch = self._batches[self._epoch * count + self._given]
        self._given += 1
        return batch

    def get_state(self) -> State:
        """The position: the epoch, and the batches given in it.

        Returns:
          A dict of numbers, which JSON holds and `set_state` takes.
        """
        return {"epoch": self._epoch, "given": self._given, **self._data()}

    def set_state(self, state: State) -> None:
        """Continue from a state, with exactly the batches that would have followed.

        Args:
          state: of an iterator over batches of the same sequences, with the same options.

        Raises:
          ValueError: if it is not such a state, or of other batches.
        """
        check_state(state, self.get_state(), self._data(), "bucket_batches: set_state")
        self._epoch, self._given = int(state["epoch"]), int(state["given"])

    def _data(self) -> State:
        batches = self._batches
        return {
            "sequences": len(batches._columns.parts[0].offsets) - 1,
            "steps": int(batches._columns.steps.sum()),
            "batches": len(batches),
            "boundaries": list(batches.boundaries),
            "batch_sizes": list(batches.batch_sizes),
            "shuffle_seed": batches.shuffle_seed,
        }
