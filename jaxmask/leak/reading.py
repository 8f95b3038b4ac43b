"""What two runs have in common, entry by entry, and how far apart it may be.

Real entries are listed in order of rows, then of steps, so that the k-th real step of a row is
compared with the k-th, wherever the two lie.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from jaxmask.leak.cotangents import groups_of
from jaxmask.leak.layouts import Layout
from jaxmask.leak.program import Result
from jaxmask.leak.subject import Subject


@dataclass(frozen=True)
class Part:
    """The entries of one array that count.

    Attributes:
      what: "mask", "count", "value", "statistics", "gradient in x" or "gradient in params".
      where: the path of the array.
      values: one entry for each index, or the array whole.
      index: `[entry, axis]`, where each entry lies; None: the array is whole.
      rows: `[entry]`, the row of the input that each belongs to; None: to all of them.
      mask_where: the path of the mask that chose the entries.
    """

    what: str
    where: str
    values: np.ndarray
    index: np.ndarray | None = None
    rows: np.ndarray | None = None
    mask_where: str = ""

    def at(self, entry: tuple[int, ...]) -> tuple[int, ...]:
        """The index into the array of an index into `values`."""
        if self.index is None:
            return entry
        return (*(int(i) for i in self.index[entry[0]]), *entry[1:])

    def take(self, entries: np.ndarray) -> "Part":
        """Some of the entries, in some order."""
        rows = None if self.rows is None else self.rows[entries]
        index = None if self.index is None else self.index[entries]
        return replace(self, values=self.values[entries], index=index, rows=rows)


def parts(
    result: Result, subject: Subject, layout: Layout, shares_rows: frozenset[str]
) -> list[Part]:
    """All that a run gave; `shares_rows` names unmasked arrays that have a row for each row."""
    batch = len(layout.marks)
    found: list[Part] = []
    for slot, real in zip(result.slots, result.real, strict=True):
        array = wide(slot.array)
        if slot.what == "mask":
            rows = _rows(np.arange(array.shape[0]), array.shape[0], batch)
            found.append(Part("mask", slot.where, array, rows=rows))
            counts = (array > 0).reshape(groups_of(array.shape[0], batch), -1).sum(axis=1)
            found.append(Part("count", slot.where, counts, rows=np.arange(counts.size)))
        elif real is None:
            rows = None
            if slot.where in shares_rows:
                rows = _rows(np.arange(array.shape[0]), array.shape[0], batch)
            found.append(Part(slot.what, slot.where, array, rows=rows))
        else:
            part = _entries(slot.what, slot.where, array, real, batch)
            found.append(replace(part, mask_where=slot.mask_where))
    for gradient, name in zip(result.x, subject.x.names, strict=True):
        if gradient is not None:
            found.append(_entries("gradient in x", name, wide(gradient), layout.real, batch))
    for gradient, name in zip(result.params, subject.params.names, strict=True):
        if gradient is not None:
            found.append(Part("gradient in params", name, wide(gradient)))
    return found


def no_gradient(result: Result, subject: Subject, layout: Layout) -> Iterator[tuple[Part, Part]]:
    """Expect 0 for the gradients in `x` at steps that do not count."""
    what, batch = "gradient in x at padding", len(layout.marks)
    for gradient, name in zip(result.x, subject.x.names, strict=True):
        if gradient is not None:
            part = _entries(what, name, wide(gradient), ~layout.real, batch)
            yield replace(part, values=np.zeros_like(part.values)), part


def emptiness(
    result: Result, subject: Subject, layout: Layout, shares_rows: frozenset[str]
) -> Iterator[tuple[Part, Part]]:
    """Expect pooled rows that were emptied to be 0, masks False, and all else to be finite."""
    batch = len(layout.marks)
    pooled_rows = batch * (subject.max_segments or 1)
    for slot, real in zip(result.slots, result.real, strict=True):
        array = wide(slot.array)
        inside = np.ones(array.shape, bool)
        if real is not None or slot.what == "mask" or slot.where in shares_rows:
            rows = _rows(np.arange(len(array)), len(array), batch)
            if rows is not None:
                emptied = np.isin(rows, layout.dropped)
                inside &= emptied.reshape(-1, *(1,) * (array.ndim - 1))
        pooled = real is not None and real.shape == (pooled_rows,)
        wrong = array != 0 if pooled or slot.what == "mask" else ~np.isfinite(array)
        part = Part(slot.what, slot.where, array)
        yield replace(part, values=np.where(inside & wrong, 0, array)), part


def wide(x: np.ndarray) -> np.ndarray:
    """Floats as float64, so that differences are exact enough; the rest as it is."""
    if x.dtype == np.bool_ or np.issubdtype(x.dtype, np.integer):
        return x
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _entries(what: str, where: str, array: np.ndarray, real: np.ndarray, batch: int) -> Part:
    index = np.argwhere(real)
    return Part(what, where, array[real], index, _rows(index[:, 0], real.shape[0], batch))


def _rows(leading: np.ndarray, size: int, batch: int) -> np.ndarray | None:
    """The row of the input, where a row has one entry or, pooled by segment, several."""
    return leading // (size // batch) if size and groups_of(size, batch) == batch else None


# --------------------------------------------------------------------------- tolerance


class Rounding:
    """How far apart the results of two programs, or of two orders of steps, may be.

        tolerance = ε^(2/3) * (largest value of the row) + 32 * shake + 16 ε * (largest value)

    ε belongs to the coarsest floating point type in the function: 2.4e-5 of a row in float32, 4%
    in bfloat16. `shake` is how far the result moves when each input, parameter and cotangent is
    off by one ε, for what is the small difference of large numbers. Where that crosses a jump it
    is no rounding, so it is kept below ε^(2/3) of the largest result or input.
    """

    def __init__(
        self, epsilon: float, calm: list[Part], shaken: list[list[Part]], x: list[np.ndarray]
    ):
        self._epsilon = epsilon
        inputs = max(_largest(wide(leaf)) for leaf in x)
        self._shake = []
        for i, part in enumerate(calm):
            moved = max(_moved(part, other[i]) for other in shaken)
            most = epsilon ** (2 / 3) * max(1.0, inputs, _largest(part.values))
            self._shake.append(min(moved, most))

    def of(self, i: int, part: Part) -> np.ndarray | float:
        """The tolerance of each entry of the i-th part."""
        if not np.issubdtype(part.values.dtype, np.inexact):
            return 0.0
        everywhere = 32 * self._shake[i] + 16 * self._epsilon * _largest(part.values)
        return self._epsilon ** (2 / 3) * _row_scale(part) + everywhere


def _moved(part: Part, other: Part) -> float:
    if part.values.shape != other.values.shape:  # a mask that depends on the values
        return 0.0
    return _largest(distance(part.values, other.values))


def _largest(values: np.ndarray) -> float:
    if not np.issubdtype(values.dtype, np.inexact):
        return 0.0
    return float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))


def _row_scale(part: Part) -> np.ndarray | float:
    values = part.values
    if part.rows is None or not values.size:
        return _largest(values)
    finite = np.where(np.isfinite(values), np.abs(values), 0.0)
    largest = np.zeros(int(part.rows.max()) + 1)
    np.maximum.at(largest, part.rows, finite.reshape(len(values), -1).max(axis=1))
    return largest[part.rows].reshape(-1, *(1,) * (values.ndim - 1))


# --------------------------------------------------------------------------- comparison


class Difference(NamedTuple):
    """The worst entry of two that should agree: where, what was expected, and what came."""

    place: tuple[int, ...]
    expected: complex
    got: complex
    distance: float


def differ(want: Part, got: Part, tolerance: np.ndarray | float) -> Difference | None:
    """Compare two parts of the same entries; their feature axes may have grown by zeros."""
    grown = tuple(slice(n) for n in want.values.shape)
    worst = _worst(want, want.values, got.values[grown], tolerance)
    if worst is None and got.values.shape != want.values.shape:
        # No mask speaks for what was added, so it must not count: it has to be 0.
        added = got.values.copy()
        added[grown] = 0
        worst = _worst(got, np.zeros_like(added), added, 0.0)
    return worst


def _worst(
    part: Part, want: np.ndarray, got: np.ndarray, tolerance: np.ndarray | float
) -> Difference | None:
    apart = distance(want, got)
    bad = ~(apart <= tolerance)
    if not bad.any():
        return None
    entry = np.unravel_index(int(np.argmax(np.where(bad, apart, -1))), apart.shape)
    where = tuple(int(i) for i in entry)
    return Difference(
        part.at(where), _number(want[where]), _number(got[where]), float(apart[where])
    )


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far apart; 0 where both are nan, or the same infinity, and inf where only one is."""
    same = a == b
    a, b = (x.astype(np.float64) if x.dtype.kind in "biu" else x for x in (a, b))
    with np.errstate(all="ignore"):
        apart = np.abs(a - b)
    same |= np.isnan(a) & np.isnan(b)
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def _number(value: np.generic) -> complex:
    return complex(value) if np.iscomplexobj(value) else float(value)
