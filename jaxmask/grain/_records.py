"""Records of a pipeline: the sequence of each, and the entries that are kept beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmask._host.stream import noting


def reader(
    key: str | Sequence[str] | None, keep: Sequence[str], made: Sequence[str], where: str
) -> Callable[[Any], Any]:
    """The function that reads a record, or one or some of its fields.

    `made` are the other entries of a batch.
    """
    if isinstance(keep, str):
        raise TypeError(f"{where}: `keep` must be a sequence of names, got the str {keep!r}.")
    if key is None:
        if keep:
            raise TypeError(f"{where}: `keep` needs `key`, the name of the sequence in a record.")
        return lambda record: record
    if not isinstance(key, str):
        return _chosen([*key], keep, where)
    names = [key, *keep, *made]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{where}: `key` and `keep` must be names that differ from each other and from the "
            f"other entries of a batch, {list(made)}, got {key!r} and {list(keep)}: one would "
            "overwrite another. Rename it in the records first."
        )

    def read(record: Any) -> Any:
        if not isinstance(record, Mapping):
            raise TypeError(
                f"{where}: a record must be a dict with the key {key!r}, got "
                f"{type(record).__name__}."
            )
        return _entry(record, key, where)

    return read


def _chosen(
    fields: Sequence[str], keep: Sequence[str], where: str
) -> Callable[[Any], dict[str, Any]]:
    if keep:
        raise TypeError(
            f"{where}: `keep` is for one `key`. Put {list(keep)} beside {list(fields)} in `key`: "
            "what has one value for each record is a field too."
        )

    def read(record: Any) -> dict[str, Any]:
        if not isinstance(record, Mapping):
            raise TypeError(
                f"{where}: a record must be a dict with the keys {list(fields)}, got "
                f"{type(record).__name__}."
            )
        return {name: _entry(record, name, where) for name in fields}

    return read


def _entry(record: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in record:
        raise KeyError(f"{where}: a record has no {name!r}, only {sorted(record)}.")
    return record[name]


def stacked(
    records: Sequence[Any], indices: np.ndarray, names: Sequence[str], count: int, where: str
) -> dict[str, np.ndarray]:
    """What is kept of the records, followed by zeros; `indices` name the records in errors."""
    found = {}
    for name in names:
        if not records:
            raise ValueError(f"{where}: there is no record to take {name!r} from.")
        values = [
            np.asarray(noting(index, where, _entry, record, name, where))
            for record, index in zip(records, indices.tolist(), strict=False)
        ]
        kinds = [(_kind(value), value.shape) for value in values]
        for index, value, kind in zip(indices.tolist(), values, kinds, strict=False):
            if kind != kinds[0]:
                raise ValueError(
                    f"{where}: {name!r} must have one type and shape in all records, but is "
                    f"{values[0].dtype} {values[0].shape} in record {indices[0]} and {value.dtype} "
                    f"{value.shape} in record {index}."
                )
        found[name] = np.zeros((count, *values[0].shape), np.result_type(*values))
        found[name][: len(values)] = values
    return found


def _kind(value: np.ndarray) -> Any:
    """The dtype; strings of all lengths have one."""
    return value.dtype.kind if value.dtype.kind in "US" else value.dtype
