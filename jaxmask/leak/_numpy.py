"""Operations that NumPy does as JAX does: they move elements, or are exact, or round as IEEE says.

Sums and products of matrices are those of plain loops: BLAS may skip what is multiplied by 0, which
hides that 0 * nan is nan. An operation gives None for operands that it leaves to JAX.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

Params: TypeAlias = dict[str, Any]
Operation: TypeAlias = Callable[..., Any]

FLOATS = (np.float32, np.float64)
MOST_PRODUCTS = 1 << 18  # of a matrix product: above, a compiled one is faster


def _convert(params: Params, x: np.ndarray) -> np.ndarray | None:
    """Not from numbers to integers, which is undefined for nan, nor from complex numbers."""
    to = np.dtype(params["new_dtype"])
    known = x.dtype.kind in "biu" or (x.dtype.kind == "f" and to.kind == "f")
    return x.astype(to) if known and to.kind in "biuf" else None


def _broadcast(params: Params, x: np.ndarray, *_: Any) -> np.ndarray:
    shape = params["shape"]
    return np.broadcast_to(along(x, params["broadcast_dimensions"], len(shape)), shape)


def _reshape(params: Params, x: np.ndarray, *_: Any) -> np.ndarray:
    order = params.get("dimensions")
    return (x if order is None else x.transpose(order)).reshape(params["new_sizes"])


def _select(params: Params, which: np.ndarray, *cases: np.ndarray) -> np.ndarray | None:
    return np.where(which, cases[1], cases[0]) if which.dtype == bool else None


def _slice(params: Params, x: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (1,) * x.ndim
    limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*limit) for limit in limits)]


def _window(x: np.ndarray, starts: Any, sizes: Any) -> tuple[slice, ...]:
    """A window that begins where it fits."""
    firsts = (
        min(max(int(start), 0), whole - size)
        for start, whole, size in zip(starts, x.shape, sizes, strict=True)
    )
    return tuple(slice(first, first + size) for first, size in zip(firsts, sizes, strict=True))


def _dynamic_slice(params: Params, x: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    return x[_window(x, starts, params["slice_sizes"])]


def _dynamic_update(
    params: Params, x: np.ndarray, update: np.ndarray, *starts: np.ndarray
) -> np.ndarray:
    y = x.copy()
    y[_window(x, starts, update.shape)] = update
    return y


def pad_array(x: np.ndarray, fill: Any, config: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """What `lax.pad` does; negative amounts cut."""
    shape, source, target = [], [], []
    for size, (low, high, inside) in zip(x.shape, config, strict=True):
        step = inside + 1
        new = max(low + high + (step * (size - 1) + 1 if size else 0), 0)
        places = low + step * np.arange(size)
        kept = np.flatnonzero((places >= 0) & (places < new))
        first, stop = (int(kept[0]), int(kept[-1]) + 1) if kept.size else (0, 0)
        source.append(slice(first, stop))
        begin = low + step * first
        target.append(slice(begin, begin + step * (stop - first), step) if stop else slice(0, 0))
        shape.append(new)
    y = np.full(shape, fill, x.dtype)
    y[tuple(target)] = x[tuple(source)]
    return y


def _gather(params: Params, x: np.ndarray, indices: np.ndarray) -> np.ndarray | None:
    """Windows of `x`, one for each index, at which it begins."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    mode, given = str(params["mode"]), params["fill_value"]
    filled = mode.endswith("FILL_OR_DROP")
    if x.dtype.kind not in "biuf" or not numbers.start_index_map or (filled and given is not None):
        return None
    rank = indices.ndim - 1 + len(numbers.offset_dims)
    outer = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    absent = *numbers.collapsed_slice_dims, *numbers.operand_batching_dims
    inner = iter(numbers.offset_dims)
    pairs = dict(
        zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    )
    places, inside = [], np.broadcast_to(True, (1,) * rank)
    for axis, (whole, size) in enumerate(zip(x.shape, sizes, strict=True)):
        place = np.zeros((1,) * rank, int)
        if axis in numbers.start_index_map:
            index = indices[..., numbers.start_index_map.index(axis)].astype(np.int64)
            inside = inside & along((index >= 0) & (index <= whole - size), outer, rank)
            place = along(np.clip(index, 0, whole - size), outer, rank)
        if axis in pairs:
            place = along(np.arange(whole), [outer[pairs[axis]]], rank)
        if axis not in absent:
            place = place + along(np.arange(size), [next(inner)], rank)
        places.append(place)
    y = x[tuple(places)]
    return np.where(inside, y, fill_value(x.dtype)) if filled else y


def along(x: np.ndarray, axes: Sequence[int], rank: int) -> np.ndarray:
    """An array in a higher rank, its axes at these places."""
    shape = [1] * rank
    for axis, size in zip(axes, x.shape, strict=True):
        shape[axis] = size
    return x.reshape(shape)


def fill_value(dtype: np.dtype) -> np.ndarray:
    """What a gather gives outside of its operand."""
    if dtype.kind == "b":
        return np.asarray(True)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.asarray(limits.min if dtype.kind == "i" else limits.max, dtype)
    return np.asarray(np.nan).astype(dtype)


def _split(params: Params, x: np.ndarray) -> list[np.ndarray]:
    ends = itertools.accumulate(params["sizes"])
    before = (slice(None),) * params["axis"]
    return [
        x[(*before, slice(end - size, end))]
        for end, size in zip(ends, params["sizes"], strict=True)
    ]


def _iota(params: Params) -> np.ndarray:
    shape, axis = params["shape"], params["dimension"]
    line = np.arange(shape[axis]).astype(params["dtype"])
    return np.broadcast_to(along(line, [axis], len(shape)), shape)


def _argmax(params: Params, x: np.ndarray) -> np.ndarray | None:
    return np.argmax(x, params["axes"][0]) if x.dtype.kind in "biuf" else None


def _divide(params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    if x.dtype.kind == "f":
        return x / y
    return (x - np.fmod(x, y)) // y if _divides(y) else None  # integers are truncated


def _remainder(params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    return np.fmod(x, y) if _divides(y) else None


def _divides(y: np.ndarray) -> bool:
    return y.dtype.kind in "iu" and bool((y > 0).all())


def _power(params: Params, x: np.ndarray) -> np.ndarray | None:
    """By repeated squares, as JAX does."""
    power, y = params["y"], None
    if power < 1 or x.dtype.kind not in "iuf":
        return None
    while power:
        if power & 1:
            y = x if y is None else y * x
        power >>= 1
        x = x * x if power else x
    return y


def _reduction(function: Callable[..., Any]) -> Operation:
    def reduce(params: Params, x: np.ndarray) -> np.ndarray | None:
        exact = x.size and (x.dtype.kind in "biu" or x.dtype in FLOATS)
        return function(x, axis=tuple(params["axes"])) if exact else None

    return reduce


def _sum(params: Params, x: np.ndarray) -> np.ndarray | None:
    if x.dtype not in FLOATS and x.dtype.kind not in "iu":
        return None
    # The order of a sum follows the layout in memory, which must not depend on what is summed.
    return np.sum(np.ascontiguousarray(x), tuple(params["axes"]), x.dtype)


def _cumsum(params: Params, x: np.ndarray) -> np.ndarray | None:
    if x.dtype.kind not in "iu":
        return None
    axis = params["axis"]
    x = np.flip(x, axis) if params["reverse"] else x
    y = np.cumsum(x, axis, x.dtype)
    return np.flip(y, axis) if params["reverse"] else y


def _dot(params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """By plain loops."""
    wanted = params["preferred_element_type"]
    if x.dtype not in FLOATS or y.dtype != x.dtype or wanted not in (None, x.dtype):
        return None
    of_y, result = product_axes(params, x.ndim, y.ndim)
    free = (size for size, letter in zip(y.shape, of_y, strict=True) if letter >= x.ndim)
    if x.size * math.prod(free) > MOST_PRODUCTS:
        return None
    both = (np.ascontiguousarray(x), [*range(x.ndim)]), (np.ascontiguousarray(y), of_y)
    return np.einsum(*both[0], *both[1], result, optimize=False)


def product_axes(params: Params, rank: int, other: int) -> tuple[list[int], list[int]]:
    """The axes of the second operand of `dot_general` and of its result; the first has 0, 1, ..."""
    (ours, theirs), (our_batch, their_batch) = params["dimension_numbers"]
    shared = dict(zip((*theirs, *their_batch), (*ours, *our_batch), strict=True))
    free = [k for k in range(rank) if k not in (*ours, *our_batch)]
    others = [rank + k for k in range(other) if k not in shared]
    return [shared.get(k, rank + k) for k in range(other)], [*our_batch, *free, *others]


def _elementwise(function: Callable[..., Any]) -> Operation:
    return lambda params, *values: function(*values)


def _of_integers(function: Callable[..., Any]) -> Operation:
    return lambda params, *values: function(*values) if values[0].dtype.kind in "iu" else None


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "copy": lambda x: x,
    "copy_p": lambda x: x,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "square": np.square,
    "stop_gradient": lambda x: x,
    "sub": np.subtract,
    "xor": np.bitwise_xor,
}
NUMPY: dict[str, Operation] = {
    **{name: _elementwise(function) for name, function in ELEMENTWISE.items()},
    "abs": lambda params, x: np.abs(x) if x.dtype.kind in "biuf" else None,
    "argmax": _argmax,
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda params, *xs: np.concatenate(xs, params["dimension"]),
    "convert_element_type": _convert,
    "cumsum": _cumsum,
    "div": _divide,
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "expand_dims": lambda params, x: np.expand_dims(x, params["dimensions"]),
    "gather": _gather,
    "integer_pow": _power,
    "iota": _iota,
    "pad": lambda params, x, fill: pad_array(x, fill, params["padding_config"]),
    "reduce_and": _reduction(np.bitwise_and.reduce),
    "reduce_max": _reduction(np.max),
    "reduce_min": _reduction(np.min),
    "reduce_or": _reduction(np.bitwise_or.reduce),
    "reduce_sum": _sum,
    "rem": _remainder,
    "reshape": _reshape,
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "select_n": _select,
    "sign": _of_integers(np.sign),
    "slice": _slice,
    "split": _split,
    "squeeze": lambda params, x: np.squeeze(x, params["dimensions"]),
    "stack": lambda params, *xs: np.stack(xs, params["axis"]),
    "transpose": lambda params, x: np.transpose(x, params["permutation"]),
}
