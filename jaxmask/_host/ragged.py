"""Rows stored back to back, as NumPy arrays or as columns of an Arrow table."""

from typing import Any, NamedTuple, NoReturn

import numpy as np

from jaxmask._host.arrays import to_numpy


class Ragged(NamedTuple):
    """Rows of different lengths, stored back to back, as Arrow and Awkward store them.

    Row b is `values[offsets[b] : offsets[b + 1]]`. It may stand wherever `sequences` may.

    Attributes:
      values: `[total, feature...]`.
      offsets: `[batch + 1]`, integer, non-decreasing from 0 to total.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> rows = jm.Ragged(np.array([7, 8, 9]), np.array([0, 2, 2, 3]))
      >>> rows.lengths.tolist(), jm.pad_sequences(rows)[0].tolist()
      ([2, 0, 1], [[7, 8], [0, 0], [9, 0]])
    """

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """`[batch]`, integer, in steps."""
        return np.diff(self.offsets)


def check_ragged(values: Any, offsets: Any, where: str) -> Ragged:
    """`values [total, feature...]` and integer `offsets [batch + 1]` as checked NumPy arrays."""
    flat = to_numpy(values, "values", where)
    if flat.ndim < 1:
        raise ValueError(f"{where}: `values` must be [total, feature...], got a scalar.")
    return Ragged(flat, _offsets(to_numpy(offsets, "offsets", where), len(flat), where))


def _offsets(offsets: np.ndarray, total: int, where: str) -> np.ndarray:
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


# ------------------------------------------------------------------------------ Arrow
# Duck typing, so that nothing here imports pyarrow.


def is_arrow(sequences: Any) -> bool:
    """Whether this is a column or a table of Arrow, or a column that turns into one."""
    known = ("combine_chunks", "null_count", "to_arrow", "column_names")
    return any(hasattr(sequences, name) for name in known)


def from_arrow(column: Any, where: str) -> Ragged:
    """The rows of a column of lists, without a copy for each row (of one chunk: without any).

    `column` is a `pyarrow.Array` or `ChunkedArray` of lists of numbers, of lists of fixed size, or
    of lists of lists of one size (feature axes); or has `to_arrow()`, such as a column of Polars.
    """
    if hasattr(column, "to_arrow"):
        column = column.to_arrow()
    if hasattr(column, "column_names"):
        raise TypeError(
            f"{where}: `sequences` must be one column of lists, got a whole table with the columns "
            f"{list(column.column_names)}. Pass one: `table['name']`, or of a data set of Hugging "
            "Face `dataset.with_format('arrow')[:]['name']`."
        )
    if hasattr(column, "combine_chunks"):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return _rows_of(column, "`sequences[{}]`", where)


def arrow_values(column: Any, where: str) -> Any:
    """The column itself if it holds lists, else its values as an array, none of them null."""
    if hasattr(column, "to_arrow"):
        column = column.to_arrow()
    if not hasattr(column, "type") or hasattr(column.type, "value_type"):
        return column
    _refuse_null(column, "`sequences[{}]`", where)
    return np.asarray(column)


def _rows_of(column: Any, name: str, where: str) -> Ragged:
    _refuse_null(column, name, where)
    if hasattr(column, "sizes"):  # a list view, whose rows may lie anywhere, in any order
        lengths, items = np.asarray(column.sizes), column.flatten()
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    elif hasattr(column, "offsets"):
        offsets = np.asarray(column.offsets).astype(np.int64)
        items = column.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
        offsets -= offsets[0]
    elif hasattr(column.type, "list_size"):
        items, size = column.flatten(), column.type.list_size
        offsets = np.arange(len(column) + 1, dtype=np.int64) * size
    else:
        raise TypeError(
            f"{where}: `sequences` must be a column of lists, got one of {column.type}. Each row "
            "is a sequence of steps."
        )
    return Ragged(_steps_of(items, name, offsets, where), offsets)


def _steps_of(items: Any, name: str, offsets: np.ndarray, where: str) -> np.ndarray:
    if not _holds_lists(items):
        if items.null_count:
            _refuse_null_step(items, name, offsets, where)
        return np.asarray(items.to_numpy(zero_copy_only=False))
    inner = _rows_of(items, "step {} of all rows of `sequences`", where)
    sizes = np.unique(inner.lengths)
    if len(sizes) > 1:
        raise ValueError(
            f"{where}: rows may differ in time only, but the steps of `sequences` have "
            f"{sizes[0]} to {sizes[-1]} features. Give every step the same feature axes."
        )
    size = int(sizes[0]) if len(sizes) else 0
    return inner.values.reshape(len(inner.offsets) - 1, size, *inner.values.shape[1:])


def _holds_lists(items: Any) -> bool:
    lists = ("offsets", "sizes")
    return any(hasattr(items, name) for name in lists) or hasattr(
        getattr(items, "type", None), "list_size"
    )


def _refuse_null(column: Any, name: str, where: str) -> None:
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(
            f"{where}: {name.format(row)} is null; {column.null_count} in total. Nothing is "
            "skipped in silence: first drop such records, or make them empty lists."
        )


def _refuse_null_step(items: Any, name: str, offsets: np.ndarray, where: str) -> NoReturn:
    index = int(np.argmax(items.is_null().to_numpy(zero_copy_only=False)))
    row = int(np.searchsorted(offsets, index, side="right")) - 1
    raise ValueError(
        f"{where}: step {index - offsets[row]} of {name.format(row)} is null. Fill it or drop the "
        "record first: a null is neither a number nor padding."
    )
