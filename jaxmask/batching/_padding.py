"""Ragged rows to a padded rectangle and its mask, and back."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host import exact
from jaxmask._host.arrays import numpy_pair
from jaxmask._host.flatten import Rows, joined, read_rows
from jaxmask._host.ragged import Ragged, check_ragged
from jaxmask._host.rectangle import (
    Side,
    are_long,
    concatenate_slices,
    fill_value,
    real_values,
    rectangle,
    rectangle_of_rows,
)
from jaxmask._types import ArrayLike


def pad_sequences(
    sequences: Iterable[Any],
    maxlen: int | None = None,
    dtype: DTypeLike | None = None,
    padding: Side = "post",
    truncating: Side = "post",
    value: Any = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Pad sequences of different lengths to one rectangle, and return it with its mask.

        padded[b, t] = sequences[b][t] if t < len(sequences[b]) else value

    The mask comes from the lengths and not from the values: a genuine 0 is a real step.

    Args:
      sequences: an iterable of rows. A row is a list, a tuple, an array `[n, feature...]`, a
        generator or another ordered iterable of steps; it may be empty. `Ragged`, and a column
        of lists of an Arrow table, are read without a copy for each row.
      maxlen: the number of steps of the result; None takes that of the longest row.
      dtype: of the result. None takes that of the data: ints in lists are int32 where all of them
        fit, else int64; floats are float64; rows of several dtypes have `np.result_type`; without
        any data it is float32. Strings and other objects need `dtype=object`.
      padding: `"post"` puts the padding after the real steps, `"pre"` before them.
      truncating: `"post"` cuts off the last steps of a row longer than `maxlen`, `"pre"` the first.
      value: of the padding.

    Returns:
      The pair `(padded, mask)` of NumPy arrays: `padded [batch, time, feature...]`, and `mask
      [batch, time]`, boolean, True where the step is real.

    Raises:
      TypeError: if a row is not an ordered iterable, `maxlen` not an int, or a step not a number
        without `dtype=object`.
      ValueError: if steps differ in shape, `maxlen` is negative, `padding` or `truncating` is
        neither `"pre"` nor `"post"`, or the dtype cannot hold a step or `value`. Floats may be
        rounded to a narrower float; nothing else is changed.

    Example:
      >>> import jaxmask as jm
      >>> padded, mask = jm.pad_sequences([[7, 0, 8], [9]])
      >>> padded.tolist(), mask.tolist()
      ([[7, 0, 8], [9, 0, 0]], [[True, True, True], [True, False, False]])

    Agrees with `keras.utils.pad_sequences`, whose defaults are `"pre"` and which returns no mask.
    """
    where = "pad_sequences"
    time = _check_options(maxlen, padding, truncating, where)
    read = read_rows(sequences, dtype, where)
    if isinstance(read, Rows) and are_long(read.lengths):
        return _pad_rows(read, time, padding, truncating, value, where)
    return _pad(joined(read), time, padding, truncating, value, where)


def pad_ragged(
    values: ArrayLike,
    offsets: ArrayLike,
    maxlen: int | None = None,
    dtype: DTypeLike | None = None,
    padding: Side = "post",
    truncating: Side = "post",
    value: Any = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Pad rows that are stored flat, back to back, as in Arrow and Awkward.

        padded[b, t] = values[offsets[b] + t] if t < offsets[b + 1] - offsets[b] else value

    Much faster than `pad_sequences` on lists: no Python loop runs over steps.

    Args:
      values: `[total, feature...]`.
      offsets: `[batch + 1]`, integer, non-decreasing from 0 to total.
      maxlen: as in `pad_sequences`, like all that follow.
      dtype: None takes that of `values`.
      padding: `"post"` or `"pre"`.
      truncating: `"post"` or `"pre"`.
      value: of the padding.

    Returns:
      The pair `(padded, mask)` of NumPy arrays: `[batch, time, feature...]` and `[batch, time]`.

    Raises:
      TypeError: if `values` or `offsets` is not an array, or `offsets` not integer; or as
        `pad_sequences`.
      ValueError: if `offsets` does not describe rows of `values`; or as `pad_sequences`.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> padded, mask = jm.pad_ragged(np.array([7, 8, 9]), np.array([0, 2, 2, 3]))
      >>> padded.tolist(), mask.tolist()
      ([[7, 8], [0, 0], [9, 0]], [[True, True], [False, False], [True, False]])
    """
    where = "pad_ragged"
    time = _check_options(maxlen, padding, truncating, where)
    flat, bounds = check_ragged(values, offsets, where)
    flat = exact.cast(flat, dtype, "`values[{}]`".format, where)
    return _pad(Ragged(flat, bounds), time, padding, truncating, value, where)


def unpad_sequences(padded: ArrayLike, mask: ArrayLike | None) -> list[np.ndarray]:
    """Take the real steps of each row: the inverse of `pad_sequences`.

    Args:
      padded: `[batch, time, feature...]`, any dtype; a JAX array is copied to the host.
      mask: `[batch, time]`, boolean; holes and left padding are closed (mask class: any). None:
        every step is real.

    Returns:
      A list of `batch` arrays `[n, feature...]`, where n counts the real steps of the row. They
      are views of one new array.

    Example:
      >>> import jaxmask as jm
      >>> padded, mask = jm.pad_sequences([[7, 0, 8], [9]])
      >>> [row.tolist() for row in jm.unpad_sequences(padded, mask)]
      [[7, 0, 8], [9]]
    """
    where = "unpad_sequences"
    x, real = numpy_pair(padded, mask, where, name="padded")
    if real is None:
        real = np.ones(x.shape[:2], bool)
    ends = np.cumsum(np.sum(real, axis=1)).tolist()
    values = real_values(x, real)
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _pad_rows(
    read: Rows, time: int | None, padding: Side, truncating: Side, value: Any, where: str
) -> tuple[np.ndarray, np.ndarray]:
    lengths, rows = read.lengths, read.rows
    time = int(lengths.max(initial=0)) if time is None else time
    if lengths.max(initial=0) > time:
        rows = [
            row[:time] if truncating == "post" else row[max(len(row) - time, 0) :] for row in rows
        ]
        lengths = np.minimum(lengths, time)
    filler = fill_value(value, rows[0].dtype, where)
    return rectangle_of_rows(rows, lengths, time, filler, padding)


def _pad(
    ragged: Ragged, time: int | None, padding: Side, truncating: Side, value: Any, where: str
) -> tuple[np.ndarray, np.ndarray]:
    values, lengths = ragged.values, ragged.lengths
    longest = int(lengths.max(initial=0))
    time = longest if time is None else time
    if longest > time:
        kept = np.minimum(lengths, time)
        starts = ragged.offsets[:-1] + (0 if truncating == "post" else lengths - kept)
        values, lengths = concatenate_slices(values, starts, kept), kept
    filler = fill_value(value, values.dtype, where)
    return rectangle(values, lengths, time, filler, padding)


def _check_options(maxlen: int | None, padding: Side, truncating: Side, where: str) -> int | None:
    _check.choice(padding, ("pre", "post"), where, "padding")
    _check.choice(truncating, ("pre", "post"), where, "truncating")
    return _check.optional_count(maxlen, where, "maxlen")
