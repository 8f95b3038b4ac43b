"""Batches of a stream that is too long to hold: window by window, and exactly resumable.

A window of records is read and arranged into batches. What does not fill a batch waits for the
next window, where it goes first, so no record waits longer. The state is a few numbers: to resume,
the source is set back by at most two windows, which are read and arranged anew.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from jax.typing import DTypeLike

from jaxmask._host.flatten import read_row

T = TypeVar("T")
State: TypeAlias = dict[str, Any]
_END = object()


def check_state(state: Any, like: State, fixed: Iterable[str], where: str) -> None:
    """A state must be like those of the iterator that goes on from it.

    Args:
      state: what `get_state()` of another iterator returned.
      like: what `get_state()` of this one returns.
      fixed: the entries that no iterator over the same batches changes.
      where: the function that asks, for error texts.

    Raises:
      ValueError: if it is no such dict, or one of those entries differs.

    Example:
      >>> check_state({"given": 1, "size": 9}, {"given": 0, "size": 9}, ["size"], "example")
    """
    if not isinstance(state, Mapping) or not like.keys() <= state.keys():
        has = sorted(state) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(
            f"{where}: `state` must be what `get_state()` returned, a dict with {sorted(like)}, "
            f"got {has}."
        )
    theirs, ours = ({name: given[name] for name in fixed} for given in (state, like))
    if theirs != ours:
        raise ValueError(
            f"{where}: the state is of other batches, {theirs}, and these are {ours}. Give the "
            "same sequences and options, or begin anew."
        )


class Source(Protocol):
    """What records are read from: an iterator whose position can be taken and set.

    Example:
      >>> source: Source = Replayed([7, 8], "example")
      >>> next(source), source.get_state()
      (7, {'read': 1})
    """

    def __next__(self) -> Any:
        """The next record."""

    def get_state(self) -> Any:
        """The position, before the next record."""

    def set_state(self, state: Any) -> None:
        """Go to a position."""


class Replayed:
    """An iterable as a `Source`: to go to a record, it is read again from its beginning.

    Args:
      records: an iterable that starts over each time, or a function that returns an iterator.
        A generator can be read, but not resumed.
      where: the function that asks, for error texts.

    Example:
      >>> source = Replayed([7, 8, 9], "example")
      >>> next(source), source.get_state()
      (7, {'read': 1})
      >>> source.set_state({"read": 2})
      >>> next(source)
      9
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
        """The next record."""
        record = next(self._iterator)
        self._read += 1
        return record

    def get_state(self) -> State:
        """How many records have been read."""
        return {"read": self._read}

    def set_state(self, state: State) -> None:
        """Read on after so many records."""
        if self._iterator is self._records and state["read"] != self._read:
            raise ValueError(
                f"{self._where}: a generator cannot be read again, so it cannot be resumed. Pass "
                "the function that makes it, or an iterable that starts over."
            )
        if self._iterator is not self._records:
            self._iterator, self._read = self._start(), 0
            for read in range(state["read"]):
                if next(self, _END) is _END:
                    raise ValueError(
                        f"{self._where}: the state was taken after {state['read']} records, and "
                        f"now there are only {read}. Give the same sequences, or begin anew."
                    )


def noting(index: int, where: str, read: Callable[..., T], *arguments: Any) -> T:
    """`read(*arguments)`; an error that it raises learns which record it was.

    Example:
      >>> try:
      ...     noting(7, "example", int, "x")
      ... except ValueError as error:
      ...     error.__notes__
      ['example: raised while reading record 7.']
    """
    try:
        return read(*arguments)
    except Exception as error:
        error.add_note(f"{where}: raised while reading record {index}.")
        raise


class Window(NamedTuple):
    """Records to arrange into batches.

    Attributes:
      rows: the sequence of each record, `[n, feature...]`, all of one type.
      records: the records as they came.
      indices: `[records]`, int64, the index of each record in the stream.
      carried: how many of them, the first ones, have waited for this window; they must not wait
        for another.
      last: no record follows.

    Example:
      >>> Window([np.ones(2)], [[1, 1]], np.array([0]), 0, True).lengths.tolist()
      [2]
    """

    rows: list[np.ndarray]
    records: list[Any]
    indices: np.ndarray
    carried: int
    last: bool

    @property
    def lengths(self) -> np.ndarray:
        """`[records]`, int64, in steps."""
        return np.fromiter(map(len, self.rows), np.int64, len(self.rows))


class Arranged(NamedTuple):
    """What a window gives.

    Attributes:
      batches: what each batch is made of.
      waiting: which records of the window wait for the next one, by their place in it.

    Example:
      >>> Arranged([[0, 1]], [2]).waiting
      [2]
    """

    batches: Sequence[Any]
    waiting: Sequence[int]


class Windowed(Iterator[T], Generic[T]):
    """An iterator of batches, window by window, with a state that can be saved and set.

    Args:
      source: of the records.
      size: of a window, as `weigh` counts.
      weigh: what one sequence adds to the size.
      arrange: gives the batches of a window.
      make: gives a batch of what it is made of.
      row_of: the sequence of a record.
      pieces_of: cuts a sequence into those that count as one each.
      dtype: of all sequences; None takes that of the first.
      options: what decides which batches there are, as `json` writes it; a part of the state.
      where: the function that asks, for error texts.

    Example:
      >>> pairs = Windowed(
      ...     Replayed([[1], [2], [3]], "example"),
      ...     2,
      ...     weigh=lambda row: 1,
      ...     arrange=lambda window: Arranged([range(len(window.rows))], []),
      ...     make=lambda window, batch: [window.rows[k].tolist() for k in batch],
      ...     where="example",
      ... )
      >>> next(pairs), next(pairs)
      ([[1], [2]], [[3]])
    """

    def __init__(
        self,
        source: Source,
        size: int,
        *,
        weigh: Callable[[np.ndarray], int],
        arrange: Callable[[Window], Arranged],
        make: Callable[[Window, Any], T],
        row_of: Callable[[Any], Any] = lambda record: record,
        pieces_of: Callable[[np.ndarray], list[np.ndarray]] = lambda row: [row],
        dtype: DTypeLike | None = None,
        options: Mapping[str, Any] | None = None,
        where: str,
    ):
        self._options = dict(options or {})
        self._source, self._size, self._weigh = source, size, weigh
        self._arrange, self._make = arrange, make
        self._row_of, self._pieces_of = row_of, pieces_of
        self._dtype, self._where = None if dtype is None else np.dtype(dtype), where
        self._reset()
        self._origin = self._before = self._position([])

    def _reset(self) -> None:
        self._index = 0
        self._like: np.ndarray | None = None
        self._carried: list[tuple[int, Any, np.ndarray]] = []
        self._window: Window | None = None
        self._batches: Sequence[Any] = ()
        self._given = 0
        self._failed: BaseException | None = None

    def _position(self, waiting: Sequence[int]) -> State:
        """What to remember before a window is read, of which some records will wait."""
        like = self._like
        kind = None if like is None else [like.dtype.name, *like.shape[1:]]
        source = copy.deepcopy(self._source.get_state())  # some give the state itself
        return {"source": source, "index": self._index, "waiting": list(waiting), "kind": kind}

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
            if self._window is not None and self._window.last:
                raise StopIteration
            self._advance()
        assert self._window is not None
        batch = self._make(self._window, self._batches[self._given])
        self._given += 1
        return batch

    def get_state(self) -> State:
        """Where the iterator is: numbers, strings and the state of the source.

        Returns:
          A dict that `set_state` takes; `json` writes it if it writes that of the source.
        """
        return {**self._origin, "given": self._given, "options": self._options}

    def set_state(self, state: State) -> None:
        """Go on from a state, with exactly the batches that would have followed.

        Args:
          state: of an iterator with the same options and source.

        Raises:
          ValueError: if it is no such state, or of other options.
        """
        check_state(state, self.get_state(), ["options"], f"{self._where}: set_state")
        self._reset()
        self._source.set_state(state["source"])
        self._index, self._given = state["index"], state["given"]
        if state["kind"] is not None:
            name, *features = state["kind"]
            self._like = np.zeros((0, *features), np.dtype(name))
        self._origin = {key: value for key, value in state.items() if key in self._origin}
        if state["waiting"]:
            self._before = self._position(state["waiting"])
            read = self._read()[0]
            self._carried = [read[place] for place in state["waiting"]]

    def _advance(self) -> None:
        """Read and arrange the next window."""
        here = self._position([])
        self._origin = self._before if self._carried else here
        if self._window is not None:  # else a state was set, some batches into this window
            self._given = 0
        read, last = self._read()
        carried = len(self._carried)
        entries = self._carried + read
        self._window = Window(
            rows=[row for _, _, row in entries],
            records=[record for _, record, _ in entries],
            indices=np.array([index for index, _, _ in entries], np.int64),
            carried=carried,
            last=last,
        )
        arranged = self._arrange(self._window)
        self._batches = arranged.batches
        waiting = [place - carried for place in arranged.waiting]
        assert min(waiting, default=0) >= 0, "a record waits for one window at most"
        self._carried = [read[place] for place in waiting]
        self._before = {**here, "waiting": waiting}

    def _read(self) -> tuple[list[tuple[int, Any, np.ndarray]], bool]:
        """The records of one window, and whether they are the last."""
        read: list[tuple[int, Any, np.ndarray]] = []
        weight = 0
        while weight < self._size:
            record = noting(self._index, self._where, next, self._source, _END)
            if record is _END:
                return read, True
            row = noting(self._index, self._where, self._row_of, record)
            row = read_row(row, self._index, self._like, self._dtype, self._where)
            if self._like is None and len(row):
                self._like = row[:0]
            pieces = self._pieces_of(row)
            read += [(self._index, record, piece) for piece in pieces]
            weight += sum(map(self._weigh, pieces))
            self._index += 1
        return read, False
