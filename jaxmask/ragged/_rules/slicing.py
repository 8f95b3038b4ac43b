"""Windows of an axis, whether they start at a constant, at a length or at a computed place."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims
from jaxmask.ragged._interpreter.context import Context, along, ragged_axes, select, take
from jaxmask.ragged._interpreter.interpret import Step, rule_for


def window(
    context: Context, value: Array, axis: int, before: Any, start: Any, size: Any, stride: int = 1
) -> tuple[Array, bool]:
    """`value[start : start + size * stride : stride]` along one axis, all of it inside the row.

    Args:
      context: the row.
      value: with physical sizes.
      axis: of `value`.
      before: its logical size.
      start: an int, a symbolic size, or an int32 scalar of the program.
      size: how many positions, an int or symbolic.
      stride: an int, not 0.

    Returns:
      The window, and whether it is loose: its padding holds what followed in `value`.

    Example:
      >>> window(Context(dims.Sizes({}), {}), jnp.arange(5), 0, 5, 1, 2, 2)[0].tolist()
      [1, 3]
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
    return take(value, start + index, axis), False


@rule_for("slice")
def slice_(step: Step, value: Array) -> Any:
    """Slice; bounds may be lengths."""
    params, before, after = step.params, step.inputs[0], step.outputs[0]
    strides, loose = params["strides"] or (1,) * len(before), []
    for axis, start in enumerate(params["start_indices"]):
        if any(dims.is_symbolic(d) for d in (before[axis], start, after[axis])):
            piece = before[axis], start, after[axis], strides[axis]
            value, is_loose = window(step.context, value, axis, *piece)
            loose += [axis] * is_loose
        else:
            stop = params["limit_indices"][axis]
            value = jax.lax.slice_in_dim(value, start, stop, strides[axis], axis)
    return step.loose(value, loose)


@rule_for("dynamic_slice")
def dynamic_slice(step: Step, value: Array, *starts: Array) -> Any:
    """Slice at computed places, which are moved inside the row as on the row alone."""
    before, after, context = step.inputs[0], step.outputs[0], step.context
    touched = {*ragged_axes(before), *ragged_axes(after)}
    plain = [0 if k in touched else start for k, start in enumerate(starts[: len(before)])]
    sizes = [value.shape[k] if k in touched else after[k] for k in range(len(before))]
    value = jax.lax.dynamic_slice(value, plain, sizes)
    for axis in sorted(touched):
        if str(before[axis]) == str(after[axis]):
            continue
        room = context.count(before[axis]) - context.count(after[axis])
        start = jnp.clip(jnp.asarray(starts[axis], jnp.int32), 0, jnp.maximum(room, 0))
        value, _ = window(context, value, axis, before[axis], start, after[axis])
    return value


@rule_for("dynamic_update_slice")
def dynamic_update_slice(step: Step, value: Array, update: Array, *starts: Array) -> Any:
    """Write a window."""
    whole, part, context = step.inputs[0], step.inputs[1], step.context
    clipped: list[Array] = []
    inside: Any = True
    for axis in range(len(whole)):
        room = context.count(whole[axis]) - context.count(part[axis])
        start = jnp.asarray(starts[axis], jnp.int32)
        clipped.append(jnp.clip(start, 0, jnp.maximum(jnp.asarray(room, jnp.int32), 0)))
    if not ragged_axes(part):
        return step.loose(jax.lax.dynamic_update_slice(value, update, clipped))
    for axis, start in enumerate(clipped):
        place = context.positions(value.shape[axis]) - start
        here = (place >= 0) & (place < context.count(part[axis]))
        inside = inside & along(here, axis, value.shape)
        update = take(update, place, axis)
    return step.loose(select(inside, update, value))


@rule_for("rev")
def rev(step: Step, value: Array) -> Any:
    """Reverse each axis within the row."""
    shape = step.outputs[0]
    ragged = ragged_axes(shape, step.params["dimensions"])
    step.known_out = [_reversed(step)]
    value = jax.lax.rev(value, [k for k in step.params["dimensions"] if k not in ragged])
    for axis in ragged:
        last = step.context.count(shape[axis]) - 1
        value, _ = window(step.context, value, axis, shape[axis], last, shape[axis], -1)
    return value


def _reversed(step: Step) -> Any:
    fact = step.known[0]
    if fact is None:
        return None
    offset, strides = fact.offset, list(fact.strides)
    for axis in step.params["dimensions"]:
        offset = offset + strides[axis] * (step.inputs[0][axis] - 1)
        strides[axis] = -strides[axis]
    return type(fact)(offset, tuple(strides))
