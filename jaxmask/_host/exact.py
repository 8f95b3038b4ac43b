"""Casts that change no value in silence.

NumPy truncates fractions, wraps integers and overflows to inf, mostly without a warning. The one
change that is taken as meant is rounding a float to a narrower float.
"""

import numbers
import re
from collections.abc import Callable
from typing import NoReturn, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

NameOf: TypeAlias = Callable[[int], str]


def cast(values: np.ndarray, dtype: DTypeLike | None, name_of: NameOf, where: str) -> np.ndarray:
    """`values` as `dtype`, if it holds each of them; floats may be rounded to narrower floats.

    None keeps the dtype. Only `dtype=object` takes anything but numbers and booleans. `name_of`
    names the value at an index of the first axis in error texts.
    """
    target = values.dtype if dtype is None else np.dtype(dtype)
    if dtype is not None and target == np.object_:
        return values.astype(target, copy=False)
    _check_types(values, target, name_of, where)
    if values.dtype == target:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        result = values.astype(target)
    fits, holds = _fits(values, result)
    if not np.all(fits):
        first = tuple(np.argwhere(~fits)[0])
        raise ValueError(
            f"{where}: {name_of(int(first[0]) if first else 0)} is {values[first].item()!r}, which "
            f"{target} cannot hold: {holds}. Nothing is truncated, wrapped or clipped: pass "
            "a `dtype=` that holds it, or change the value."
        )
    return result


def is_number(dtype: np.dtype) -> bool:
    """Boolean, integer, floating or complex, the dtypes of `jax.numpy` included."""
    return bool(dtype == np.bool_ or jnp.issubdtype(dtype, np.number))


def _check_types(values: np.ndarray, target: np.dtype, name_of: NameOf, where: str) -> None:
    if not is_number(values.dtype):
        _refuse_objects(values, name_of, where)
    if not is_number(target):
        raise TypeError(f"{where}: `dtype` must be bool, a number type or object, got {target}.")
    is_complex = jnp.issubdtype(values.dtype, np.complexfloating)
    if is_complex and not jnp.issubdtype(target, np.complexfloating):
        raise TypeError(
            f"{where}: {name_of(0)} is complex, which `dtype` {target} cannot hold. Take the real "
            "part first, or pass a complex `dtype=`."
        )


def _refuse_objects(values: np.ndarray, name_of: NameOf, where: str) -> NoReturn:
    for index, value in np.ndenumerate(values.astype(object)):
        number = isinstance(value, numbers.Number)
        if number and not (isinstance(value, int) and not -(2**63) <= value < 2**64):
            continue
        found = f"{name_of(index[0] if index else 0)} is {value!r}"
        if number:
            raise ValueError(f"{where}: {found}, which no integer type can hold.")
        raise TypeError(
            f"{where}: {found}, of type {type(value).__name__}, expected a number or a bool. Pass "
            f"`dtype={_objects(where)}` to pad strings and other objects."
        )
    raise TypeError(
        f"{where}: the values have dtype {values.dtype}, expected numbers or bools. Give the "
        f"array its number type with `.astype(...)`, or pass `dtype={_objects(where)}`."
    )


def _objects(where: str) -> str:
    """What takes objects: of records a dict, so that the other fields stay numbers."""
    named = re.search(r": field (['\"])(.+?)\1", where)  # as `Field.where` names it
    asked = "object"
    for key in reversed(named[2].split(".") if named else []):
        asked = f"{{{key!r}: {asked}}}"
    return asked


def _fits(values: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, str]:
    """Where the cast preserved the value, and in words what the dtype holds."""
    source, target = values.dtype, result.dtype
    if jnp.issubdtype(target, np.inexact):
        if jnp.issubdtype(source, np.inexact):
            largest = float(jnp.finfo(target).max)
            return np.isfinite(result) | ~np.isfinite(values), f"its largest value is {largest}"
        limit = 2 ** (jnp.finfo(target).nmant + 1)
        return _exact(values, result, limit), f"it holds every whole number only up to {limit}"
    if target == np.bool_:
        return _within(values, 0, 1), "it holds 0 and 1 only"
    low, high = int(jnp.iinfo(target).min), int(jnp.iinfo(target).max)
    return _within(values, low, high), f"it holds whole numbers from {low} to {high}"


def _exact(values: np.ndarray, result: np.ndarray, limit: int) -> np.ndarray:
    """Where a float with a significand up to `limit` holds an integer: its odd factor must fit."""
    fits = _within(values, -limit, limit)
    if np.all(fits):
        return fits
    nonzero = np.where(values == 0, np.ones_like(values), values)
    odd = nonzero // (nonzero & -nonzero)
    return np.isfinite(result) & _within(odd, -limit, limit)


def _within(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Where a value is whole and lies in `low..high`; nan and inf do not."""
    if jnp.issubdtype(values.dtype, np.integer):
        own = jnp.iinfo(values.dtype)
        return (values >= max(low, int(own.min))) & (values <= min(high, int(own.max)))
    wide = values.astype(np.float64, copy=False)
    # Casting back and comparing proves nothing: the result of an out-of-range cast depends on the
    # processor. `high` of int64 is no float64, but `high + 1` is.
    return (wide >= low) & (wide < high + 1) & (wide == np.trunc(wide))
