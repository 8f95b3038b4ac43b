"""Cut sequences to pieces that fit a row, and copy the pieces to where a plan has them."""

from typing import Literal, NamedTuple, NoReturn, TypeAlias, get_args

import numpy as np

from jaxmask._host.packed import Packed, Pieces
from jaxmask._host.plan import Plan
from jaxmask._host.ragged import Ragged
from jaxmask._host.rectangle import are_long, copy_slices, full, mask_of_lengths

Overflow: TypeAlias = Literal["error", "split", "truncate", "drop"]
OVERFLOWS = get_args(Overflow)


class Cuts(NamedTuple):
    """The pieces to pack, none longer than a row.

    Attributes:
      sequence: `[pieces]`, int64, increasing: the index of the sequence.
      begin: `[pieces]`, int64, the first step of the sequence that is in the piece.
      length: `[pieces]`, int64.
      left_out: for each sequence that was cut or dropped, its index and its first step left out.
    """

    sequence: np.ndarray
    begin: np.ndarray
    length: np.ndarray
    left_out: dict[int, int]


def cut(lengths: np.ndarray, row_length: int, overflow: Overflow, where: str) -> Cuts:
    """Cut the sequences that are longer than a row, as `overflow` says."""
    every = np.arange(len(lengths))
    zero = np.zeros(len(lengths), np.int64)
    long = np.flatnonzero(lengths > row_length)
    if not len(long):
        return Cuts(every, zero, lengths, {})
    if overflow == "error":
        refuse_long(int(long[0]), lengths[long[0]], row_length, where)
    if overflow == "truncate":
        left_out = dict.fromkeys(long.tolist(), row_length)
        return Cuts(every, zero, np.minimum(lengths, row_length), left_out)
    if overflow == "drop":
        kept = np.flatnonzero(lengths <= row_length)
        return Cuts(kept, zero[kept], lengths[kept], dict.fromkeys(long.tolist(), 0))
    parts = np.maximum(-(-lengths // row_length), 1)
    sequence = np.repeat(every, parts)
    part = np.arange(len(sequence)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = part * row_length
    return Cuts(sequence, begin, np.minimum(lengths[sequence] - begin, row_length), {})


def refuse_long(index: int, length: int, row_length: int, where: str) -> NoReturn:
    """Refuse a sequence that is longer than a row."""
    raise ValueError(
        f"{where}: `sequences[{index}]` has {length} steps, more than `row_length`, {row_length}. "
        'Nothing is cut off in silence: pass `overflow="split"`, "truncate" or "drop", or longer '
        "rows."
    )


def fill(
    ragged: Ragged,
    cuts: Cuts,
    plan: Plan,
    row_length: int,
    filler: np.ndarray,
    indices: np.ndarray | None = None,
) -> Packed:
    """Copy the pieces to where the plan has them; `indices` name the sequences."""
    rows = plan.row_count
    indices = np.arange(len(ragged.offsets) - 1) if indices is None else indices
    x = full((rows * row_length, *ragged.values.shape[1:]), filler)
    assigned = np.flatnonzero(plan.rows >= 0)
    # In the order of the rows, so that memory is written from front to back.
    order = assigned[np.lexsort((plan.starts[assigned], plan.rows[assigned]))]
    sources = ragged.offsets[cuts.sequence] + cuts.begin
    lengths, targets = cuts.length[order], plan.rows[order] * row_length + plan.starts[order]
    copy_slices(ragged.values, sources[order], x, targets, lengths)
    used = np.bincount(plan.rows[assigned], cuts.length[assigned], rows).astype(np.int64)
    mask = mask_of_lengths(used, row_length)
    segments, positions = _segments_and_positions(plan.segments[order], targets, lengths, mask)
    pieces = Pieces(cuts.sequence, plan.rows, plan.starts, cuts.length, plan.segments)
    x = x.reshape(rows, row_length, *x.shape[1:])
    dropped = {
        int(indices[k]): ragged.values[ragged.offsets[k] + first : ragged.offsets[k + 1]].copy()
        for k, first in cuts.left_out.items()
    }
    return Packed(x, mask, segments, positions, pieces, indices, dropped)


def _segments_and_positions(
    segment_ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of pieces in the order of the rows, which start at `starts` in the flattened rows."""
    segments, positions = np.zeros(mask.shape, np.int32), np.zeros(mask.shape, np.int32)
    segment_ids = segment_ids.astype(np.int32)
    if are_long(lengths, 48):
        flat_segments, flat_positions = segments.reshape(-1), positions.reshape(-1)
        ranks = np.arange(mask.shape[1], dtype=np.int32)
        slices = zip(segment_ids, starts.tolist(), lengths.tolist(), strict=True)
        for segment, start, length in slices:
            flat_segments[start : start + length] = segment
            flat_positions[start : start + length] = ranks[:length]
    else:
        ends = np.cumsum(lengths)
        segments[mask] = np.repeat(segment_ids, lengths)
        positions[mask] = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    return segments, positions
