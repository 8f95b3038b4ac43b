"""Convolutions and windows."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask.leak._numpy import pad_array
from jaxmask.leak._proof.domain import NONE, Value
from jaxmask.leak._proof.exact import is_nan, whole
from jaxmask.leak._proof.interpret import Step, rule_for


@dataclass(frozen=True)
class Grid:
    """Windows over the axes of an array, whose own dilation is `dilation`."""

    sizes: Sequence[int]
    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    dilation: Sequence[int]
    window_dilation: Sequence[int]

    def padded(self, a: np.ndarray, constant: Any) -> np.ndarray:
        """The array with its padding, and holes for its dilation."""
        config = [
            (low, high, d - 1) for (low, high), d in zip(self.padding, self.dilation, strict=True)
        ]
        return pad_array(a, constant, config)

    def parts(self, a: np.ndarray, out: Sequence[int]) -> Iterator[np.ndarray]:
        """For each place in a window, the elements there in all windows."""
        for place in itertools.product(*map(range, self.sizes)):
            starts = [k * d for k, d in zip(place, self.window_dilation, strict=True)]
            yield a[
                tuple(
                    slice(start, start + stride * (n - 1) + 1, stride) if n else slice(0, 0)
                    for start, stride, n in zip(starts, self.strides, out, strict=True)
                )
            ]

    def union(self, step: Step, taint: np.ndarray, out: Sequence[int]) -> np.ndarray:
        """The union of taint in each window."""
        bits = np.zeros(out, np.uint64)
        for part in self.parts(self.padded(taint, NONE), out):
            bits |= part
        causes = step.machine.causes
        if causes is None:
            return bits
        raw = causes.raw_in(taint)
        some, lacks = np.zeros(out, bool), np.zeros(out, bool)
        for part in self.parts(self.padded(raw, False), out):
            some |= part
        for part in self.parts(self.padded(~raw, False), out):
            lacks |= part
        return step.mixed(bits, some & lacks)


@rule_for("conv_general_dilated")
def convolution(step: Step) -> list[Value]:
    """Any taint in a window of the left operand, or in the kernel of an output feature."""
    x, kernel = step.ins
    params, numbers = step.params, step.params["dimension_numbers"]
    if x.taint is None and kernel.taint is None:
        return [Value(step.shape)]
    out_shape = [step.shape[axis] for axis in numbers.out_spec]
    batch, features, *places = out_shape
    bits = np.zeros(out_shape, np.uint64)
    sizes = [kernel.shape[axis] for axis in numbers.rhs_spec[2:]]
    plain = [1] * 3
    grid = Grid(
        [*plain, *sizes],
        [*plain, *params["window_strides"]],
        [(0, 0)] * 3 + [tuple(p) for p in params["padding"]],
        [*plain, *params["lhs_dilation"]],
        [*plain, *params["rhs_dilation"]],
    )
    if x.taint is not None:
        groups, parts = params["feature_group_count"], params["batch_group_count"]
        taint = x.taint.transpose(numbers.lhs_spec)
        taint = taint.reshape(parts, batch, groups, -1, *taint.shape[2:])
        merged = step.over(taint, (3,))
        assert merged is not None
        shape = (parts, batch, groups, *places)
        seen = grid.union(step, merged, shape)
        # Either feature or batch groups divide the output features.
        by_group = np.moveaxis(seen, 0, 1).reshape(batch, parts * groups, *places)
        bits |= np.repeat(by_group, features // (parts * groups), axis=1)
    if kernel.taint is not None:
        taint = kernel.taint.transpose(numbers.rhs_spec)
        of_kernel = step.over(taint, tuple(range(1, taint.ndim)))
        assert of_kernel is not None
        bits |= of_kernel.reshape(1, features, *[1] * len(places))
    back = np.argsort(numbers.out_spec)
    return [Value(step.shape, taint=bits.transpose(back))]


REDUCERS: dict[str, tuple[Callable[..., Any], Any]] = {
    "reduce_window_sum": (np.add, 0),
    "reduce_window_max": (np.maximum, -np.inf),
    "reduce_window_min": (np.minimum, np.inf),
}
_BY_BODY = {"add": "reduce_window_sum", "max": "reduce_window_max", "min": "reduce_window_min"}


def _grid(step: Step) -> Grid:
    p, rank = step.params, len(step.params["window_dimensions"])
    ones = (1,) * rank
    return Grid(
        p["window_dimensions"],
        p["window_strides"] or ones,
        p["padding"],
        p.get("base_dilation") or ones,
        p.get("window_dilation") or ones,
    )


@rule_for("reduce_window", *REDUCERS)
def reduce_window(step: Step) -> list[Value]:
    """Any taint in a window; known where all of it is."""
    if len(step.equation.outvars) > 1:
        return step.machine._without_a_rule(step)
    x, grid, name = step.ins[0], _grid(step), step.name
    initial: Any = None
    if name == "reduce_window":
        body = step.params["jaxpr"].eqns
        name = _BY_BODY.get(body[0].primitive.name, "") if len(body) == 1 else ""
        initial = step.ins[1]
    taint = None if x.taint is None else grid.union(step, x.taint, step.shape)
    if initial is not None and initial.taint is not None:
        taint = initial.bits if taint is None else taint | initial.bits
        taint = np.broadcast_to(taint, step.shape)
    if x.value is None or not name or (initial is not None and initial.value is None):
        return [Value(step.shape, taint=taint)]
    function, identity = REDUCERS[name]
    start = _identity(identity, step.dtype) if initial is None else initial.value
    return [_window_values(step, grid, function, start, taint)]


def _identity(identity: Any, dtype: Any) -> Any:
    if np.isfinite(identity) or jnp.issubdtype(dtype, jnp.inexact):
        return np.asarray(identity).astype(dtype)
    if np.dtype(dtype).kind == "b":
        return np.asarray(identity > 0)
    info = jnp.iinfo(dtype)
    return np.asarray(info.max if identity > 0 else info.min, dtype)


def _window_values(
    step: Step, grid: Grid, function: Any, start: Any, taint: np.ndarray | None
) -> Value:
    x = step.ins[0]
    assert x.value is not None
    values = grid.padded(np.broadcast_to(x.value, x.shape), start)
    certain = x.where_known & whole(x.value) & ~is_nan(x.value)
    inside = grid.padded(np.broadcast_to(certain, x.shape), True)
    result, known = np.full(step.shape, start, step.dtype), np.ones(step.shape, bool)
    for part, good in zip(
        grid.parts(values, step.shape), grid.parts(inside, step.shape), strict=True
    ):
        result, known = function(result, part), known & good
    if jnp.issubdtype(step.dtype, jnp.inexact):
        known = known & whole(result) & (result != 0)
        if function is np.add and (np.abs(x.value) < 2**12).all():
            known = known | (inside.all() & (result == 0))
    return Value(step.shape, result.astype(step.dtype), known, taint)


@rule_for("select_and_scatter_add")
def select_and_scatter_add(step: Step) -> list[Value]:
    """Each source goes to some element of its window; a known zero goes nowhere."""
    source, x = step.ins
    grid, shape = _grid(step), step.shape
    zero = source.is_known(0)
    window = np.zeros(source.shape, np.uint64)
    if x.taint is not None:
        window = window | grid.union(step, x.taint, source.shape)
    bits = np.where(zero, NONE, source.bits | window)
    padded = grid.padded(np.zeros(shape, np.uint64), NONE)
    touched = grid.padded(np.zeros(shape, bool), False)
    for part, hit in zip(
        grid.parts(padded, source.shape), grid.parts(touched, source.shape), strict=True
    ):
        part |= bits
        hit |= ~zero
    low = [p[0] for p in grid.padding]
    inside = tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))
    value = np.zeros(shape, step.dtype)
    return [Value(shape, value, ~touched[inside], padded[inside])]
