"""Sorting: padding comes last."""

from typing import Any

import jax

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims
from jaxmask.ragged._interpreter.context import along
from jaxmask.ragged._interpreter.interpret import Step, rule_for
from jaxmask.ragged._rules.extremes import least


@rule_for("sort")
def sort(step: Step, *values: Array) -> Any:
    """Sort by whether a position is padding, then as the row alone."""
    axis, size = step.params["dimension"], step.inputs[0][step.params["dimension"]]
    if not dims.is_symbolic(size):
        return step.bind(*values)
    padding = along(~step.context.real(size), axis, values[0].shape)
    _, *results = jax.lax.sort(
        (padding, *values),
        dimension=axis,
        is_stable=step.params["is_stable"],
        num_keys=step.params["num_keys"] + 1,
    )
    context, shapes = step.context, step.outputs
    pairs = zip(results, shapes, strict=True)
    return [context.repeat_first(value, shape, [axis]) for value, shape in pairs]


@rule_for("top_k")
def top_k(step: Step, value: Array) -> Any:
    """The greatest values, with padding less than all others and last in a tie."""
    axis = step.params.get("axis", len(step.inputs[0]) - 1)
    if dims.is_symbolic(step.params["k"]):
        raise step.refuse("`k` is a length: sort instead.")
    return step.bind(step.fill(0, value, [axis], least(value.dtype)))
