"""The results of two runs, entry by entry, and by how much they may differ.

Real entries are listed by row and then by step, so that the k-th real steps of a row are compared,
at whatever positions they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmask.leak._cotangents import groups_of
from jaxmask.leak._layouts import Layout
from jaxmask.leak._program import Result
from jaxmask.leak._proof.inputs import Inputs


@dataclass(frozen=True)
class Part:
    """The entries of one array that count.

    Attributes:
      what: "mask", "count", "value", "statistics", "gradient in x" or "gradient in params".
      where: the path of the array.
      values: the entries, or the whole array.
      index: `[entry, axis]`, the index of each entry; None: the array is whole.
      rows: `[entry]`, the row of the input that each belongs to; None: to all of them.
      mask_where: the path of the mask that selects the entries.
      dtype: of the array; that of `values` is wider.
      tolerance: by how much each of the values may differ between shapes; 0 if not measured.
    """

    what: str
    where: str
    values: np.ndarray
    index: np.ndarray | None = None
    rows: np.ndarray | None = None
    mask_where: str = ""
    dtype: Any = bool
    tolerance: Any = 0.0

    def array_index(self, entry: tuple[int, ...]) -> tuple[int, ...]:
        """The index into the array, of an index into `values`."""
        if self.index is None:
            return entry
        return (*(int(i) for i in self.index[entry[0]]), *entry[1:])

    @property
    def unsteady(self) -> int:
        """How many entries rounding moves too much for a comparison to mean anything."""
        if not self.values.size:
            return 0
        size, least = _size(self.values), 2 * UNITS * _units(self.dtype)[1]
        return int((self.tolerance > np.maximum(size, size.max() / 10) / 4 + least).sum())

    @property
    def has_nan(self) -> bool:
        return self.values.dtype.kind in "fc" and bool(np.isnan(self.values).any())

    def select(self, entries: np.ndarray) -> "Part":
        """The entries at some indices, in that order."""
        rows = None if self.rows is None else self.rows[entries]
        index = None if self.index is None else self.index[entries]
        tolerance = np.broadcast_to(self.tolerance, self.values.shape)[entries]
        values = self.values[entries]
        return replace(self, values=values, index=index, rows=rows, tolerance=tolerance)


def parts(result: Result, subject: Inputs, layout: Layout, by_row: frozenset[str]) -> list[Part]:
    """All results of a run; `by_row`: paths of unmasked arrays whose leading axis is the batch."""
    batch = len(layout.marks)
    found: list[Part] = []
    for slot, real in zip(result.slots, result.real, strict=True):
        array, dtype = wide(slot.array), slot.array.dtype
        if slot.what == "mask":
            rows = _rows(np.arange(array.shape[0]), array.shape[0], batch)
            found.append(Part("mask", slot.where, array, rows=rows))
            counts = (array > 0).reshape(groups_of(array.shape[0], batch), -1).sum(axis=1)
            found.append(Part("count", slot.where, counts, rows=np.arange(counts.size)))
        elif real is None:
            rows = None
            if slot.where in by_row:
                rows = _rows(np.arange(array.shape[0]), array.shape[0], batch)
            found.append(Part(slot.what, slot.where, array, rows=rows, dtype=dtype))
        else:
            part = _entries(slot.what, slot.where, array, real, batch)
            found.append(replace(part, mask_where=slot.mask_where, dtype=dtype))
    for gradient, name in zip(result.x, subject.x.names, strict=True):
        if gradient is not None:
            part = _entries("gradient in x", name, wide(gradient), layout.real, batch)
            found.append(replace(part, dtype=gradient.dtype))
    for gradient, name in zip(result.params, subject.params.names, strict=True):
        if gradient is not None:
            what, dtype = "gradient in params", gradient.dtype
            found.append(Part(what, name, wide(gradient), dtype=dtype))
    return found


def no_gradient(result: Result, subject: Inputs, layout: Layout) -> Iterator[tuple[Part, Part]]:
    """Expected and actual gradients in `x` at padding: they must be 0."""
    what, batch = "gradient in x at padding", len(layout.marks)
    for gradient, name in zip(result.x, subject.x.names, strict=True):
        if gradient is not None:
            part = _entries(what, name, wide(gradient), ~layout.real, batch)
            yield replace(part, values=np.zeros_like(part.values)), part


def emptiness(
    result: Result, subject: Inputs, layout: Layout, by_row: frozenset[str]
) -> Iterator[tuple[Part, Part]]:
    """Expected and actual results of emptied rows: pooled 0, masks False, all else finite."""
    batch = len(layout.marks)
    pooled_rows = batch * (subject.max_segments or 1)
    for slot, real in zip(result.slots, result.real, strict=True):
        array = wide(slot.array)
        inside = np.ones(array.shape, bool)
        if real is not None or slot.what == "mask" or slot.where in by_row:
            rows = _rows(np.arange(len(array)), len(array), batch)
            if rows is not None:
                emptied = np.isin(rows, layout.dropped)
                inside &= emptied.reshape(-1, *(1,) * (array.ndim - 1))
        pooled = real is not None and real.shape == (pooled_rows,)
        wrong = array != 0 if pooled or slot.what == "mask" else ~np.isfinite(array)
        part = Part(slot.what, slot.where, array)
        yield replace(part, values=np.where(inside & wrong, 0, array)), part


def wide(x: np.ndarray) -> np.ndarray:
    """Floats as float64, so that their differences are exact enough."""
    if x.dtype == np.bool_ or np.issubdtype(x.dtype, np.integer):
        return x
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _entries(what: str, where: str, array: np.ndarray, real: np.ndarray, batch: int) -> Part:
    index = np.argwhere(real)
    return Part(what, where, array[real], index, _rows(index[:, 0], real.shape[0], batch))


def _rows(leading: np.ndarray, size: int, batch: int) -> np.ndarray | None:
    """The row of the input, if each has one entry or, pooled by segment, several."""
    return leading // (size // batch) if size and groups_of(size, batch) == batch else None


# --------------------------------------------------------------------------- tolerance


SPREADS, UNITS = 4, 4


def with_tolerance(baseline: list[Part], samples: list[list[Part]]) -> list[Part]:
    """`baseline`, with the tolerance of each entry between shapes.

        tolerance = 4 * spread + 4 ε |entry|

    `spread` is how far the entry moves at most over the samples, in which each operation rounds at
    random (see `_barriers`), and ε that of its floating point type; integers may move as well.
    """
    allowed = []
    for i, part in enumerate(baseline):
        size = _size(part.values)
        epsilon, smallest = _units(part.dtype)
        if samples:
            spread = np.max([_moved(part, sample[i]) for sample in samples], axis=0)
        else:  # the program does not run with barriers
            spread = np.full(size.shape, epsilon ** (2 / 3) * np.max(size, initial=0.0))
        tolerance = SPREADS * spread + UNITS * (epsilon * size + smallest)
        allowed.append(replace(part, tolerance=tolerance))
    return allowed


def _units(dtype: np.dtype) -> tuple[float, float]:
    """ε of a type and its smallest positive value; 0 if it does not round."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return 0.0, 0.0
    info = jnp.finfo(dtype)
    return float(info.eps), float(info.smallest_subnormal)


def _size(values: np.ndarray) -> np.ndarray:
    return np.abs(np.where(np.isfinite(values), values, 0) * 1.0)


def _moved(part: Part, other: Part) -> np.ndarray:
    if part.values.shape != other.values.shape:  # a mask that depends on the values
        return np.zeros(part.values.shape)
    return distance(part.values, other.values)


# --------------------------------------------------------------------------- comparison


class Difference(NamedTuple):
    """The entry at which two parts differ most."""

    entry: tuple[int, ...]
    expected: complex
    got: complex
    distance: float


def difference(want: Part, got: Part, tolerance: np.ndarray | float) -> Difference | None:
    """The worst difference of two parts; axes without a mask may have grown by zeros."""
    grown = tuple(slice(n) for n in want.values.shape)
    worst = _worst(want, want.values, got.values[grown], tolerance)
    if worst is None and got.values.shape != want.values.shape:
        # No mask marks what was added as padding, so it has to be 0.
        added = got.values.copy()
        added[grown] = 0
        worst = _worst(got, np.zeros_like(added), added, 0.0)
    return worst


def _worst(
    part: Part, want: np.ndarray, got: np.ndarray, tolerance: np.ndarray | float
) -> Difference | None:
    distances = distance(want, got)
    bad = ~(distances <= tolerance)
    if not bad.any():
        return None
    worst = np.unravel_index(int(np.argmax(np.where(bad, distances, -1))), distances.shape)
    entry = tuple(int(i) for i in worst)
    expected, actual = (
        complex(x[entry]) if np.iscomplexobj(x) else float(x[entry]) for x in (want, got)
    )
    return Difference(part.array_index(entry), expected, actual, float(distances[entry]))


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The distance: 0 between nan and nan or equal infinities, inf if only one is nan."""
    same = a == b
    a, b = (x.astype(np.float64) if x.dtype.kind in "biu" else x for x in (a, b))
    with np.errstate(all="ignore"):
        gap = np.abs(a - b)
    same |= np.isnan(a) & np.isnan(b)
    return np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))
