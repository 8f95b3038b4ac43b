"""Copying rows between flat values and rectangles, without a Python loop over them."""

import math
from typing import Any, Literal, TypeAlias

import numpy as np

from jaxmask.batching import exact

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
    ends = np.cumsum(lengths)
    index = np.repeat(starts - (ends - lengths), lengths)
    index += np.arange(len(index))
    return pick(values, index, 1)


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
    steps = np.arange(time)
    mask = steps < lengths[:, None] if padding == "post" else steps >= time - lengths[:, None]
    padded = np.empty((len(lengths), time, *values.shape[1:]), values.dtype)
    padded.fill(value[()])
    # True steps in the order of rows and time are the flat values in theirs.
    _whole_steps(padded, 2)[mask] = _whole_steps(values, 1)
    return padded, mask


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
