"""Concatenation, splitting, and `pad`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims
from jaxmask.ragged._interpreter.context import Context, along, gather_along, select
from jaxmask.ragged._interpreter.interpret import Step, rule_for
from jaxmask.ragged._rules.slicing import window

FEW = 4  # at most this many positions are written one by one, by selects


@rule_for("concatenate")
def concatenate(step: Step, *values: Array) -> Any:
    """Write each operand where the one before it ends in this row."""
    axis, shape = step.params["dimension"], step.outputs[0]
    if not dims.is_symbolic(shape[axis]):
        return step.bind(*values)
    sizes = [shape[axis] for shape in step.inputs]
    # Operands up to the first ragged one start at the same position in every row.
    fixed = next(k for k, size in enumerate(sizes) if dims.is_symbolic(size)) + 1
    result = _sized(jax.lax.concatenate(values[:fixed], axis), axis, step.context.size(shape[axis]))
    offset = sum(step.context.count(size) for size in sizes[:fixed])
    for value, size in zip(values[fixed:], sizes[fixed:], strict=True):
        count = step.context.count(size)
        result = _overwritten(step.context, result, value, axis, offset, count)
        offset = offset + count
    return step.unfilled(result, [axis])


def _sized(value: Array, axis: int, size: int) -> Array:
    """Cut or extend an axis; what is added is overwritten or beyond the row."""
    if value.shape[axis] >= size:
        return jax.lax.slice_in_dim(value, 0, size, 1, axis)
    shape = [size - value.shape[axis] if k == axis else d for k, d in enumerate(value.shape)]
    return jnp.concatenate([value, jnp.zeros(shape, value.dtype)], axis)


def _overwritten(
    context: Context, base: Array, value: Array, axis: int, offset: Any, count: Any
) -> Array:
    """`base` with the first `count` positions of `value` from `offset` on."""
    index = context.positions(base.shape[axis]) - offset
    if isinstance(count, int) and count <= FEW:
        for k in range(count):
            one = jax.lax.slice_in_dim(value, k, k + 1, 1, axis)
            base = select(along(index != k, axis, base.shape), base, one)
        return base
    shifted = gather_along(value, index, axis)
    return select(along((index >= 0) & (index < count), axis, base.shape), shifted, base)


@rule_for("pad")
def pad(step: Step, value: Array, constant: Array) -> Any:
    """Pad and crop axis by axis."""
    for axis, config in enumerate(step.params["padding_config"]):
        before, after = step.inputs[0][axis], step.outputs[0][axis]
        if any(dims.is_symbolic(d) for d in (before, after, *config)):
            value = _padded(step.context, value, constant, axis, (before, after), config)
        else:
            configs = [config if k == axis else (0, 0, 0) for k in range(value.ndim)]
            value = jax.lax.pad(value, jnp.asarray(constant, value.dtype), configs)
    return value


def _padded(
    context: Context,
    value: Array,
    constant: Array,
    axis: int,
    sizes: tuple[Any, Any],
    config: Sequence[Any],
) -> Array:
    """One axis: element k goes to `low + k * (interior + 1)`."""
    (before, after), (low, _, interior) = sizes, config
    stride, physical = interior + 1, context.size(after)
    constant = jnp.asarray(constant, value.dtype)
    index = context.positions(physical) - context.count(low)
    inside = (index >= 0) & (index < (context.count(before) - 1) * stride + 1)
    if dims.is_symbolic(low):
        value = gather_along(value, index // stride, axis)
        inside &= index % stride == 0
    else:
        span = max(value.shape[axis] - 1, 0) * stride + min(value.shape[axis], 1)
        high = physical - low - span
        configs = [(low, high, interior) if k == axis else (0, 0, 0) for k in range(value.ndim)]
        value = jax.lax.pad(value, constant, configs)
    value = select(along(inside, axis, value.shape), value, constant)
    shape: tuple[Any, ...] = tuple(after if k == axis else d for k, d in enumerate(value.shape))
    return context.repeat_first(value, shape, [axis])


@rule_for("split")
def split(step: Step, value: Array) -> Any:
    axis, start, pieces = step.params["axis"], 0, []
    step.unfilled_out = []
    for size in step.params["sizes"]:
        before = step.inputs[0][axis]
        piece, unfilled = window(step.context, value, axis, before, start, size)
        pieces.append(piece)
        step.unfilled_out.append((axis,) * unfilled)
        start = start + size
    return pieces


@rule_for("stack")
def stack(step: Step, *values: Array) -> Any:
    return jnp.stack(values, step.params["axis"])


@rule_for("unstack")
def unstack(step: Step, value: Array) -> Any:
    return step.bind(value)


@rule_for("tile")
def tile(step: Step, value: Array) -> Any:
    reps = step.params["reps"]
    if len(reps) != value.ndim:
        raise step.refuse("It adds axes.")
    for axis, (count, size) in enumerate(zip(reps, step.outputs[0], strict=True)):
        if not dims.is_symbolic(size):
            value = jnp.concatenate([value] * count, axis) if count != 1 else value
        elif count != 1:
            index = step.context.positions(step.context.size(size))
            index = select(step.context.real(size), index, 0)
            length = step.context.count(step.inputs[0][axis])
            index = index % jnp.maximum(length, 1)
            value = gather_along(value, index, axis)
    return value
