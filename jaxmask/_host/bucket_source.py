"""Bucket the records of any source with a bounded buffer."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.boundaries import check_boundaries, check_lengths, rows_of_batches
from jaxmask._host.rectangle import fill_value, rectangle
from jaxmask._host.stream import Arranged, BatchStream, Buffer, Source, concatenated

Batch: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]  # x, mask, indices


def bucket_source(
    source: Source,
    batch_size: int | None,
    *,
    tokens: int | None,
    boundaries: Sequence[int],
    buffer: int,
    shuffle_seed: int | None,
    value: Any,
    dtype: DTypeLike | None,
    where: str,
    row_of: Callable[[Any], Any] = lambda record: record,
    finish: Callable[[list[Any], Batch], Any] = lambda records, batch: batch,
) -> BatchStream:
    """`bucket_stream` of any source; `finish(records, batch)` makes the batch that is given."""
    sizes = check_boundaries(boundaries, where)
    rows = rows_of_batches(batch_size, tokens, 1, where)(np.array(sizes)).tolist()
    shuffle_seed = _check.optional_count(shuffle_seed, where, "shuffle_seed")
    buffer = _check.count(buffer, where, "buffer", least=1)

    def arrange(records: Buffer) -> Arranged:
        check_lengths(records.lengths, sizes[-1], where, records.indices)
        return _arranged(records, np.searchsorted(sizes, records.lengths), rows, shuffle_seed)

    def make(records: Buffer, batch: tuple[int, np.ndarray]) -> Any:
        bucket, members = batch
        padded = _padded(records, members, rows[bucket], sizes[bucket], value, where)
        return finish([records.records[index] for index in members], padded)

    options = {"boundaries": list(sizes), "rows": rows, "buffer": buffer}
    return BatchStream(
        source,
        buffer,
        weigh=lambda row: 1,
        arrange=arrange,
        make=make,
        row_of=row_of,
        dtype=dtype,
        options={**options, "shuffle_seed": shuffle_seed},
        where=where,
    )


def _arranged(
    buffer: Buffer, buckets: np.ndarray, rows: Sequence[int], shuffle_seed: int | None
) -> Arranged:
    random = buffer.random(shuffle_seed)
    batches, waiting = [], []
    for bucket, size in enumerate(rows):
        members = np.flatnonzero(buckets == bucket)
        carried = int(np.searchsorted(members, buffer.carried))
        if random is not None:
            members[carried:] = random.permutation(members[carried:])
        if buffer.last:
            count = -(-len(members) // size)
        else:
            count = max(len(members) // size, -(-carried // size))
        batches += [(bucket, members[k * size : (k + 1) * size]) for k in range(count)]
        waiting += members[count * size :].tolist()
    if random is not None:
        batches = [batches[k] for k in random.permutation(len(batches))]
    return Arranged(batches, sorted(waiting))


def _padded(
    buffer: Buffer, members: np.ndarray, rows: int, time: int, value: Any, where: str
) -> Batch:
    sequences = [buffer.rows[index] for index in members]
    lengths = np.zeros(rows, np.int64)
    lengths[: len(sequences)] = [len(row) for row in sequences]
    values = concatenated(sequences)
    indices = np.full(rows, -1, np.int64)  # a stream may be longer than int32 counts
    indices[: len(members)] = buffer.indices[members]
    return *rectangle(values, lengths, time, fill_value(value, values.dtype, where)), indices
