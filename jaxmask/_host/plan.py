"""Which sequence goes into which row: best-fit decreasing, by remaining room."""

from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """Where each sequence goes.

    Attributes:
      rows: `[sequences]`, int64, the row of each; -1 for a sequence without a step, which needs no
        place.
      starts: `[sequences]`, int64, the step of the row where it begins.
      numbers: `[sequences]`, int64, 1, 2, ... in each row from left to right; 0 without a step.
      row_count: how many rows there are.

    Example:
      >>> best_fit_decreasing(np.array([2, 3, 1]), 4).row_count
      2
    """

    rows: np.ndarray
    starts: np.ndarray
    numbers: np.ndarray
    row_count: int


def best_fit_decreasing(
    lengths: np.ndarray, row_length: int, max_segments: int | None = None
) -> Plan:
    """Put the longest sequence first, each into the row that it leaves the least room in.

    Rows are kept by their remaining room, and a set of bits says which rooms there are, so that
    the tightest is found by a shift. All sequences of one length that go into rows of one room
    are placed at once: n sequences take O(n) steps of Python at most, and far fewer where many
    lengths are alike.

    Args:
      lengths: `[sequences]`, integer, in `0..row_length`.
      row_length: the steps of a row.
      max_segments: the most sequences of a row; None does not limit them.

    Returns:
      The `Plan`. It depends on nothing but its arguments.

    Example:
      >>> plan = best_fit_decreasing(np.array([2, 3, 1, 2]), 4)
      >>> plan.rows.tolist(), plan.starts.tolist()
      ([1, 0, 0, 1], [0, 0, 3, 2])
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[: np.count_nonzero(lengths)]
    sizes, counts = np.unique(lengths[order], return_counts=True)
    rooms = _Rooms(row_length, max_segments)
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        rooms.place(size, count)
    rows = np.full(len(lengths), -1)
    rows[order] = rooms.rows
    return _located(lengths, rows, order, rooms.count)


def _located(lengths: np.ndarray, rows: np.ndarray, order: np.ndarray, count: int) -> Plan:
    """Starts and numbers from the rows, in the order in which the rows were filled."""
    order = order[np.argsort(rows[order], kind="stable")]
    filled = rows[order]
    first = np.searchsorted(filled, filled)  # of the row, in this order
    before = np.cumsum(lengths[order]) - lengths[order]
    starts, numbers = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    starts[order] = before - before[first]
    numbers[order] = np.arange(len(order)) - first + 1
    return Plan(rows, starts, numbers, count)


class _Rooms:
    """Open rows by the room that they have left."""

    def __init__(self, row_length: int, max_segments: int | None):
        self.row_length = row_length
        self.max_segments = max_segments
        self.by_room: list[list[int]] = [[] for _ in range(row_length + 1)]
        self.bits = 0  # bit r: there is a row with room r
        self.held: list[int] = []  # sequences of each row, where they are limited
        self.count = 0
        self.rows: list[int] = []  # of each sequence, in the order in which they are placed

    def place(self, size: int, count: int) -> None:
        """Place `count` sequences of one size.

        A row that takes one and has room for another is the tightest again: so it takes as many
        as it can, and all rows of one room do alike.
        """
        while count:
            fitting = self.bits >> size
            if not fitting:
                return self._open(size, count)
            room = size + (fitting & -fitting).bit_length() - 1
            count -= self._fill(room, size, count)
        return None

    def _fill(self, room: int, size: int, count: int) -> int:
        """Fill the rows of one room, as far as needed; say how many sequences that took."""
        open_rows = self.by_room[room]
        each = min(room // size, count)
        if self.max_segments is None:
            some = min(count // each, len(open_rows))
        else:
            some, held = 1, self.held[open_rows[-1]]
            each = min(each, self.max_segments - held)
        chosen = open_rows[-some:]
        del open_rows[-some:]
        if not open_rows:
            self.bits ^= 1 << room
        self._put(chosen, each)
        self._keep(chosen, room - each * size)
        return each * some

    def _open(self, size: int, count: int) -> None:
        """Fill new rows, the last of them perhaps in part."""
        each = min(self.row_length // size, self.max_segments or self.row_length)
        for some, inside in ((count // each, each), (1, count % each)):
            if some and inside:
                chosen = list(range(self.count, self.count + some))
                self.count += some
                self.held += [0] * some
                self._put(chosen, inside)
                self._keep(chosen, self.row_length - inside * size)

    def _put(self, chosen: list[int], each: int) -> None:
        self.rows += chosen if each == 1 else [row for row in chosen for _ in range(each)]
        if self.max_segments is not None:
            for row in chosen:
                self.held[row] += each

    def _keep(self, chosen: list[int], room: int) -> None:
        """Keep rows open that have room left, and may take another sequence."""
        if self.max_segments is not None:
            chosen = [row for row in chosen if self.held[row] < self.max_segments]
        if room and chosen:
            self.by_room[room] += chosen
            self.bits |= 1 << room
