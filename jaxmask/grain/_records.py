"""What a record of a pipeline holds: its sequence, and what else is taken along."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmask._host.stream import noting


def reader(
    key: str | None, keep: Sequence[str], made: Sequence[str], where: str
) -> Callable[[Any], Any]:
    """Read the sequence of a record; `made` are the names that a batch has besides.

    Example:
      >>> reader("ids", ["label"], ["mask"], "example")({"ids": [1, 2], "label": 0})
      [1, 2]
    """
    if isinstance(keep, str):
        raise TypeError(f"{where}: `keep` must be a sequence of names, got the str {keep!r}.")
    if key is None:
        if keep:
            raise TypeError(f"{where}: `keep` needs `key`, the name of the sequence in a record.")
        return lambda record: record
    names = [key, *keep, *made]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{where}: `key` and `keep` must be names that differ from each other and from those "
            f"that a batch has besides, {list(made)}, got {key!r} and {list(keep)}: one would "
            "take the place of another. Rename it in the records first."
        )

    def read(record: Any) -> Any:
        if not isinstance(record, Mapping):
            raise TypeError(
                f"{where}: a record must be a dict with the key {key!r}, got "
                f"{type(record).__name__}."
            )
        return _at(record, key, where)

    return read


def _at(record: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in record:
        raise KeyError(f"{where}: a record has no {name!r}, only {sorted(record)}.")
    return record[name]


def stacked(
    records: Sequence[Any], indices: np.ndarray, names: Sequence[str], count: int, where: str
) -> dict[str, np.ndarray]:
    """What is kept of the records, zeros behind them; `indices` name them in errors.

    Example:
      >>> stacked([{"label": 7}], np.array([0]), ["label"], 2, "example")["label"].tolist()
      [7, 0]
    """
    found = {}
    for name in names:
        if not records:
            raise ValueError(f"{where}: there is no record to take {name!r} from.")
        values = [
            np.asarray(noting(index, where, _at, record, name, where))
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
    """Its type; strings of any length are of one."""
    return value.dtype.kind if value.dtype.kind in "US" else value.dtype
