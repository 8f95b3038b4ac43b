"""Pack several sequences in a row: all at once, or a stream with a bounded buffer."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.arrays import to_numpy
from jaxmask._host.fields import Field, Options, leaves_of, read_columns, require_lengths, tree
from jaxmask._host.pack import OVERFLOWS, Overflow, check_row_length, cut, fill, row_lengths_of
from jaxmask._host.pack_source import pack_source
from jaxmask._host.packed import Packed, slots_of
from jaxmask._host.plan import best_fit_of_several
from jaxmask._host.rectangle import concatenate_slices
from jaxmask._host.stream import BatchStream, Replayed


def pack_sequences(
    sequences: Iterable[Any] | Mapping[str, Any],
    row_length: int | Mapping[str, int],
    *,
    overflow: Overflow = "error",
    max_segments: int | None = None,
    value: Any = 0,
    dtype: DTypeLike | Mapping[str, Any] | None = None,
    lengths: Mapping[str, Any] | Sequence[str] | None = None,
) -> Packed:
    """Put several sequences into each row, so that hardly any step is padding.

    Best-fit decreasing: the longest sequence first, each into the fitting row with the fewest free
    steps. A sequence stays in one piece unless `overflow="split"` cuts it.

    Of records, all fields are packed alike, and `packed.x` and the like are dicts. Where records
    have several lengths, such as source and target, a record goes into a row that has room for
    each, and has the same segment id in all, so that `masks.same_segment` joins them.

    Args:
      sequences: as in `pad_sequences`, records too; `jm.Ragged` and columns of Arrow are read
        without a copy for each row.
      row_length: the steps of a row; a dict gives those of each length.
      overflow: what to do with a sequence longer than a row. `"error"` refuses it, `"split"` cuts
        it into pieces that count as sequences of their own (records of one length only),
        `"truncate"` keeps its first steps, `"drop"` leaves it out; `packed.dropped` holds
        the steps that were left out.
      max_segments: the most sequences of a row, for each of which pooling gives `max_segments`
        results. None sets no limit. With short sequences, a small limit leaves rows less full.
      value: of the padding.
      dtype: as in `pad_sequences`, like `lengths`.
      lengths: fields that do not share the length of the others.

    Returns:
      `Packed`, with NumPy fields `x [rows, row_length, feature...]`, `mask`, `segments` and
      `positions`, all `[rows, row_length]`; `packed.as_segments()` stands where a mask may.
      A sequence without a step is in no row, and comes back from `unpack_sequences`.

    Raises:
      TypeError, ValueError: as `pad_sequences`; if `row_length` is not an int of at least 1; if
        a sequence is longer than a row and `overflow` is "error".

    Example:
      >>> import jaxmask as jm
      >>> packed = jm.pack_sequences([[1], [2, 2], [3, 3, 3], [4]], row_length=4)
      >>> packed.x.tolist(), packed.segments.tolist()
      ([[3, 3, 3, 1], [2, 2, 4, 0]], [[1, 1, 1, 2], [1, 1, 2, 0]])
      >>> y, row_mask = jm.pool.sum(packed.x, packed.as_segments())
      >>> packed.collect(y)[0].tolist()
      [1, 4, 9, 4]
    """
    where = "pack_sequences"
    row_length = check_row_length(row_length, where)
    _check.choice(overflow, OVERFLOWS, where, "overflow")
    max_segments = _check.optional_count(max_segments, where, "max_segments", least=1)
    columns = read_columns(sequences, Options(value, dtype, lengths=lengths), where)
    columns = columns._replace(parts=columns.flat)
    names = [*columns.lengths]
    require_lengths(names, where)
    rows = row_lengths_of(row_length, names, overflow, where)
    cuts = cut(columns.steps, rows, overflow, names, where)
    plan = best_fit_of_several(cuts.length, rows, max_segments)
    return fill(columns, cuts, plan, rows, where, max_segments=max_segments)


def unpack_sequences(y: Any, packed: Packed) -> list[Any]:
    """Unpack the sequences of packed rows: the inverse of `pack_sequences`.

    Args:
      y: `[rows, row_length, feature...]`, any dtype: `packed.x`, or what a model made of it. Of
        records, a dict with some of the fields, or an array where they have one length.
      packed: what `pack_sequences` returned.

    Returns:
      A list of arrays `[n, feature...]` in the order of the sequences that went in, views of one
      new array. The pieces of a split sequence are joined. Steps that were cut off are missing and
      a dropped sequence is empty; `packed.dropped` holds those steps. Of a dict, a list of records;
      a record that is in no row has None for what has no length.

    Raises:
      TypeError: if `y` is not an array.
      ValueError: if it does not have the rows and steps of `packed`.

    Example:
      >>> import jaxmask as jm
      >>> packed = jm.pack_sequences([[1], [2, 2], []], row_length=3)
      >>> [row.tolist() for row in jm.unpack_sequences(10 * packed.x, packed)]
      [[10], [20, 20], []]
    """
    where = "unpack_sequences"
    if not isinstance(packed, Packed):
        raise TypeError(
            f"{where}: `packed` must be what `pack_sequences` gives, got {_check.kind_of(packed)}."
        )
    pieces, fields = packed.pieces, packed._fields
    if not isinstance(y, Mapping):
        if isinstance(pieces.length, Mapping) and len(pieces.length) > 1:
            raise ValueError(
                f"{where}: the rows have the lengths {', '.join(map(repr, pieces.length))}. Say "
                "which field `y` belongs to: `{field: y}`."
            )
        field = next(field for field in fields if field.length is not None)
        return _unpacked(y, field, packed, where, "y")
    known = {field.path: field for field in fields}
    leaves = dict(leaves_of(y))
    if foreign := [path for path in leaves if path not in known]:
        raise ValueError(
            f"{where}: `packed` has no field {'.'.join(foreign[0])!r}, only "
            f"{', '.join(field.name for field in fields)}."
        )
    chosen = [known[path] for path in leaves]
    columns = [
        _of_each(leaf, packed, field.where(where))
        if field.length is None
        else _unpacked(leaf, field, packed, field.where(where), "y")
        for field, leaf in zip(chosen, leaves.values(), strict=True)
    ]
    return [tree(chosen, row) for row in zip(*columns, strict=True)]


def _unpacked(y: Any, field: Field, packed: Packed, where: str, name: str) -> list[np.ndarray]:
    """The sequences of one field."""
    source = to_numpy(y, name, where)
    pieces = packed.pieces
    starts, lengths = pieces.start, pieces.length
    mask = packed.mask
    for key in field.path:
        mask = mask[key]
    if field.path:
        starts, lengths = starts[field.length], lengths[field.length]
    rows, row_length = mask.shape
    if source.shape[:2] != (rows, row_length):
        raise ValueError(
            f"{where}: `{name}` must be [rows, row_length, ...] = [{rows}, {row_length}, ...] as "
            f"`packed.x` is, got shape {source.shape}."
        )
    flat = source.reshape(rows * row_length, *source.shape[2:])
    values = concatenate_slices(flat, np.maximum(pieces.row, 0) * row_length + starts, lengths)
    steps = np.concatenate([[0], np.cumsum(lengths)])
    bounds = steps[np.searchsorted(pieces.sequence, np.arange(packed.count + 1))].tolist()
    return [values[start:end] for start, end in itertools.pairwise(bounds)]


def _of_each(y: Any, packed: Packed, where: str) -> list[Any]:
    """One value for each record, of its first piece; None for a record that is in no row."""
    source = to_numpy(y, "y", where)
    rows = len(jax.tree.leaves(packed.segments)[0])
    most = len(source) // max(rows, 1)
    pieces = packed.pieces
    slots = dict(zip(pieces.sequence[::-1].tolist(), slots_of(pieces, most)[::-1], strict=True))
    found = [slots.get(k, -1) for k in range(packed.count)]
    return [None if slot < 0 else source[slot] for slot in found]


def pack_stream(
    sequences: Iterable[Any] | Callable[[], Iterator[Any]],
    row_length: int | Mapping[str, int],
    batch_size: int,
    *,
    buffer: int | None = None,
    overflow: Overflow = "error",
    max_segments: int | None = None,
    shuffle_seed: int | None = None,
    value: Any = 0,
    dtype: DTypeLike | Mapping[str, Any] | None = None,
    lengths: Mapping[str, Any] | Sequence[str] | None = None,
) -> BatchStream[Packed]:
    """Pack a stream of sequences into batches of one shape, with a bounded buffer.

    Sequences worth `buffer` rows are read and packed by best-fit decreasing. The fullest rows go
    into batches; the sequences of rows that do not fill a batch are packed again with those of the
    next buffer, so they wait no longer than that.

    Args:
      sequences: an iterable of rows or records as in `pad_sequences`, or a function that returns an
        iterator of them. To resume, it is read again from its beginning.
      row_length: the steps of a row; a dict gives those of each length.
      batch_size: the rows of a batch; the last batch is filled up with empty rows.
      buffer: how many rows' worth of sequences to hold; None holds 16 batches. More packs better.
      overflow: as in `pack_sequences`. The pieces of a split sequence count as sequences, and have
        its index.
      max_segments: the most sequences of a row, as in `pack_sequences`; needed where records have
        a field without a length.
      shuffle_seed: None gives the fullest rows of a buffer first; an int shuffles them.
      value: of the padding.
      dtype: of all sequences; None takes that of the first one that has a step.
      lengths: fields that do not share the length of the others, as in `pad_sequences`.

    Returns:
      An iterator of `Packed`, all `[batch_size, row_length, feature...]`, with `get_state()` and
      `set_state(state)`; `packed.indices` says which sequences of the stream are in a batch. It is
      one epoch; `epoch(k)` begins another, and `endless()` goes on with the next.

    Raises:
      TypeError, ValueError: as `pack_sequences`, naming the sequence by its index; if a sequence
        is of another dtype or has other feature axes than those before it. An error raised while
        reading gets a note with the index. The stream then stops: `set_state(get_state())` goes
        back to the last batch, so that no record is skipped.

    Example:
      >>> import jaxmask as jm
      >>> stream = jm.pack_stream([[1], [2, 2], [3, 3, 3], [4]], row_length=4, batch_size=1)
      >>> state = stream.get_state()
      >>> [packed.x.tolist() for packed in stream]
      [[[3, 3, 3, 1]], [[2, 2, 4, 0]]]
      >>> stream.set_state(state)
      >>> next(stream).indices.tolist()
      [0, 2]
    """
    where = "pack_stream"
    return pack_source(
        Replayed(sequences, where),
        row_length,
        batch_size,
        buffer=buffer,
        overflow=overflow,
        max_segments=max_segments,
        shuffle_seed=shuffle_seed,
        fields=Options(value, dtype, lengths=lengths),
        where=where,
    )
