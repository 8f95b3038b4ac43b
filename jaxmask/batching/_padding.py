"""Ragged rows to a padded rectangle and its mask, and back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._host import exact
from jaxmask._host.arrays import numpy_pair
from jaxmask._host.fields import (
    Field,
    Options,
    by_length,
    find_fields,
    leaves_of,
    read_columns,
    tree,
)
from jaxmask._host.padding import pad_part, padded_columns
from jaxmask._host.ragged import Ragged, check_ragged
from jaxmask._host.rectangle import Side, real_values
from jaxmask._types import ArrayLike


def pad_sequences(
    sequences: Iterable[Any] | Mapping[str, Any],
    maxlen: int | Mapping[str, int | None] | None = None,
    dtype: DTypeLike | Mapping[str, Any] | None = None,
    padding: Side | Mapping[str, Any] = "post",
    truncating: Side | Mapping[str, Any] = "post",
    value: Any = 0,
    *,
    lengths: Mapping[str, Any] | Sequence[str] | None = None,
    axes: int | Mapping[str, Any] = 1,
) -> tuple[Any, Any]:
    """Pad sequences of different lengths to one rectangle, and return it with its mask.

        padded[b, t] = sequences[b][t] if t < len(sequences[b]) else value

    The mask comes from the lengths and not from the values: a genuine 0 is a real step.

    A record of several sequences is a dict, which may hold dicts. Give a list of records or a dict
    of columns: `padded` and `mask` are then dicts with the same keys. The fields of a record share
    one length, and must agree in it, unless `lengths` names others. Numbers and strings, one for
    each record, come along unpadded, `[batch, ...]`, and their mask is the row mask `[batch]`.

    Args:
      sequences: an iterable of rows. A row is a list, a tuple, an array `[n, feature...]`, a
        generator or another ordered iterable of steps; it may be empty. `Ragged`, and a column
        of lists of an Arrow table, are read without a copy for each row. Or an iterable of
        records, or a dict of columns.
      maxlen: the number of steps of the result; None takes that of the longest row. Of records, a
        dict gives one to each length.
      dtype: of the result. None takes that of the data: ints in lists are int32 where all of them
        fit, else int64; floats are float64; rows of several dtypes have `np.result_type`; without
        any data it is float32. Strings and other objects need `dtype=object`. Of records, this and
        the next three may be dicts with an entry for some of the fields: `value={"labels": -100}`.
      padding: `"post"` puts the padding after the real steps, `"pre"` before them.
      truncating: `"post"` cuts off the last steps of a row longer than `maxlen`, `"pre"` the first.
      value: of the padding.
      lengths: fields that have another length than `"time"`, which the others share: a list of
        fields, each of a length of its own, or a dict from fields to the names of lengths:
        `{"target": "target", "labels": "target"}`. None in it says that a record has one value
        of that field, though it be an array.
      axes: 2 if a row is a document, an iterable of sentences: the result is `[batch, outer, time,
        feature...]` with a mask `[batch, outer, time]`, as `jm.nn.TimeDistributed` takes them. Of
        records, a dict may give it for some of the fields. Their number of sentences is the length
        `"outer"`, which labels of sentences share by `lengths={"labels": "outer"}`.

    Returns:
      The pair `(padded, mask)` of NumPy arrays: `padded [batch, time, feature...]`, and `mask
      [batch, time]`, boolean, True where the step is real; of records, dicts of them.

    Raises:
      TypeError: if a row is not an ordered iterable, `maxlen` not an int, or a step not a number
        without `dtype=object`.
      ValueError: if steps differ in shape, `maxlen` is negative, `padding` or `truncating` is
        neither `"pre"` nor `"post"`, or the dtype cannot hold a step or `value`. Floats may be
        rounded to a narrower float; nothing else is changed. If records differ in their fields, or
        fields that share a length differ in it, naming the record and the field.

    Example:
      >>> import jaxmask as jm
      >>> padded, mask = jm.pad_sequences([[7, 0, 8], [9]])
      >>> padded.tolist(), mask.tolist()
      ([[7, 0, 8], [9, 0, 0]], [[True, True, True], [True, False, False]])
      >>> columns = {"ids": [[5, 6], [7]], "labels": [[1, 2], [0]], "kind": [3, 4]}
      >>> x, mask = jm.pad_sequences(columns, value={"labels": -100})
      >>> x["labels"].tolist(), mask["labels"].tolist(), x["kind"].tolist()
      ([[1, 2], [0, -100]], [[True, True], [True, False]], [3, 4])

    Agrees with `keras.utils.pad_sequences`, whose defaults are `"pre"` and which returns no mask.
    Collators of Hugging Face pad all of a batch on the side of the tokenizer.
    """
    where = "pad_sequences"
    if not isinstance(maxlen, Mapping):
        maxlen = _check.optional_count(maxlen, where, "maxlen")
    asked = Options(value, dtype, padding, truncating, lengths, axes)
    columns = read_columns(sequences, asked, where)
    most_of_each = by_length(maxlen, [*columns.lengths], where, "maxlen")
    times = {
        name: int(found.max(initial=0)) if most is None else _check.count(most, where, "maxlen")
        for (name, found), most in zip(columns.lengths.items(), most_of_each, strict=True)
    }
    return padded_columns(columns, times, where)


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
    time = _check.optional_count(maxlen, where, "maxlen")
    for side, name in ((padding, "padding"), (truncating, "truncating")):
        _check.choice(side, ("pre", "post"), where, name)
    flat, bounds = check_ragged(values, offsets, where)
    flat = exact.cast(flat, dtype, "`values[{}]`".format, where)
    part = Ragged(flat, bounds)
    time = int(part.lengths.max(initial=0)) if time is None else time
    return pad_part(part, time, Field((), None, value, dtype, padding, truncating), where)


@refusing_pairs
def unpad_sequences(padded: Any, mask: Any) -> list[Any]:
    """Take the real steps of each row: the inverse of `pad_sequences`.

    Args:
      padded: `[batch, time, feature...]`, any dtype; a JAX array is copied to the host. Or the dict
        of fields that `pad_sequences` made of records, or some of its fields.
      mask: `[batch, time]`, boolean; holes and left padding are closed (mask class: any). None:
        every step is real. Of fields, a dict of masks with the same keys; a row whose row mask
        `[batch]` is False, as batches are filled up with, gives no record.

    Returns:
      A list of `batch` arrays `[n, feature...]`, where n counts the real steps of the row. They
      are views of one new array. Of fields, a list of records.

    Example:
      >>> import jaxmask as jm
      >>> padded, mask = jm.pad_sequences([[7, 0, 8], [9]])
      >>> [row.tolist() for row in jm.unpad_sequences(padded, mask)]
      [[7, 0, 8], [9]]
    """
    where = "unpad_sequences"
    if not isinstance(padded, Mapping):
        return _unpad(padded, mask, where, "padded")
    if not isinstance(mask, Mapping):
        raise _check.MaskError(
            f"{where}: `mask` must be a dict with the fields of `padded`, got "
            f"{type(mask).__name__}."
        )
    xs, masks = dict(leaves_of(padded)), dict(leaves_of(mask))
    fields = find_fields(dict.fromkeys(xs, False), Options(), where)
    if xs.keys() != masks.keys():
        raise _check.MaskError(
            f"{where}: `mask` has the fields {sorted(masks)}, and `padded` {sorted(xs)}."
        )
    columns, shown = [], []
    for field in fields:
        x, real = xs[field.path], masks[field.path]
        if real is not None and np.ndim(real) == 1:
            shown.append(np.asarray(real))
            columns.append(list(np.asarray(x)))
        else:
            columns.append(_unpad(x, real, field.where(where), "padded"))
    if len(sizes := {len(column) for column in columns}) > 1:
        raise ValueError(f"{where}: the fields have different numbers of rows, {sorted(sizes)}.")
    kept = np.logical_and.reduce(shown).tolist() if shown else [True] * max(sizes, default=0)
    rows = zip(*columns, strict=True)
    return [tree(fields, row) for row, real in zip(rows, kept, strict=True) if real]


def _unpad(padded: ArrayLike, mask: ArrayLike | None, where: str, name: str) -> list[np.ndarray]:
    x, real = numpy_pair(padded, mask, where, name=name)
    if real is None:
        real = np.ones(x.shape[:2], bool)
    ends = np.cumsum(np.sum(real, axis=1)).tolist()
    values = real_values(x, real)
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]
