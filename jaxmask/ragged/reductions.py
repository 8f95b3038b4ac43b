"""Reductions: padding becomes the identity of the operation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives

from jaxmask._types import Array
from jaxmask.ragged.interpret import REFUSED, Step, rule_for


def least(dtype: Any) -> Any:
    """What no value of a type is below.

    Example:
      >>> least(jnp.int8), least(jnp.float32)
      (-128, -inf)
    """
    if dtype == jnp.bool_:
        return False
    return int(jnp.iinfo(dtype).min) if jnp.issubdtype(dtype, jnp.integer) else -np.inf


def greatest(dtype: Any) -> Any:
    """What no value of a type is above.

    Example:
      >>> greatest(jnp.int8), greatest(jnp.float32)
      (127, inf)
    """
    if dtype == jnp.bool_:
        return True
    return int(jnp.iinfo(dtype).max) if jnp.issubdtype(dtype, jnp.integer) else np.inf


IDENTITY: dict[str, Any] = {
    "sum": lambda dtype: 0,
    "prod": lambda dtype: 1,
    "max": least,
    "min": greatest,
    "and": lambda dtype: True if dtype == jnp.bool_ else -1,
    "or": lambda dtype: 0,
    "xor": lambda dtype: 0,
}


@rule_for(*(f"reduce_{name}" for name in IDENTITY))
def reduce(step: Step, value: Array) -> Any:
    """Sums, products, extremes and the like."""
    identity = IDENTITY[step.primitive.name.removeprefix("reduce_")](value.dtype)
    if identity == -1 and jnp.issubdtype(value.dtype, jnp.unsignedinteger):
        identity = jnp.iinfo(value.dtype).max
    mask = step.context.mask(step.inputs[0], step.params["axes"])
    if isinstance(identity, float) and mask is not None:
        return _extreme(value, mask, identity, tuple(step.params.items()))
    value = step.fill(0, value, step.params["axes"], identity)
    if step.context.live is not None and step.primitive.name == "reduce_prod":
        value = jnp.where(step.context.live, value, jnp.ones((), value.dtype))
    return step.bind(value)


# Compiled as one, since op by op the infinite identity trips `jax_debug_infs`.
@partial(jax.jit, static_argnums=(2, 3))
def _extreme(value: Array, mask: Array, identity: float, params: tuple[Any, ...]) -> Array:
    primitive = primitives.reduce_max_p if identity < 0 else primitives.reduce_min_p
    filled = jnp.where(mask, value, jnp.asarray(identity, value.dtype))
    return primitive.bind(filled, **dict(params))


@rule_for("argmax", "argmin")
def arg_extreme(step: Step, value: Array) -> Any:
    """The first position of an extreme: a copy of position 0 never comes before it."""
    return step.bind(value)


REFUSED["reduce"] = "Its operation is the caller's own, and its identity is not known."
