"""Bucket a stream with a bounded buffer: batches of near-equal length, in few shapes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jax.typing import DTypeLike

from jaxmask._host.bucket_source import Batch, bucket_source
from jaxmask._host.fields import Options
from jaxmask._host.rectangle import Side
from jaxmask._host.stream import BatchStream, Replayed


def bucket_stream(
    sequences: Iterable[Any] | Callable[[], Iterator[Any]],
    batch_size: int | None = None,
    *,
    tokens: int | None = None,
    boundaries: Sequence[Any] | Mapping[str, Sequence[int]],
    buffer: int = 4096,
    shuffle_seed: int | None = None,
    value: Any = 0,
    dtype: DTypeLike | Mapping[str, Any] | None = None,
    padding: Side | Mapping[str, Any] = "post",
    lengths: Mapping[str, Any] | Sequence[str] | None = None,
) -> BatchStream[Batch]:
    """Batch a stream of sequences with others of about their length, in few shapes.

    `buffer` sequences are read and put into buckets as by `bucket_batches`. Those that do not fill
    a batch go first into the batches of the next buffer, so they wait no longer than that.

    Args:
      sequences: an iterable of rows or records as in `pad_sequences`, or a function that returns an
        iterator of them. To resume, it is read again from its beginning.
      batch_size: rows of a batch; a batch that does not fill in time is filled up with empty rows.
      tokens: instead of `batch_size`, the most steps of a batch, as in `bucket_batches`.
      boundaries: the time sizes of the buckets, increasing. There is one shape for each. Of several
        lengths, as in `bucket_batches`.
      buffer: how many sequences to hold, besides those that wait. Make it many batches.
      shuffle_seed: an int shuffles the sequences of a buffer within their buckets, and its batches.
      value: of the padding.
      dtype: of all sequences; None takes that of the first one that has a step.
      padding: as in `pad_sequences`, like `lengths`.
      lengths: fields that do not share the length of the others.

    Returns:
      An iterator of `(x, mask, indices)` as from `bucket_batches`, with `get_state()` and
      `set_state(state)`; `indices`, int64, count the sequences of the stream. It is one epoch;
      `epoch(k)` begins another, and `endless()` goes on with the next.

    Raises:
      TypeError, ValueError: as `bucket_batches`, naming the sequence by its index; if a sequence
        has another dtype or other feature axes than those before it. An error raised while reading
        gets a note with the index. The stream then stops: `set_state(get_state())` goes back to
        the last batch, so that no record is skipped.

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
        buffer=buffer,
        shuffle_seed=shuffle_seed,
        fields=Options(value, dtype, padding, "post", lengths),
        where=where,
    )
