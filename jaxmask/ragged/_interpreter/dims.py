"""Sizes of arrays as expressions of row lengths: `time - 1`, `floordiv(time + 1, 2)`.

JAX traces a function at a symbolic length and gives the size of every intermediate array as such an
expression. This module evaluates it, for one length or over all lengths at once.
"""

import ast
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from jax import export

MAX_GRID = 2_000_000  # combinations of lengths that are tried; above, intervals bound a size


def is_symbolic(dim: Any) -> bool:
    """Whether a size depends on a row length."""
    return bool(export.is_symbolic_dim(dim))


def evaluate(dim: Any, lengths: Mapping[str, Any], functions: Mapping[str, Callable]) -> Any:
    """The value of a size, given an int, array or interval for each length by name.

    Its text is parsed, in the grammar that `jax.export.symbolic_shape` documents, since JAX keeps
    its internal form private. `functions` are `floordiv`, `mod`, `max` and `min` for such values.
    """
    return _value(_parse(str(dim)), lengths, functions) if is_symbolic(dim) else dim


@lru_cache(maxsize=4096)
def _parse(text: str) -> ast.expr:
    return ast.parse(text.replace("^", "**"), mode="eval").body


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Pow: lambda a, b: a**b,
}


def _value(node: ast.expr, lengths: Mapping[str, Any], functions: Mapping[str, Callable]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return lengths[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, lengths, functions)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = (_value(side, lengths, functions) for side in (node.left, node.right))
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        arguments = [_value(argument, lengths, functions) for argument in node.args]
        return functions[node.func.id](*arguments)
    raise NotImplementedError(f"ragged_vmap cannot read the size {ast.unparse(node)!r}.")


class Sizes:
    """The least and the greatest value of any size, given `bounds` of each length by name."""

    def __init__(self, bounds: Mapping[str, tuple[int, int]]):
        self.bounds = dict(bounds)
        self._known: dict[str, tuple[int, int]] = {}

    def span(self, dim: Any) -> tuple[int, int]:
        """The least and the greatest value of a size."""
        if not is_symbolic(dim):
            return int(dim), int(dim)
        text = str(dim)
        if text not in self._known:
            self._known[text] = self._span(dim)
        return self._known[text]

    def _span(self, dim: Any) -> tuple[int, int]:
        names = sorted({n.id for n in ast.walk(_parse(str(dim))) if isinstance(n, ast.Name)})
        names = [name for name in names if name not in ARRAYS]
        if not set(names) <= set(self.bounds):
            raise NotImplementedError(
                f"ragged_vmap: a size {dim} of an outer `ragged_vmap` is used inside another one. "
                "Pass the array as an argument of the inner function."
            )
        ranges = {name: self.bounds[name] for name in names}
        points = np.prod([float(high - low + 1) for low, high in ranges.values()])
        if points > MAX_GRID:
            interval = evaluate(dim, {n: Interval(*r) for n, r in ranges.items()}, INTERVALS)
            return interval.low, interval.high
        axes = [np.arange(low, high + 1, dtype=np.int64) for low, high in ranges.values()]
        grid = dict(zip(names, np.meshgrid(*axes, sparse=True), strict=True))
        values = np.asarray(evaluate(dim, grid, ARRAYS))
        return int(values.min()), int(values.max())


class _Tracing(threading.local):
    """The bounds of the sizes of each row function that this thread traces, by scope in JAX."""

    def __init__(self) -> None:
        self.sizes: dict[Any, Sizes] = {}


TRACING = _Tracing()


def traced(size: Any) -> Sizes | None:
    """The bounds of a size, if it belongs to a row function that this thread is tracing."""
    return TRACING.sizes.get(size.scope) if is_symbolic(size) else None


def nesting() -> int:
    """How many row functions this thread is tracing, one inside the other."""
    return len(TRACING.sizes)


ARRAYS: dict[str, Callable] = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "max": np.maximum,
    "min": np.minimum,
}


class Interval:
    """A range of integers, for sizes that depend on too many lengths to try them all."""

    def __init__(self, low: int, high: int):
        self.low, self.high = int(low), int(high)

    def __neg__(self) -> "Interval":
        return Interval(-self.high, -self.low)

    def __add__(self, other: Any) -> "Interval":
        other = interval(other)
        return Interval(self.low + other.low, self.high + other.high)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Interval":
        return self + -interval(other)

    def __rsub__(self, other: Any) -> "Interval":
        return interval(other) + -self

    def __mul__(self, other: Any) -> "Interval":
        other = interval(other)
        corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(corners), max(corners))

    __rmul__ = __mul__

    def __pow__(self, power: int) -> "Interval":
        result = Interval(1, 1)
        for _ in range(power):
            result = result * self
        return result


def interval(value: Any) -> Interval:
    """A number as the range that holds only it."""
    return value if isinstance(value, Interval) else Interval(value, value)


def _floordiv(a: Any, b: Any) -> Interval:
    a, b = interval(a), interval(b)
    if b.low <= 0 <= b.high:
        raise NotImplementedError("ragged_vmap cannot bound a division by a size that may be 0.")
    corners = [x // y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Interval(min(corners), max(corners))


def _mod(a: Any, b: Any) -> Interval:
    del a
    b = interval(b)
    return Interval(min(b.low + 1, 0), max(b.high - 1, 0))


INTERVALS: dict[str, Callable] = {
    "floordiv": _floordiv,
    "mod": _mod,
    "max": lambda a, b: Interval(
        max(interval(a).low, interval(b).low), max(interval(a).high, interval(b).high)
    ),
    "min": lambda a, b: Interval(
        min(interval(a).low, interval(b).low), min(interval(a).high, interval(b).high)
    ),
}
