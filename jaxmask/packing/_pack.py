"""Plan and fill packed rows, from sequences that are all there."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.flatten import flatten
from jaxmask._host.plan import Plan, best_fit_decreasing
from jaxmask._host.ragged import Ragged
from jaxmask._host.rectangle import are_long, fill_value, filled, move, real_steps
from jaxmask.packing._packed import Packed, Pieces

Overflow: TypeAlias = Literal["error", "split", "truncate", "drop"]
OVERFLOWS = ("error", "split", "truncate", "drop")


def pack_sequences(
    sequences: Iterable[Any],
    row_length: int,
    *,
    overflow: Overflow = "error",
    max_segments: int | None = None,
    value: Any = 0,
    dtype: DTypeLike | None = None,
) -> Packed:
    """Put several sequences into each row, so that hardly any step is padding.

    Best-fit decreasing: the longest sequence first, each into the row that it leaves the least
    room in. A sequence stays in one piece, in one row, unless it is asked to be split.

    Args:
      sequences: as in `pad_sequences`; `jm.Ragged` and columns of Arrow are read without a copy
        for each row.
      row_length: the steps of a row.
      overflow: what becomes of a sequence longer than a row. `"error"` refuses it, `"split"` cuts
        it into pieces that count as sequences of their own, `"truncate"` keeps its first steps,
        `"drop"` leaves it out; `packed.dropped` has what was left out.
      max_segments: the most sequences of a row: pooled results have `max_segments` for each. None
        does not limit them. A small limit costs fill where sequences are short.
      value: what stands in the padding.
      dtype: as in `pad_sequences`.

    Returns:
      `Packed`, with NumPy fields `x [rows, row_length, feature...]`, `mask`, `segments` and
      `positions`, all `[rows, row_length]`; `packed.as_segments()` stands in the mask's place.
      A sequence without a step takes no place, and comes back from `unpack_sequences`.

    Raises:
      TypeError, ValueError: as `pad_sequences`; if `row_length` is no int or below 1; if a
        sequence is longer than a row and `overflow` is "error".

    Example:
      >>> import jaxmask as jm
      >>> packed = jm.pack_sequences([[1], [2, 2], [3, 3, 3], [4]], row_length=4)
      >>> packed.x.tolist(), packed.segments.tolist()
      ([[3, 3, 3, 1], [2, 2, 4, 0]], [[1, 1, 1, 2], [1, 1, 2, 0]])
      >>> y, row_mask = jm.pool.sum(packed.x, packed.as_segments())
      >>> packed.collect(y)[0].tolist()
      [1, 4, 9, 4]
    """
    where = "pack_sequences"
    row_length = _check.count(row_length, where, "row_length", least=1)
    _check.choice(overflow, OVERFLOWS, where, "overflow")
    if max_segments is not None:
        max_segments = _check.count(max_segments, where, "max_segments", least=1)
    ragged = flatten(sequences, dtype, where)
    filler = fill_value(value, ragged.values.dtype, where)
    cuts = cut(ragged.lengths, row_length, overflow, where)
    plan = best_fit_decreasing(cuts.length, row_length, max_segments)
    return fill(ragged, cuts, plan, row_length, filler)


class Cuts(NamedTuple):
    """The pieces that are to be packed, none longer than a row.

    Attributes:
      sequence: `[pieces]`, int64, increasing: the index of the sequence.
      begin: `[pieces]`, int64, the first step of the sequence that is in the piece.
      length: `[pieces]`, int64.
      left_out: for each sequence that was cut or dropped, its index and its first step left out.

    Example:
      >>> cut(np.array([1, 5]), 2, "split", "example").length.tolist()
      [1, 2, 2, 1]
    """

    sequence: np.ndarray
    begin: np.ndarray
    length: np.ndarray
    left_out: dict[int, int]


def cut(lengths: np.ndarray, row_length: int, overflow: Overflow, where: str) -> Cuts:
    """Do with sequences longer than a row what is asked for.

    Example:
      >>> cut(np.array([1, 5]), 2, "drop", "example")
      Cuts(sequence=array([0]), begin=array([0]), length=array([1]), left_out={1: 0})
    """
    every = np.arange(len(lengths))
    none = np.zeros(len(lengths), np.int64)
    long = np.flatnonzero(lengths > row_length)
    if not len(long):
        return Cuts(every, none, lengths, {})
    if overflow == "error":
        refuse_long(int(long[0]), lengths[long[0]], row_length, where)
    if overflow == "truncate":
        left_out = dict.fromkeys(long.tolist(), row_length)
        return Cuts(every, none, np.minimum(lengths, row_length), left_out)
    if overflow == "drop":
        kept = np.flatnonzero(lengths <= row_length)
        return Cuts(kept, none[kept], lengths[kept], dict.fromkeys(long.tolist(), 0))
    parts = np.maximum(-(-lengths // row_length), 1)
    sequence = np.repeat(every, parts)
    part = np.arange(len(sequence)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = part * row_length
    return Cuts(sequence, begin, np.minimum(lengths[sequence] - begin, row_length), {})


def refuse_long(index: int, length: int, row_length: int, where: str) -> NoReturn:
    """Say that a sequence is longer than a row.

    Example:
      >>> try:
      ...     refuse_long(3, 9, 8, "example")
      ... except ValueError as error:
      ...     print(str(error)[:69])
      example: `sequences[3]` has 9 steps, more than `row_length`, 8. Nothi
    """
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
    """Copy the pieces to where the plan has them.

    Args:
      ragged: the sequences.
      cuts: their pieces.
      plan: where these go.
      row_length: the steps of a row.
      filler: what stands in the padding, a scalar array.
      indices: of the sequences in what they were read from; None counts them.

    Returns:
      The `Packed`.

    Example:
      >>> lengths, ragged = np.array([1]), Ragged(np.array([7]), np.array([0, 1]))
      >>> cuts = cut(lengths, 2, "error", "example")
      >>> fill(ragged, cuts, best_fit_decreasing(lengths, 2), 2, np.array(0)).x.tolist()
      [[7, 0]]
    """
    rows = plan.row_count
    indices = np.arange(len(ragged.offsets) - 1) if indices is None else indices
    x = filled((rows * row_length, *ragged.values.shape[1:]), filler)
    starts = ragged.offsets[cuts.sequence] + cuts.begin
    some = np.flatnonzero(plan.rows >= 0)
    # In the order of the rows, so that memory is written from front to back.
    order = some[np.lexsort((plan.starts[some], plan.rows[some]))]
    lengths, places = cuts.length[order], plan.rows[order] * row_length + plan.starts[order]
    move(ragged.values, starts[order], x, places, lengths)
    used = np.bincount(plan.rows[some], cuts.length[some], rows).astype(np.int64)
    mask = real_steps(used, row_length)
    segments, positions = _numbered(plan.numbers[order], places, lengths, mask)
    pieces = Pieces(cuts.sequence, plan.rows, plan.starts, cuts.length, plan.numbers)
    x = x.reshape(rows, row_length, *x.shape[1:])
    dropped = {
        int(indices[k]): ragged.values[ragged.offsets[k] + first : ragged.offsets[k + 1]].copy()
        for k, first in cuts.left_out.items()
    }
    return Packed(x, mask, segments, positions, pieces, indices, dropped)


def _numbered(
    numbers: np.ndarray, places: np.ndarray, lengths: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Segments and positions, of pieces in the order of the rows."""
    segments, positions = np.zeros(mask.shape, np.int32), np.zeros(mask.shape, np.int32)
    numbers = numbers.astype(np.int32)
    if are_long(lengths, 48):
        flat_segments, flat_positions = segments.reshape(-1), positions.reshape(-1)
        ranks = np.arange(mask.shape[1], dtype=np.int32)
        slices = zip(numbers, places.tolist(), lengths.tolist(), strict=True)
        for number, place, length in slices:
            flat_segments[place : place + length] = number
            flat_positions[place : place + length] = ranks[:length]
    else:
        ends = np.cumsum(lengths)
        segments[mask] = np.repeat(numbers, lengths)
        positions[mask] = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    return segments, positions
