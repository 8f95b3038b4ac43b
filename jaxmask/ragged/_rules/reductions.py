"""Reductions: padding is filled with the identity of the operation."""

from typing import Any

import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter.interpret import REFUSED, Step, rule_for

IDENTITY: dict[str, Any] = {
    "sum": lambda dtype: 0,
    "prod": lambda dtype: 1,
    "and": lambda dtype: True if dtype == jnp.bool_ else -1,
    "or": lambda dtype: 0,
    "xor": lambda dtype: 0,
}


@rule_for(*(f"reduce_{name}" for name in IDENTITY))
def reduce(step: Step, value: Array) -> Any:
    """Fill the padding with the identity, and reduce."""
    identity = IDENTITY[step.primitive.name.removeprefix("reduce_")](value.dtype)
    if identity == -1 and jnp.issubdtype(value.dtype, jnp.unsignedinteger):
        identity = jnp.iinfo(value.dtype).max
    value = step.fill(0, value, step.params["axes"], identity)
    if step.context.reached is not None and step.primitive.name == "reduce_prod":
        value = jnp.where(step.context.reached, value, jnp.ones((), value.dtype))
    return step.bind(value)


REFUSED["reduce"] = "Its operation is the caller's own, whose identity is not known."
