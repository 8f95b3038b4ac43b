"""From ragged rows to a rectangle and the mask that says which steps are real, and back."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._types import ArrayLike, Segments
from jaxmask.batching import exact
from jaxmask.batching.flatten import Ragged, flatten
from jaxmask.batching.rectangle import Side, fill_value, pick, rectangle, take


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
        generator or another ordered iterable of steps; it may be empty.
      maxlen: the number of steps of the result; None takes that of the longest row.
      dtype: of the result. None takes the type of the data: ints in lists are int32 where all of
        them fit, else int64; floats are float64; rows of several types have `np.result_type`;
        without any data it is float32. Strings and other objects need `dtype=object`.
      padding: `"post"` puts the padding behind the real steps, `"pre"` before them.
      truncating: `"post"` cuts the last steps of a row longer than `maxlen`, `"pre"` the first.
      value: what stands in the padding.

    Returns:
      The pair `(padded, mask)` of NumPy arrays: `padded [batch, time, feature...]`, and `mask
      [batch, time]`, boolean, True where the step is real.

    Raises:
      TypeError: if a row is no ordered iterable, `maxlen` no int, or a step no number without
        `dtype=object`.
      ValueError: if steps differ in shape, `maxlen` is negative, `padding` or `truncating` is not
        one of the two words, or the dtype cannot hold a step or `value`. Floats may be rounded to
        a narrower float; nothing else is changed.

    Example:
      >>> import jaxmask as jm
      >>> padded, mask = jm.pad_sequences([[7, 0, 8], [9]])
      >>> padded.tolist(), mask.tolist()
      ([[7, 0, 8], [9, 0, 0]], [[True, True, True], [True, False, False]])

    Agrees with `keras.utils.pad_sequences`, whose defaults are `"pre"` and which returns no mask.
    """
    where = "pad_sequences"
    time = _check_options(maxlen, padding, truncating, where)
    ragged = flatten(sequences, dtype, where)
    return _pad(ragged, time, padding, truncating, value, where)


def pad_ragged(
    values: ArrayLike,
    offsets: ArrayLike,
    maxlen: int | None = None,
    dtype: DTypeLike | None = None,
    padding: Side = "post",
    truncating: Side = "post",
    value: Any = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Pad rows that lie one behind the other, as Arrow and Awkward store them.

        padded[b, t] = values[offsets[b] + t] if t < offsets[b + 1] - offsets[b] else value

    No Python loop runs over rows or steps, so it is much faster than `pad_sequences`.

    Args:
      values: `[total, feature...]`.
      offsets: `[batch + 1]`, integer, from 0 to total, not decreasing.
      maxlen: as in `pad_sequences`, like all that follow.
      dtype: None takes that of `values`.
      padding: `"post"` or `"pre"`.
      truncating: `"post"` or `"pre"`.
      value: what stands in the padding.

    Returns:
      The pair `(padded, mask)` of NumPy arrays: `[batch, time, feature...]` and `[batch, time]`.

    Raises:
      TypeError: if `values` or `offsets` is no array, or `offsets` not integer; or as
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
    flat = _host(values, "values", where)
    if flat.ndim < 1:
        raise ValueError(f"{where}: `values` must be [total, feature...], got a scalar.")
    bounds = _check_offsets(_host(offsets, "offsets", where), len(flat), where)
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

    Raises:
      TypeError: if one is no array, or `mask` is not boolean.
      MaskError: if `mask` does not belong to `padded`, or is `Segments`.

    Example:
      >>> import jaxmask as jm
      >>> padded, mask = jm.pad_sequences([[7, 0, 8], [9]])
      >>> [row.tolist() for row in jm.unpad_sequences(padded, mask)]
      [[7, 0, 8], [9]]
    """
    where = "unpad_sequences"
    x = _host(padded, "padded", where)
    if x.ndim < 2:
        raise ValueError(f"{where}: `padded` must be [batch, time, ...], got shape {x.shape}.")
    real = _check_mask(mask, x.shape, where)
    ends = np.cumsum(np.sum(real, axis=1)).tolist()
    values = pick(x, real, 2)
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _pad(
    ragged: Ragged, time: int | None, padding: Side, truncating: Side, value: Any, where: str
) -> tuple[np.ndarray, np.ndarray]:
    lengths = ragged.lengths
    longest = int(lengths.max(initial=0))
    time = longest if time is None else time
    values = ragged.values
    if longest > time:
        starts = ragged.offsets[:-1]
        kept = np.minimum(lengths, time)
        values = take(values, starts if truncating == "post" else starts + lengths - kept, kept)
        lengths = kept
    filler = fill_value(value, values.dtype, where)
    return rectangle(values, lengths, time, filler, padding)


# -------------------------------------------------------------------------------- checks


def _check_options(maxlen: int | None, padding: Side, truncating: Side, where: str) -> int | None:
    _check.choice(padding, ("pre", "post"), where, "padding")
    _check.choice(truncating, ("pre", "post"), where, "truncating")
    return None if maxlen is None else _check.count(maxlen, where, "maxlen")


def _host(x: Any, name: str, where: str) -> np.ndarray:
    """An array on the host. `_check.array` would move NumPy's to a device, 64 bits to 32."""
    if not hasattr(x, "__array__"):
        raise TypeError(
            f"{where}: `{name}` must be a NumPy or JAX array, got {type(x).__name__}. Pass "
            f"`np.asarray({name})`; a list of sequences goes to `jm.pad_sequences`."
        )
    return np.asarray(x)


def _check_offsets(offsets: np.ndarray, total: int, where: str) -> np.ndarray:
    if offsets.ndim != 1 or not len(offsets):
        raise ValueError(f"{where}: `offsets` must be [batch + 1], got shape {offsets.shape}.")
    if offsets.dtype.kind not in "iu":
        raise TypeError(f"{where}: `offsets` must be integers, got dtype {offsets.dtype}.")
    offsets = offsets.astype(np.int64)
    falls = np.flatnonzero(np.diff(offsets) < 0)
    if len(falls):
        b = int(falls[0])
        raise ValueError(
            f"{where}: `offsets` must not decrease, but `offsets[{b}]` is {offsets[b]} and "
            f"`offsets[{b + 1}]` is {offsets[b + 1]}. Lengths become offsets with "
            "`np.concatenate([[0], np.cumsum(lengths)])`."
        )
    if offsets[0] != 0 or offsets[-1] != total:
        raise ValueError(
            f"{where}: `offsets` must go from 0 to len(values) = {total}, but goes from "
            f"{offsets[0]} to {offsets[-1]}. A slice of a larger array is "
            "`values[offsets[0]:offsets[-1]]` with `offsets - offsets[0]`."
        )
    return offsets


def _check_mask(mask: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """The mask rule of `_check.pair`, on the host."""
    if mask is None:
        return np.ones(shape[:2], bool)
    if isinstance(mask, Segments):
        _check.refuse_segments(where)
    real = _host(mask, "mask", where)
    if real.dtype != np.bool_:
        raise TypeError(
            f"{where}: `mask` must be boolean (True = real step), got dtype {real.dtype}. If it "
            "holds 0/1 with 1 = real, pass `mask.astype(bool)`; if it holds lengths, "
            "`jm.masks.from_lengths(lengths, time)`."
        )
    if real.shape != shape[:2]:
        raise _check.MaskError(
            f"{where}: `mask` must have the shape of the leading axes of `padded`, {shape[:2]}, "
            f"got {real.shape}. Nothing is broadcast: give one bool for each step, `[batch, time]`."
        )
    return real
