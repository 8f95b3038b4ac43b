"""Pack sequences that are all there into rows, and unpack them."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.arrays import to_numpy
from jaxmask._host.flatten import flatten
from jaxmask._host.pack import OVERFLOWS, Overflow, cut, fill
from jaxmask._host.packed import Packed
from jaxmask._host.plan import best_fit_decreasing
from jaxmask._host.rectangle import concatenate_slices, fill_value
from jaxmask._types import ArrayLike


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

    Best-fit decreasing: the longest sequence first, each into the fitting row with the fewest free
    steps. A sequence stays in one piece unless `overflow="split"` cuts it.

    Args:
      sequences: as in `pad_sequences`; `jm.Ragged` and columns of Arrow are read without a copy
        for each row.
      row_length: the steps of a row.
      overflow: what to do with a sequence longer than a row. `"error"` refuses it, `"split"` cuts
        it into pieces that count as sequences of their own, `"truncate"` keeps its first steps,
        `"drop"` leaves it out; `packed.dropped` holds the steps that were left out.
      max_segments: the most sequences of a row, for each of which pooling gives `max_segments`
        results. None sets no limit. With short sequences, a small limit leaves rows less full.
      value: of the padding.
      dtype: as in `pad_sequences`.

    Returns:
      `Packed`, with NumPy fields `x [rows, row_length, feature...]`, `mask`, `segments` and
      `positions`, all `[rows, row_length]`; `packed.as_segments()` stands where a mask may.
      A sequence without a step is in no row, and comes back from `unpack_sequences`.

    Raises:
      TypeError, ValueError: as `pad_sequences`; if `row_length` is not an int of at least 1; if
        a sequence is longer than a row and `overflow` is "error".

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
    max_segments = _check.optional_count(max_segments, where, "max_segments", least=1)
    ragged = flatten(sequences, dtype, where)
    filler = fill_value(value, ragged.values.dtype, where)
    cuts = cut(ragged.lengths, row_length, overflow, where)
    plan = best_fit_decreasing(cuts.length, row_length, max_segments)
    return fill(ragged, cuts, plan, row_length, filler)


def unpack_sequences(y: ArrayLike, packed: Packed) -> list[np.ndarray]:
    """Unpack the sequences of packed rows: the inverse of `pack_sequences`.

    Args:
      y: `[rows, row_length, feature...]`, any dtype: `packed.x`, or what a model made of it.
      packed: what `pack_sequences` returned.

    Returns:
      A list of arrays `[n, feature...]` in the order of the sequences that went in, views of one
      new array. The pieces of a split sequence are joined. Steps that were cut off are missing and
      a dropped sequence is empty; `packed.dropped` holds those steps.

    Raises:
      TypeError: if `y` is not an array.
      ValueError: if it does not have the rows and steps of `packed`.

    Example:
      >>> import jaxmask as jm
      >>> packed = jm.pack_sequences([[1], [2, 2], []], row_length=3)
      >>> [row.tolist() for row in jm.unpack_sequences(10 * packed.x, packed)]
      [[10], [20, 20], []]
    """
    where = "unpack_sequences"
    source = to_numpy(y, "y", where)
    rows, row_length = packed.mask.shape
    if source.shape[:2] != (rows, row_length):
        raise ValueError(
            f"{where}: `y` must be [rows, row_length, ...] = [{rows}, {row_length}, ...] as "
            f"`packed.x` is, got shape {source.shape}."
        )
    pieces = packed.pieces
    flat = source.reshape(rows * row_length, *source.shape[2:])
    values = concatenate_slices(
        flat, np.maximum(pieces.row, 0) * row_length + pieces.start, pieces.length
    )
    steps = np.concatenate([[0], np.cumsum(pieces.length)])
    bounds = steps[np.searchsorted(pieces.sequence, np.arange(packed.count + 1))].tolist()
    return [values[start:end] for start, end in itertools.pairwise(bounds)]
