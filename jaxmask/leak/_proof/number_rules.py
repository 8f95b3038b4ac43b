"""What each operation does to the numbers of its operands."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmask.leak import _barriers
from jaxmask.leak._numpy import NUMPY, product_axes
from jaxmask.leak._proof import field
from jaxmask.leak._proof.numbering import Equation, rule
from jaxmask.leak._rules import scattering

MOVING = (
    *("broadcast_in_dim", "concatenate", "copy", "copy_p", "expand_dims", "pad", "reshape", "rev"),
    *("slice", "split", "squeeze", "stack", "stop_gradient", "transpose"),
)
SAME = ("optimization_barrier", "name", "device_put", "reduce_precision", "symmetric_product")
EXACT = 1 << 24  # whole numbers up to here are exact in float32


@rule(*MOVING)
def moving(step: Equation) -> list[np.ndarray]:
    """Numbers move as elements do."""
    result = step.in_numpy(*step.numbers)
    return result if isinstance(result, list) else [result]


@rule(*SAME)
def unchanged(step: Equation) -> list[np.ndarray] | None:
    return step.numbers if len(step.numbers) == len(step.outs) else None


@rule("convert_element_type")
def converted(step: Equation) -> list[np.ndarray] | None:
    """Not from numbers to integers or booleans, which lose something."""
    new, old = np.dtype(step.params["new_dtype"]), step.equation.invars[0].aval.dtype
    kept = new.kind not in "biu" or np.dtype(old).kind in ("b" if new.kind == "b" else "biu")
    return step.numbers if kept else None


ARITHMETIC: dict[str, Callable[..., np.ndarray]] = {
    "add": field.add,
    "add_any": field.add,
    "sub": field.sub,
    "neg": field.negative,
    "mul": field.mul,
    "square": lambda a: field.mul(a, a),
}


@rule(*ARITHMETIC)
def arithmetic(step: Equation) -> list[np.ndarray]:
    return [ARITHMETIC[step.name](*step.numbers)]


@rule("div")
def divided(step: Equation) -> list[np.ndarray] | None:
    """A quotient, but for integers."""
    if np.dtype(step.equation.outvars[0].aval.dtype).kind in "iu":
        return None
    a, b = step.numbers
    return [field.mul(a, field.power(b, -1))]


@rule("integer_pow")
def powered(step: Equation) -> list[np.ndarray]:
    return [field.power(step.numbers[0], step.params["y"])]


@rule("select_n")
def selected(step: Equation) -> list[np.ndarray] | None:
    """A known predicate chooses; an unknown one is 0 or 1."""
    if len(step.numbers) != 3 or step.equation.invars[0].aval.dtype != bool:
        return None
    which, low, high = step.numbers
    return [field.add(low, field.mul(which, field.sub(high, low)))]


@rule("and", "or", "not")
def logic(step: Equation) -> list[np.ndarray] | None:
    """Of booleans, as polynomials of 0 and 1."""
    if step.equation.outvars[0].aval.dtype != bool:
        return None
    first, *rest = step.numbers
    if step.name == "not":
        return [field.sub(1, first)]
    both = field.mul(first, rest[0])
    return [both if step.name == "and" else field.sub(field.add(first, rest[0]), both)]


@rule("max", "min")
def extreme(step: Equation) -> list[np.ndarray]:
    """The other operand of a neutral one; else a function of both, in any order."""
    a, b = np.broadcast_arrays(*step.numbers)
    neutral = [np.broadcast_to(is_neutral(step, k), a.shape) for k in (0, 1)]
    both = field.mixed(f"{step.name} of several", field.add(_spread(a), _spread(b)))
    both = np.where(a == b, a, both)
    return [np.where(neutral[0], b, np.where(neutral[1], a, both))]


def _spread(numbers: np.ndarray) -> np.ndarray:
    return field.mixed("one of several", numbers)


def is_neutral(step: Equation, place: int) -> np.ndarray:
    """Where an operand is known to be what no number is beyond."""
    value = step.known[place]
    if value.value is None:
        return np.broadcast_to(False, value.shape)
    dtype = np.dtype(step.equation.invars[place].aval.dtype)
    if dtype.kind == "b":
        least, largest = 0.0, 1.0
    elif dtype.kind in "iu":
        least, largest = np.iinfo(dtype).min, np.iinfo(dtype).max
    else:  # half the largest number, since nothing unknown is near it
        largest = float(np.finfo(dtype).max) / 2 if dtype.kind == "f" else 1.5e38
        least = -largest
    beyond = value.value <= least if "max" in step.name else value.value >= largest
    return np.broadcast_to(value.where_known & beyond, value.shape)


REDUCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "reduce_sum": field.total,
    "reduce_prod": field.product,
    "reduce_and": field.product,
    "reduce_or": lambda a, axes: field.sub(1, field.product(field.sub(1, a), axes)),
}


@rule(*REDUCTIONS)
def reduced(step: Equation) -> list[np.ndarray]:
    return [REDUCTIONS[step.name](step.numbers[0], tuple(step.params["axes"]))]


@rule("reduce_max", "reduce_min")
def extreme_of(step: Equation) -> list[np.ndarray]:
    """A function of the set of what is not neutral."""
    numbers, neutral = step.numbers[0], is_neutral(step, 0)
    return [of_sets(step.name.removeprefix("reduce_"), numbers, neutral, step.params["axes"])]


def of_sets(name: str, numbers: np.ndarray, neutral: np.ndarray, axes: Any) -> np.ndarray:
    order = [k for k in range(numbers.ndim) if k not in axes]
    outer = [numbers.shape[k] for k in order]
    flat, out = (np.transpose(a, [*order, *axes]).reshape(*outer, -1) for a in (numbers, neutral))
    flat = np.where(out, np.uint64(field.P), flat)  # no number, and last
    flat = np.sort(flat, -1)
    first = np.concatenate([np.ones_like(flat[..., :1], bool), flat[..., 1:] != flat[..., :-1]], -1)
    counts = first & (flat != field.P)
    sums = field.total(np.where(counts, _spread(flat), np.uint64(0)), (-1,))
    one = counts.sum(-1) == 1
    lone = np.max(np.where(counts, flat, np.uint64(0)), -1) if flat.shape[-1] else sums
    several = field.mixed(f"{name} of several", sums)
    none = np.uint64(field.MINUS_INF if "max" in name else field.INF)
    return np.where(one, lone, np.where(counts.any(-1), several, none))


@rule("argmax", "argmin")
def place_of_extreme(step: Equation) -> list[np.ndarray]:
    """A function of what is not neutral, and where."""
    (axis,) = step.params["axes"]
    neutral = is_neutral(step, 0)
    sizes = [-1 if k == axis else 1 for k in range(neutral.ndim)]
    places = np.arange(neutral.shape[axis], dtype=np.uint64).reshape(sizes)
    each = np.where(neutral, np.uint64(0), field.mixed("at", places, step.numbers[0]))
    return [field.mixed(step.name, field.total(each, (axis,)))]


@rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def cumulative(step: Equation) -> list[np.ndarray] | None:
    """Turn by turn."""
    axis, reverse = step.params["axis"], step.params["reverse"]
    numbers = np.moveaxis(step.numbers[0], axis, 0)
    neutral = np.moveaxis(is_neutral(step, 0), axis, 0)
    if reverse:
        numbers, neutral = numbers[::-1], neutral[::-1]
    found = [_up_to(step.name, numbers[: k + 1], neutral[: k + 1]) for k in range(len(numbers))]
    if not found:
        return None
    stacked = np.stack(found[::-1] if reverse else found)
    return [np.moveaxis(stacked, 0, axis)]


def _up_to(name: str, numbers: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    if name == "cumsum":
        return field.total(numbers, (0,))
    if name == "cumprod":
        return field.product(numbers, (0,))
    if name == "cumlogsumexp":
        each = np.where(neutral, np.uint64(0), field.mixed("exp {}", numbers))
        return field.mixed("log of a sum", field.total(each, (0,)))
    return of_sets(name.removeprefix("cum"), numbers, neutral, (0,))


@rule("dot_general")
def dot(step: Equation) -> list[np.ndarray]:
    a, b = step.numbers
    of_b, out = product_axes(step.params, a.ndim, b.ndim)
    return [field.einsum(a, list(range(a.ndim)), b, of_b, out)]


@rule("dynamic_slice", "dynamic_update_slice")
def dynamic(step: Equation) -> list[np.ndarray] | None:
    """At known places."""
    arrays = 1 if step.name == "dynamic_slice" else 2
    starts = [step.constant(k) for k in range(arrays, len(step.known))]
    if any(start is None for start in starts):
        return None
    return [step.in_numpy(*step.numbers[:arrays], *starts)]  # type: ignore[arg-type]


@rule("gather")
def gathered(step: Equation) -> list[np.ndarray] | None:
    """Elements at known places; else a function of the operand, the index and the place within."""
    indices = step.constant(1)
    if indices is not None:  # what lies outside is known
        clip = {**step.params, "mode": "CLIP"}
        return [NUMPY["gather"](clip, step.numbers[0], indices)]
    return _at_unknown(step)


@rule("scatter", "scatter-add")
def scattered(step: Equation) -> list[np.ndarray] | None:
    """At known places; what is added elsewhere counts where a function of index and place says."""
    if step.constant(1) is None:
        return _added_at_unknown(step) if step.name == "scatter-add" else None
    x, _, updates = step.numbers
    windows = scattering.windows_of(step, step.known[0], step.known[2])
    clip = scattering.Mode.from_any(step.params["mode"]) == scattering.Mode.CLIP
    places = windows.places(step.known[1], clip=clip)
    index = tuple(at[places.inside] for at in places.index) if x.shape else ()
    count = np.zeros(x.shape, int)
    np.add.at(count, index, 1)
    result = np.array(x)
    if step.name == "scatter-add":
        np.add.at(result, index, updates[places.inside])
        return [result % np.uint64(field.P)]
    if (count > 1).any():
        return None
    result[index] = updates[places.inside]
    return [result]


@rule("sort")
def sorted_(step: Equation) -> list[np.ndarray] | None:
    """By known keys."""
    axis, keys = step.params["dimension"], step.params["num_keys"]
    known = [step.constant(k) for k in range(keys)]
    if any(key is None for key in known) or not step.params["is_stable"]:
        return None
    order = np.lexsort([np.asarray(key) for key in known[::-1]], axis=axis)
    return [np.take_along_axis(number, order, axis) for number in step.numbers]


def _at_unknown(step: Equation) -> list[np.ndarray] | None:
    """A function of the index and of all elements that it may choose from."""
    numbers, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    starts, batch = numbers.start_index_map, numbers.operand_batching_dims
    rows = _Rows(step.known[0].shape, starts, batch)
    whole = all(sizes[axis] == rows.shape[axis] for axis in rows.inner)
    if not whole or set(numbers.collapsed_slice_dims) != set(starts):
        return None
    index, leading = _of_rows(step.numbers[1], numbers.start_indices_batching_dims)
    x = rows.flat(step.numbers[0])
    places = np.arange(x.shape[1], dtype=np.uint64)[:, None]
    columns = field.total(field.mixed("one of a column", places, x), (1,))
    name = f"gather {x.shape[1]} {step.params['mode']}"
    found = field.mixed(
        name, columns[:, None], *(index[..., k, None] for k in range(index.shape[-1]))
    )
    outer = [axis for axis in range(len(step.shape)) if axis not in numbers.offset_dims]
    return [_back(found, [outer[k] for k in leading], list(numbers.offset_dims), step.shape)]


def _added_at_unknown(step: Equation) -> list[np.ndarray] | None:
    numbers = step.params["dimension_numbers"]
    starts, batch = numbers.scatter_dims_to_operand_dims, numbers.operand_batching_dims
    rows = _Rows(step.known[0].shape, starts, batch)
    shape = step.known[2].shape
    inner = list(numbers.update_window_dims)
    whole = [shape[axis] for axis in inner] == [rows.shape[axis] for axis in rows.inner]
    if not whole or set(numbers.inserted_window_dims) != set(starts):
        return None
    index, leading = _of_rows(step.numbers[1], numbers.scatter_indices_batching_dims)
    outer = [axis for axis in range(len(shape)) if axis not in inner]
    x = rows.flat(step.numbers[0])
    order = [*(outer[k] for k in leading), *inner]
    updates = np.transpose(step.numbers[2], order).reshape(*index.shape[:2], x.shape[2])
    places = np.arange(x.shape[1], dtype=np.uint64)
    name = f"is at {x.shape[1]} {step.params['mode']}"
    there = field.mixed(name, *(index[..., k, None] for k in range(index.shape[-1])), places)
    moved = field.einsum(there, [0, 1, 2], updates, [0, 1, 3], [0, 2, 3])
    return [_back(field.add(x, moved), [*rows.batch, *rows.starts], rows.inner, rows.shape)]


class _Rows:
    """The axes of an operand: those that run in step with indices, are chosen from, or go along."""

    def __init__(self, shape: tuple[int, ...], starts: Any, batch: Any):
        self.shape, self.starts, self.batch = shape, list(starts), list(batch)
        self.inner = [k for k in range(len(shape)) if k not in (*starts, *batch)]

    def flat(self, numbers: np.ndarray) -> np.ndarray:
        """`[batch, place, inner]`."""
        groups = (self.batch, self.starts, self.inner)
        sizes = [math.prod(self.shape[k] for k in group) for group in groups]
        return np.transpose(numbers, [*self.batch, *self.starts, *self.inner]).reshape(sizes)


def _of_rows(index: np.ndarray, batch: Any) -> tuple[np.ndarray, list[int]]:
    """Indices as `[batch, row, component]`, and the order of their axes."""
    order = [*batch, *(k for k in range(index.ndim - 1) if k not in batch)]
    count = math.prod(index.shape[k] for k in batch)
    flat = np.transpose(index, [*order, index.ndim - 1]).reshape(count, -1, index.shape[-1])
    return flat, order


def _back(
    numbers: np.ndarray, outer: list[int], inner: list[int], shape: tuple[int, ...]
) -> np.ndarray:
    """Undo the order of axes."""
    order = [*outer, *inner]
    return numbers.reshape([shape[k] for k in order]).transpose(np.argsort(order))


# ------------------------------------------------------------------------------ windows


@rule("conv_general_dilated")
def convolution(step: Equation) -> list[np.ndarray]:
    numbers = step.params["dimension_numbers"]
    kernel = step.known[1].shape
    count = math.prod(kernel) // max(1, kernel[numbers.rhs_spec[0]])
    return [_by_limbs(step, count, step.numbers)]


@rule("reduce_window_sum")
def window_sums(step: Equation) -> list[np.ndarray]:
    return [_by_limbs(step, math.prod(step.params["window_dimensions"]), step.numbers)]


def _by_limbs(step: Equation, count: int, numbers: list[np.ndarray]) -> np.ndarray:
    """JAX's own operation, on pieces so small that float32 adds up their products exactly."""
    most = EXACT // max(1, count)
    bits = max(1, (most.bit_length() - 1) // len(numbers))
    run = _compiled(step.equation)
    parts = [
        [(a >> np.uint64(k)) & np.uint64(2**bits - 1) for k in range(0, 31, bits)] for a in numbers
    ]
    total: Any = np.zeros(step.shape, np.uint64)
    for places in np.ndindex(*map(len, parts)):
        limbs = [part[k].astype(np.float32) for part, k in zip(parts, places, strict=True)]
        result = np.asarray(run(*limbs)).astype(np.uint64)
        total = field.add(
            total, field.mul(result % np.uint64(field.P), pow(2, bits * sum(places), field.P))
        )
    return np.asarray(total)


def _compiled(equation: Any) -> Callable[..., Any]:
    params = {**equation.params}
    if "precision" in params:
        params |= {"precision": None, "preferred_element_type": np.dtype(np.float32)}
    changed = equation.replace(params=params)

    def run(*operands: np.ndarray) -> Any:
        with jax.default_device(jax.devices("cpu")[0]):  # others may shorten what they multiply
            return compiled(*operands)

    compiled = jax.jit(
        lambda *operands: _barriers.bind(changed, list(operands))[0],
        compiler_options=_barriers.compiler_options(),
    )
    return run


@rule("reduce_window_max", "reduce_window_min")
def window_extremes(step: Equation) -> list[np.ndarray] | None:
    """A function of the set of what each window holds."""
    params = step.params
    if any(d != 1 for d in (*params["base_dilation"], *params["window_dilation"])):
        return None
    out = np.pad(is_neutral(step, 0), params["padding"], constant_values=True)
    padded = np.pad(step.numbers[0], params["padding"])
    found, strides = [], params["window_strides"]
    for place in np.ndindex(*params["window_dimensions"]):
        ends = zip(place, strides, step.shape, strict=True)
        here = tuple(slice(at, at + stride * (n - 1) + 1, stride) for at, stride, n in ends)
        found.append((padded[here], out[here]))
    numbers, outside = (np.stack([pair[k] for pair in found]) for k in (0, 1))
    return [of_sets(step.name.removeprefix("reduce_window_"), numbers, outside, (0,))]
