"""Primitives that move whole axes, and those that make arrays of nothing."""

import numpy as np

from jaxmask.leak._proof.domain import Value, concrete
from jaxmask.leak._proof.interpret import Step, rule_for


@rule_for("broadcast_in_dim")
def broadcast_in_dim(step: Step) -> list[Value]:
    """New axes, and axes of one element repeated."""
    (value, *_), axes = step.ins, step.params["broadcast_dimensions"]
    sizes = [1] * len(step.shape)
    for axis, size in zip(axes, value.shape, strict=True):
        sizes[axis] = size
    return [value.moved(lambda a: np.broadcast_to(a.reshape(sizes), step.shape), step.shape)]


@rule_for("reshape", "squeeze", "expand_dims")
def reshape(step: Step) -> list[Value]:
    """The same elements in the same order."""
    return [step.ins[0].moved(lambda a: a.reshape(step.shape), step.shape)]


@rule_for("transpose")
def transpose(step: Step) -> list[Value]:
    """The same elements with their axes in another order."""
    order = step.params["permutation"]
    return [step.ins[0].moved(lambda a: a.transpose(order), step.shape)]


@rule_for("rev")
def rev(step: Step) -> list[Value]:
    """The same elements backwards."""
    axes = step.params["dimensions"]
    return [step.ins[0].moved(lambda a: np.flip(a, axes), step.shape)]


@rule_for("tile")
def tile(step: Step) -> list[Value]:
    """Copies side by side."""
    return [step.ins[0].moved(lambda a: np.tile(a, step.params["reps"]), step.shape)]


@rule_for("concatenate")
def concatenate(step: Step) -> list[Value]:
    """Arrays side by side."""
    return [side_by_side(step.ins, step.params["dimension"], step.dtype)]


@rule_for("stack")
def stack(step: Step) -> list[Value]:
    """Arrays side by side along a new axis."""
    axis = step.params["axis"]
    shape = tuple(np.insert(np.array(step.ins[0].shape, int), axis, 1))
    parts = [value.moved(lambda a: np.expand_dims(a, axis), shape) for value in step.ins]
    return [side_by_side(parts, axis, step.dtype)]


@rule_for("unstack")
def unstack(step: Step) -> list[Value]:
    """The elements along an axis apart."""
    axis, (value,) = step.params["axis"], step.ins
    return [
        value.moved(lambda a, k=index: np.take(a, k, axis), out.aval.shape)  # type: ignore[misc]
        for index, out in enumerate(step.equation.outvars)
    ]


@rule_for("split")
def split(step: Step) -> list[Value]:
    """Consecutive parts."""
    axis, (value,), start, parts = step.params["axis"], step.ins, 0, []
    for out, size in zip(step.equation.outvars, step.params["sizes"], strict=True):
        part = (slice(None),) * axis + (slice(start, start + size),)
        parts.append(value.moved(lambda a, part=part: a[part], out.aval.shape))  # type: ignore[misc]
        start += size
    return parts


def side_by_side(values: list[Value], axis: int, dtype: object) -> Value:
    """Concatenate what is known of some arrays."""
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    taint = value = known = None
    if any(v.taint is not None for v in values):
        taint = np.concatenate([v.bits for v in values], axis)
    if any(v.value is not None for v in values):
        parts = [np.zeros(v.shape, dtype) if v.value is None else v.value for v in values]
        value = np.concatenate(
            [np.broadcast_to(p, v.shape) for p, v in zip(parts, values, strict=True)], axis
        )
        known = np.concatenate([v.where_known for v in values], axis)
    return Value(tuple(shape), value, known, taint)


@rule_for("iota")
def iota(step: Step) -> list[Value]:
    """Positions along an axis."""
    axis, shape = step.params["dimension"], step.shape
    line = np.arange(shape[axis]).astype(step.dtype)
    sizes = [shape[axis] if k == axis else 1 for k in range(len(shape))]
    return [concrete(np.broadcast_to(line.reshape(sizes), shape))]


@rule_for("empty", "empty2", "platform_index", "axis_index", "create_token")
def made(step: Step) -> list[Value]:
    """Made of nothing, and so clean."""
    return [Value(out.aval.shape) for out in step.equation.outvars]
