"""Casts that change no value in silence.

NumPy cuts fractions off, wraps integers round and turns what is too large into inf, mostly without
a word. Rounding a float to a narrower float is the one change that is taken as meant.
"""

import numbers
from collections.abc import Callable
from typing import NoReturn, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

Place: TypeAlias = Callable[[int], str]


def cast(values: np.ndarray, dtype: DTypeLike | None, place: Place, where: str) -> np.ndarray:
    """`values` as `dtype`, if every one of them can be held there.

    Args:
      values: numbers or bools, of any shape; no copy is made if they have the dtype already.
      dtype: bool, integer, floating (`jnp.bfloat16` and its like too), complex or object; None
        keeps the type of `values`, if it is one of these but object.
      place: what the caller calls the value at an index of the first axis, for the error text.
      where: the function that asks, for the error text.

    Returns:
      An array of the same shape.

    Raises:
      TypeError: if a type is none of these (strings, dates), or complex values meet a real dtype.
      ValueError: if a value is out of range; for an integer dtype if it is a fraction or not
        finite; for a floating dtype if it is an integer that would be rounded.

    Example:
      >>> cast(np.array([1.0, 2.0]), np.int8, "`x[{}]`".format, "example").tolist()
      [1, 2]
    """
    target = values.dtype if dtype is None else np.dtype(dtype)
    if dtype is not None and target == np.object_:
        return values.astype(target, copy=False)
    _check_types(values, target, place, where)
    if values.dtype == target:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        result = values.astype(target)
    fits, holds = _fits(values, result)
    if not np.all(fits):
        first = tuple(np.argwhere(~fits)[0])
        raise ValueError(
            f"{where}: {place(int(first[0]) if first else 0)} is {values[first].item()!r}, which "
            f"{target} cannot hold: {holds}. Nothing is cut off, wrapped or clipped: pass a "
            "`dtype=` that holds it, or change the value."
        )
    return result


def is_number(dtype: np.dtype) -> bool:
    """Bool, integer, floating or complex, those of `jax.numpy` included.

    Example:
      >>> is_number(np.dtype(jnp.bfloat16)), is_number(np.dtype("U3"))
      (True, False)
    """
    return bool(dtype == np.bool_ or jnp.issubdtype(dtype, np.number))


def _check_types(values: np.ndarray, target: np.dtype, place: Place, where: str) -> None:
    if not is_number(values.dtype):
        _refuse_objects(values, place, where)
    if not is_number(target):
        raise TypeError(f"{where}: `dtype` must be bool, a number type or object, got {target}.")
    is_complex = jnp.issubdtype(values.dtype, np.complexfloating)
    if is_complex and not jnp.issubdtype(target, np.complexfloating):
        raise TypeError(
            f"{where}: {place(0)} is complex, which `dtype` {target} cannot hold. Take the real "
            "part first, or pass a complex `dtype=`."
        )


def _refuse_objects(values: np.ndarray, place: Place, where: str) -> NoReturn:
    for index, value in np.ndenumerate(values.astype(object)):
        number = isinstance(value, numbers.Number)
        if number and not (isinstance(value, int) and not -(2**63) <= value < 2**64):
            continue
        found = f"{place(index[0] if index else 0)} is {value!r}"
        if number:
            raise ValueError(f"{where}: {found}, which no integer type can hold.")
        raise TypeError(
            f"{where}: {found}, of type {type(value).__name__}, expected a number or a bool. Pass "
            "`dtype=object` to pad strings and other objects."
        )
    raise TypeError(
        f"{where}: the values have dtype {values.dtype}, expected numbers or bools. Give the "
        "array its number type with `.astype(...)`, or pass `dtype=object`."
    )


def _fits(values: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, str]:
    """Where the cast held the value, and in words what the dtype holds."""
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
    """Where a float of that many bits holds an integer: its odd part must not exceed `limit`."""
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
    # Casting back and comparing is no proof: what an out-of-range cast gives differs between
    # processors. And `high` of int64 is no float64, `high + 1` is.
    return (wide >= low) & (wide < high + 1) & (wide == np.trunc(wide))
