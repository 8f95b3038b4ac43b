"""Copying rows between flat values and rectangles, without a Python loop over steps."""

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from jaxmask._host import exact

Side: TypeAlias = Literal["pre", "post"]


def concatenate_slices(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`values[starts[b] : starts[b] + lengths[b]]`, concatenated over b."""
    result = np.empty((int(np.sum(lengths)), *values.shape[1:]), values.dtype)
    copy_slices(values, starts, result, np.cumsum(lengths) - lengths, lengths)
    return result


def copy_slices(
    source: np.ndarray,
    starts: np.ndarray,
    target: np.ndarray,
    target_starts: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """Copy slices of one flat array into another, which is contiguous and of the same dtype.

    target[target_starts[b] + t] = source[starts[b] + t]  for t < lengths[b]
    """
    if are_long(lengths, 48):
        slices = zip(starts.tolist(), target_starts.tolist(), lengths.tolist(), strict=True)
        for start, to, length in slices:
            target[to : to + length] = source[start : start + length]
        return
    ends = np.cumsum(lengths)
    steps = np.arange(int(ends[-1]) if len(ends) else 0)
    to = steps + np.repeat(target_starts - (ends - lengths), lengths)
    steps += np.repeat(starts - (ends - lengths), lengths)
    _whole_steps(target, 1)[to] = _whole_steps(source, 1)[steps]


def real_values(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`x[mask]`, `[real steps, feature...]`."""
    items = _whole_steps(x, 2)[mask]
    return items.view(x.dtype).reshape(len(items), *x.shape[2:])


def rectangle(
    values: np.ndarray, lengths: np.ndarray, time: int, filler: np.ndarray, padding: Side = "post"
) -> tuple[np.ndarray, np.ndarray]:
    """`(padded, mask)` of rows that are stored back to back, of at most `time` steps each."""
    if are_long(lengths):
        ends = np.cumsum(lengths).tolist()
        rows = [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return rectangle_of_rows(rows, lengths, time, filler, padding)
    padded = full((len(lengths), time, *values.shape[1:]), filler)
    mask = mask_of_lengths(lengths, time, padding)
    # The real steps in the order of rows and time are the flat values in theirs.
    _whole_steps(padded, 2)[mask] = _whole_steps(values, 1)
    return padded, mask


def rectangle_of_slices(
    values: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    time: int,
    filler: np.ndarray,
    padding: Side = "post",
) -> tuple[np.ndarray, np.ndarray]:
    """`(padded, mask)` of slices of flat values, of at most `time` steps each."""
    padded = full((len(lengths) * time, *values.shape[1:]), filler)
    targets = time * np.arange(len(lengths)) + (time - lengths if padding == "pre" else 0)
    copy_slices(values, starts, padded, targets, lengths)
    mask = mask_of_lengths(lengths, time, padding)
    return padded.reshape(len(lengths), time, *values.shape[1:]), mask


def rectangle_of_rows(
    rows: Sequence[np.ndarray],
    lengths: np.ndarray,
    time: int,
    filler: np.ndarray,
    padding: Side = "post",
) -> tuple[np.ndarray, np.ndarray]:
    """`(padded, mask)` of at least one array `[n, feature...]` of at most `time` steps."""
    padded = full((len(rows), time, *rows[0].shape[1:]), filler)
    for target, row, length in zip(padded, rows, lengths.tolist(), strict=True):
        if padding == "post":
            target[:length] = row
        else:
            target[time - length :] = row
    return padded, mask_of_lengths(lengths, time, padding)


def mask_of_lengths(lengths: np.ndarray, time: int, padding: Side = "post") -> np.ndarray:
    """The mask `[batch, time]` of rows of these lengths."""
    dtype = np.int16 if time < 2**15 else np.int64  # int16 compares several times as fast
    steps, lengths = np.arange(time, dtype=dtype), lengths.astype(dtype)
    if padding == "post":
        return steps < lengths[:, None]
    return steps >= time - lengths[:, None]


def are_long(lengths: np.ndarray, least: int = 256) -> bool:
    """Whether copying the rows one by one beats an index for each step."""
    return int(lengths.sum()) >= least * len(lengths) > 0


def full(shape: tuple[int, ...], filler: np.ndarray) -> np.ndarray:
    """`np.full` in the dtype of the scalar array `filler`."""
    if filler.dtype != np.object_ and not filler.tobytes().strip(b"\0"):
        return np.zeros(shape, filler.dtype)  # the system hands out zeroed memory for free
    padded = np.empty(shape, filler.dtype)
    padded.fill(filler[()])
    return padded


def _whole_steps(x: np.ndarray, axes: int) -> np.ndarray:
    """A view (of a copy, if `x` is not contiguous) whose items are whole steps.

    NumPy copies such an item four times as fast as feature by feature. An array without features,
    or of objects, is returned as it is.
    """
    size = math.prod(x.shape[axes:])
    if x.ndim == axes or not size or x.dtype == np.object_:
        return x
    flat = np.ascontiguousarray(x).reshape(*x.shape[:axes], size)
    return flat.view(np.dtype((np.void, size * x.itemsize)))[..., 0]


def fill_value(value: Any, dtype: np.dtype, where: str) -> np.ndarray:
    """The value of the padding as a scalar array of `dtype`, which must hold it exactly."""
    if dtype == np.object_:
        # Not `np.array(value)`, which opens a tuple.
        filler = np.empty((), object)
        filler[()] = value
        return filler
    filler = np.asarray(value)
    if filler.ndim:
        raise ValueError(f"{where}: `value` must be one number, got shape {filler.shape}.")
    return exact.cast(filler, dtype, lambda _: "`value`", where)
