"""Reshaping, broadcasting, transposing: axes that are added, removed, merged or split."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims, known
from jaxmask.ragged._interpreter.context import Context, Shape, ragged_axes, select
from jaxmask.ragged._interpreter.interpret import Step, rule_for
from jaxmask.ragged._interpreter.known import Known


@rule_for("broadcast_in_dim")
def broadcast_in_dim(step: Step, value: Array, *sizes: Array) -> Any:
    del sizes  # the shape of the result has them
    shape, axes = step.outputs[0], step.params["broadcast_dimensions"]
    if step.known[0] is not None:
        step.known_out = [step.known[0].broadcast(len(shape), axes, step.inputs[0])]
    return jax.lax.broadcast_in_dim(jnp.asarray(value), step.context.shape(shape), axes)


@rule_for("transpose")
def transpose(step: Step, value: Array) -> Any:
    return step.bind(value)


@rule_for("squeeze")
def squeeze(step: Step, value: Array) -> Any:
    dropped = step.params["dimensions"]
    if step.known[0] is not None:
        kept = tuple(s for k, s in enumerate(step.known[0].strides) if k not in dropped)
        step.known_out = [Known(step.known[0].offset, kept)]
    return step.bind(value)


@rule_for("iota")
def iota(step: Step, *sizes: Array) -> Any:
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

    Axes fall into groups of equal size. If in each group the only ragged axis is the first, this is
    a reshape of the physical array; otherwise elements are gathered one by one.
    """
    if all(_plain(before[a], after[b]) for a, b in groups(before, after)):
        value = value.reshape(context.shape(after))
        return context.repeat_first(value, after, _moved(before, after))
    return _gathered(context, value, before, after)


def groups(before: Shape, after: Shape) -> list[tuple[slice, slice]]:
    """The shortest runs of axes that hold the same number of elements."""
    found, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        start, i, j = (i, j), min(i + 1, len(before)), min(j + 1, len(after))
        while not _same(math.prod(before[start[0] : i]), math.prod(after[start[1] : j])):
            if i == len(before) and j == len(after):
                return [(slice(0, i), slice(0, j))]
            i, j = _longer(before, after, start, i, j)
        found.append((slice(start[0], i), slice(start[1], j)))
    return found


def _longer(before: Shape, after: Shape, start: tuple, i: int, j: int) -> tuple[int, int]:
    """Add an axis to the side with fewer elements, where it is known which has."""
    left, right = math.prod(before[start[0] : i]), math.prod(after[start[1] : j])
    if i < len(before) and (j == len(after) or known.decide(lambda: left < right)):
        return i + 1, j
    return i, j + 1


def _same(a: Any, b: Any) -> bool:
    """Equal for every length; exact for polynomials, which JAX keeps in a normal form."""
    return bool(a == b)


def _plain(before: Shape, after: Shape) -> bool:
    """Whether only the first axis is ragged, so that the elements of a row come first in memory."""
    return all(
        set(ragged_axes(side)) <= {next((k for k, d in enumerate(side) if not _is_one(d)), 0)}
        for side in (before, after)
    )


def _is_one(size: Any) -> bool:
    return not dims.is_symbolic(size) and size == 1


def _moved(before: Shape, after: Shape) -> list[int]:
    """The ragged axes of the result that are not unchanged axes of the operand."""
    moved = []
    for a, b in groups(before, after):
        olds, news = ([d for d in side if not _is_one(d)] for side in (before[a], after[b]))
        if len(olds) == len(news) == 1:
            continue
        moved += [k for k in ragged_axes(after) if b.start <= k < b.stop]
    return moved


def _gathered(context: Context, value: Array, before: Shape, after: Shape) -> Array:
    """Gather each element: its flat index in the row gives its index in the operand."""
    counts_after = [context.count(d) for d in after]
    physical = context.shape(before)
    in_row: Any = jnp.zeros((), jnp.int32)
    for axis, count in enumerate(counts_after):
        size = context.size(after[axis])
        index = context.positions(size)
        if dims.is_symbolic(after[axis]):
            index = select(context.real(after[axis]), index, 0)
        in_row = in_row[..., None] * count + index.reshape(*[1] * in_row.ndim, -1)
    flat, stride = jnp.zeros_like(in_row), 1
    for axis in reversed(range(len(before))):
        count = context.count(before[axis])
        flat = flat + in_row % jnp.maximum(count, 1) * stride
        in_row, stride = in_row // jnp.maximum(count, 1), stride * physical[axis]
    if int(np.prod(physical)) == 0:
        return jnp.zeros(context.shape(after), value.dtype)
    return jnp.take(value.reshape(-1), flat, mode="clip")
