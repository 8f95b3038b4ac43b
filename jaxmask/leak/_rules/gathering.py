"""Gathers, element by element. An unknown index may be anywhere, along its own axis only."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxmask.leak._numpy import along, fill_value
from jaxmask.leak._proof.domain import NONE, Shape, Value
from jaxmask.leak._proof.interpret import Step, rule_for

Mode = jax.lax.GatherScatterMode


@dataclass
class Places:
    """Which elements of an operand the elements of a window array are.

    Attributes:
      index: for each axis of the operand, an index in the shape of the windows; it is the size of
        the axis where it is unknown.
      inside: whether the whole window lies in the operand; None where that is unknown too.
      certain: whether every index is known.
    """

    index: list[np.ndarray]
    inside: np.ndarray
    certain: np.ndarray


@dataclass(frozen=True)
class Windows:
    """How windows of an operand are laid out in another array, for gathers and scatters.

    Attributes:
      operand: the shape of the operand.
      shape: that of the windows.
      batch_axes: the axes of `shape` that number the windows; the others are within a window.
      within: for each axis of the operand, its axis in `shape`, or None.
      starts: the axes of the operand that the indices speak of.
      pairs: axes of the operand and of the indices that run in step.
      sizes: of a window, along each axis of the operand.
    """

    operand: Shape
    shape: Shape
    batch_axes: tuple[int, ...]
    within: tuple[int | None, ...]
    starts: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(
        cls, operand: Shape, shape: Shape, inner: Shape, absent: Shape, starts: Shape, pairs: Any
    ) -> "Windows":
        """By the axes that JAX names: those within a window, and those that it does not have."""
        removed = (*absent, *pairs[0])
        kept = [axis for axis in range(len(operand)) if axis not in removed]
        within = dict(zip(kept, inner, strict=True))
        return cls(
            operand,
            shape,
            tuple(k for k in range(len(shape)) if k not in inner),
            tuple(within.get(axis) for axis in range(len(operand))),
            tuple(starts),
            tuple(zip(*pairs, strict=True)),
            tuple(shape[within[k]] if k in within else 1 for k in range(len(operand))),
        )

    def places(self, indices: Value, *, clip: bool) -> Places:
        """Where the windows lie."""
        rank = len(self.shape)
        inside = certain = np.broadcast_to(True, self.shape)
        index: list[np.ndarray] = []
        for axis, size in enumerate(self.operand):
            at: Any = np.zeros((1,) * rank, np.int64)
            inner = self.within[axis]
            if inner is not None:
                at = _line(self.shape[inner], inner, rank)
            if axis in self.starts:
                k, room = self.starts.index(axis), size - self.sizes[axis]
                known = self.spread(indices.where_known[..., k])
                start = (
                    np.broadcast_to(0, indices.shape) if indices.value is None else indices.value
                )
                start = self.spread(start[..., k].astype(np.int64))
                if clip:
                    start = np.clip(start, 0, room)
                else:
                    inside = inside & (~known | ((start >= 0) & (start <= room)))
                if clip and not room:
                    known = np.broadcast_to(True, known.shape)
                at = np.where(known, np.clip(start + at, 0, max(size - 1, 0)), size)
                certain = certain & known
            index.append(np.broadcast_to(at, self.shape))
        for axis, other in self.pairs:
            of_indices = list(range(len(indices.shape) - 1))
            place = self.batch_axes[of_indices.index(other)]
            at = _line(self.shape[place], place, rank)
            index[axis] = np.broadcast_to(at, self.shape)
        return Places(index, np.broadcast_to(inside, self.shape), certain)

    def spread(self, per_window: np.ndarray) -> np.ndarray:
        """An array with an element for each window, in the rank of `shape`."""
        return along(per_window, self.batch_axes, len(self.shape))

    def index_taint(self, step: Step, indices: Value) -> np.ndarray | None:
        """The taint of all indices of each window."""
        taint = step.over(indices.taint, (len(indices.shape) - 1,))
        return None if taint is None else np.broadcast_to(self.spread(taint), self.shape)


def _line(size: int, axis: int, rank: int) -> np.ndarray:
    return along(np.arange(size), [axis], rank)


@rule_for("gather")
def gather(step: Step) -> list[Value]:
    """Windows of an operand, at places that the indices say."""
    x, indices = step.ins
    numbers, mode = step.params["dimension_numbers"], Mode.from_any(step.params["mode"])
    pairs = numbers.operand_batching_dims, numbers.start_indices_batching_dims
    windows = Windows.of(
        *(x.shape, step.shape, numbers.offset_dims, numbers.collapsed_slice_dims),
        *(numbers.start_index_map, pairs),
    )
    places = windows.places(indices, clip=mode != Mode.FILL_OR_DROP)
    unknown = () if places.certain.all() else windows.starts
    taint = _taken(step, x, places, unknown)
    by_index = windows.index_taint(step, indices)
    if by_index is not None:
        by_index = np.where(places.certain, NONE, by_index)
        taint = by_index if taint is None else taint | by_index
    if taint is not None:
        taint = np.where(places.inside, taint, NONE)
    return [_filled(step, x, places, taint)]


def _taken(step: Step, x: Value, places: Places, unknown: tuple[int, ...]) -> np.ndarray | None:
    """The taint at some places; one more element along an axis is the union over it."""
    taint = x.taint
    if taint is None:
        return None
    for axis in unknown:
        if not taint.shape[axis]:
            return np.zeros(places.inside.shape, taint.dtype)
        bits = step.over(taint, (axis,))
        assert bits is not None
        taint = np.concatenate([taint, np.expand_dims(bits, axis)], axis)
    if not x.size:
        return np.zeros(places.inside.shape, taint.dtype)
    return np.asarray(taint[tuple(places.index)]) if x.shape else np.broadcast_to(taint, step.shape)


def _filled(step: Step, x: Value, places: Places, taint: np.ndarray | None) -> Value:
    """What is known: elements at known places, and the fill outside."""
    certain, outside = places.certain, ~places.inside & places.certain
    if x.value is None and not outside.any():
        return Value(step.shape, taint=taint)
    value, known = np.zeros(step.shape, step.dtype), np.zeros(step.shape, bool)
    if x.value is not None and x.size and x.shape:
        index = tuple(
            np.minimum(at, size - 1) for at, size in zip(places.index, x.shape, strict=True)
        )
        value = np.asarray(np.broadcast_to(x.value, x.shape)[index])
        known = np.asarray(x.where_known[index]) & certain
    if outside.any():
        fill = step.params.get("fill_value")
        fill = fill_value(np.dtype(step.dtype)) if fill is None else np.asarray(fill)
        value = np.where(outside, fill.astype(step.dtype), value)
        known = (known & ~outside) | outside
    return Value(step.shape, value, known, taint)
