"""Arithmetic modulo a prime, on arrays: exact sums and products in place of rounded ones.

Two expressions of sums, products and quotients that are equal as such have the same value here, for
any values of their variables; two that are not agree at random values only with a probability of
about their degree over the prime (Schwartz and Zippel).
"""

import math
import zlib
from typing import Any

import numpy as np

P = 2_147_483_629  # the largest prime below 2**31 of which powers of 2 are no special values
SMALL = 1 << 16
# A square root of -1, which there is modulo P: a power of a number that is no square.
IMAGINARY = next(pow(n, (P - 1) // 4, P) for n in range(2, 100) if pow(n, (P - 1) // 2, P) == P - 1)
NAN, INF, MINUS_INF = (zlib.crc32(name) % P for name in (b"nan", b"inf", b"-inf"))


def of_numbers(values: np.ndarray) -> np.ndarray:
    """Known numbers, exactly: integers, and floats as fractions with a power of 2 below."""
    values = np.asarray(values)
    if values.dtype.kind in "bu":
        return values.astype(np.uint64) % np.uint64(P)
    if values.dtype.kind == "i":
        return (values.astype(np.int64) % P).astype(np.uint64)
    if values.dtype.kind == "c":
        return add(of_numbers(values.real), mul(of_numbers(values.imag), np.uint64(IMAGINARY)))
    wide = values.astype(np.float64)
    mantissa, exponent = np.frexp(np.where(np.isfinite(wide), wide, 0))
    whole = ((mantissa * 2.0**53).astype(np.int64) % P).astype(np.uint64)
    powers, inverse = np.unique(exponent, return_inverse=True)
    table = np.array([pow(2, int(e) - 53, P) for e in powers], np.uint64)
    found = mul(whole, table[inverse].reshape(wide.shape))
    for special, number in (
        (np.isnan(wide), NAN),
        (wide == np.inf, INF),
        (wide == -np.inf, MINUS_INF),
    ):
        found = np.where(special, np.uint64(number), found)
    return found


def add(a: Any, b: Any) -> np.ndarray:
    return np.asarray((a + b) % np.uint64(P))


def negative(a: Any) -> np.ndarray:
    return np.asarray((np.uint64(P) - a) % np.uint64(P))


def sub(a: Any, b: Any) -> np.ndarray:
    return add(a, negative(b))


def mul(a: Any, b: Any) -> np.ndarray:
    return np.asarray((a * b) % np.uint64(P))


def power(a: np.ndarray, exponent: int) -> np.ndarray:
    """A power, also a negative one; of 0 it is 0."""
    exponent, result = exponent % (P - 1), np.ones_like(a)
    while exponent:
        if exponent & 1:
            result = mul(result, a)
        a, exponent = mul(a, a), exponent >> 1
    return result


def total(a: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.asarray(np.sum(a, axes, np.uint64) % np.uint64(P))


def product(a: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    for axis in sorted(axes, reverse=True):
        result = np.ones(a.shape[:axis] + a.shape[axis + 1 :], np.uint64)
        for part in np.moveaxis(a, axis, 0):
            result = mul(result, part)
        a = result
    return a


def einsum(
    a: np.ndarray, a_axes: list[int], b: np.ndarray, b_axes: list[int], out: list[int]
) -> np.ndarray:
    """A sum of products; in two halves, so that no sum overflows."""
    high = np.einsum(a, a_axes, b // SMALL, b_axes, out) % np.uint64(P)
    low = np.einsum(a, a_axes, b % SMALL, b_axes, out) % np.uint64(P)
    return add(mul(high, np.uint64(SMALL)), low)


def mixed(name: str, *numbers: Any) -> np.ndarray:
    """A random function of numbers, one for each name."""
    state: Any = np.array([zlib.crc32(name.encode())], np.uint64)  # wraps around, as no scalar does
    for number in numbers:
        state = _stirred(state * np.uint64(0x9E3779B97F4A7C15) + number)
    shape = np.broadcast_shapes(*(np.shape(number) for number in numbers))
    return np.asarray(_stirred(state) % np.uint64(P)).reshape(shape)


def of_all(name: str, numbers: np.ndarray) -> np.ndarray:
    """One number of an array, by place."""
    places = np.arange(math.prod(numbers.shape), dtype=np.uint64).reshape(numbers.shape)
    one = mixed(f"{name} {numbers.shape}", places, numbers)
    return mixed(name, np.sum(one, dtype=np.uint64))


def _stirred(state: Any) -> Any:
    """splitmix64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return state ^ (state >> np.uint64(31))
