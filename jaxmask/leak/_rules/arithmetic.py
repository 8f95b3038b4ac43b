"""Arithmetic: known where it is certain to the bit, however XLA orders and rewrites it."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask.leak._proof.domain import Value
from jaxmask.leak._proof.exact import is_float, is_nan, normal, whole
from jaxmask.leak._proof.interpret import Step, rule_for
from jaxmask.leak._rules.elementwise import computed, unknown, where, with_nan

Function = Callable[..., Any]

# Known operands give a known result where the numbers are whole.
WHOLE: dict[str, Function] = {
    "add": np.add,
    "add_any": np.add,
    "mul": np.multiply,
    "square": np.square,
    "sub": np.subtract,
}


@rule_for(*WHOLE)
def arithmetic(step: Step) -> list[Value]:
    """Sums and products: known where they are whole."""
    values = [value.value for value in step.ins if value.value is not None]
    function = WHOLE[step.name]
    if len(values) < len(step.ins):
        (result,) = unknown(step)
    else:
        certain: Any = True
        made = function(*values)
        for value in values:
            certain = certain & whole(value)
        (result,) = computed(step, function, certain & (whole(made) | is_nan(made)))
    if step.name == "mul":
        result = _product(step, result)
    elif step.finite and step.name in ("add", "add_any", "sub"):
        result = _with_the_largest(step, result)
    return [with_nan(step, result)]


def _product(step: Step, result: Value) -> Value:
    """A known zero makes the product zero, unless nan or infinity may be on the other side."""
    if jnp.issubdtype(step.dtype, jnp.inexact) and not step.finite:
        return result
    for value in step.ins:
        other = ~_others_not_finite(step, value)
        result = where(result, value.is_known(0) & other, 0, step.dtype)
    return result


def _others_not_finite(step: Step, value: Value) -> np.ndarray:
    """Where another operand is known to be nan or infinite."""
    found = np.broadcast_to(False, step.shape)
    for other in step.ins:
        if other is not value and other.value is not None and is_float(other.value):
            found = found | (other.where_known & ~np.isfinite(other.value))
    return found


def _with_the_largest(step: Step, result: Value) -> Value:
    """In finite mode, what is unknown is lost beside infinity, or a number near the largest."""
    for index, value in enumerate(step.ins):
        if value.value is None or not is_float(value.value) or np.iscomplexobj(value.value):
            continue
        number = -value.value if step.name == "sub" and index == 1 else value.value
        other = step.ins[1 - index]
        place = value.where_known & (np.abs(number) >= _huge(value.value.dtype))
        if place.any():
            place = place & ~other.where_known
            result = where(result, place, np.broadcast_to(number, step.shape), step.dtype)
    return result


def _huge(dtype: Any) -> float:
    """From here on the spacing of numbers is far more than finite mode takes for possible."""
    info = jnp.finfo(dtype)
    return float(info.max) / 256 if info.bits > 16 or info.nmant < 10 else np.inf


@rule_for("div")
def division(step: Step) -> list[Value]:
    """Of floats, only by powers of two or of zero; of integers, towards zero."""
    a, b = step.ins
    if np.issubdtype(step.dtype, np.integer):
        if b.value is None:
            return unknown(step)
        return computed(step, _towards_zero, (b.value != 0) & (b.value != -1))
    (result,) = unknown(step)
    if b.value is not None:
        if a.value is not None:
            good = whole(a.value) & (np.abs(b.value) == 1)
            (result,) = computed(step, np.divide, good)
        if step.finite:
            result = where(
                result, np.isinf(b.value) & b.where_known & ~a.where_known, 0, step.dtype
            )
    if a.value is not None and step.finite:
        result = where(result, a.is_known(0) & ~b.where_known, 0, step.dtype)
    if a.value is not None and b.value is not None:
        place = a.is_known(0) & b.where_known & np.isfinite(b.value) & (b.value > 0)
        place = place & normal(b.value)
        result = where(result, place, a.value, step.dtype) if place.any() else result
    return [with_nan(step, result)]


def _towards_zero(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    quotient = a // b
    return quotient + ((quotient < 0) & (quotient * b != a))


@rule_for("rem")
def remainder(step: Step) -> list[Value]:
    """Of integers, with the sign of the dividend."""
    divisor = step.ins[1].value
    if divisor is None or not np.issubdtype(step.dtype, np.integer):
        return unknown(step)
    return computed(step, np.fmod, (divisor != 0) & (divisor != -1))


SHIFTS: dict[str, Function] = {
    "shift_left": np.left_shift,
    "shift_right_arithmetic": np.right_shift,
}


@rule_for("shift_left", "shift_right_arithmetic", "shift_right_logical")
def shift(step: Step) -> list[Value]:
    """By less than the width."""
    by = step.ins[1].value
    if by is None or step.ins[0].value is None:
        return unknown(step)
    function = SHIFTS.get(step.name, _logical)
    return computed(step, function, (by >= 0) & (by < 8 * np.dtype(step.dtype).itemsize))


def _logical(a: np.ndarray, by: np.ndarray) -> np.ndarray:
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return np.right_shift(a.view(unsigned), by.astype(unsigned)).view(a.dtype)


@rule_for("integer_pow")
def integer_pow(step: Step) -> list[Value]:
    """Known where the result is whole."""
    base, power = step.ins[0].value, step.params["y"]
    if base is None or power < 0:
        return unknown(step)
    certain = whole(base) & whole(base**power)
    return computed(step, lambda a: a**power, certain)
