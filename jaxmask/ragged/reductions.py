"""Reductions: padding becomes the identity of the operation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array
from jaxmask.ragged.context import select
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
    if isinstance(identity, float):
        return _extreme(step, value, identity)
    value = step.fill(0, value, step.params["axes"], identity)
    if step.context.live is not None and step.primitive.name == "reduce_prod":
        value = jnp.where(step.context.live, value, jnp.ones((), value.dtype))
    return step.bind(value)


@rule_for("argmax", "argmin")
def arg_extreme(step: Step, value: Array) -> Any:
    """The first position of an extreme; padding comes last in a tie.

    Copies of position 0 would not do: they may differ from it by a rounding.
    """
    identity = least if step.primitive.name == "argmax" else greatest
    return _extreme(step, value, identity(value.dtype))


def _extreme(step: Step, value: Array, identity: Any) -> Array:
    mask = step.context.mask(step.inputs[0], step.params["axes"])
    if mask is None:
        return step.bind(value)
    return _filled_extreme(value, mask, identity, step.primitive, tuple(step.params.items()))


# Compiled as one, since op by op the infinite identity trips `jax_debug_infs`.
@partial(jax.jit, static_argnums=(2, 3, 4))
def _filled_extreme(
    value: Array, mask: Array, identity: Any, primitive: Any, params: tuple[Any, ...]
) -> Array:
    return primitive.bind(select(mask, value, identity), **dict(params))


REFUSED["reduce"] = "Its operation is the caller's own, and its identity is not known."
