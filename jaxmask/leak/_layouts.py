"""Layouts of the real steps: more padding, padding elsewhere, rows elsewhere, rows emptied."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

MOVES = ("left", "holes", "empty", "permute")


@dataclass(frozen=True)
class Layout:
    """The given real steps in another layout.

    Attributes:
      name: for the text; "" for the layout that was given.
      move: one of `MOVES`, or "", "append" or "segments".
      x: leaves; their padding is replaced before they are used.
      marks: boolean, or segment ids.
      order: which given row is at each batch index; None: rows are not moved.
      dropped: rows that are not compared; nor is anything that all rows contribute to.
      focus: the id of the only segment that is compared; 0: all are.
      emptied: whether the dropped rows have no real step.
      timed: whether arrays with a time axis and no mask are compared.
    """

    name: str
    move: str
    x: list[np.ndarray]
    marks: np.ndarray
    order: tuple[int, ...] | None = None
    dropped: tuple[int, ...] = ()
    focus: int = 0
    emptied: bool = False
    timed: bool = True

    @property
    def real(self) -> np.ndarray:
        """True at the steps that are compared."""
        return self.marks == self.focus if self.focus else self.marks > 0

    @property
    def keeps_positions(self) -> bool:
        """Whether real steps keep their positions within the row."""
        return self.move not in ("append", "left", "holes")

    @property
    def repeats(self) -> bool:
        """Whether no real step moves, so that results must agree bit for bit."""
        return self.move in ("", "segments")


def layouts(
    x: list[np.ndarray], marks: np.ndarray, max_segments: int | None, moves: tuple[str, ...]
) -> Iterator[Layout]:
    """The layouts to compare with the given one, which comes first."""
    given = Layout("", "", x, marks)
    yield given
    for segment in range(1, (max_segments or 0) + 1):
        if (marks == segment).any() and ((marks > 0) & (marks != segment)).any():
            name = f"every sequence but segment {segment} of each row replaced"
            yield Layout(name, "segments", x, marks, focus=segment)
    unit = "row" if marks.ndim == 1 else "step"
    # A few steps reveal strides and windows; twice the length reveals a use of the padded length.
    for extra in sorted({1, 2, 3, marks.shape[-1]}):
        name = f"{extra} {unit}{'s' * (extra > 1)} of padding appended"
        yield Layout(name, "append", *_spread(given, extra, _in_place))
    makers = {"left": _left, "holes": _holes, "empty": _empty, "permute": _permute}
    for move in moves:
        yield from makers[move](given)


def without_padding(given: Layout) -> Iterator[list[Layout]]:
    """Ways to be without padding: each row alone; in a batch of its copies; every step filled.

    A function may close over an array with the size of the batch, or of time.
    """
    x, marks, real = given.x, given.marks, given.real
    if real.ndim == 1:
        yield [replace(given, x=[leaf[real] for leaf in x], marks=marks[real])]
    else:
        alone = [
            replace(given, x=[leaf[k : k + 1, steps] for leaf in x], marks=marks[k : k + 1, steps])
            for k, steps in enumerate(real)
            if steps.any()
        ]
        yield alone
        first = np.zeros(len(marks), int)
        batches = [_rows_of(each, first) for each in alone]
        yield [replace(given, x=x, marks=marks) for x, marks in batches]
    yield [replace(given, marks=np.full_like(marks, 1))]


def _left(given: Layout) -> Iterator[Layout]:
    # At the given length and one more: a shift by 2 does not reveal a stride of 2.
    for extra in (0, 1):
        if extra or not given.real.all():
            name = f"padding moved to the left{_appended(extra)}"
            yield Layout(name, "left", *_spread(given, extra, _to_the_end), timed=False)


def _holes(given: Layout) -> Iterator[Layout]:
    positions = functools.partial(_with_hole, rng=np.random.default_rng(0))
    for extra in (0, 2, 3):
        if extra or not given.real.all():
            name = f"padding moved into holes{_appended(extra)}"
            yield Layout(name, "holes", *_spread(given, extra, positions), timed=False)


def _appended(extra: int) -> str:
    return f" and {extra} step{'s' * (extra > 1)} more of it" if extra else ""


def _empty(given: Layout) -> Iterator[Layout]:
    batch = len(given.marks)
    every = tuple(range(batch))
    for rows in (*_splits(batch), every):
        marks = given.marks.copy()
        marks[list(rows)] = 0
        name = "every row emptied" if rows == every else f"{_rows(rows)} emptied"
        yield Layout(name, "empty", given.x, marks, dropped=rows, emptied=True)


def _permute(given: Layout) -> Iterator[Layout]:
    batch = len(given.marks)
    if batch == 1:
        return
    backwards = np.arange(batch)[::-1]
    name, order = "rows in reverse order", tuple(backwards.tolist())
    yield Layout(name, "permute", *_rows_of(given, backwards), order=order)
    # Reversal does not reveal a mean over the batch: replace some rows by others.
    for dropped in _splits(batch):
        kept = np.setdiff1d(np.arange(batch), dropped)
        rows = np.arange(batch)
        rows[list(dropped)] = np.resize(kept, len(dropped))
        name = f"{_rows(dropped)} replaced by copies of the others"
        yield Layout(name, "permute", *_rows_of(given, rows), dropped=dropped)


def _splits(batch: int) -> Iterator[tuple[int, ...]]:
    """Sets of rows such that, of any two rows, each is in a set without the other."""
    for bit in range((batch - 1).bit_length()):
        for value in (0, 1):
            yield tuple(row for row in range(batch) if row >> bit & 1 == value)


def _rows(rows: tuple[int, ...]) -> str:
    shown = ", ".join(str(row) for row in rows[:4])
    return f"row{'s' * (len(rows) > 1)} {shown}{', ...' * (len(rows) > 4)}"


def _rows_of(given: Layout, rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    return [leaf[rows] for leaf in given.x], given.marks[rows]


# ------------------------------------------------------------- moving the real steps of a row

Positions: TypeAlias = Callable[[np.ndarray, int], np.ndarray]


def _spread(given: Layout, extra: int, positions: Positions) -> tuple[list[np.ndarray], np.ndarray]:
    """Move the real steps of each row to `positions(steps, time)`, in rows `extra` steps longer."""
    axis = given.marks.ndim - 1
    target = np.zeros(_longer(given.marks, axis, extra), bool)
    for row, real in zip(_as_rows(target), _as_rows(given.real), strict=True):
        row[positions(np.flatnonzero(real), row.size)] = True
    moved = []
    for array in (*given.x, given.marks):
        new = np.zeros(_longer(array, axis, extra), array.dtype)
        new[target] = array[given.real]  # both in order of rows, then of steps
        moved.append(new)
    return moved[:-1], moved[-1]


def _as_rows(marks: np.ndarray) -> np.ndarray:
    """A mask as rows of steps; a row mask becomes one row."""
    return marks if marks.ndim == 2 else marks[None]


def _longer(array: np.ndarray, axis: int, extra: int) -> tuple[int, ...]:
    return tuple(n + extra * (i == axis) for i, n in enumerate(array.shape))


def _in_place(steps: np.ndarray, time: int) -> np.ndarray:
    return steps


def _to_the_end(steps: np.ndarray, time: int) -> np.ndarray:
    return np.arange(time - steps.size, time)


def _with_hole(steps: np.ndarray, time: int, rng: np.random.Generator) -> np.ndarray:
    """Random ascending positions, with a hole between two real steps wherever one fits."""
    count, padding = steps.size, time - steps.size
    gaps = np.zeros(count + 1, int)
    if count > 1 and padding:
        gaps[rng.integers(1, count)] += 1
        padding -= 1
    gaps += rng.multinomial(padding, np.full(count + 1, 1 / (count + 1)))
    return np.arange(count) + np.cumsum(gaps[:count])
