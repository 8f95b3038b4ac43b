"""Run a traced program one operation at a time.

No operation can then be rewritten together with its neighbours, as XLA does. What only moves
elements, or rounds as IEEE 754 says, is left to NumPy; the rest is compiled, once in a process for
all programs that hold it, so that deep models and second calls cost little. Loops and branches are
compiled as a whole, with barriers inside.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmask.leak import _barriers as barriers
from jaxmask.leak._barriers import Factors

MOST = 8192  # compiled operations that are kept


class Stepwise:
    """A closed program, to be run on arrays.

    Attributes:
      closed: the program.
    """

    def __init__(self, closed: Any):
        self.closed = closed
        self._own: dict[int, Callable[..., list[Any]]] = {}

    def __call__(self, factors: Factors, *args: Any) -> list[Any]:
        """The results, rounded as `factors` say."""
        with np.errstate(all="ignore"):
            return _Runner(factors, self._own).closed(self.closed, *map(on_host, args))

    def operation(self, equation: Any, values: list[Any]) -> list[Any]:
        """The results of one equation."""
        with np.errstate(all="ignore"):
            runner = _Runner(barriers.factors(0), self._own)
            return runner.operation(equation, [(on_host(value), False) for value in values])


class _Runner(barriers.Run):
    def __init__(self, factors: Factors, own: dict[int, Callable[..., list[Any]]]):
        super().__init__(factors)
        self._own = own

    def _control(self, equation: Any, values: list[Any]) -> list[Any]:
        number = np.uint32(16 * next(self._operations))  # some roundings for each
        compiled = self._compiled_alone(equation, _with_barriers)
        return list(map(on_host, compiled(self._factors, number, *values)))

    def _bind(self, equation: Any, values: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if name in NUMPY and all(isinstance(value, np.ndarray) for value in values):
            result = NUMPY[name](params, *values)
            if result is not None:
                aval = equation.outvars[0].aval
                return [np.asarray(result, aval.dtype)]
        return list(map(on_host, self._compiled_alone(equation, _compiled)(*values)))

    def _compiled_alone(self, equation: Any, how: Callable[..., Any]) -> Callable[..., list[Any]]:
        if id(equation) not in self._own:
            self._own[id(equation)] = how(equation)
        return self._own[id(equation)]


def on_host(x: Any) -> Any:
    """An array of NumPy, but for keys of random numbers."""
    if not hasattr(x, "dtype") or isinstance(x, np.ndarray | np.generic):
        return np.asarray(x)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return np.asarray(x)


class _Equation:
    """An equation, equal to others with the same operation."""

    def __init__(self, equation: Any):
        self.equation = equation
        params = tuple(sorted(equation.params.items()))
        self.key = equation.primitive, params, str(params)  # 1, 1.0 and True are equal
        self.hash = hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Equation) and self.key == other.key

    def __hash__(self) -> int:
        return self.hash


def _compiled(equation: Any) -> Callable[..., list[Any]]:
    try:
        return _shared(_Equation(equation))
    except TypeError:  # parameters that cannot be hashed
        return _plainly(equation)


@functools.lru_cache(MOST)
def _shared(equation: _Equation) -> Callable[..., list[Any]]:
    return _plainly(equation.equation)


def _plainly(equation: Any) -> Callable[..., list[Any]]:
    return jax.jit(
        lambda *values: barriers.bind(equation, list(values)),
        compiler_options=barriers.compiler_options(),
    )


def _with_barriers(equation: Any) -> Callable[..., list[Any]]:
    def run(factors: Factors, number: Any, *values: Any) -> list[Any]:
        inside = barriers.Run(factors, number)
        return inside.operation(equation, [(value, False) for value in values])

    return jax.jit(run, compiler_options=barriers.compiler_options())


# --------------------------------------------------------------- operations that NumPy does alike


def _convert(params: dict[str, Any], x: np.ndarray) -> np.ndarray | None:
    """Not from numbers to integers, which is undefined for nan, nor from complex numbers."""
    to = np.dtype(params["new_dtype"])
    known = x.dtype.kind in "biu" or (x.dtype.kind == "f" and to.kind == "f")
    return x.astype(to) if known and to.kind in "biuf" else None


def _broadcast(params: dict[str, Any], x: np.ndarray, *_: Any) -> np.ndarray:
    shape, axes = params["shape"], params["broadcast_dimensions"]
    wide = [1] * len(shape)
    for axis, size in zip(axes, x.shape, strict=True):
        wide[axis] = size
    return np.broadcast_to(x.reshape(wide), shape)


def _reshape(params: dict[str, Any], x: np.ndarray, *_: Any) -> np.ndarray | None:
    return x.reshape(params["new_sizes"]) if params.get("dimensions") is None else None


def _select(params: dict[str, Any], which: np.ndarray, *cases: np.ndarray) -> np.ndarray | None:
    return np.where(which, cases[1], cases[0]) if which.dtype == bool else None


def _slice(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (1,) * x.ndim
    limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*limit) for limit in limits)]


def _divide(params: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    return x / y if x.dtype.kind == "f" else None  # integers are truncated


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, *values: function(*values)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "not": np.invert,
    "copy": lambda x: x,
    "copy_p": lambda x: x,
    "stop_gradient": lambda x: x,
    "square": np.square,
}
NUMPY: dict[str, Callable[..., Any]] = {
    **{
        name: _elementwise(function) for name, function in _ELEMENTWISE.items()
    },
    "convert_element_type": _convert,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "select_n": _select,
    "slice": _slice,
    "div": _divide,
    "squeeze": lambda params, x: np.squeeze(x, params["dimensions"]),
    "expand_dims": lambda params, x: np.expand_dims(x, params["dimensions"]),
    "transpose": lambda params, x: np.transpose(x, params["permutation"]),
    "concatenate": lambda params, *xs: np.concatenate(xs, params["dimension"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
}  # fmt: skip
