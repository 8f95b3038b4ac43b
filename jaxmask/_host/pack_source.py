"""Pack the records of any source with a bounded buffer: best-fit decreasing, buffer by buffer."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmask import _check
from jaxmask._host.fields import Options
from jaxmask._host.pack import (
    OVERFLOWS,
    Cuts,
    Overflow,
    check_row_length,
    fill,
    refuse_long,
    row_lengths_of,
)
from jaxmask._host.packed import Packed
from jaxmask._host.plan import Plan, best_fit_of_several
from jaxmask._host.records import RecordReader, Row
from jaxmask._host.stream import Arranged, BatchStream, Buffer, Source


class _Batch(NamedTuple):
    """What a batch takes of a buffer.

    Attributes:
      kept: `[records, lengths]`, the steps of each record of the buffer that are packed.
      plan: where the sequences of the buffer go.
      members: the records of the batch, as indices into the buffer.
      rows: the rows of the plan that the batch takes.
    """

    kept: np.ndarray
    plan: Plan
    members: np.ndarray
    rows: np.ndarray


def pack_source(
    source: Source,
    row_length: Any,
    batch_size: int,
    *,
    buffer: int | None,
    overflow: Overflow,
    max_segments: int | None,
    shuffle_seed: int | None,
    fields: Options,
    where: str,
    row_of: Callable[[Any], Any] = lambda record: record,
    finish: Callable[[list[Any], Packed], Any] = lambda records, packed: packed,
) -> BatchStream:
    """`pack_stream` of any source; `finish(records, packed)` makes the batch that is given."""
    row_length = check_row_length(row_length, where)
    batch_size = _check.count(batch_size, where, "batch_size", least=1)
    buffer = 16 * batch_size if buffer is None else _check.count(buffer, where, "buffer", least=1)
    _check.choice(overflow, OVERFLOWS, where, "overflow")
    max_segments = _check.optional_count(max_segments, where, "max_segments", least=1)
    shuffle_seed = _check.optional_count(shuffle_seed, where, "shuffle_seed")
    options: dict[str, Any] = {"row_length": row_length, "batch_size": batch_size, "buffer": buffer}
    options |= {"overflow": overflow, "max_segments": max_segments, "shuffle_seed": shuffle_seed}

    reader = RecordReader(fields, where, lambda reader: _check_reader(reader, options, where))

    def rows() -> np.ndarray:
        return row_lengths_of(row_length, reader.names, overflow, where)

    def pieces_of(row: Row) -> list[Row]:
        if overflow != "split" or reader.steps(row)[0] <= (size := int(rows()[0])):
            return [row]
        return reader.pieces(row, size)

    def arrange(records: Buffer) -> Arranged:
        if not records.rows:
            return Arranged([], [])
        kept = _kept(records, rows(), overflow, reader.names, where)
        plan = best_fit_of_several(kept, rows(), max_segments)
        return _arranged(records, kept, plan, batch_size, shuffle_seed)

    def make(records: Buffer, batch: _Batch) -> Any:
        columns = reader.columns([records.rows[index] for index in batch.members])
        cuts, plan = _own(columns.steps, batch, batch_size)
        indices = records.indices[batch.members]
        packed = fill(
            columns, cuts, plan, rows(), where, indices=indices, max_segments=max_segments
        )
        return finish([records.records[index] for index in batch.members], packed)

    # The buffer is full when one of the lengths fills its rows; in whole numbers.
    sizes = [*row_length.values()] if isinstance(row_length, Mapping) else [row_length]
    unit = math.lcm(*sizes)

    def weigh(row: Row) -> int:
        lengths = reader.steps(row)
        each = rows().tolist() if len(lengths) > 1 else sizes
        return max(max(1, n) * (unit // size) for n, size in zip(lengths, each, strict=True))

    return BatchStream(
        source,
        buffer * unit,
        weigh=weigh,
        arrange=arrange,
        make=make,
        reader=reader,
        row_of=row_of,
        pieces_of=pieces_of,
        options=options,
        where=where,
    )


def _check_reader(reader: RecordReader, options: dict[str, Any], where: str) -> None:
    """Refuse records that the options do not suit."""
    assert reader.fields is not None
    row_lengths_of(options["row_length"], reader.names, options["overflow"], where)
    alone = [field for field in reader.fields if field.length is None]
    if alone and options["max_segments"] is None:
        raise ValueError(
            f"{where}: {alone[0].name} has one value for each record, and so a row has "
            "`max_segments` of them: give it."
        )


def _kept(
    buffer: Buffer, rows: np.ndarray, overflow: Overflow, names: tuple[str, ...], where: str
) -> np.ndarray:
    """How many steps of each record are packed."""
    lengths = buffer.lengths
    long = np.flatnonzero(np.any(lengths > rows, axis=1))
    if len(long) and overflow == "error":
        refuse_long(buffer.indices[long[0]], lengths[long[0]], rows, names, where)
    kept = np.minimum(lengths, rows)
    if overflow == "drop":
        kept[long] = 0
    return kept


def _arranged(
    buffer: Buffer, kept: np.ndarray, plan: Plan, batch_size: int, shuffle_seed: int | None
) -> Arranged:
    """The fullest rows in batches, after the rows of sequences that must not wait again."""
    urgent = np.isin(np.arange(plan.row_count), plan.rows[: buffer.carried])
    empty = np.flatnonzero(plan.rows < 0)  # sequences without a step
    if buffer.last:
        count = -(-plan.row_count // batch_size)
    else:
        count = max(plan.row_count // batch_size, -(-int(urgent.sum()) // batch_size))
    if not count and len(empty) and (buffer.last or empty[0] < buffer.carried):
        count = 1  # a batch without a step
    some = plan.rows >= 0
    used = np.bincount(plan.rows[some], kept[some].sum(1), plan.row_count)
    order = np.lexsort((-used, ~urgent))
    chosen = order[: count * batch_size]
    random = buffer.random(shuffle_seed)
    if random is not None:
        chosen = random.permutation(chosen)
    batch_of = np.full(plan.row_count + 1, -1)  # of each row; the last entry is of the row -1
    batch_of[chosen] = np.arange(len(chosen)) // batch_size
    batch_of[-1] = 0 if count else -1
    of_each = batch_of[plan.rows]
    batches = [
        _Batch(kept, plan, np.flatnonzero(of_each == k), chosen[k * batch_size :][:batch_size])
        for k in range(count)
    ]
    return Arranged(batches, np.flatnonzero(of_each < 0).tolist())


def _own(steps: np.ndarray, batch: _Batch, batch_size: int) -> tuple[Cuts, Plan]:
    """What is packed of the records of one batch, and where it goes."""
    plan, members = batch.plan, batch.members
    row_of = np.full(plan.row_count + 1, -1)  # from the rows of the plan to those of the batch
    row_of[batch.rows] = np.arange(len(batch.rows))
    own = Plan(row_of[plan.rows[members]], plan.starts[members], plan.segments[members], batch_size)
    kept = batch.kept[members]
    left_out = {k: kept[k] for k in np.flatnonzero(np.any(kept < steps, axis=1)).tolist()}
    return Cuts(np.arange(len(members)), np.zeros_like(kept), kept, left_out), own
