"""Batches of a stream that is too long to hold, buffer by buffer, and exactly resumable.

A buffer of records is read and arranged into batches. Records that do not fill a batch wait for
the next buffer, where they go first, so none waits longer. The state is a few numbers: to resume,
the source goes back by at most two buffers, which are read and arranged again.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np

from jaxmask import _check
from jaxmask._host.records import RecordReader, Row

T = TypeVar("T")
State: TypeAlias = dict[str, Any]
_END = object()


def check_state(state: Any, like: State, fixed: Iterable[str], where: str) -> None:
    """Refuse a state that lacks entries of `like`, or differs from it in the `fixed` ones."""
    if not isinstance(state, Mapping) or not like.keys() <= state.keys():
        found = sorted(state) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(
            f"{where}: `state` must be what `get_state()` returned, a dict with {sorted(like)}, "
            f"got {found}."
        )
    theirs, ours = ({name: given[name] for name in fixed} for given in (state, like))
    if theirs != ours:
        raise ValueError(
            f"{where}: the state is of other batches, {theirs}, and these are {ours}. Give the "
            "same sequences and options, or start over."
        )


class Source(Protocol):
    """What records are read from: an iterator whose position can be read and set."""

    def __next__(self) -> Any: ...

    def get_state(self) -> Any: ...

    def set_state(self, state: Any) -> None: ...


class Replayed:
    """An iterable as a `Source`: to go to a record, it is read again from its beginning.

    `records` starts over each time it is iterated, or is a function that returns an iterator. A
    generator can be read, but not resumed.
    """

    def __init__(self, records: Iterable[Any] | Callable[[], Iterator[Any]], where: str):
        if not (callable(records) or isinstance(records, Iterable)):
            raise TypeError(
                f"{where}: `sequences` must be an iterable of rows, or a function that returns an "
                f"iterator of them, got {type(records).__name__}."
            )
        self._records, self._where = records, where
        self._iterator = self._start()
        self._read = 0

    def _start(self) -> Iterator[Any]:
        return iter(self._records() if callable(self._records) else self._records)

    def __next__(self) -> Any:
        record = next(self._iterator)
        self._read += 1
        return record

    def get_state(self) -> State:
        return {"read": self._read}

    def check_starts_over(self, what: str) -> None:
        """Refuse a generator, which has no beginning to go back to."""
        if self._iterator is self._records:
            raise ValueError(
                f"{self._where}: a generator cannot be read again, so it cannot {what}. Pass "
                "the function that makes it, or an iterable that starts over."
            )

    def set_state(self, state: State) -> None:
        if state["read"] != self._read:
            self.check_starts_over("be resumed")
        if self._iterator is not self._records:
            self._iterator, self._read = self._start(), 0
            for read in range(state["read"]):
                if next(self, _END) is _END:
                    raise ValueError(
                        f"{self._where}: the state was taken after {state['read']} records, and "
                        f"now there are only {read}. Give the same sequences, or start over."
                    )


def noting(index: int, where: str, read: Callable[..., T], *arguments: Any) -> T:
    """`read(*arguments)`; an error that it raises gets a note that names the record."""
    try:
        return read(*arguments)
    except Exception as error:
        error.add_note(f"{where}: raised while reading record {index}.")
        raise


class Buffer(NamedTuple):
    """Records to arrange into batches.

    Attributes:
      rows: the sequences of each record, one `[n, feature...]` for each field.
      lengths: `[records, lengths]`, int64, in steps.
      records: the records as they came.
      indices: `[records]`, int64, the index of each record in the stream.
      carried: how many records, the first ones, have waited, and must not wait again.
      last: no record follows.
      epoch: how often all records were read before.
    """

    rows: list[Row]
    lengths: np.ndarray
    records: list[Any]
    indices: np.ndarray
    carried: int
    last: bool
    epoch: int

    def random(self, shuffle_seed: int | None) -> np.random.Generator | None:
        """The generator that shuffles this buffer; None where nothing is shuffled."""
        if shuffle_seed is None:
            return None
        first = self.indices[0] if len(self.indices) else 0
        return np.random.default_rng([shuffle_seed, first, *([self.epoch] if self.epoch else [])])


class Arranged(NamedTuple):
    """What a buffer gives: the specifications of its batches, and the records that wait."""

    batches: Sequence[Any]
    waiting: Sequence[int]  # indices into the buffer


class BatchStream(Iterator[T], Generic[T]):
    """The batches of a stream, with a state that can be saved and set.

    `bucket_stream` and `pack_stream` make it. It ends after one epoch, and what was read is not
    given again: `epoch(k)` begins another, and `endless()` goes from each to the next.

    Example:
      >>> import jaxmask as jm
      >>> make = lambda: jm.bucket_stream([[1], [2], [3]], 1, boundaries=[1])
      >>> stream, resumed = make(), make()
      >>> next(stream)[0].tolist()
      [[1]]
      >>> resumed.set_state(stream.get_state())
      >>> next(resumed)[0].tolist()
      [[2]]
    """

    def __init__(
        self,
        source: Source,
        size: int,
        *,
        weigh: Callable[[Row], int],
        arrange: Callable[[Buffer], Arranged],
        make: Callable[[Buffer, Any], T],
        reader: RecordReader,
        row_of: Callable[[Any], Any] = lambda record: record,
        pieces_of: Callable[[Row], list[Row]] = lambda row: [row],
        options: Mapping[str, Any],
        where: str,
    ):
        # A buffer is full when the `weigh(row)` in it add up to `size`; `make` turns a
        # specification that `arrange` gave into a batch; `row_of` takes out of a record what
        # `reader` reads, and `pieces_of` cuts it. The options decide which batches there are, as
        # JSON has them.
        self._options = dict(options)
        self._source, self._size, self._weigh = source, size, weigh
        self._arrange, self._make = arrange, make
        self._row_of, self._pieces_of = row_of, pieces_of
        self._reader, self._where = reader, where
        self._beginning = copy.deepcopy(source.get_state())
        self._endless = False
        self._reset(0)

    def _reset(self, epoch: int) -> None:
        self._epoch, self._index = epoch, 0
        self._reader.reset()
        self._carried: list[tuple[int, Any, Row]] = []
        self._buffer: Buffer | None = None
        self._batches: Sequence[Any] = ()
        self._given = 0
        self._failed: BaseException | None = None
        self._is_empty = True  # as far as is known of this epoch
        self._origin = self._before = self._position([])

    def _position(self, waiting: Sequence[int]) -> State:
        """The state before a buffer is read, of which the records `waiting` will wait."""
        kind = self._reader.kind()
        source = copy.deepcopy(self._source.get_state())  # some sources return their own object
        return {
            "source": source,
            "epoch": self._epoch,
            "index": self._index,
            "waiting": list(waiting),
            "kind": kind,
        }

    def __next__(self) -> T:
        """The next batch. After an error there is none: what was read would be lost in silence."""
        if self._failed is not None:
            raise RuntimeError(
                f"{self._where}: this stream stopped at an error while it was at record "
                f"{self._index}. `stream.set_state(stream.get_state())` goes back to the last "
                "batch, so that nothing is skipped."
            ) from self._failed
        try:
            return self._next()
        except StopIteration:
            raise
        except BaseException as error:
            self._failed = error
            raise

    def _next(self) -> T:
        while self._given >= len(self._batches):
            if self._buffer is not None and self._buffer.last:
                if not self._endless or self._is_empty:
                    raise StopIteration
                self._begin(self._epoch + 1)
            self._advance()
        assert self._buffer is not None
        self._is_empty = False
        batch = self._make(self._buffer, self._batches[self._given])
        self._given += 1
        return batch

    def epoch(self, index: int) -> "BatchStream[T]":
        """Go to the beginning of an epoch, whose order depends only on the seed and the index.

        Args:
          index: from 0; without a `shuffle_seed`, all epochs are alike.

        Returns:
          The stream itself, which ends with this epoch.

        Raises:
          ValueError: if the sequences are a generator that has been read from.

        Example:
          >>> import jaxmask as jm
          >>> stream = jm.bucket_stream([[1], [2]], 1, boundaries=[1], shuffle_seed=0)
          >>> [[int(i) for _, _, (i,) in stream.epoch(k)] for k in range(3)]
          [[0, 1], [0, 1], [1, 0]]
        """
        self._endless = False
        self._begin(_check.count(index, self._where, "index"))
        return self

    def endless(self) -> "BatchStream[T]":
        """Go on with the next epoch at the end of each. A state says which epoch it is of.

        Returns:
          The stream itself. It ends only if an epoch has no batch.

        Raises:
          ValueError: if the sequences are a generator.

        Example:
          >>> import jaxmask as jm
          >>> stream = jm.bucket_stream([[1], [2]], 1, boundaries=[1]).endless()
          >>> [next(stream)[0].item() for _ in range(5)]
          [1, 2, 1, 2, 1]
        """
        if isinstance(self._source, Replayed):
            self._source.check_starts_over("start over")
        self._endless = True
        return self

    def _begin(self, epoch: int) -> None:
        self._source.set_state(copy.deepcopy(self._beginning))
        self._reset(epoch)

    def get_state(self) -> State:
        """The position in the stream: numbers, strings and the state of the source.

        Returns:
          A dict that `set_state` takes; JSON holds it if it holds the state of the source.
        """
        return {**self._origin, "given": self._given, "options": self._options}

    def set_state(self, state: State) -> None:
        """Continue from a state, with exactly the batches that would have followed.

        Args:
          state: of a stream with the same options and source.

        Raises:
          ValueError: if it is not such a state, or has other options.
        """
        check_state(state, self.get_state(), ["options"], f"{self._where}: set_state")
        self._source.set_state(state["source"])
        self._reset(state["epoch"])
        self._index, self._given, self._is_empty = state["index"], state["given"], False
        self._reader.set_kind(state["kind"])
        self._origin = {key: value for key, value in state.items() if key in self._origin}
        if state["waiting"]:
            self._before = self._position(state["waiting"])
            read = self._read()[0]
            self._carried = [read[index] for index in state["waiting"]]

    def _advance(self) -> None:
        """Read and arrange the next buffer."""
        here = self._position([])
        self._origin = self._before if self._carried else here
        if self._buffer is not None:  # else a state was set, some batches into this buffer
            self._given = 0
        read, last = self._read()
        carried = len(self._carried)
        entries = self._carried + read
        rows = [row for _, _, row in entries]
        self._buffer = Buffer(
            rows=rows,
            lengths=self._reader.lengths(rows),
            records=[record for _, record, _ in entries],
            indices=np.array([index for index, _, _ in entries], np.int64),
            carried=carried,
            last=last,
            epoch=self._epoch,
        )
        self._batches, waiting = self._arrange(self._buffer)
        waiting = [index - carried for index in waiting]
        assert min(waiting, default=0) >= 0, "a record waits for one buffer at most"
        self._carried = [read[index] for index in waiting]
        self._before = {**here, "waiting": waiting}

    def _read(self) -> tuple[list[tuple[int, Any, Row]], bool]:
        """The records of one buffer, and whether they are the last."""
        read: list[tuple[int, Any, Row]] = []
        weight = 0
        while weight < self._size:
            record = noting(self._index, self._where, next, self._source, _END)
            if record is _END:
                return read, True
            row = noting(self._index, self._where, self._row_of, record)
            pieces = self._pieces_of(self._reader.read(row, self._index))
            read += [(self._index, record, piece) for piece in pieces]
            for piece in pieces:
                weight += self._weigh(piece)
            self._index += 1
        return read, False
