"""Reductions, cumulative ones and matrix products: padding holds the identity of the operation."""

from typing import Any

import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter.interpret import REFUSED, Step, rule_for
from jaxmask.ragged._rules.extremes import greatest, least

IDENTITY: dict[str, Any] = {
    "sum": lambda dtype: 0,
    "prod": lambda dtype: 1,
    "and": lambda dtype: True if dtype == jnp.bool_ else -1,
    "or": lambda dtype: 0,
    "xor": lambda dtype: 0,
}


@rule_for(*(f"reduce_{name}" for name in IDENTITY))
def reduce(step: Step, value: Array) -> Any:
    identity = IDENTITY[step.primitive.name.removeprefix("reduce_")](value.dtype)
    if identity == -1 and jnp.issubdtype(value.dtype, jnp.unsignedinteger):
        identity = jnp.iinfo(value.dtype).max
    value = step.fill(0, value, step.params["axes"], identity)
    if step.context.reached is not None and step.primitive.name == "reduce_prod":
        value = jnp.where(step.context.reached, value, jnp.ones((), value.dtype))
    return step.bind(value)


REFUSED["reduce"] = "Its operation is the caller's own, whose identity is not known."

_OF_CUMULATIVE: dict[str, Any] = {
    "cumsum": lambda dtype: 0,
    "cumprod": lambda dtype: 1,
    "cummax": least,
    "cummin": greatest,
    "cumlogsumexp": lambda dtype: jnp.finfo(dtype).min,
}


@rule_for(*_OF_CUMULATIVE)
def cumulative(step: Step, value: Array) -> Any:
    """Fill the padding with the identity, in either direction of the scan.

    A product of copies could grow to inf, and turn its zero cotangent into nan.
    """
    identity = _OF_CUMULATIVE[step.primitive.name](value.dtype)
    axis = step.params["axis"]
    value = step.fill(0, value, [axis], identity)
    if step.context.reached is not None and step.primitive.name == "cumprod":
        value = jnp.where(step.context.reached, value, jnp.ones((), value.dtype))
    return step.unfilled(step.bind(value), [axis])


@rule_for("dot_general")
def dot_general(step: Step, left: Array, right: Array) -> Any:
    """Contract; free and batch axes keep the invariant by themselves."""
    (left_axes, right_axes), _ = step.params["dimension_numbers"]
    # On both sides: if the padding of one holds inf, a copy of position 0, then 0 * inf is nan.
    left = step.fill(0, left, left_axes, 0)
    right = step.fill(1, right, right_axes, 0)
    computed = step.context.reached
    if computed is not None:
        left, right = (jnp.where(computed, v, jnp.zeros((), v.dtype)) for v in (left, right))
    return step.bind(left, right)
