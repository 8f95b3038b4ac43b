"""Assign sequences to rows: best-fit decreasing, by the free steps of each row."""

from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """Where each sequence goes.

    Attributes:
      rows: `[sequences]`, int64; -1 for a sequence without a step, which is in no row.
      starts: `[sequences]`, int64, its first step in the row; of several lengths
        `[sequences, lengths]`.
      segments: `[sequences]`, int64, 1, 2, ... in each row from left to right; 0 without a step.
      row_count: the number of rows.
    """

    rows: np.ndarray
    starts: np.ndarray
    segments: np.ndarray
    row_count: int


def best_fit_decreasing(
    lengths: np.ndarray, row_length: int, max_segments: int | None = None
) -> Plan:
    """Assign the longest sequence first, each to the fitting row with the fewest free steps.

    Rows are kept by their free steps, and the bits of an integer say which counts occur, so a
    shift finds the tightest row. All sequences of one length that go into rows with equally many
    free steps are assigned at once: n sequences take at most O(n) steps of Python, and far fewer
    where many lengths are equal.
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[: np.count_nonzero(lengths)]
    sizes, counts = np.unique(lengths[order], return_counts=True)
    open_rows = _OpenRows(row_length, max_segments)
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        open_rows.assign(size, count)
    rows = np.full(len(lengths), -1)
    rows[order] = open_rows.assigned
    return _located(lengths, rows, order, open_rows.count)


def _located(lengths: np.ndarray, rows: np.ndarray, order: np.ndarray, row_count: int) -> Plan:
    """Starts and segments from the rows, which were filled in `order`."""
    order = order[np.argsort(rows[order], kind="stable")]
    filled = rows[order]
    first = np.searchsorted(filled, filled)  # of the row, in this order
    before = np.cumsum(lengths[order]) - lengths[order]
    starts, segments = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    starts[order] = before - before[first]
    segments[order] = np.arange(len(order)) - first + 1
    return Plan(rows, starts, segments, row_count)


def best_fit_of_several(
    lengths: np.ndarray, row_lengths: np.ndarray, max_segments: int | None = None
) -> Plan:
    """`best_fit_decreasing` of records of several lengths, `[records, lengths]`.

    The largest record first, by the greatest fraction of a row that one of its lengths takes; each
    into the row that has room for all of its lengths, and has the least room left in all together.
    """
    if lengths.shape[1] == 1:
        plan = best_fit_decreasing(lengths[:, 0], int(row_lengths[0]), max_segments)
        return plan._replace(starts=plan.starts[:, None])
    count = len(lengths)
    order = np.argsort(-np.max(lengths / row_lengths, axis=1), kind="stable")
    order = order[: np.count_nonzero(lengths.any(1))]
    free = np.broadcast_to(row_lengths, (count, len(row_lengths))).copy()
    room = np.sum(free / row_lengths, axis=1)
    held = np.zeros(count, np.int64)
    most = count if max_segments is None else max_segments
    rows = np.full(count, -1)
    starts, segments = np.zeros_like(lengths), np.zeros(count, np.int64)
    opened = 0
    for record in order.tolist():
        size = lengths[record]
        fits = (free[:opened] >= size).all(1) & (held[:opened] < most)
        row = int(np.argmin(np.where(fits, room[:opened], np.inf))) if fits.any() else opened
        opened = max(opened, row + 1)
        rows[record], starts[record] = row, row_lengths - free[row]
        free[row] -= size
        room[row] -= np.sum(size / row_lengths)
        held[row] += 1
        segments[record] = held[row]
    return Plan(rows, starts, segments, opened)


class _OpenRows:
    """Rows that may take another sequence, by their free steps."""

    def __init__(self, row_length: int, max_segments: int | None):
        self.row_length = row_length
        self.max_segments = max_segments
        self.by_free: list[list[int]] = [[] for _ in range(row_length + 1)]
        self.bits = 0  # bit f: there is a row with f free steps
        self.held: list[int] = []  # sequences of each row, where they are limited
        self.count = 0
        self.assigned: list[int] = []  # the row of each sequence, in the order of assignment

    def assign(self, size: int, count: int) -> None:
        """Assign `count` sequences of one size.

        A row that takes one and fits another is the tightest again: so it takes as many as it
        can, and so do all rows with equally many free steps.
        """
        while count:
            fitting = self.bits >> size
            if not fitting:
                return self._open(size, count)
            free = size + (fitting & -fitting).bit_length() - 1
            count -= self._fill(free, size, count)
        return None

    def _fill(self, free: int, size: int, count: int) -> int:
        """Fill rows with `free` free steps as far as needed; return how many sequences fitted."""
        rows = self.by_free[free]
        each = min(free // size, count)
        if self.max_segments is None:
            row_count = min(count // each, len(rows))
        else:
            row_count, held = 1, self.held[rows[-1]]
            each = min(each, self.max_segments - held)
        chosen = rows[-row_count:]
        del rows[-row_count:]
        if not rows:
            self.bits ^= 1 << free
        self._append(chosen, each, free - each * size)
        return each * row_count

    def _open(self, size: int, count: int) -> None:
        """Fill new rows, the last of them perhaps in part."""
        most = min(self.row_length // size, self.max_segments or self.row_length)
        for row_count, each in ((count // most, most), (1, count % most)):
            if row_count and each:
                chosen = list(range(self.count, self.count + row_count))
                self.count += row_count
                self.held += [0] * row_count
                self._append(chosen, each, self.row_length - each * size)

    def _append(self, chosen: list[int], each: int, free: int) -> None:
        """Assign `each` sequences to every chosen row, and keep those open that fit another."""
        self.assigned += chosen if each == 1 else [row for row in chosen for _ in range(each)]
        if self.max_segments is not None:
            for row in chosen:
                self.held[row] += each
            chosen = [row for row in chosen if self.held[row] < self.max_segments]
        if free and chosen:
            self.by_free[free] += chosen
            self.bits |= 1 << free
