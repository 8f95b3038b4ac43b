"""Primitives that move whole axes, and those that make arrays of nothing."""

import numpy as np

from jaxmask.leak._numpy import NUMPY
from jaxmask.leak._proof.domain import Value, concrete
from jaxmask.leak._proof.interpret import Step, rule_for


@rule_for("broadcast_in_dim", "expand_dims", "reshape", "rev", "slice", "squeeze", "transpose")
def move(step: Step) -> list[Value]:
    """The elements themselves, elsewhere."""
    function = NUMPY[step.name]
    return [step.ins[0].moved(lambda a: function(step.params, a), step.shape)]


@rule_for("tile")
def tile(step: Step) -> list[Value]:
    return [step.ins[0].moved(lambda a: np.tile(a, step.params["reps"]), step.shape)]


@rule_for("concatenate")
def concatenate(step: Step) -> list[Value]:
    return [side_by_side(step.ins, step.params["dimension"], step.dtype)]


@rule_for("stack")
def stack(step: Step) -> list[Value]:
    axis = step.params["axis"]
    shape = tuple(np.insert(np.array(step.ins[0].shape, int), axis, 1))
    parts = [value.moved(lambda a: np.expand_dims(a, axis), shape) for value in step.ins]
    return [side_by_side(parts, axis, step.dtype)]


@rule_for("unstack")
def unstack(step: Step) -> list[Value]:
    axis, (value,) = step.params["axis"], step.ins
    return [
        value.moved(lambda a, k=index: np.take(a, k, axis), out.aval.shape)  # type: ignore[misc]
        for index, out in enumerate(step.equation.outvars)
    ]


@rule_for("split")
def split(step: Step) -> list[Value]:
    (value,) = step.ins
    return [
        value.moved(lambda a, k=k: NUMPY["split"](step.params, a)[k], out.aval.shape)  # type: ignore[misc]
        for k, out in enumerate(step.equation.outvars)
    ]


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
    return [concrete(NUMPY["iota"](step.params))]


@rule_for("empty", "empty2", "platform_index", "axis_index", "create_token")
def made(step: Step) -> list[Value]:
    """Made of nothing, and so clean."""
    return [Value(out.aval.shape) for out in step.equation.outvars]
