"""Cumulative sums, products and extremes."""

from typing import Any

import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter.interpret import Step, rule_for
from jaxmask.ragged._rules.extremes import greatest, least

IDENTITY: dict[str, Any] = {
    "cumsum": lambda dtype: 0,
    "cumprod": lambda dtype: 1,
    "cummax": least,
    "cummin": greatest,
    "cumlogsumexp": lambda dtype: jnp.finfo(dtype).min,
}


@rule_for(*IDENTITY)
def cumulative(step: Step, value: Array) -> Any:
    """Fill the padding with the identity, in either direction of the scan.

    A product of copies could grow to inf, and turn its zero cotangent into nan.
    """
    identity = IDENTITY[step.primitive.name](value.dtype)
    axis = step.params["axis"]
    value = step.fill(0, value, [axis], identity)
    if step.context.reached is not None and step.primitive.name == "cumprod":
        value = jnp.where(step.context.reached, value, jnp.ones((), value.dtype))
    return step.unfilled(step.bind(value), [axis])
