"""Bucket a stream with a bounded buffer: batches of near-equal length, in few shapes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.rectangle import fill_value, rectangle
from jaxmask._host.stream import Arranged, Replayed, Source, Window, Windowed
from jaxmask.batching._boundaries import check_boundaries, rows_of_batches

Batch: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


def bucket_stream(
    sequences: Iterable[Any] | Callable[[], Iterator[Any]],
    batch_size: int | None = None,
    *,
    tokens: int | None = None,
    boundaries: Sequence[int],
    window: int = 4096,
    shuffle_seed: int | None = None,
    value: Any = 0,
    dtype: DTypeLike | None = None,
) -> Windowed[Batch]:
    """Batch sequences as they come with others of about their length, in few shapes.

    `window` sequences are read and put into buckets as by `bucket_batches`; those that do not fill
    a batch go first into those of the next window, and wait no longer than that.

    Args:
      sequences: an iterable of rows as in `pad_sequences`, or a function that returns an iterator
        of them. To resume, it is read again from its beginning.
      batch_size: rows of a batch; what does not fill one in time is filled up with empty rows.
      tokens: instead of `batch_size`, the most steps of a batch, as in `bucket_batches`.
      boundaries: the time sizes of the buckets, increasing. There is one shape for each.
      window: how many sequences to hold, besides those that wait. Make it many batches.
      shuffle_seed: an int shuffles the sequences of a window within their buckets, and its batches.
      value: what stands in the padding.
      dtype: of all sequences; None takes that of the first one that has a step.

    Returns:
      An iterator of `(x, mask, indices)` as those of `bucket_batches`, with `get_state()` and
      `set_state(state)`; `indices`, int64, count the sequences of the stream.

    Raises:
      TypeError, ValueError: as `bucket_batches`, naming the sequence by its index; if a sequence is
        of another type or has other feature axes than those before it. An error that reading
        raises has a note with the index. The stream then stops: `set_state(get_state())` goes
        back to the last batch, so that no record is skipped.

    Example:
      >>> import jaxmask as jm
      >>> stream = jm.bucket_stream(iter([[1], [2, 2], [3]]), 2, boundaries=[1, 2])
      >>> [(x.tolist(), indices.tolist()) for x, mask, indices in stream]
      [([[1], [3]], [0, 2]), ([[2, 2], [0, 0]], [1, -1])]
    """
    where = "bucket_stream"
    return bucket_source(
        Replayed(sequences, where),
        batch_size,
        tokens=tokens,
        boundaries=boundaries,
        window=window,
        shuffle_seed=shuffle_seed,
        value=value,
        dtype=dtype,
        where=where,
    )


def bucket_source(
    source: Source,
    batch_size: int | None,
    *,
    tokens: int | None,
    boundaries: Sequence[int],
    window: int,
    shuffle_seed: int | None,
    value: Any,
    dtype: DTypeLike | None,
    where: str,
    row_of: Callable[[Any], Any] = lambda record: record,
    finish: Callable[[list[Any], Batch], Any] = lambda records, batch: batch,
) -> Windowed:
    """Do the work of `bucket_stream` for any source.

    Args:
      source: of the records.
      batch_size: as in `bucket_stream`, like all that follow but the last three.
      tokens: the most steps of a batch, or None.
      boundaries: the time sizes.
      window: in sequences.
      shuffle_seed: an int, or None.
      value: what stands in the padding.
      dtype: of all sequences, or None.
      where: the function that asks, for error texts.
      row_of: the sequence of a record.
      finish: makes a batch of its records and `(x, mask, indices)`.

    Example:
      >>> options = dict.fromkeys(("tokens", "shuffle_seed", "dtype"))
      >>> source = Replayed([[1], [2]], "example")
      >>> next(bucket_source(source, 2, boundaries=[1], window=9, value=0, where="", **options))[2]
      array([0, 1])
    """
    sizes = check_boundaries(boundaries, np.zeros(0, int), where)
    rows = rows_of_batches(sizes, batch_size, tokens, where)
    if shuffle_seed is not None:
        shuffle_seed = _check.count(shuffle_seed, where, "shuffle_seed")

    def arrange(window: Window) -> Arranged:
        check_boundaries(sizes, window.lengths, where, window.indices)
        return _arranged(window, np.searchsorted(sizes, window.lengths), rows, shuffle_seed)

    def make(window: Window, batch: tuple[int, np.ndarray]) -> Any:
        bucket, places = batch
        padded = _padded(window, places, rows[bucket], sizes[bucket], value, where)
        return finish([window.records[place] for place in places], padded)

    window = _check.count(window, where, "window", least=1)
    options = {"boundaries": list(sizes), "rows": rows, "window": window}
    return Windowed(
        source,
        window,
        weigh=lambda row: 1,
        arrange=arrange,
        make=make,
        row_of=row_of,
        dtype=dtype,
        options={**options, "shuffle_seed": shuffle_seed},
        where=where,
    )


def _arranged(
    window: Window, buckets: np.ndarray, rows: Sequence[int], shuffle_seed: int | None
) -> Arranged:
    first = window.indices[0] if len(window.indices) else 0
    random = None if shuffle_seed is None else np.random.default_rng([shuffle_seed, first])
    batches, waiting = [], []
    for bucket, size in enumerate(rows):
        places = np.flatnonzero(buckets == bucket)
        carried = int(np.searchsorted(places, window.carried))
        if random is not None:
            places[carried:] = random.permutation(places[carried:])
        if window.last:
            number = -(-len(places) // size)
        else:
            number = max(len(places) // size, -(-carried // size))
        batches += [(bucket, places[at * size : (at + 1) * size]) for at in range(number)]
        waiting += places[number * size :].tolist()
    if random is not None:
        batches = [batches[k] for k in random.permutation(len(batches))]
    return Arranged(batches, sorted(waiting))


def _padded(
    window: Window, places: np.ndarray, rows: int, time: int, value: Any, where: str
) -> Batch:
    sequences = [window.rows[place] for place in places]
    lengths = np.zeros(rows, np.int64)
    lengths[: len(sequences)] = [len(row) for row in sequences]
    # A row without a step may have come before the type of the stream was known.
    values = np.concatenate([row for row in sequences if len(row)] or sequences[:1])
    indices = np.full(rows, -1, np.int64)  # a stream may be longer than int32 counts
    indices[: len(places)] = window.indices[places]
    filler = fill_value(value, values.dtype, where)
    return *rectangle(values, lengths, time, filler), indices
