"""Windows of an axis that start at a constant, at a length or at a computed index."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims
from jaxmask.ragged._interpreter.context import (
    Context,
    Shape,
    along,
    gather_along,
    ragged_axes,
    select,
)
from jaxmask.ragged._interpreter.interpret import Step, rule_for
from jaxmask.ragged._interpreter.known import Known


def window(
    context: Context, value: Array, axis: int, before: Any, start: Any, size: Any, stride: int = 1
) -> tuple[Array, bool]:
    """`value[start : start + size * stride : stride]` along an axis of logical size `before`.

    It must lie inside the row. `start` is an int, a symbolic size or an int32 scalar; `size` is an
    int or symbolic. Returns the window, and whether its padding is unfilled: then it holds what
    follows in `value`.
    """
    physical = context.size(size)
    if isinstance(start, int) and stride > 0:
        last = start + max(physical - 1, 0) * stride + 1
        if last <= value.shape[axis]:
            if start == 0 and stride == 1 and dims.is_symbolic(size) and str(size) == str(before):
                return value, False
            stop = last if physical else start
            piece = jax.lax.slice_in_dim(value, start, stop, stride, axis)
            return piece, dims.is_symbolic(size)
    start = start if isinstance(start, jax.Array) else context.count(start)
    if not dims.is_symbolic(size) and stride == 1 and physical <= value.shape[axis]:
        return jax.lax.dynamic_slice_in_dim(value, start, physical, axis), False
    index = context.positions(physical)
    if dims.is_symbolic(size):
        index = select(context.real(size), index, 0)
    index = index if stride == 1 else stride * index
    return gather_along(value, start + index, axis), False


@rule_for("slice")
def slice_(step: Step, value: Array) -> Any:
    params, before, after = step.params, step.inputs[0], step.outputs[0]
    strides, unfilled = params["strides"] or (1,) * len(before), []
    for axis, start in enumerate(params["start_indices"]):
        if any(dims.is_symbolic(d) for d in (before[axis], start, after[axis])):
            piece = before[axis], start, after[axis], strides[axis]
            value, is_unfilled = window(step.context, value, axis, *piece)
            unfilled += [axis] * is_unfilled
        else:
            stop = params["limit_indices"][axis]
            value = jax.lax.slice_in_dim(value, start, stop, strides[axis], axis)
    return step.unfilled(value, unfilled)


@rule_for("dynamic_slice")
def dynamic_slice(step: Step, value: Array, *starts: Array) -> Any:
    """Slice at computed indices, which are clipped to the row as on the row alone."""
    before, after, context = step.inputs[0], step.outputs[0], step.context
    touched = {*ragged_axes(before), *ragged_axes(after)}
    plain = [0 if k in touched else start for k, start in enumerate(starts[: len(before)])]
    sizes = [value.shape[k] if k in touched else after[k] for k in range(len(before))]
    value = jax.lax.dynamic_slice(value, plain, sizes)
    for axis in sorted(touched):
        if str(before[axis]) == str(after[axis]):
            continue
        last = context.count(before[axis]) - context.count(after[axis])
        start = jnp.clip(jnp.asarray(starts[axis], jnp.int32), 0, jnp.maximum(last, 0))
        value, _ = window(context, value, axis, before[axis], start, after[axis])
    return value


@rule_for("dynamic_update_slice")
def dynamic_update_slice(step: Step, value: Array, update: Array, *starts: Array) -> Any:
    """Write a window, whose start is clipped to the row."""
    whole, part, context = step.inputs[0], step.inputs[1], step.context
    clipped: list[Array] = []
    inside: Any = True
    for axis in range(len(whole)):
        last = context.count(whole[axis]) - context.count(part[axis])
        start = jnp.asarray(starts[axis], jnp.int32)
        clipped.append(jnp.clip(start, 0, jnp.maximum(jnp.asarray(last, jnp.int32), 0)))
    if not ragged_axes(part):
        return step.unfilled(jax.lax.dynamic_update_slice(value, update, clipped))
    for axis, start in enumerate(clipped):
        index = context.positions(value.shape[axis]) - start
        written = (index >= 0) & (index < context.count(part[axis]))
        inside = inside & along(written, axis, value.shape)
        update = gather_along(update, index, axis)
    return step.unfilled(select(inside, update, value))


@rule_for("rev")
def rev(step: Step, value: Array) -> Any:
    """Reverse each axis within the row."""
    shape = step.outputs[0]
    ragged = ragged_axes(shape, step.params["dimensions"])
    step.known_out = [_reversed(step.known[0], step.inputs[0], step.params["dimensions"])]
    value = jax.lax.rev(value, [k for k in step.params["dimensions"] if k not in ragged])
    for axis in ragged:
        last = step.context.count(shape[axis]) - 1
        value, _ = window(step.context, value, axis, shape[axis], last, shape[axis], -1)
    return value


def _reversed(operand: Known | None, shape: Shape, axes: Sequence[int]) -> Known | None:
    if operand is None:
        return None
    offset, strides = operand.offset, list(operand.strides)
    for axis in axes:
        offset = offset + strides[axis] * (shape[axis] - 1)
        strides[axis] = -strides[axis]
    return Known(offset, tuple(strides))
