"""Maxima and minima.

JAX sends the gradient to the values that equal the maximum. XLA may recompute a value for that
comparison, in another fusion with different rounding; then no value equals the maximum, and the
gradient is lost. Here the index of the maximum decides, or which of two is greater.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array, common_dtype
from jaxmask.ragged._interpreter.context import select
from jaxmask.ragged._interpreter.interpret import Step, rule_for
from jaxmask.ragged._rules.elementwise import pass_on


def least(dtype: Any) -> Any:
    if dtype == jnp.bool_:
        return False
    return int(jnp.iinfo(dtype).min) if jnp.issubdtype(dtype, jnp.integer) else -np.inf


def greatest(dtype: Any) -> Any:
    if dtype == jnp.bool_:
        return True
    return int(jnp.iinfo(dtype).max) if jnp.issubdtype(dtype, jnp.integer) else np.inf


@rule_for("reduce_max", "reduce_min", "argmax", "argmin")
def extreme(step: Step, value: Array) -> Any:
    """Fill the padding with the identity, which comes last in a tie.

    Copies of position 0 would not do for argmax: they may differ from it by rounding.
    """
    name, axes = step.primitive.name, step.params["axes"]
    identity = (least if name.endswith("max") else greatest)(value.dtype)
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return step.bind(step.fill(0, value, axes, identity))
    mask, params = step.context.mask(step.inputs[0], axes), tuple(step.params.items())
    differentiable = name.startswith("reduce") and value.dtype.kind != "c" and value.size
    find = _differentiable if differentiable else _found
    return find(value, mask, identity, step.primitive, params)


# Compiled as one: op by op, the infinite identity would trip `jax_debug_infs`.
@partial(jax.jit, static_argnums=(2, 3, 4))
def _found(
    value: Array, mask: Array | None, identity: float, primitive: Any, params: tuple[Any, ...]
) -> Array:
    filled = value if mask is None else select(mask, value, identity)
    return primitive.bind(filled, **dict(params))


_differentiable = jax.custom_jvp(_found, nondiff_argnums=(2, 3, 4))


@_differentiable.defjvp
@partial(jax.jit, static_argnums=(0, 1, 2))
def _found_jvp(
    identity: float, primitive: Any, params: tuple[Any, ...], primals: Any, tangents: Any
) -> tuple[Array, Array]:
    """Equal maxima share the gradient, as on the row alone; the first always counts as one."""
    value, mask = primals
    result = _differentiable(value, mask, identity, primitive, params)
    axes = dict(params)["axes"]
    filled = value if mask is None else select(mask, value, identity)
    kept = [k for k in range(value.ndim) if k not in axes]
    order = (*kept, *axes)

    def reduced_last(x: Array) -> Array:
        return jnp.transpose(x, order).reshape(*(value.shape[k] for k in kept), -1)

    filled = reduced_last(filled)
    last = filled.ndim - 1
    find = jax.lax.argmax if identity < 0 else jax.lax.argmin
    first = jnp.expand_dims(find(filled, last, jnp.int32), last)
    ties = filled == jnp.expand_dims(result, last)
    ties = ties if mask is None else ties & reduced_last(mask)
    ties |= jax.lax.broadcasted_iota(jnp.int32, filled.shape, last) == first
    count = jnp.sum(ties, last, dtype=common_dtype(value.dtype, jnp.float32))
    weight = jnp.where(ties, jnp.expand_dims(1 / count, last), 0).astype(value.dtype)
    tangent = jnp.where(ties, reduced_last(tangents[0]), jnp.zeros((), value.dtype))
    return result, jnp.sum(tangent * weight, last)


@rule_for("max", "min")
def of_two(step: Step, *values: Array) -> Any:
    pass_on(step)
    if not jnp.issubdtype(step.equation.outvars[0].aval.dtype, jnp.floating):
        return step.bind(*values)
    return _of_two(*values, step.primitive)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _of_two(a: Array, b: Array, primitive: Any) -> Array:
    return primitive.bind(a, b)


@_of_two.defjvp
def _of_two_jvp(primitive: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (a, b), (of_a, of_b) = primals, tangents
    if primitive.name == "min":
        taken, left = a < b, b < a
    else:
        taken, left = a > b, b > a
    half = jnp.asarray(0.5, of_a.dtype)
    other = jnp.where(left, of_b, half * of_a + half * of_b)
    return _of_two(a, b, primitive), jnp.where(taken, of_a, other)
