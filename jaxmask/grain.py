"""Pad, bucket and pack in pipelines of Grain, which can be checkpointed and resumed exactly.

    dataset = grain.MapDataset.source(records).shuffle(seed=0)[process::processes]
    dataset = jaxmask.grain.Pack(dataset, row_length=512, batch_size=32)

A record is one sequence, or a dict that holds it under `key`; `keep` names what else a batch takes
along, one value a record. Needs `grain`, which `pip install jaxmask[grain]` brings.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import DTypeLike

try:
    import grain
except ImportError as error:
    raise ImportError(
        "jaxmask.grain needs Grain: `pip install jaxmask[grain]`. Without it, `jm.pack_stream`, "
        "`jm.bucket_stream` and `jm.bucket_batches` do the same for NumPy."
    ) from error

from jaxmask import _check
from jaxmask.batching import BucketBatches, Windowed, pad_sequences
from jaxmask.batching.bucket_stream import Batch, bucket_source
from jaxmask.batching.rectangle import fill_value, filled
from jaxmask.batching.stream import Source, Window, noting
from jaxmask.packing import Packed
from jaxmask.packing.pack import Overflow
from jaxmask.packing.stream import pack_source

__all__ = ["Bucket", "Pack", "batches", "pad", "rows"]


def pad(
    maxlen: int | None = None,
    *,
    key: str | None = None,
    keep: Sequence[str] = (),
    value: Any = 0,
    dtype: DTypeLike | None = None,
) -> Callable[[Sequence[Any]], Any]:
    """Make the `batch_fn` that pads the sequences of a batch to one length.

    Args:
      maxlen: the steps of every batch, which no sequence may exceed. None takes those of the
        longest sequence of each batch, and so gives a new shape, and a new compile, for each.
      key: where a record has its sequence; None if the record is the sequence.
      keep: what else to take along, by name, stacked.
      value: what stands in the padding.
      dtype: as in `jm.pad_sequences`.

    Returns:
      A function for `dataset.batch(batch_size, batch_fn=...)`. Batches are pairs `(x, mask)`; with
      a `key`, dicts with the key, `"mask"` and what was kept.

    Raises:
      TypeError: if `keep` is given without `key`.
      KeyError, ValueError: in the pipeline: if a record lacks a name, or is longer than `maxlen`;
        or as `jm.pad_sequences`.

    Example:
      >>> import grain, jaxmask as jm
      >>> dataset = grain.MapDataset.source([[1], [2, 2], [3]])
      >>> x, mask = next(iter(dataset.batch(2, batch_fn=jm.grain.pad())))
      >>> x.tolist(), mask.tolist()
      ([[1, 0], [2, 2]], [[True, False], [True, True]])
    """
    where = "jaxmask.grain.pad"
    row_of = _reader(key, keep, ["mask"], where)
    if maxlen is not None:
        maxlen = _check.count(maxlen, where, "maxlen")

    def batch(records: Sequence[Any]) -> Any:
        try:
            return padded(records)
        except Exception as error:
            error.add_note(
                f"{where}: records are counted from the first one of their batch, since Grain does "
                f"not say which batch it makes. It has {len(records)}, and begins with "
                f"{_shortened(records[0]) if len(records) else 'none'}."
            )
            raise

    def padded(records: Sequence[Any]) -> Any:
        rows = [noting(k, where, row_of, record) for k, record in enumerate(records)]
        x, mask = pad_sequences(rows, None, dtype, value=value)
        if maxlen is not None:
            if x.shape[1] > maxlen:
                raise ValueError(
                    f"{where}: record {int(np.argmax(mask.sum(1)))} of the batch has {x.shape[1]} "
                    f"steps, more than `maxlen`, {maxlen}. Nothing is cut off in silence."
                )
            wide = filled((len(x), maxlen, *x.shape[2:]), fill_value(value, x.dtype, where))
            wide[:, : x.shape[1]] = x
            x, mask = wide, np.pad(mask, ((0, 0), (0, maxlen - x.shape[1])))
        if key is None:
            return x, mask
        every = np.arange(len(records))
        return {key: x, "mask": mask, **_stacked(records, every, keep, len(records), where)}

    return batch


class _Batches(grain.IterDataset):
    """What `of_source` makes of the records of `parent`."""

    def __init__(
        self, parent: grain.MapDataset | grain.IterDataset, of_source: Callable[[Source], Windowed]
    ):
        if not isinstance(parent, grain.MapDataset | grain.IterDataset):
            raise TypeError(
                f"jaxmask.grain.{type(self).__name__}: `parent` must be a dataset of Grain, got "
                f"{type(parent).__name__}. Pass `grain.MapDataset.source(records)`."
            )
        of_source(_Nothing())  # refuses bad options where they are given
        is_map = isinstance(parent, grain.MapDataset)
        super().__init__(parent.to_iter_dataset() if is_map else parent)
        self._of_source = of_source

    def __iter__(self) -> "grain.DatasetIterator":
        """An iterator of batches."""
        parent = self._parent.__iter__()
        return _Iterator(parent, self._of_source(parent))


class Bucket(_Batches):
    """Batches of records with others of about their length, in a bounded number of shapes.

    As `jm.bucket_stream`. The state is that of the parent with a few numbers, and a set state
    gives exactly the batches that would have followed. Where several processes step together, they
    must have batches of one shape at each step: bucket with `jm.bucket_batches(..., shard=...)` and
    `jm.grain.batches` there, or pack.

    Args:
      parent: a dataset of Grain.
      batch_size: as in `jm.bucket_stream`, like all that follow but the last two.
      tokens: instead of it, the most steps of a batch.
      boundaries: the time sizes of the buckets.
      window: how many records to hold.
      shuffle_seed: an int shuffles within each window.
      value: what stands in the padding.
      dtype: of all sequences.
      key: where a record has its sequence; None if the record is the sequence.
      keep: what else to take along, by name, stacked; 0 in rows that only fill up a batch.

    Elements are `(x, mask, indices)`; with a `key`, dicts with the key, `"mask"`, `"indices"` and
    what was kept. `indices` count the parent's elements.

    Example:
      >>> import grain, jaxmask as jm
      >>> dataset = grain.MapDataset.source([[1], [2, 2], [3]])
      >>> for x, mask, indices in jm.grain.Bucket(dataset, 2, boundaries=[1, 2]):
      ...     print(x.tolist(), indices.tolist())
      [[1], [3]] [0, 2]
      [[2, 2], [0, 0]] [1, -1]
    """

    def __init__(
        self,
        parent: grain.MapDataset | grain.IterDataset,
        batch_size: int | None = None,
        *,
        tokens: int | None = None,
        boundaries: Sequence[int],
        window: int = 4096,
        shuffle_seed: int | None = None,
        value: Any = 0,
        dtype: DTypeLike | None = None,
        key: str | None = None,
        keep: Sequence[str] = (),
    ):
        where = "jaxmask.grain.Bucket"

        def finish(records: list[Any], batch: Batch) -> Any:
            x, mask, indices = batch
            if key is None:
                return batch
            kept = _stacked(records, indices, keep, len(x), where)
            return {key: x, "mask": mask, "indices": indices, **kept}

        of_source = functools.partial(
            bucket_source,
            batch_size=batch_size,
            tokens=tokens,
            boundaries=boundaries,
            window=window,
            shuffle_seed=shuffle_seed,
            value=value,
            dtype=dtype,
            where=where,
            row_of=_reader(key, keep, ["mask", "indices"], where),
            finish=finish,
        )
        super().__init__(parent, of_source)


class Pack(_Batches):
    """Batches of packed rows of one shape: several sequences in a row.

    As `jm.pack_stream`. The state is that of the parent with a few numbers, and a set state gives
    exactly the batches that would have followed. Several processes pack their own records, each
    its `dataset[process::processes]`: all batches have one shape, though not all processes have
    equally many.

    Args:
      parent: a dataset of Grain.
      row_length: as in `jm.pack_stream`, like all that follow but the last two.
      batch_size: the rows of a batch.
      buffer: how many rows' worth of records to hold.
      overflow: what becomes of a sequence longer than a row: "error", "split", "truncate", "drop".
        Elements do not hold what was left out, as those of `jm.pack_stream` do.
      max_segments: the most sequences of a row.
      shuffle_seed: an int shuffles the rows of each window.
      value: what stands in the padding.
      dtype: of all sequences.
      key: where a record has its sequence; None if the record is the sequence.
      keep: what else to take along, by name, one value a record; needs `max_segments`.

    Elements are dicts with the key (or `"x"`), `"mask"`, `"segments"` and `"positions"`. With
    `max_segments` there are also `"indices"` `[batch_size * max_segments]`, where each sequence was
    among the parent's elements, -1 where there is none, and what was kept, in the places where
    pooling puts the results of the sequences.

    Example:
      >>> import grain, jaxmask as jm
      >>> dataset = grain.MapDataset.source([[1], [2, 2], [3, 3, 3], [4]])
      >>> for batch in jm.grain.Pack(dataset, row_length=4, batch_size=1, max_segments=2):
      ...     print(batch["x"].tolist(), batch["segments"].tolist(), batch["indices"].tolist())
      [[3, 3, 3, 1]] [[1, 1, 1, 2]] [2, 0]
      [[2, 2, 4, 0]] [[1, 1, 2, 0]] [1, 3]
    """

    def __init__(
        self,
        parent: grain.MapDataset | grain.IterDataset,
        row_length: int,
        batch_size: int,
        *,
        buffer: int | None = None,
        overflow: Overflow = "error",
        max_segments: int | None = None,
        shuffle_seed: int | None = None,
        value: Any = 0,
        dtype: DTypeLike | None = None,
        key: str | None = None,
        keep: Sequence[str] = (),
    ):
        where = "jaxmask.grain.Pack"
        if keep and max_segments is None:
            raise ValueError(
                f"{where}: `keep` needs `max_segments`, which says how many values a row has."
            )

        made = ["mask", "segments", "positions", "indices"]

        def finish(window: Window, places: np.ndarray, packed: Packed) -> Any:
            found = {key or "x": packed.x, "mask": packed.mask}
            found |= {"segments": packed.segments, "positions": packed.positions}
            if max_segments is None:
                return found
            records = [window.records[place] for place in places]
            indices, real = packed.place(packed.indices, max_segments)
            found["indices"] = np.where(real, indices, -1)
            kept = _stacked(records, packed.indices, keep, len(records), where)
            return found | {name: packed.place(kept[name], max_segments)[0] for name in kept}

        of_source = functools.partial(
            pack_source,
            row_length=row_length,
            batch_size=batch_size,
            buffer=buffer,
            overflow=overflow,
            max_segments=max_segments,
            shuffle_seed=shuffle_seed,
            value=value,
            dtype=dtype,
            where=where,
            row_of=_reader(key, keep, made, where),
            finish=finish,
        )
        super().__init__(parent, of_source)


def batches(bucketed: BucketBatches, epochs: int = 1) -> grain.MapDataset:
    """Read the batches of `jm.bucket_batches` as a dataset of Grain.

    Args:
      bucketed: the batches. With a `shard` they are this process's share of each, so that all
        processes have one shape at each step.
      epochs: how many of them, one after the other, each in its own order.

    Returns:
      A `grain.MapDataset` of `(x, mask, indices)`, with Grain's own state, threads and workers.

    Raises:
      TypeError, ValueError: if `epochs` is no int or negative.

    Example:
      >>> import jaxmask as jm
      >>> bucketed = jm.bucket_batches([[1], [2, 2], [3]], 2, boundaries=[1, 2])
      >>> [indices.tolist() for x, mask, indices in jm.grain.batches(bucketed, epochs=1)]
      [[0, 2], [1, -1]]
    """
    number = _check.count(epochs, "jaxmask.grain.batches", "epochs") * len(bucketed)
    return grain.MapDataset.source(_Items(number, bucketed.__getitem__))


def rows(packed: Packed) -> grain.MapDataset:
    """Read the rows of `jm.pack_sequences` as a dataset of Grain, to shuffle, shard and batch.

    Args:
      packed: the rows.

    Returns:
      A `grain.MapDataset` of dicts with `"x"`, `"mask"`, `"segments"` and `"positions"`, all
      `[row_length, ...]`.

    Example:
      >>> import jaxmask as jm
      >>> packed = jm.pack_sequences([[1], [2, 2], [3, 3, 3]], row_length=3)
      >>> dataset = jm.grain.rows(packed).shuffle(seed=0).batch(2)
      >>> dataset[0]["segments"].shape
      (2, 3)
    """
    names = ("x", "mask", "segments", "positions")
    fields = {name: getattr(packed, name) for name in names}
    return grain.MapDataset.source(
        _Items(len(packed.x), lambda row: {name: fields[name][row] for name in names})
    )


# ---------------------------------------------------------------------------------- parts


class _Items:
    """So many things by their number: what `grain.MapDataset.source` takes."""

    def __init__(self, number: int, get: Callable[[int], Any]):
        self._number, self._get = number, get

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> Any:
        return self._get(index)


class _Nothing:
    """A source without a record."""

    def __next__(self) -> Any:
        raise StopIteration

    def get_state(self) -> None:
        return None

    def set_state(self, state: Any) -> None:
        return None


class _Iterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, windowed: Windowed):
        super().__init__(parent)
        self._windowed = windowed

    def __next__(self) -> Any:
        self._assert_not_closed()
        return next(self._windowed)

    def get_state(self) -> dict[str, Any]:
        return self._windowed.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._windowed.set_state(state)


def _reader(
    key: str | None, keep: Sequence[str], made: Sequence[str], where: str
) -> Callable[[Any], Any]:
    """Read the sequence of a record; `made` are the names that a batch has besides."""
    if isinstance(keep, str):
        raise TypeError(f"{where}: `keep` must be a sequence of names, got the str {keep!r}.")
    if key is None:
        if keep:
            raise TypeError(f"{where}: `keep` needs `key`, the name of the sequence in a record.")
        return lambda record: record
    names = [key, *keep, *made]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{where}: `key` and `keep` must be names that differ from each other and from those "
            f"that a batch has besides, {list(made)}, got {key!r} and {list(keep)}: one would "
            "take the place of another. Rename it in the records first."
        )

    def read(record: Any) -> Any:
        if not isinstance(record, Mapping):
            raise TypeError(
                f"{where}: a record must be a dict with the key {key!r}, got "
                f"{type(record).__name__}."
            )
        return _at(record, key, where)

    return read


def _at(record: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in record:
        raise KeyError(f"{where}: a record has no {name!r}, only {sorted(record)}.")
    return record[name]


def _shortened(record: Any) -> str:
    text = " ".join(repr(record).split())
    return text if len(text) <= 80 else text[:77] + "..."


def _stacked(
    records: Sequence[Any], indices: np.ndarray, names: Sequence[str], count: int, where: str
) -> dict[str, np.ndarray]:
    """What is kept of the records, zeros behind them; `indices` name them in errors."""
    found = {}
    for name in names:
        if not records:
            raise ValueError(f"{where}: there is no record to take {name!r} from.")
        values = [
            np.asarray(noting(index, where, _at, record, name, where))
            for record, index in zip(records, indices.tolist(), strict=False)
        ]
        kinds = [(_kind(value), value.shape) for value in values]
        for index, value, kind in zip(indices.tolist(), values, kinds, strict=False):
            if kind != kinds[0]:
                raise ValueError(
                    f"{where}: {name!r} must have one type and shape in all records, but is "
                    f"{values[0].dtype} {values[0].shape} in record {indices[0]} and {value.dtype} "
                    f"{value.shape} in record {index}."
                )
        found[name] = np.zeros((count, *values[0].shape), np.result_type(*values))
        found[name][: len(values)] = values
    return found


def _kind(value: np.ndarray) -> Any:
    """Its type; strings of any length are of one."""
    return value.dtype.kind if value.dtype.kind in "US" else value.dtype
