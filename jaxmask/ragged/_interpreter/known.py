"""Index arrays that are expressions of lengths: `start + stride * k`, or one number.

Under symbolic lengths JAX writes `x[1:]`, `x[::2]` and `x[::-1]` as gathers of computed indices.
The rules of gathers read here that the indices are constants or regular, and take slices instead,
whose gradient is a pad and not a scatter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmask.ragged._interpreter import dims


@dataclass(frozen=True)
class Known:
    """An integer array: `offset + sum_k stride[k] * index[k]`.

    Attributes:
      offset: an int or a symbolic size.
      strides: an int for each axis.

    Example:
      >>> Known.of_literal(np.int32(3)).offset
      3
    """

    offset: Any
    strides: tuple[Any, ...] = ()

    @staticmethod
    def of_literal(value: Any) -> "Known | None":
        """What a literal says."""
        if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iu":
            return Known(int(value))
        return None

    def broadcast(self, rank: int, axes: Sequence[int], sizes: Sequence[Any]) -> "Known":
        """The same with more axes; an axis of size 1 has no stride."""
        strides: list[Any] = [0] * rank
        for axis, stride, size in zip(axes, self.strides, sizes, strict=True):
            strides[axis] = 0 if _is(size, 1) else stride
        return Known(self.offset, tuple(strides))


def _is(size: Any, number: int) -> bool:
    return not dims.is_symbolic(size) and int(size) == number


def add(a: Known | None, b: Known | None, sign: int = 1) -> Known | None:
    """The sum, or the difference.

    Example:
      >>> add(Known(1, (2,)), Known(3), -1)
      Known(offset=-2, strides=(2,))
    """
    if a is None or b is None:
        return None
    rank = max(len(a.strides), len(b.strides))
    left, right = (k.strides or (0,) * rank for k in (a, b))
    strides = tuple(x + sign * y for x, y in zip(left, right, strict=True))
    return Known(a.offset + sign * b.offset, strides)


def multiply(a: Known | None, b: Known | None) -> Known | None:
    """The product, where one of them is one number.

    Example:
      >>> multiply(Known(2), Known(1, (1,)))
      Known(offset=2, strides=(2,))
    """
    if a is None or b is None:
        return None
    if any(a.strides):
        a, b = b, a
    if any(a.strides) or dims.is_symbolic(a.offset):
        return None
    strides = b.strides or (0,) * len(a.strides)
    return Known(a.offset * b.offset, tuple(a.offset * stride for stride in strides))


def is_negative(a: Known) -> bool | None:
    """Whether all numbers are below 0; None where that cannot be told.

    Example:
      >>> is_negative(Known(-1))
      True
    """
    if any(stride < 0 for stride in a.strides):
        return None
    below = decide(lambda: a.offset < 0)
    return below if not any(a.strides) or below is False else None


def decide(comparison: Any) -> bool | None:
    """A comparison of sizes, or None where lengths do not decide it.

    Example:
      >>> decide(lambda: 1 < 2)
      True
    """
    try:
        return bool(comparison())
    except Exception as error:
        if type(error).__name__ == "InconclusiveDimensionOperation":
            return None
        raise
