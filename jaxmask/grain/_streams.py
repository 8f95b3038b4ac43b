"""Bucket and pack the records of a dataset, buffer by buffer."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from jax.typing import DTypeLike

from jaxmask._host.bucket_source import Batch, bucket_source
from jaxmask._host.fields import Options
from jaxmask._host.pack import Overflow
from jaxmask._host.pack_source import pack_source
from jaxmask._host.packed import Packed
from jaxmask._host.rectangle import Side
from jaxmask._host.stream import BatchStream, Source
from jaxmask.grain._records import reader, stacked


class _Batches(grain.IterDataset):
    """The batches that `of_source` makes of the records of `parent`."""

    def __init__(
        self,
        parent: grain.MapDataset | grain.IterDataset,
        of_source: Callable[[Source], BatchStream],
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
        parent = self._parent.__iter__()
        return _Iterator(parent, self._of_source(parent))


class Bucket(_Batches):
    """Batches of records with others of about their length, in a bounded number of shapes.

    `jm.bucket_stream` for datasets. The state is that of the parent and a few numbers, and setting
    it gives exactly the batches that would have followed. Processes that step together need batches
    of the same shape at each step: there, bucket with `jm.bucket_batches(..., shard=...)` and
    `jm.grain.batches`, or pack.

    Args:
      parent: a dataset of Grain.
      batch_size, tokens, boundaries, buffer, shuffle_seed, value, dtype, padding, lengths: as in
        `jm.bucket_stream`.
      key: of the sequence in a record; a list of them takes these fields of the records; None takes
        the whole record, which is a sequence or a dict of fields.
      keep: keys of other entries to keep, stacked; 0 in filler rows.

    Elements are `(x, mask, indices)`, of several fields with dicts; with one `key`, dicts with the
    key, `"mask"`, `"indices"` and what was kept. `indices` count the parent's elements.

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
        boundaries: Sequence[Any] | Mapping[str, Sequence[int]],
        buffer: int = 4096,
        shuffle_seed: int | None = None,
        value: Any = 0,
        dtype: DTypeLike | Mapping[str, Any] | None = None,
        padding: Side | Mapping[str, Any] = "post",
        lengths: Mapping[str, Any] | Sequence[str] | None = None,
        key: str | Sequence[str] | None = None,
        keep: Sequence[str] = (),
    ):
        where = "jaxmask.grain.Bucket"

        def finish(records: list[Any], batch: Batch) -> Any:
            x, mask, indices = batch
            if not isinstance(key, str):
                return batch
            kept = stacked(records, indices, keep, len(indices), where)
            return {key: x, "mask": mask, "indices": indices, **kept}

        of_source = functools.partial(
            bucket_source,
            batch_size=batch_size,
            tokens=tokens,
            boundaries=boundaries,
            buffer=buffer,
            shuffle_seed=shuffle_seed,
            fields=Options(value, dtype, padding, "post", lengths),
            where=where,
            row_of=reader(key, keep, ["mask", "indices"], where),
            finish=finish,
        )
        super().__init__(parent, of_source)


class Pack(_Batches):
    """Batches of packed rows, several sequences in each, all of one shape.

    `jm.pack_stream` for datasets. The state is that of the parent and a few numbers, and setting it
    gives exactly the batches that would have followed. Each of several processes packs its own
    records, `dataset[process::processes]`: all batches have one shape, though some processes may
    have more of them than others.

    Args:
      row_length, batch_size, buffer, overflow, max_segments, shuffle_seed, value, dtype, lengths:
        as in `jm.pack_stream`; elements do not hold what `overflow` left out.
      keep: keys of other entries to keep, one value for each record; needs `max_segments`.
      parent, key: as in `Bucket`.

    Elements are dicts with the key (or `"x"`), `"mask"`, `"segments"` and `"positions"`, each of
    them a dict where there are several fields. With `max_segments` they also hold `"indices"`
    `[batch_size * max_segments]`, the index of each sequence among the parent's elements, -1 where
    there is none, and what was kept, arranged as pooling arranges the results of the sequences.

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
        row_length: int | Mapping[str, int],
        batch_size: int,
        *,
        buffer: int | None = None,
        overflow: Overflow = "error",
        max_segments: int | None = None,
        shuffle_seed: int | None = None,
        value: Any = 0,
        dtype: DTypeLike | Mapping[str, Any] | None = None,
        lengths: Mapping[str, Any] | Sequence[str] | None = None,
        key: str | Sequence[str] | None = None,
        keep: Sequence[str] = (),
    ):
        where = "jaxmask.grain.Pack"
        if keep and max_segments is None:
            raise ValueError(
                f"{where}: `keep` needs `max_segments`, the number of values that a row has."
            )

        made = ["mask", "segments", "positions", "indices"]

        def finish(records: list[Any], packed: Packed) -> Any:
            found = {key if isinstance(key, str) else "x": packed.x, "mask": packed.mask}
            found |= {"segments": packed.segments, "positions": packed.positions}
            if max_segments is None:
                return found
            indices, real = packed.place(packed.indices, max_segments)
            found["indices"] = np.where(real, indices, -1)
            kept = stacked(records, packed.indices, keep, len(records), where)
            return found | {name: packed.place(kept[name], max_segments)[0] for name in kept}

        of_source = functools.partial(
            pack_source,
            row_length=row_length,
            batch_size=batch_size,
            buffer=buffer,
            overflow=overflow,
            max_segments=max_segments,
            shuffle_seed=shuffle_seed,
            fields=Options(value, dtype, lengths=lengths),
            where=where,
            row_of=reader(key, keep, made, where),
            finish=finish,
        )
        super().__init__(parent, of_source)


class _Nothing:
    def __next__(self) -> Any:
        raise StopIteration

    def get_state(self) -> None:
        return None

    def set_state(self, state: Any) -> None:
        return None


class _Iterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, stream: BatchStream):
        super().__init__(parent)
        self._stream = stream

    def __next__(self) -> Any:
        self._assert_not_closed()
        return next(self._stream)

    def get_state(self) -> dict[str, Any]:
        return self._stream.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._stream.set_state(state)
