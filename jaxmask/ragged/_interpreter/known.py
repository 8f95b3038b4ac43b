"""Index arrays that are affine in their indices: `offset + stride * k`.

Under symbolic lengths JAX writes `x[1:]`, `x[::2]` and `x[::-1]` as gathers of computed indices.
Where those are known to be regular, the rule of `gather` slices instead: the gradient of a slice is
a pad and not a scatter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmask.ragged._interpreter import dims


@dataclass(frozen=True)
class Known:
    """An integer array: `offset + sum_k strides[k] * index[k]`.

    `offset` is an int or a symbolic size; `strides` has an entry for each axis.
    """

    offset: Any
    strides: tuple[Any, ...] = ()

    @staticmethod
    def of_literal(value: Any) -> "Known | None":
        """An integer scalar; None for any other literal."""
        if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iu":
            return Known(int(value))
        return None

    def broadcast(self, rank: int, axes: Sequence[int], sizes: Sequence[Any]) -> "Known":
        """The same with more axes, where an axis of size 1 has stride 0."""
        strides: list[Any] = [0] * rank
        for axis, stride, size in zip(axes, self.strides, sizes, strict=True):
            strides[axis] = stride if dims.is_symbolic(size) or size != 1 else 0
        return Known(self.offset, tuple(strides))


def add(a: Known | None, b: Known | None, sign: int = 1) -> Known | None:
    """`a + sign * b`."""
    if a is None or b is None:
        return None
    rank = max(len(a.strides), len(b.strides))
    left, right = (k.strides or (0,) * rank for k in (a, b))
    strides = tuple(x + sign * y for x, y in zip(left, right, strict=True))
    return Known(a.offset + sign * b.offset, strides)


def multiply(a: Known | None, b: Known | None) -> Known | None:
    """The product, if one of them is an integer that is the same everywhere."""
    if a is None or b is None:
        return None
    if any(a.strides):
        a, b = b, a
    if any(a.strides) or dims.is_symbolic(a.offset):
        return None
    strides = b.strides or (0,) * len(a.strides)
    return Known(a.offset * b.offset, tuple(a.offset * stride for stride in strides))


def is_negative(a: Known) -> bool | None:
    """Whether all entries are negative; None if that depends on lengths or indices."""
    if any(stride < 0 for stride in a.strides):
        return None
    below = decide(lambda: a.offset < 0)
    return below if not any(a.strides) or below is False else None


def decide(comparison: Any) -> bool | None:
    """A comparison of sizes, or None if it holds for some lengths only."""
    try:
        return bool(comparison())
    except Exception as error:
        if type(error).__name__ == "InconclusiveDimensionOperation":
            return None
        raise
