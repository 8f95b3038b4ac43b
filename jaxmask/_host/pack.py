"""Cut sequences to pieces that fit a row, and copy the pieces to where a plan has them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias, get_args

import numpy as np

from jaxmask import _check
from jaxmask._host.fields import Columns, by_length, tree
from jaxmask._host.packed import Packed, Pieces, placed
from jaxmask._host.plan import Plan
from jaxmask._host.ragged import Ragged
from jaxmask._host.rectangle import are_long, copy_slices, fill_value, full, mask_of_lengths

Overflow: TypeAlias = Literal["error", "split", "truncate", "drop"]
OVERFLOWS = get_args(Overflow)


class Cuts(NamedTuple):
    """The pieces to pack, none longer than a row.

    Attributes:
      sequence: `[pieces]`, int64, increasing: the index of the sequence.
      begin: `[pieces, lengths]`, int64, the first step of the sequence that is in the piece.
      length: `[pieces, lengths]`, int64.
      left_out: for each sequence that was cut or dropped, its index and its first steps left out.
    """

    sequence: np.ndarray
    begin: np.ndarray
    length: np.ndarray
    left_out: dict[int, np.ndarray]


def check_row_length(row_length: Any, where: str) -> Any:
    """The steps of a row: an int, or a dict with one for each length."""
    if isinstance(row_length, Mapping):
        return {name: check_row_length(size, where) for name, size in row_length.items()}
    return _check.count(row_length, where, "row_length", least=1)


def row_lengths_of(row_length: Any, names: Sequence[str], overflow: str, where: str) -> np.ndarray:
    """`[lengths]`, the steps of a row, in the order of the lengths of the records."""
    if overflow == "split" and len(names) > 1:
        raise ValueError(
            f'{where}: `overflow="split"` cuts records of one length only, since the pieces of '
            f"{', '.join(map(repr, names))} do not belong together. Split the records first."
        )
    return np.array(by_length(row_length, names, where, "row_length"), np.int64)


def cut(
    lengths: np.ndarray,
    row_lengths: np.ndarray,
    overflow: Overflow,
    names: Sequence[str],
    where: str,
) -> Cuts:
    """Cut the sequences that are longer than a row, as `overflow` says."""
    every = np.arange(len(lengths))
    zero = np.zeros_like(lengths)
    long = np.flatnonzero(np.any(lengths > row_lengths, axis=1))
    if not len(long):
        return Cuts(every, zero, lengths, {})
    if overflow == "error":
        refuse_long(int(long[0]), lengths[long[0]], row_lengths, names, where)
    if overflow == "truncate":
        kept = np.minimum(lengths, row_lengths)
        return Cuts(every, zero, kept, {k: kept[k] for k in long.tolist()})
    if overflow == "drop":
        kept = np.setdiff1d(every, long)
        return Cuts(kept, zero[kept], lengths[kept], {k: zero[k] for k in long.tolist()})
    row = int(row_lengths[0])
    parts = np.maximum(-(-lengths[:, 0] // row), 1)
    sequence = np.repeat(every, parts)
    part = np.arange(len(sequence)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = (part * row)[:, None]
    return Cuts(sequence, begin, np.minimum(lengths[sequence] - begin, row), {})


def refuse_long(
    index: int, lengths: np.ndarray, row_lengths: np.ndarray, names: Sequence[str], where: str
) -> NoReturn:
    """Refuse a sequence that is longer than a row."""
    k = int(np.argmax(lengths > row_lengths))
    of = f"of {names[k]!r} " if len(names) > 1 else ""
    raise ValueError(
        f"{where}: `sequences[{index}]` has {lengths[k]} steps {of}, more than `row_length`, "
        f'{row_lengths[k]}. Nothing is cut off in silence: pass `overflow="split"`, "truncate" or '
        '"drop", or longer rows.'.replace(" ,", ",")
    )


def fill(
    columns: Columns,
    cuts: Cuts,
    plan: Plan,
    row_lengths: np.ndarray,
    where: str,
    *,
    indices: np.ndarray | None = None,
    max_segments: int | None = None,
) -> Packed:
    """Copy the pieces to where the plan has them; `indices` name the sequences."""
    fields, rows = columns.fields, plan.row_count
    indices = np.arange(len(columns.steps)) if indices is None else indices
    names = [*columns.lengths]
    layouts = {name: _Layout.of(cuts, plan, k, int(row_lengths[k])) for k, name in enumerate(names)}
    pieces = Pieces(
        cuts.sequence,
        plan.rows,
        _by_name(plan.starts, names, fields[0].path),
        _by_name(cuts.length, names, fields[0].path),
        plan.segments,
    )
    most = max(1, int(plan.segments.max(initial=0))) if max_segments is None else max_segments
    xs, masks = [], []
    for field, part in zip(fields, columns.flat, strict=True):
        filler = fill_value(field.value, part.values.dtype, field.where(where))
        if field.length is None:
            x, mask = placed(part.values, pieces, rows, most, filler)
        else:
            layout = layouts[field.length]
            x, mask = layout.copied(part, cuts, names.index(field.length), filler), layout.mask
        xs.append(x)
        masks.append(mask)
    stepwise = [field for field in fields if field.length is not None]
    return Packed(
        tree(fields, xs),
        tree(fields, masks),
        tree(stepwise, [layouts[str(field.length)].segments for field in stepwise]),
        tree(stepwise, [layouts[str(field.length)].positions for field in stepwise]),
        pieces,
        indices,
        _dropped(columns, cuts, indices),
        fields,
    )


def _by_name(values: np.ndarray, names: Sequence[str], path: tuple[str, ...]) -> Any:
    """`[pieces]` of each length; of sequences that are no records, without a name."""
    if not path:
        return values[:, 0]
    return {name: values[:, k] for k, name in enumerate(names)}


def _dropped(columns: Columns, cuts: Cuts, indices: np.ndarray) -> dict[int, Any]:
    """What was left out of each record, and of one without a step what has no length."""
    fields, names = columns.fields, [*columns.lengths]
    alone = any(field.length is None for field in fields)
    empty = np.flatnonzero(~columns.steps.any(1)).tolist() if alone else []
    found = {}
    for k, first in [*cuts.left_out.items(), *((k, columns.steps[k]) for k in empty)]:
        whole = not np.any(first)
        kept, leaves = [], []
        for field, part in zip(fields, columns.flat, strict=True):
            begin, end = part.offsets[k], part.offsets[k + 1]
            if field.length is None and whole:
                leaves.append(part.values[begin].copy())
            elif field.length is not None:
                leaves.append(part.values[begin + first[names.index(field.length)] : end].copy())
            else:
                continue
            kept.append(field)
        found[int(indices[k])] = tree(kept, leaves)
    return found


class _Layout(NamedTuple):
    """Where the pieces lie in rows of one length, and what follows from that."""

    order: np.ndarray  # the pieces in the order of the rows, so that memory is written in order
    targets: np.ndarray
    mask: np.ndarray
    segments: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, cuts: Cuts, plan: Plan, k: int, row_length: int) -> "_Layout":
        """Of length `k`."""
        rows, starts, lengths = plan.rows, plan.starts[:, k], cuts.length[:, k]
        some = np.flatnonzero(rows >= 0)
        order = some[np.lexsort((starts[some], rows[some]))]
        used = np.bincount(rows[some], lengths[some], plan.row_count).astype(np.int64)
        mask = mask_of_lengths(used, row_length)
        targets = rows[order] * row_length + starts[order]
        ids = plan.segments[order]
        return cls(
            order, targets, mask, *_segments_and_positions(ids, targets, lengths[order], mask)
        )

    def copied(self, part: Ragged, cuts: Cuts, k: int, filler: np.ndarray) -> np.ndarray:
        """The rows `[rows, row_length, feature...]` of a field."""
        x = full((self.mask.size, *part.values.shape[1:]), filler)
        sources = part.offsets[cuts.sequence] + cuts.begin[:, k]
        copy_slices(part.values, sources[self.order], x, self.targets, cuts.length[self.order, k])
        return x.reshape(*self.mask.shape, *x.shape[1:])


def _segments_and_positions(
    segment_ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of pieces in the order of the rows, which start at `starts` in the flattened rows."""
    segments, positions = np.zeros(mask.shape, np.int32), np.zeros(mask.shape, np.int32)
    segment_ids = segment_ids.astype(np.int32)
    if are_long(lengths, 48):
        flat_segments, flat_positions = segments.reshape(-1), positions.reshape(-1)
        ranks = np.arange(mask.shape[1], dtype=np.int32)
        slices = zip(segment_ids, starts.tolist(), lengths.tolist(), strict=True)
        for segment, start, length in slices:
            flat_segments[start : start + length] = segment
            flat_positions[start : start + length] = ranks[:length]
    else:
        ends = np.cumsum(lengths)
        segments[mask] = np.repeat(segment_ids, lengths)
        positions[mask] = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    return segments, positions
