"""Primitives that act on each element alone: they keep the invariant by themselves."""

from typing import Any

import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter import known
from jaxmask.ragged._interpreter.interpret import RULES, Step, rule_for
from jaxmask.ragged._interpreter.known import Known

# The derivative of these is bounded for all operands, so they are safe in parts of the program that
# the row alone would not run.
BOUNDED = """
    abs add add_any and bitcast_convert_type ceil clamp clz complex conj convert_element_type copy
    copy_p cos device_put eq eq_to erf erfc floor ge gt imag is_finite le le_to logistic lt lt_to
    name ne neg nextafter not optimization_barrier or population_count pvary
    random_fold_in random_seed random_unwrap random_wrap real reduce_precision round select_n
    sharding_constraint shift_left shift_right_arithmetic shift_right_logical sign sin
    stop_gradient sub tanh xor
""".split()  # noqa: SIM905

# The others, with operands at which value and derivative are finite; one value serves all operands.
SAFE: dict[str, tuple[float, ...]] = {
    "polynomial": (0.0,),
    "regularized_incomplete_beta": (1.0, 1.0, 0.5),
    "zeta": (2.0, 1.0),
    "acosh": (2.0,),
}
for _point, _names in (
    ((0.5,), "acos asin asinh atan atanh erf_inv"),
    ((1.0,), "bessel_i0e bessel_i1e cbrt cosh digamma exp exp2 expm1 integer_pow lgamma log log1p"),
    ((1.0,), "log2 one_minus_square rsqrt sinh sqrt square tan"),
    ((1.0, 1.0), "atan2 div igamma igamma_grad_a igammac mul polygamma pow random_gamma_grad rem"),
):
    SAFE |= dict.fromkeys(_names.split(), _point)


def elementwise(step: Step, *values: Array) -> Any:
    """The rule of primitives that act on each element alone, for `jm.ragged.register`.

    Every operand has the shape of the result, or is a scalar.

    Example:
      >>> import jaxmask as jm
      >>> jm.ragged.register("my_activation", jm.ragged.elementwise) is jm.ragged.elementwise
      True
    """
    pass_on(step)
    return step.bind(*guarded(step, values))


def pass_on(step: Step) -> None:
    """Pass on what is known of the operands, and the axes whose padding is not filled."""
    if len(step.outputs) == 1:  # `device_put` takes many operands at once
        step.known_out = [_known_result(step)]
        step.unfilled_out = [tuple({axis for axes in step.unfilled_in for axis in axes})]


def guarded(step: Step, values: tuple[Array, ...]) -> list[Array]:
    """Operands, replaced by safe ones where the row alone would not compute this."""
    safe = SAFE.get(step.primitive.name)
    computed = step.context.computed(step.outputs[0]) if safe else None
    if computed is None or safe is None:
        return list(values)
    safe = safe if len(safe) > 1 else safe * len(values)
    return [
        jnp.where(computed, value, jnp.asarray(point, jnp.result_type(value)))
        if jnp.issubdtype(jnp.result_type(value), jnp.inexact)
        else value
        for value, point in zip(values, safe, strict=True)
    ]


def _known_result(step: Step) -> Known | None:
    facts, name = step.known, step.primitive.name
    if not facts or facts[0] is None:
        return None
    if name in ("convert_element_type", "copy", "copy_p"):
        kept = jnp.issubdtype(step.equation.outvars[0].aval.dtype, jnp.integer)
        return facts[0] if kept else None
    if name == "neg":
        return known.multiply(Known(-1), facts[0])
    if name == "select_n":
        return _selected(facts)
    if len(facts) != 2:
        return None
    if name in ("add", "sub"):
        return known.add(facts[0], facts[1], 1 if name == "add" else -1)
    if name == "mul":
        return known.multiply(facts[0], facts[1])
    if name == "lt" and (difference := known.add(facts[0], facts[1], -1)) is not None:
        below = known.is_negative(difference)
        return None if below is None else Known(int(below), (0,) * len(step.outputs[0]))
    return None


def _selected(facts: list[Known | None]) -> Known | None:
    which = facts[0]
    if which is None or any(which.strides) or which.offset not in (0, 1):
        return None
    return facts[1 + which.offset]


for _name in (*BOUNDED, *SAFE):
    RULES[_name] = elementwise


@rule_for("dim_as_value")
def dim_as_value(step: Step) -> Array:
    """A length as a value of the program."""
    dim = step.params["dim"]
    step.known_out = [Known(dim)]
    return jnp.asarray(step.context.count(dim), step.equation.outvars[0].aval.dtype)
