"""Bucket the records of any source with a bounded buffer."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from jaxmask import _check
from jaxmask._host.boundaries import assigned, check_boundaries, require_rows, rows_of_batches
from jaxmask._host.fields import Options
from jaxmask._host.padding import rectangles
from jaxmask._host.records import RecordReader
from jaxmask._host.stream import Arranged, BatchStream, Buffer, Source

Batch: TypeAlias = tuple[Any, Any, np.ndarray]  # x, mask, indices


def bucket_source(
    source: Source,
    batch_size: int | None,
    *,
    tokens: int | None,
    boundaries: Any,
    buffer: int,
    shuffle_seed: int | None,
    fields: Options,
    where: str,
    row_of: Callable[[Any], Any] = lambda record: record,
    finish: Callable[[list[Any], Batch], Any] = lambda records, batch: batch,
) -> BatchStream:
    """`bucket_stream` of any source; `finish(records, batch)` makes the batch that is given."""
    asked = check_boundaries(boundaries, where)
    rows_of = rows_of_batches(batch_size, tokens, 1, where)
    rows = require_rows(rows_of, asked.sizes.sum(1), tokens, where)
    shuffle_seed = _check.optional_count(shuffle_seed, where, "shuffle_seed")
    buffer = _check.count(buffer, where, "buffer", least=1)

    def check(reader: RecordReader) -> None:
        asked.of(reader.names, where)

    reader = RecordReader(fields, where, check)

    def arrange(records: Buffer) -> Arranged:
        if not len(records.rows):
            return Arranged([], [])
        sizes = asked.of(reader.names, where)
        buckets = assigned(records.lengths, sizes, reader.names, where, records.indices)
        return _arranged(records, buckets, rows, shuffle_seed)

    def make(records: Buffer, batch: tuple[int, np.ndarray]) -> Any:
        bucket, members = batch
        indices = np.full(rows[bucket], -1, np.int64)  # longer streams than int32 counts
        indices[: len(members)] = records.indices[members]
        columns = reader.columns([records.rows[index] for index in members])
        own = np.where(indices < 0, -1, np.arange(len(indices)))
        padded = rectangles(columns, own, asked.of(reader.names, where)[bucket], where)
        return finish([records.records[index] for index in members], (*padded, indices))

    sizes = asked.sizes[:, 0].tolist() if asked.names is None else asked.sizes.tolist()
    options = {"boundaries": sizes, "rows": rows, "buffer": buffer, "shuffle_seed": shuffle_seed}
    return BatchStream(
        source,
        buffer,
        weigh=lambda row: 1,
        arrange=arrange,
        make=make,
        reader=reader,
        row_of=row_of,
        options=options,
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
