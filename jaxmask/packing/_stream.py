"""Pack a stream with a bounded buffer: best-fit decreasing, window by window."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.plan import Plan, best_fit_decreasing
from jaxmask._host.ragged import Ragged
from jaxmask._host.rectangle import fill_value
from jaxmask._host.stream import Arranged, Replayed, Source, Window, Windowed
from jaxmask.packing._pack import OVERFLOWS, Cuts, Overflow, fill, refuse_long
from jaxmask.packing._packed import Packed


def pack_stream(
    sequences: Iterable[Any] | Callable[[], Iterator[Any]],
    row_length: int,
    batch_size: int,
    *,
    buffer: int | None = None,
    overflow: Overflow = "error",
    max_segments: int | None = None,
    shuffle_seed: int | None = None,
    value: Any = 0,
    dtype: DTypeLike | None = None,
) -> Windowed[Packed]:
    """Pack sequences as they come into batches of one shape, holding only so many at a time.

    Sequences worth `buffer` rows are read and packed by best-fit decreasing; the fullest rows go
    into batches, and the sequences of the rows that do not fill one are packed again with those
    that follow. None waits longer than that.

    Args:
      sequences: an iterable of rows as in `pad_sequences`, or a function that returns an iterator
        of them. To resume, it is read again from its beginning.
      row_length: the steps of a row.
      batch_size: the rows of a batch; the last batch is filled up with empty rows.
      buffer: how many rows' worth of sequences to hold; None takes 16 batches. More packs better.
      overflow: as in `pack_sequences`. The pieces of a split sequence count as sequences, and have
        its index.
      max_segments: the most sequences of a row, as in `pack_sequences`.
      shuffle_seed: None gives the rows of a window from full to less full, an int shuffles them.
      value: what stands in the padding.
      dtype: of all sequences; None takes that of the first one that has a step.

    Returns:
      An iterator of `Packed`, all `[batch_size, row_length, feature...]`, with `get_state()` and
      `set_state(state)`; `packed.indices` says which sequences of the stream are in a batch.

    Raises:
      TypeError, ValueError: as `pack_sequences`, naming the sequence by its index; if a sequence
        is of another type or has other feature axes than those before it. An error that reading
        raises has a note with the index. The stream then stops: `set_state(get_state())` goes
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
        value=value,
        dtype=dtype,
        where=where,
    )


def pack_source(
    source: Source,
    row_length: int,
    batch_size: int,
    *,
    buffer: int | None,
    overflow: Overflow,
    max_segments: int | None,
    shuffle_seed: int | None,
    value: Any,
    dtype: DTypeLike | None,
    where: str,
    row_of: Callable[[Any], Any] = lambda record: record,
    finish: Callable[[Window, np.ndarray, Packed], Any] = lambda window, places, packed: packed,
) -> Windowed:
    """Do the work of `pack_stream` for any source.

    Args:
      source: of the records.
      row_length: as in `pack_stream`, like all that follow but the last three.
      batch_size: the rows of a batch.
      buffer: in rows.
      overflow: one of the four words.
      max_segments: the most sequences of a row, or None.
      shuffle_seed: an int, or None.
      value: what stands in the padding.
      dtype: of all sequences, or None.
      where: the function that asks, for error texts.
      row_of: the sequence of a record.
      finish: makes a batch of the window, the places of the batch's records in it, and `Packed`.

    Example:
      >>> options = dict.fromkeys(("buffer", "max_segments", "shuffle_seed", "dtype"))
      >>> source = Replayed([[1], [2]], "example")
      >>> stream = pack_source(source, 2, 1, overflow="error", value=0, where="example", **options)
      >>> next(stream).x.tolist()
      [[1, 2]]
    """
    row_length = _check.count(row_length, where, "row_length", least=1)
    batch_size = _check.count(batch_size, where, "batch_size", least=1)
    buffer = 16 * batch_size if buffer is None else _check.count(buffer, where, "buffer", least=1)
    _check.choice(overflow, OVERFLOWS, where, "overflow")
    if max_segments is not None:
        max_segments = _check.count(max_segments, where, "max_segments", least=1)
    if shuffle_seed is not None:
        shuffle_seed = _check.count(shuffle_seed, where, "shuffle_seed")

    options: dict[str, Any] = {"row_length": row_length, "batch_size": batch_size, "buffer": buffer}
    options |= {"overflow": overflow, "max_segments": max_segments, "shuffle_seed": shuffle_seed}

    def pieces_of(row: np.ndarray) -> list[np.ndarray]:
        if overflow != "split" or len(row) <= row_length:
            return [row]
        return [row[start : start + row_length] for start in range(0, len(row), row_length)]

    def arrange(window: Window) -> Arranged:
        kept = _kept(window, row_length, overflow, where)
        plan = best_fit_decreasing(kept, row_length, max_segments)
        batches, waiting = _batches(window, kept, plan, batch_size, shuffle_seed)
        return Arranged([(kept, plan, *batch) for batch in batches], waiting.tolist())

    def make(window: Window, batch: _Batch) -> Any:
        packed = _filled(window, *batch, (batch_size, row_length), value, where)
        return finish(window, batch[2], packed)

    return Windowed(
        source,
        buffer * row_length,
        weigh=lambda row: max(1, len(row)),
        arrange=arrange,
        make=make,
        row_of=row_of,
        pieces_of=pieces_of,
        dtype=dtype,
        options=options,
        where=where,
    )


# Steps kept of each sequence of the window, its plan, the places in it that the batch takes, and
# the rows of the plan that these fill.
_Batch: TypeAlias = tuple[np.ndarray, Plan, np.ndarray, np.ndarray]


def _kept(window: Window, row_length: int, overflow: Overflow, where: str) -> np.ndarray:
    """How many steps of each sequence are packed."""
    lengths = window.lengths
    long = np.flatnonzero(lengths > row_length)
    if len(long) and overflow == "error":
        refuse_long(window.indices[long[0]], lengths[long[0]], row_length, where)
    kept = np.minimum(lengths, row_length)
    if overflow == "drop":
        kept[long] = 0
    return kept


def _batches(
    window: Window, kept: np.ndarray, plan: Plan, batch_size: int, shuffle_seed: int | None
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """The places and rows of each batch, and the places that wait."""
    urgent = np.isin(np.arange(plan.row_count), plan.rows[: window.carried])
    placeless = np.flatnonzero(plan.rows < 0)
    if window.last:
        number = -(-plan.row_count // batch_size)
    else:
        number = max(plan.row_count // batch_size, -(-int(urgent.sum()) // batch_size))
    if not number and len(placeless) and (window.last or placeless[0] < window.carried):
        number = 1  # sequences without a step, and nothing else: a batch without a step
    used = np.bincount(plan.rows[plan.rows >= 0], kept[plan.rows >= 0], plan.row_count)
    order = np.lexsort((-used, ~urgent))
    chosen = order[: number * batch_size]
    if shuffle_seed is not None:
        first = window.indices[0] if len(window.indices) else 0
        chosen = np.random.default_rng([shuffle_seed, first]).permutation(chosen)
    batch_of = np.full(plan.row_count + 1, -1)  # of each row; the last entry is for no row at all
    batch_of[chosen] = np.arange(len(chosen)) // batch_size
    batch_of[-1] = 0 if number else -1
    of_each = batch_of[plan.rows]
    places = [np.flatnonzero(of_each == batch) for batch in range(number)]
    rows = [chosen[start:][:batch_size] for start in range(0, number * batch_size, batch_size)]
    return list(zip(places, rows, strict=True)), np.flatnonzero(of_each < 0)


def _filled(
    window: Window,
    kept: np.ndarray,
    plan: Plan,
    places: np.ndarray,
    rows: np.ndarray,
    shape: tuple[int, int],
    value: Any,
    where: str,
) -> Packed:
    """Copy the sequences of one batch."""
    sequences = [window.rows[place] for place in places]
    offsets = np.concatenate([[0], np.cumsum(list(map(len, sequences)), dtype=np.int64)])
    # A row without a step may have come before the type of the stream was known.
    values = np.concatenate([row for row in sequences if len(row)] or sequences[:1])
    number = np.full(plan.row_count + 1, -1)
    number[rows] = np.arange(len(rows))
    here = Plan(number[plan.rows[places]], plan.starts[places], plan.numbers[places], shape[0])
    cut_off = np.flatnonzero(kept[places] < np.diff(offsets)).tolist()
    left_out = {place: int(kept[places[place]]) for place in cut_off}
    every = np.arange(len(places))
    cuts = Cuts(every, np.zeros_like(every), kept[places], left_out)
    filler = fill_value(value, values.dtype, where)
    indices = window.indices[places]
    return fill(Ragged(values, offsets), cuts, here, shape[1], filler, indices)
