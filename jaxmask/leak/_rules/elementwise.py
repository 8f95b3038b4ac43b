"""Primitives that act on each element alone, and give the same bits for the same operands."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask.leak._proof.domain import NONE, Value, same_bits, union
from jaxmask.leak._proof.exact import is_float, is_nan, normal, whole
from jaxmask.leak._proof.interpret import RULES, Step, rule_for

Function = Callable[..., Any]

# Of these only the taint is followed.
UNKNOWN = """
    acos acosh asin asinh atan atan2 atanh bessel_i0e bessel_i1e bitcast_convert_type cbrt clz cosh
    cos digamma eq_to erf erf_inv erfc exp exp2 expm1 igamma igamma_grad_a igammac le_to lgamma log
    log1p log2 logistic lt_to nextafter one_minus_square polygamma population_count pow
    random_gamma_grad reduce_precision regularized_incomplete_beta rsqrt sin sinh sqrt tan tanh
    threefry2x32 zeta
""".split()  # noqa: SIM905
COPIES = """
    copy copy_p device_put name optimization_barrier pvary sharding_constraint
    stop_gradient layout_constraint mesh_cast reshard pcast
""".split()  # noqa: SIM905
# Known operands give a known result.


def _complex(real: Any, imaginary: Any) -> np.ndarray:
    """Not `a + 1j * b`, which loses the sign of a zero and makes nan of infinities."""
    real, imaginary = np.broadcast_arrays(real, imaginary)
    result = np.empty(real.shape, np.result_type(real.dtype, np.complex64))
    result.real, result.imag = real, imaginary
    return result


EXACT: dict[str, Function] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "complex": _complex,
    "conj": np.conj,
    "eq": np.equal,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "imag": np.imag,
    "le": np.less_equal,
    "lt": np.less,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "real": np.real,
    "sign": np.sign,
    "xor": np.bitwise_xor,
}
# At a few points the result is certain: `value -> result`.
POINTS: dict[str, dict[float, float]] = {
    "cos": {0: 1},
    "cosh": {0: 1},
    "exp": {-np.inf: 0, 0: 1, np.inf: np.inf},
    "exp2": {-np.inf: 0, 0: 1, np.inf: np.inf},
    "expm1": {-np.inf: -1, np.inf: np.inf},
    "log": {1: 0, 0: -np.inf, np.inf: np.inf},
    "log1p": {-1: -np.inf, np.inf: np.inf},
    "logistic": {-np.inf: 0, np.inf: 1},
    "sqrt": {1: 1, np.inf: np.inf},
    "tanh": {-np.inf: -1, np.inf: 1},
}
# Of these 0 and -0 are fixed points.
ODD = frozenset(
    [
        "asin",
        "asinh",
        "atan",
        "cbrt",
        "erf",
        "erf_inv",
        "expm1",
        "log1p",
        "sin",
        "sinh",
        "sqrt",
        "tan",
        "tanh",
    ]
)


def operands_taint(step: Step) -> np.ndarray | None:
    """The union of what taints the operands."""
    return union(step.shape, (value.taint for value in step.ins))


def unknown(step: Step) -> list[Value]:
    """Follow the taint only."""
    return [Value(step.shape, taint=operands_taint(step))]


def computed(step: Step, function: Function, certain: Any = True) -> list[Value]:
    """The result where all operands are known and `certain`."""
    values = [value.value for value in step.ins]
    if any(value is None for value in values):
        return unknown(step)
    result = np.broadcast_to(np.asarray(function(*values), step.dtype), step.shape)
    known = np.broadcast_to(certain, step.shape)
    for value, operand in zip(step.ins, values, strict=True):
        known = known & value.where_known & normal(np.asarray(operand))
    return [Value(step.shape, result, known, operands_taint(step))]


def where(result: Value, place: np.ndarray, constant: Any, dtype: Any) -> Value:
    """A result that is known to be a constant at some places, whatever taints its operands."""
    if not np.any(place):
        return result
    place = np.broadcast_to(place, result.shape)
    value = np.zeros(result.shape, dtype) if result.value is None else result.value
    taint = None if result.taint is None else np.where(place, NONE, result.taint)
    return Value(
        result.shape,
        np.where(place, np.asarray(constant, dtype), value),
        result.where_known | place,
        taint,
    )


def with_nan(step: Step, result: Value) -> Value:
    """A known nan makes the result nan, whatever is on the other side."""
    for value in step.ins:
        if value.value is not None and is_float(value.value):
            nan = value.where_known & is_nan(value.value)
            result = where(result, nan, np.nan, step.dtype)
    return result


for _name in UNKNOWN:
    RULES[_name] = unknown


@rule_for(*EXACT)
def exact(step: Step) -> list[Value]:
    """Results of known operands are known."""
    (result,) = computed(step, EXACT[step.name])
    if step.finite and step.name in COMPARISONS:
        result = _compared(step, result)
    return [result]


COMPARISONS = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le", "eq": "eq", "ne": "ne"}


def _compared(step: Step, result: Value) -> Value:
    """In finite mode, what is unknown is neither infinite nor beyond the largest number."""
    for index, value in enumerate(step.ins):
        if value.value is None or not is_float(value.value) or np.iscomplexobj(value.value):
            continue
        name = step.name if index == 1 else COMPARISONS[step.name]  # unknown `name` value
        other = step.ins[1 - index]
        largest = jnp.finfo(value.value.dtype).max
        for bound, sign in ((np.inf, 1), (-np.inf, -1), (largest, 1), (-largest, -1)):
            answer = _beyond(name, sign, strictly=np.isinf(bound))
            if answer is not None:
                place = value.is_known(bound) & ~other.where_known
                result = where(result, place, answer, bool)
    return result


def _beyond(name: str, sign: int, *, strictly: bool) -> bool | None:
    """Whether every finite number compares so with infinity, or with the largest number."""
    if name in ("eq", "ne"):
        return (name == "ne") if strictly else None
    below = name in ("lt", "le")
    if strictly:
        return below == (sign > 0)
    if sign > 0:
        return {"gt": False, "le": True}.get(name)
    return {"lt": False, "ge": True}.get(name)


@rule_for("is_finite")
def is_finite(step: Step) -> list[Value]:
    """True in finite mode, where nothing is known."""
    (result,) = computed(step, np.isfinite)
    if step.finite:
        result = where(result, ~step.ins[0].where_known, True, bool)
    return [result]


@rule_for("and", "or")
def logic(step: Step) -> list[Value]:
    """One known operand may decide."""
    is_and = step.name == "and"
    (result,) = computed(step, np.bitwise_and if is_and else np.bitwise_or)
    deciding = 0 if is_and else (True if step.dtype == bool else ~np.zeros((), step.dtype))
    for value in step.ins:
        result = where(result, value.is_known(deciding), deciding, step.dtype)
    return [result]


@rule_for(*POINTS, *ODD)
def at_points(step: Step) -> list[Value]:
    """Functions with few results that are certain."""
    (result,) = unknown(step)
    (value,) = step.ins
    if value.value is None:
        return [result]
    if step.name in ODD:
        zero = value.is_known(0)
        result = Value(step.shape, np.where(zero, value.value, 0), zero, result.taint)
    for point, answer in POINTS.get(step.name, {}).items():
        result = where(result, value.is_known(point), answer, step.dtype)
    if step.name in ("exp", "exp2", "logistic") and np.isrealobj(value.value):
        result = where(result, value.where_known & (value.value < -5000), 0, step.dtype)
    return [with_nan(step, result)]


@rule_for("round")
def rounded(step: Step) -> list[Value]:
    """To the nearest, ties away from zero or to even."""
    if int(step.params["rounding_method"]) == 1:
        return computed(step, np.round)
    return computed(step, lambda a: np.trunc(a + np.copysign(0.5, a)), _whole_of(step.ins[0]))


def _whole_of(value: Value) -> Any:
    return True if value.value is None else whole(value.value)


@rule_for("max", "min")
def extreme(step: Step) -> list[Value]:
    """The order of nan and of zeros of either sign is up to XLA."""
    a, b = (value.value for value in step.ins)
    if a is None or b is None:
        return unknown(step)
    certain = ~is_nan(a) & ~is_nan(b) & ((a != b) | same_bits(*np.broadcast_arrays(a, b)))
    return computed(step, np.maximum if step.name == "max" else np.minimum, certain)


@rule_for("clamp")
def clamp(step: Step) -> list[Value]:
    values = [value.value for value in step.ins if value.value is not None]
    if len(values) < len(step.ins):
        return unknown(step)
    certain: Any = True
    if is_float(values[1]):
        certain = ~is_nan(values[0]) & ~is_nan(values[1]) & ~is_nan(values[2]) & (values[1] != 0)
    return computed(step, lambda low, x, high: np.minimum(np.maximum(low, x), high), certain)


@rule_for("convert_element_type")
def convert(step: Step) -> list[Value]:
    """Known where the new type holds the number."""
    (value,) = step.ins
    old, new = value.value, np.dtype(step.dtype)
    if old is None:
        return unknown(step)
    if new.kind == "b":
        return computed(step, lambda a: a != 0)
    if not jnp.issubdtype(new, jnp.inexact):
        certain: Any = True
        if is_float(old):
            certain = np.isfinite(old) & (np.abs(old.real) < 2.0 ** (8 * new.itemsize - 2))
            certain = certain & ((old >= 0) | (new.kind != "u"))
        return computed(step, lambda a: np.real(a).astype(new), certain)
    if np.iscomplexobj(old) and new.kind != "c":
        return computed(step, np.real, whole(old))
    there = old.astype(new)
    back = (there if np.iscomplexobj(old) else there.real).astype(old.dtype)
    certain = same_bits(back, old)
    if not is_float(old):
        certain = certain & whole(old.astype(new))
    return computed(step, lambda a: a.astype(new), certain)


@rule_for(*COPIES)
def copy(step: Step) -> list[Value]:
    return [value.moved(lambda a: a, value.shape) for value in step.ins]


@rule_for("select_n")
def select(step: Step) -> list[Value]:
    """Element by element, the case that the predicate chooses, or what all cases share."""
    which, *cases = step.ins
    shape, values = step.shape, [case.value for case in cases]
    undecided = np.broadcast_to(~which.where_known, shape)
    chosen = [_chosen(which, index, shape) for index in range(len(cases))]
    taints = [None if which.taint is None else np.where(undecided, which.taint, NONE)]
    for at, case in zip(chosen, cases, strict=True):
        if case.taint is not None:
            taints.append(np.where(at | undecided, case.taint, NONE))
    taint = union(shape, taints)
    if all(value is None for value in values):
        return [Value(shape, taint=taint)]
    value, known = np.zeros(shape, step.dtype), np.zeros(shape, bool)
    for at, case in zip(chosen, cases, strict=True):
        if case.value is not None:
            value = np.where(at, case.value, value)
            known = known | (at & case.where_known)
    shared = _shared(cases, shape)
    if shared is not None and cases[0].value is not None:
        value = np.where(undecided, np.broadcast_to(cases[0].value, shape), value)
        known = known | (undecided & shared)
        taint = None if taint is None else np.where(known, NONE, taint)
    return [Value(shape, value, known, taint)]


def _chosen(which: Value, index: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(which.is_known(index), shape)


def _shared(cases: list[Value], shape: tuple[int, ...]) -> np.ndarray | None:
    """Where all cases are known and the same."""
    first, *rest = cases
    if first.value is None:
        return None
    shared = np.broadcast_to(first.where_known, shape)
    for case in rest:
        if case.value is None:
            return None
        shared = shared & case.where_known & same_bits(first.value, case.value)
    return shared
