"""Rectangles and masks of the fields of records."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmask._host.fields import OUTER, Columns, Documents, Field, tree
from jaxmask._host.flatten import Rows, joined
from jaxmask._host.ragged import Ragged
from jaxmask._host.rectangle import (
    Side,
    are_long,
    concatenate_slices,
    fill_value,
    full,
    rectangle,
    rectangle_of_rows,
    rectangle_of_slices,
)


def rectangles(
    columns: Columns, indices: np.ndarray, times: Sequence[int], where: str
) -> tuple[Any, Any]:
    """`(x, mask)` of some records, -1 for rows of padding, with `times` steps of each length."""
    real = indices >= 0
    of_length = dict(zip(columns.lengths, times, strict=True))
    masks: dict[tuple[str, Side], np.ndarray] = {}
    xs, shown = [], []
    for field, part in zip(columns.fields, columns.flat, strict=True):
        filler = fill_value(field.value, part.values.dtype, field.where(where))
        if field.length is None:
            x = full((len(indices), *part.values.shape[1:]), filler)
            x[real] = part.values[indices[real]]
            mask = real
        else:
            starts = part.offsets[indices]
            lengths = np.where(real, part.offsets[indices + 1] - starts, 0)
            time = of_length[field.length]
            x, mask = rectangle_of_slices(part.values, starts, lengths, time, filler, field.padding)
            mask = masks.setdefault((field.length, field.padding), mask)
        xs.append(x)
        shown.append(mask)
    return tree(columns.fields, xs), tree(columns.fields, shown)


def padded_columns(columns: Columns, times: Mapping[str, int], where: str) -> tuple[Any, Any]:
    """`(padded, mask)` of all fields, with so many steps of each length."""
    xs, masks = [], []
    known: dict[Any, np.ndarray] = {}  # fields of one length share one mask
    for field, part in zip(columns.fields, columns.parts, strict=True):
        if isinstance(part, Documents):
            x, mask = _pad_documents(part, times, field, field.where(where))
        elif field.length is None:
            x, mask = joined(part).values, np.ones(len(part.offsets) - 1, bool)
        else:
            x, mask = pad_part(part, times[field.length], field, field.where(where))
        xs.append(x)
        masks.append(known.setdefault((field.length, field.padding, field.axes), mask))
    return tree(columns.fields, xs), tree(columns.fields, masks)


def _pad_documents(
    part: Documents, times: Mapping[str, int], field: Field, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Pad the sentences, and then the documents as sequences of sentences."""
    x, real = pad_part(part.sentences, times[str(field.length)], field, where)
    x, _ = pad_part(Ragged(x, part.offsets), times[OUTER], field, where)
    unreal = field._replace(value=False)
    return x, pad_part(Ragged(real, part.offsets), times[OUTER], unreal, where)[0]


def pad_part(
    part: Rows | Ragged, time: int, field: Field, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Pad the rows of one field, cutting off what exceeds `time`."""
    if isinstance(part, Rows) and are_long(part.lengths):
        return _pad_rows(part, time, field, where)
    values, offsets = joined(part)
    lengths = np.diff(offsets)
    if lengths.max(initial=0) > time:
        kept = np.minimum(lengths, time)
        starts = offsets[:-1] + (0 if field.truncating == "post" else lengths - kept)
        values, lengths = concatenate_slices(values, starts, kept), kept
    filler = fill_value(field.value, values.dtype, where)
    return rectangle(values, lengths, time, filler, field.padding)


def _pad_rows(part: Rows, time: int, field: Field, where: str) -> tuple[np.ndarray, np.ndarray]:
    lengths, rows = part.lengths, part.rows
    if lengths.max(initial=0) > time:
        first = field.truncating == "post"
        rows = [row[:time] if first else row[max(len(row) - time, 0) :] for row in rows]
        lengths = np.minimum(lengths, time)
    filler = fill_value(field.value, rows[0].dtype, where)
    return rectangle_of_rows(rows, lengths, time, filler, field.padding)
