"""Reductions over whole axes."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask.leak._proof.domain import NONE, Value
from jaxmask.leak._proof.exact import is_nan, whole
from jaxmask.leak._proof.interpret import Step, rule_for
from jaxmask.leak._rules.elementwise import where

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_sum": np.sum,
    "reduce_xor": np.bitwise_xor.reduce,
}


@rule_for(*REDUCTIONS)
def reduce(step: Step) -> list[Value]:
    """Known where all elements are, and the order of summation does not matter."""
    (x,), axes = step.ins, tuple(step.params["axes"])
    taint = step.over(x.taint, axes)
    if (
        x.value is None
        or x.known is None
        or (not x.size and step.name in ("reduce_max", "reduce_min"))
    ):
        return [Value(step.shape, taint=taint)]
    value = np.broadcast_to(x.value, x.shape)
    result = REDUCTIONS[step.name](value, axis=axes).astype(step.dtype)
    certain = x.known.all(axes)
    if step.name in ("reduce_sum", "reduce_prod"):
        good = np.broadcast_to(whole(value) & ~is_nan(value), x.shape)
        size = np.abs(np.where(np.isfinite(value), value, 0)) if value.dtype.kind != "b" else value
        total = REDUCTIONS[step.name](size, axis=axes)
        certain = certain & good.all(axes)
        if jnp.issubdtype(step.dtype, jnp.inexact):
            result = result + np.zeros((), step.dtype)  # XLA's sums begin with 0, not with -0
            certain = certain & whole(np.asarray(total).astype(step.dtype))
            certain = certain & ((result != 0) | (step.name == "reduce_sum"))
    else:
        certain = certain & ~is_nan(value).any(axes)
        if jnp.issubdtype(step.dtype, jnp.inexact):  # zeros of either sign
            certain = certain & (result != 0)
    result_known = Value(step.shape, result, np.asarray(certain), taint)
    return [result_known]


@rule_for("reduce_and", "reduce_or")
def reduce_logic(step: Step) -> list[Value]:
    """One known element may decide."""
    (x,), axes = step.ins, tuple(step.params["axes"])
    is_and = step.name == "reduce_and"
    taint = step.over(x.taint, axes)
    if x.value is None or x.known is None:
        return [Value(step.shape, taint=taint)]
    function = np.bitwise_and.reduce if is_and else np.bitwise_or.reduce
    value = np.broadcast_to(x.value, x.shape)
    result = Value(
        step.shape, np.asarray(function(value, axis=axes)), np.asarray(x.known.all(axes)), taint
    )
    deciding: Any = (not is_and) if step.dtype == bool else (0 if is_and else -1)
    return [where(result, np.asarray(x.is_known(deciding).any(axes)), deciding, step.dtype)]


@rule_for("argmax", "argmin")
def place_of_extreme(step: Step) -> list[Value]:
    """The first place of the extreme."""
    (x,), axes = step.ins, tuple(step.params["axes"])
    taint = step.over(x.taint, axes)
    if x.value is None or x.known is None:
        return [Value(step.shape, taint=taint)]
    value = np.broadcast_to(x.value, x.shape)
    function = np.argmax if step.name == "argmax" else np.argmin
    certain = x.known.all(axes) & ~is_nan(value).any(axes)
    place = np.asarray(function(value, axis=axes[0])).astype(step.dtype)
    return [Value(step.shape, place, np.asarray(certain), taint)]


@rule_for("reduce")
def reduce_by_function(step: Step) -> list[Value]:
    """By a function of several arrays, of which only the taint is followed."""
    axes = tuple(step.params["dimensions"])
    half = len(step.ins) // 2
    found: Any = NONE
    for value in step.ins[:half]:
        bits = step.over(value.taint, axes)
        found = found if bits is None else found | bits
    for value in step.ins[half:]:
        found = found | value.bits
    taint = np.broadcast_to(found, step.shape)
    return [Value(out.aval.shape, taint=taint) for out in step.equation.outvars]


@rule_for("fft")
def fft(step: Step) -> list[Value]:
    """Every result along the last axes depends on every element there."""
    (x,) = step.ins
    count = len(step.params["fft_lengths"])
    axes = tuple(range(len(x.shape) - count, len(x.shape)))
    taint = step.over(x.taint, axes)
    if taint is not None:
        taint = np.broadcast_to(taint.reshape(taint.shape + (1,) * count), step.shape)
    return [Value(step.shape, taint=taint)]


@rule_for("top_k", "approx_top_k")
def top_k(step: Step) -> list[Value]:
    """The greatest along an axis, of which only the taint is followed."""
    (x,) = step.ins[:1]
    axis = step.params.get("axis", step.params.get("reduction_dimension", -1)) % len(x.shape)
    taint = step.over(x.taint, (axis,))
    shapes = [out.aval.shape for out in step.equation.outvars]
    if taint is None:
        return [Value(shape) for shape in shapes]
    return [
        Value(shape, taint=np.broadcast_to(np.expand_dims(taint, axis), shape)) for shape in shapes
    ]
