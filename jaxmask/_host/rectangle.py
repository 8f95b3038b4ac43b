"""Copying rows between flat values and rectangles, without a Python loop over them."""

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from jaxmask._host import exact

Side: TypeAlias = Literal["pre", "post"]


def take(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Put slices of the flat values one behind the other.

    Args:
      values: `[total, feature...]`.
      starts: `[batch]`, integer, where the slices begin.
      lengths: `[batch]`, integer, how long they are.

    Returns:
      `[sum of lengths, feature...]`.

    Example:
      >>> take(np.array([5, 6, 7, 8]), np.array([3, 0]), np.array([1, 2])).tolist()
      [8, 5, 6]
    """
    result = np.empty((int(np.sum(lengths)), *values.shape[1:]), values.dtype)
    return move(values, starts, result, np.cumsum(lengths) - lengths, lengths)


def move(
    source: np.ndarray,
    starts: np.ndarray,
    target: np.ndarray,
    places: np.ndarray,
    lengths: np.ndarray,
) -> np.ndarray:
    """Copy slices of one array to places of another, in place.

        target[places[b] + t] = source[starts[b] + t]  for t < lengths[b]

    Args:
      source: `[total, feature...]`.
      starts: `[batch]`, integer, where the slices begin.
      target: `[other total, feature...]`, contiguous, of the dtype of `source`.
      places: `[batch]`, integer, where they go.
      lengths: `[batch]`, integer, how long they are.

    Returns:
      `target`.

    Example:
      >>> one = np.array([1])
      >>> move(np.array([5, 6, 7]), one, np.array([0, 0, 0, 0]), one, one * 2).tolist()
      [0, 6, 7, 0]
    """
    if are_long(lengths, 48):
        slices = zip(starts.tolist(), places.tolist(), lengths.tolist(), strict=True)
        for start, place, length in slices:
            target[place : place + length] = source[start : start + length]
        return target
    ends = np.cumsum(lengths)
    steps = np.arange(int(ends[-1]) if len(ends) else 0)
    there = steps + np.repeat(places - (ends - lengths), lengths)
    steps += np.repeat(starts - (ends - lengths), lengths)
    _whole_steps(target, 1)[there] = _whole_steps(source, 1)[steps]
    return target


def pick(x: np.ndarray, index: np.ndarray, axes: int) -> np.ndarray:
    """`x[index]`, with whole steps moved in one piece.

    Args:
      x: any array, whose first `axes` axes are indexed and whose others are features.
      index: integer, or boolean of rank `axes`.
      axes: how many axes are indexed.

    Returns:
      `[picked, feature...]`.

    Example:
      >>> pick(np.array([[5, 6], [7, 8]]), np.array([1]), 1).tolist()
      [[7, 8]]
    """
    items = _whole_steps(x, axes)[index]
    return items.view(x.dtype).reshape(len(items), *x.shape[axes:])


def rectangle(
    values: np.ndarray, lengths: np.ndarray, time: int, value: np.ndarray, padding: Side = "post"
) -> tuple[np.ndarray, np.ndarray]:
    """Write rows that lie one behind the other into a rectangle.

    Args:
      values: `[sum of lengths, feature...]`.
      lengths: `[batch]`, integer, in `0..time`.
      time: the number of steps of the rectangle.
      value: a scalar array, what stands in the padding.
      padding: `"post"` or `"pre"`.

    Returns:
      The pair `(padded, mask)`.

    Example:
      >>> padded, mask = rectangle(np.array([7, 8, 9]), np.array([2, 1]), 2, np.array(0), "pre")
      >>> padded.tolist(), mask.tolist()
      ([[7, 8], [0, 9]], [[True, True], [False, True]])
    """
    if are_long(lengths):
        ends = np.cumsum(lengths).tolist()
        parts = [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return rectangle_of_rows(parts, lengths, time, value, padding)
    padded = filled((len(lengths), time, *values.shape[1:]), value)
    mask = real_steps(lengths, time, padding)
    # True steps in the order of rows and time are the flat values in theirs.
    _whole_steps(padded, 2)[mask] = _whole_steps(values, 1)
    return padded, mask


def rectangle_of_slices(
    values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, time: int, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Write slices of the flat values into a rectangle, with the padding behind.

    Args:
      values: `[total, feature...]`.
      starts: `[batch]`, integer, where the slices begin.
      lengths: `[batch]`, integer, in `0..time`.
      time: the number of steps of the rectangle.
      value: a scalar array, what stands in the padding.

    Returns:
      The pair `(padded, mask)`.

    Example:
      >>> starts, lengths = np.array([1, 0]), np.array([2, 1])
      >>> rectangle_of_slices(np.array([7, 8, 9]), starts, lengths, 2, np.array(0))[0].tolist()
      [[8, 9], [7, 0]]
    """
    padded = filled((len(lengths) * time, *values.shape[1:]), value)
    move(values, starts, padded, time * np.arange(len(lengths)), lengths)
    return padded.reshape(len(lengths), time, *values.shape[1:]), real_steps(lengths, time)


def rectangle_of_rows(
    rows: Sequence[np.ndarray],
    lengths: np.ndarray,
    time: int,
    value: np.ndarray,
    padding: Side = "post",
) -> tuple[np.ndarray, np.ndarray]:
    """Write rows that lie anywhere into a rectangle, one after the other.

    Args:
      rows: `batch` arrays `[n, feature...]` of the dtype of `value`, at least one.
      lengths: `[batch]`, integer, in `0..time`, how long they are.
      time: the number of steps of the rectangle.
      value: a scalar array, what stands in the padding.
      padding: `"post"` or `"pre"`.

    Returns:
      The pair `(padded, mask)`.

    Example:
      >>> rows = [np.array([7, 8]), np.array([9])]
      >>> rectangle_of_rows(rows, np.array([2, 1]), 2, np.array(0))[0].tolist()
      [[7, 8], [9, 0]]
    """
    padded = filled((len(rows), time, *rows[0].shape[1:]), value)
    for place, row, length in zip(padded, rows, lengths.tolist(), strict=True):
        if padding == "post":
            place[:length] = row
        else:
            place[time - length :] = row
    return padded, real_steps(lengths, time, padding)


def real_steps(lengths: np.ndarray, time: int, padding: Side = "post") -> np.ndarray:
    """The mask of rows of these lengths.

    Example:
      >>> real_steps(np.array([1, 0]), 2).tolist()
      [[True, False], [False, False]]
    """
    kind = np.int16 if time < 2**15 else np.int64  # short numbers compare several times as fast
    steps, lengths = np.arange(time, dtype=kind), lengths.astype(kind)
    if padding == "post":
        return steps < lengths[:, None]
    return steps >= time - lengths[:, None]


def are_long(lengths: np.ndarray, least: int = 256) -> bool:
    """Rows are so long that copying them one by one beats an index for every step.

    Example:
      >>> are_long(np.array([1000, 2000])), are_long(np.array([1, 2]))
      (True, False)
    """
    return int(lengths.sum()) >= least * len(lengths) > 0


def filled(shape: tuple[int, ...], value: np.ndarray) -> np.ndarray:
    """An array full of one value, of its dtype.

    Example:
      >>> filled((2,), np.array(7)).tolist()
      [7, 7]
    """
    if value.dtype != np.object_ and not value.tobytes().strip(b"\0"):
        return np.zeros(shape, value.dtype)  # memory that is zero as it comes
    padded = np.empty(shape, value.dtype)
    padded.fill(value[()])
    return padded


def _whole_steps(x: np.ndarray, axes: int) -> np.ndarray:
    """A view (of a copy, if `x` is not contiguous) whose items are whole steps.

    NumPy moves such an item in one piece, four times as fast as feature by feature. An array
    without features, or of objects, is returned as it is.
    """
    size = math.prod(x.shape[axes:])
    if x.ndim == axes or not size or x.dtype == np.object_:
        return x
    flat = np.ascontiguousarray(x).reshape(*x.shape[:axes], size)
    return flat.view(np.dtype((np.void, size * x.itemsize)))[..., 0]


def fill_value(value: Any, dtype: np.dtype, where: str) -> np.ndarray:
    """What stands in the padding, as a scalar array of `dtype`, which must hold it exactly.

    Example:
      >>> fill_value(0.0, np.dtype(np.int32), "example")
      array(0, dtype=int32)
    """
    if dtype == np.object_:
        # Not `np.array(value)`: that opens a tuple.
        filler = np.empty((), object)
        filler[()] = value
        return filler
    filler = np.asarray(value)
    if filler.ndim:
        raise ValueError(f"{where}: `value` must be one number, got shape {filler.shape}.")
    return exact.cast(filler, dtype, lambda _: "`value`", where)
