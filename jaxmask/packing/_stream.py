"""Pack a stream with a bounded buffer: best-fit decreasing, buffer by buffer."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jax.typing import DTypeLike

from jaxmask._host.fields import Options
from jaxmask._host.pack import Overflow
from jaxmask._host.pack_source import pack_source
from jaxmask._host.packed import Packed
from jaxmask._host.stream import BatchStream, Replayed


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
      `set_state(state)`; `packed.indices` says which sequences of the stream are in a batch.

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
