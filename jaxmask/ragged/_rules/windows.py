"""Convolutions and pooling windows."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims
from jaxmask.ragged._interpreter.context import along, gather_along, ragged_axes, select
from jaxmask.ragged._interpreter.interpret import REFUSED, Step, rule_for
from jaxmask.ragged._rules.extremes import greatest, least


@rule_for("conv_general_dilated")
def convolution(step: Step, value: Array, kernel: Array) -> Any:
    """Convolve, with zeros beyond the row as beyond the array of the row alone."""
    params, before, after = step.params, step.inputs[0], step.outputs[0]
    spec = params["dimension_numbers"]
    batch, feature, *spatial = spec.lhs_spec
    out_spatial = spec.out_spec[2:]
    if ragged_axes(step.inputs[1], spec.rhs_spec[2:]):
        raise step.refuse("The length of its kernel is symbolic.")
    if dims.is_symbolic(before[batch]) and params["batch_group_count"] != 1:
        raise step.refuse("It groups the batch.")
    if dims.is_symbolic(after[spec.out_spec[1]]) and params["feature_group_count"] != 1:
        raise step.refuse("It groups ragged features.")
    value = step.fill(0, value, [feature, *spatial], 0)
    kernel = step.fill(1, kernel, [spec.rhs_spec[1]], 0)
    if step.context.reached is not None:
        value = jnp.where(step.context.reached, value, jnp.zeros((), value.dtype))
        kernel = jnp.where(step.context.reached, kernel, jnp.zeros((), kernel.dtype))
    padding = []
    for k, (axis, out) in enumerate(zip(spatial, out_spatial, strict=True)):
        reach = (kernel.shape[spec.rhs_spec[2 + k]] - 1) * params["rhs_dilation"][k] + 1
        sizes, dilation = (before[axis], after[out]), params["lhs_dilation"][k]
        moved = (params["padding"][k], params["window_strides"][k], reach, dilation)
        value, pair = _edges(step, value, axis, sizes, moved, 0)
        padding.append(pair)
    result = step.bind(value, kernel, padding=tuple(padding))
    return step.unfilled(result, out_spatial)


def _edges(
    step: Step,
    value: Array,
    axis: int,
    sizes: tuple[Any, Any],
    geometry: tuple[Any, int, int, int],
    constant: Any,
) -> tuple[Array, tuple[int, int]]:
    """The padding at both ends of an axis for which the result has its physical size.

    If the padding on the left depends on the length (a stride with "SAME"), the row is shifted.
    """
    (before, after), ((low, high), stride, reach, dilation) = sizes, geometry
    if not any(dims.is_symbolic(d) for d in (before, after, low, high)):
        return value, (low, high)
    context = step.context
    needed = (context.size(after) - 1) * stride + reach
    if dims.is_symbolic(low):
        if dilation != 1:
            raise step.refuse("Its padding depends on the length, and it dilates its input.")
        index = context.positions(max(needed, 0)) - context.count(low)
        shifted = gather_along(value, index, axis)
        inside = along((index >= 0) & (index < context.count(before)), axis, shifted.shape)
        return select(inside, shifted, constant), (0, 0)
    dilated = max(value.shape[axis] - 1, 0) * dilation + min(value.shape[axis], 1)
    return value, (low, needed - low - dilated)


IDENTITY: dict[str, Any] = {
    "reduce_window_sum": lambda dtype: 0,
    "reduce_window_max": least,
    "reduce_window_min": greatest,
}


@rule_for(*IDENTITY)
def reduce_window(step: Step, value: Array) -> Any:
    params, before, after = step.params, step.inputs[0], step.outputs[0]
    if any(dims.is_symbolic(size) for size in params["window_dimensions"]):
        raise step.refuse("The size of its window is a length.")
    identity = IDENTITY[step.primitive.name](value.dtype)
    value = step.fill(0, value, range(len(before)), identity)
    padding = []
    for axis in range(len(before)):
        reach = (params["window_dimensions"][axis] - 1) * params["window_dilation"][axis] + 1
        dilation = params["base_dilation"][axis]
        geometry = (params["padding"][axis], params["window_strides"][axis], reach, dilation)
        sizes = (before[axis], after[axis])
        value, (low, high) = _edges(step, value, axis, sizes, geometry, identity)
        if dilation == 1 and high < 0:
            # The longest row has steps after its last window, which the primitive cannot crop.
            value, high = jax.lax.slice_in_dim(value, 0, value.shape[axis] + high, 1, axis), 0
        padding.append((low, high))
    if any(min(pair) < 0 for pair in padding):
        raise step.refuse("It crops an end of the axis.")
    return step.unfilled(step.bind(value, padding=tuple(padding)))


for _name in ("reduce_window", "select_and_scatter_add", "select_and_gather_add"):
    REFUSED[_name] = "Windows with an operation of the caller's own are not supported."
