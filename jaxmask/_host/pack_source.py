"""Pack the records of any source with a bounded buffer: best-fit decreasing, buffer by buffer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.pack import OVERFLOWS, Cuts, Overflow, fill, refuse_long
from jaxmask._host.packed import Packed
from jaxmask._host.plan import Plan, best_fit_decreasing
from jaxmask._host.ragged import Ragged
from jaxmask._host.rectangle import fill_value
from jaxmask._host.stream import Arranged, BatchStream, Buffer, Source, concatenated


class _Batch(NamedTuple):
    """What a batch takes of a buffer.

    Attributes:
      kept: `[records]`, the steps of each sequence of the buffer that are packed.
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
    row_length: int,
    batch_size: int,
    *,
    buffer: int | None,
    overflow: Overflow,
    max_segments: int | None,
    shuffle_seed: int | None,
    value: Any,
    dtype: DTypeLike | None,
    where: str,
    row_of: Callable[[Any], Any] = lambda record: record,
    finish: Callable[[list[Any], Packed], Any] = lambda records, packed: packed,
) -> BatchStream:
    """`pack_stream` of any source; `finish(records, packed)` makes the batch that is given."""
    row_length = _check.count(row_length, where, "row_length", least=1)
    batch_size = _check.count(batch_size, where, "batch_size", least=1)
    buffer = 16 * batch_size if buffer is None else _check.count(buffer, where, "buffer", least=1)
    _check.choice(overflow, OVERFLOWS, where, "overflow")
    max_segments = _check.optional_count(max_segments, where, "max_segments", least=1)
    shuffle_seed = _check.optional_count(shuffle_seed, where, "shuffle_seed")
    options: dict[str, Any] = {"row_length": row_length, "batch_size": batch_size, "buffer": buffer}
    options |= {"overflow": overflow, "max_segments": max_segments, "shuffle_seed": shuffle_seed}

    def pieces_of(row: np.ndarray) -> list[np.ndarray]:
        if overflow != "split" or len(row) <= row_length:
            return [row]
        return [row[start : start + row_length] for start in range(0, len(row), row_length)]

    def arrange(records: Buffer) -> Arranged:
        kept = _kept(records, row_length, overflow, where)
        plan = best_fit_decreasing(kept, row_length, max_segments)
        return _arranged(records, kept, plan, batch_size, shuffle_seed)

    def make(records: Buffer, batch: _Batch) -> Any:
        packed = _filled(records, batch, (batch_size, row_length), value, where)
        return finish([records.records[index] for index in batch.members], packed)

    return BatchStream(
        source,
        buffer * row_length,
        weigh=lambda row: max(1, len(row)),
        arrange=arrange,
        make=make,
        row_of=row_of,
        pieces_of=pieces_of,
        dtype=dtype,
        options=options,
        where=where,
    )


def _kept(buffer: Buffer, row_length: int, overflow: Overflow, where: str) -> np.ndarray:
    """How many steps of each sequence are packed."""
    lengths = buffer.lengths
    long = np.flatnonzero(lengths > row_length)
    if len(long) and overflow == "error":
        refuse_long(buffer.indices[long[0]], lengths[long[0]], row_length, where)
    kept = np.minimum(lengths, row_length)
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
    used = np.bincount(plan.rows[plan.rows >= 0], kept[plan.rows >= 0], plan.row_count)
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


def _filled(
    buffer: Buffer, batch: _Batch, shape: tuple[int, int], value: Any, where: str
) -> Packed:
    """Copy the sequences of one batch."""
    plan, members = batch.plan, batch.members
    sequences = [buffer.rows[index] for index in members]
    offsets = np.concatenate([[0], np.cumsum(list(map(len, sequences)), dtype=np.int64)])
    values = concatenated(sequences)
    row_of = np.full(plan.row_count + 1, -1)  # from the rows of the plan to those of the batch
    row_of[batch.rows] = np.arange(len(batch.rows))
    own = Plan(row_of[plan.rows[members]], plan.starts[members], plan.segments[members], shape[0])
    kept = batch.kept[members]
    left_out = {k: int(kept[k]) for k in np.flatnonzero(kept < np.diff(offsets)).tolist()}
    every = np.arange(len(members))
    cuts = Cuts(every, np.zeros_like(every), kept, left_out)
    filler = fill_value(value, values.dtype, where)
    return fill(Ragged(values, offsets), cuts, own, shape[1], filler, buffer.indices[members])
