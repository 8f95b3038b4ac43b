"""Reading the records of a stream one by one: their fields are those of the first."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from jaxmask._host.fields import (
    Columns,
    Field,
    Options,
    entries,
    find_fields,
    leaves_of,
    refuse_lengths,
    require_lengths,
)
from jaxmask._host.flatten import is_ordered, read_row
from jaxmask._host.ragged import Ragged

Row: TypeAlias = tuple[np.ndarray, ...]  # of one record: an array [n, feature...] for each field


class RecordReader:
    """Reads records, all of the same fields, types and feature axes.

    Attributes:
      fields: None before the first record.
      names: of the lengths, in the order of their first fields.
    """

    def __init__(
        self,
        options: Options,
        where: str,
        found: Callable[["RecordReader"], None] = lambda reader: None,
    ):
        # `found(reader)` is called when the fields are known.
        self._options, self._where, self._found = options, where, found
        self.reset()

    def reset(self) -> None:
        """Forget the fields, as before the first record."""
        self.fields: tuple[Field, ...] | None = None
        self.names: tuple[str, ...] = ()
        self._first: list[int] = []
        self._like: list[np.ndarray | None] = []

    def read(self, record: Any, index: int) -> Row:
        """The sequences of a record; a field with one value for each record is one step."""
        if self.fields is None:
            self._find(record)
        assert self.fields is not None
        if not self.fields[0].path:  # the common case, and nothing to agree with
            alone = read_row(record, index, self._like[0], self._dtypes[0], self._where)
            if self._like[0] is None and len(alone):
                self._like[0] = alone[:0]
            return (alone,)
        values = entries(record, [field.path for field in self.fields], index, self._where)
        row = []
        for k, (field, value) in enumerate(zip(self.fields, values, strict=True)):
            where, like = field.where(self._where), self._like[k]
            value = [value] if field.length is None else value
            found = read_row(value, index, like, self._dtypes[k], where)
            if like is None and len(found):
                self._like[k] = found[:0]
            row.append(found)
        self._agree(row, index)
        return tuple(row)

    def steps(self, row: Row) -> list[int]:
        """How many steps a record has, of each length."""
        return [len(row[k]) for k in self._first]

    def lengths(self, rows: list[Row]) -> np.ndarray:
        """`[records, lengths]`, int64: the steps of many records."""
        found = [
            np.fromiter((len(row[k]) for row in rows), np.int64, len(rows)) for k in self._first
        ]
        return np.stack(found, 1) if found else np.zeros((0, 1), np.int64)

    def pieces(self, row: Row, size: int) -> list[Row]:
        """The row in pieces of at most `size` steps; what has no length is in each."""
        assert self.fields is not None
        starts = range(0, max(self.steps(row)), size)
        return [
            tuple(
                part if field.length is None else part[start : start + size]
                for part, field in zip(row, self.fields, strict=True)
            )
            for start in starts
        ]

    def columns(self, rows: list[Row]) -> Columns:
        """Some rows, field by field."""
        assert self.fields is not None
        parts = []
        for k in range(len(self.fields)):
            column = [row[k] for row in rows]
            offsets = np.concatenate([[0], np.cumsum(list(map(len, column)), dtype=np.int64)])
            parts.append(Ragged(_concatenated(column), offsets))
        lengths = {name: parts[k].lengths for name, k in zip(self.names, self._first, strict=True)}
        return Columns(self.fields, tuple(parts), lengths)

    def kind(self) -> Any:
        """The types and feature axes found so far, as JSON has them."""
        kinds = [
            None if like is None else [like.dtype.name, *like.shape[1:]] for like in self._like
        ]
        if self.fields is None or not self.fields[0].path:
            return kinds[0] if kinds else None
        return [
            [list(field.path), field.length is None, kind]
            for field, kind in zip(self.fields, kinds, strict=True)
        ]

    def set_kind(self, kind: Any) -> None:
        """Go on with the types that `kind()` returned."""
        self.reset()
        if kind is None:
            return
        kinds = [kind]
        if isinstance(kind[0], str):
            self._set({(): False})
        else:
            self._set({tuple(path): alone for path, alone, _ in kind})
            kinds = [each for _, _, each in kind]
        self._like = [
            None if each is None else np.zeros((0, *each[1:]), np.dtype(each[0])) for each in kinds
        ]

    def _find(self, record: Any) -> None:
        if isinstance(record, Mapping):
            self._set({path: not is_ordered(value) for path, value in leaves_of(record)})
        else:
            self._set({(): False})

    def _set(self, alone: Mapping[tuple[str, ...], bool]) -> None:
        if not alone:
            raise ValueError(f"{self._where}: record 0 is a dict without a field.")
        fields = find_fields(alone, self._options, self._where)
        names = tuple(dict.fromkeys(each.length for each in fields if each.length is not None))
        require_lengths(names, self._where)
        lengths = [field.length for field in fields]
        self.names, self._first = names, [lengths.index(name) for name in names]
        self._like = [None] * len(fields)
        self._dtypes = [None if field.dtype is None else np.dtype(field.dtype) for field in fields]
        self.fields = fields
        self._found(self)

    def _agree(self, row: list[np.ndarray], index: int) -> None:
        assert self.fields is not None
        first: dict[str, int] = {}
        for k, field in enumerate(self.fields):
            if field.length is None:
                continue
            known = first.setdefault(field.length, k)
            if len(row[known]) != len(row[k]):
                pair = (self.fields[known], len(row[known]), field, len(row[k]))
                refuse_lengths(index, *pair, field.length, self._where)


def _concatenated(rows: list[np.ndarray]) -> np.ndarray:
    """The steps of rows of a stream; one without a step may precede the dtype of the stream."""
    return np.concatenate([row for row in rows if len(row)] or rows[:1])
