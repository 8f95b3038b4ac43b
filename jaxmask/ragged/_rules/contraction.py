"""Matrix products: a contracted ragged axis is filled with 0."""

from typing import Any

import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter.interpret import Step, rule_for


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
