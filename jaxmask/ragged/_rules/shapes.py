"""Axes that come, go, join and split."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims
from jaxmask.ragged._interpreter.context import Context, Shape, ragged_axes, select
from jaxmask.ragged._interpreter.interpret import Step, rule_for
from jaxmask.ragged._interpreter.known import Known


@rule_for("broadcast_in_dim")
def broadcast_in_dim(step: Step, value: Array, *sizes: Array) -> Any:
    """Repeat along new axes."""
    del sizes  # the shape of the result has them
    shape, axes = step.outputs[0], step.params["broadcast_dimensions"]
    if step.known[0] is not None:
        step.known_out = [step.known[0].broadcast(len(shape), axes, step.inputs[0])]
    return jax.lax.broadcast_in_dim(jnp.asarray(value), step.context.shape(shape), axes)


@rule_for("transpose")
def transpose(step: Step, value: Array) -> Any:
    """Permute axes."""
    return step.bind(value)


@rule_for("squeeze")
def squeeze(step: Step, value: Array) -> Any:
    """Drop axes of size 1."""
    dropped = step.params["dimensions"]
    fact = step.known[0]
    if fact is not None:
        kept = tuple(s for k, s in enumerate(fact.strides) if k not in dropped)
        step.known_out = [Known(fact.offset, kept)]
    return step.bind(value)


@rule_for("iota")
def iota(step: Step, *sizes: Array) -> Any:
    """Positions."""
    del sizes
    shape, axis = step.outputs[0], step.params["dimension"]
    dtype = step.params["dtype"]
    step.known_out = [Known(0, tuple(int(k == axis) for k in range(len(shape))))]
    value = jax.lax.broadcasted_iota(dtype, step.context.shape(shape), axis)
    return step.context.fill(value, shape, [axis], 0)


@rule_for("reshape")
def reshape(step: Step, value: Array, *sizes: Array) -> Any:
    """Merge and split axes in the order of the row alone."""
    del sizes
    if step.params.get("dimensions") is not None:
        raise step.refuse("It reshapes and transposes at once.")
    return reshaped(step.context, value, step.inputs[0], step.outputs[0])


def reshaped(context: Context, value: Array, before: Shape, after: Shape) -> Array:
    """Reshape as the row alone would.

    Axes fall in groups of equal size. A group stays as it is, or its ragged axis is the first and
    it keeps its order in memory; any other group is gathered index by index.

    Example:
      >>> reshaped(Context(dims.Sizes({}), {}), jnp.zeros((2, 3)), (2, 3), (6,)).shape
      (6,)
    """
    if all(_plain(before[a], after[b]) for a, b in groups(before, after)):
        value = value.reshape(context.shape(after))
        return context.repeat_first(value, after, _moved(before, after))
    return _gathered(context, value, before, after)


def groups(before: Shape, after: Shape) -> list[tuple[slice, slice]]:
    """The shortest runs of axes that hold the same number of elements.

    Example:
      >>> [(a.stop, b.stop) for a, b in groups((2, 3, 4), (6, 4))]
      [(2, 1), (3, 2)]
    """
    found, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        start, k = (i, j), (min(i + 1, len(before)), min(j + 1, len(after)))
        i, j = k
        while not _same(_product(before[start[0] : i]), _product(after[start[1] : j])):
            if i == len(before) and j == len(after):
                return [(slice(0, i), slice(0, j))]
            i, j = _longer(before, after, start, i, j)
        found.append((slice(start[0], i), slice(start[1], j)))
    return found


def _longer(before: Shape, after: Shape, start: tuple, i: int, j: int) -> tuple[int, int]:
    """Take one axis more on the side that holds less, as far as that can be told."""
    left, right = _product(before[start[0] : i]), _product(after[start[1] : j])
    try:
        behind = bool(left < right)
    except Exception as error:
        if type(error).__name__ != "InconclusiveDimensionOperation":
            raise
        behind = False
    if i == len(before):
        return i, j + 1
    if j == len(after) or behind:
        return i + 1, j
    return i, j + 1


def _product(sizes: Sequence[Any]) -> Any:
    total: Any = 1
    for size in sizes:
        total = size * total
    return total


def _same(a: Any, b: Any) -> bool:
    """Equal for every length: JAX keeps one normal form, so this is exact for polynomials."""
    return bool(a == b)


def _plain(before: Shape, after: Shape) -> bool:
    """Whether the elements of a row stand first in memory, in the same order on both sides."""
    return all(
        set(ragged_axes(side)) <= {next((k for k, d in enumerate(side) if not _is_one(d)), 0)}
        for side in (before, after)
    )


def _is_one(size: Any) -> bool:
    return not dims.is_symbolic(size) and size == 1


def _moved(before: Shape, after: Shape) -> list[int]:
    """The ragged axes of the result that are not an axis of the operand as it was."""
    moved = []
    for a, b in groups(before, after):
        olds, news = ([d for d in side if not _is_one(d)] for side in (before[a], after[b]))
        if len(olds) == len(news) == 1:
            continue
        moved += [k for k in ragged_axes(after) if b.start <= k < b.stop]
    return moved


def _gathered(context: Context, value: Array, before: Shape, after: Shape) -> Array:
    """Element by element: the place in the row of each result, and from there in the operand."""
    counts_after = [context.count(d) for d in after]
    physical = context.shape(before)
    place: Any = jnp.zeros((), jnp.int32)
    for axis, count in enumerate(counts_after):
        size = context.size(after[axis])
        index = context.positions(size)
        if dims.is_symbolic(after[axis]):
            index = select(context.real(after[axis]), index, 0)
        place = place[..., None] * count + index.reshape(*[1] * place.ndim, -1)
    flat, stride = jnp.zeros_like(place), 1
    for axis in reversed(range(len(before))):
        count = context.count(before[axis])
        flat = flat + place % jnp.maximum(count, 1) * stride
        place, stride = place // jnp.maximum(count, 1), stride * physical[axis]
    if int(np.prod(physical)) == 0:
        return jnp.zeros(context.shape(after), value.dtype)
    return jnp.take(value.reshape(-1), flat, mode="clip")
