"""A running sum in two float32 numbers, so that long epochs lose nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CompensatedSum:
    """The sum `high + low`, both float32, where `low` holds the rounding error of `high`.

    A float32 that counts by ones stops at 2^24. The pair keeps about 48 bits, without
    64-bit numbers, which JAX disables by default and TPUs lack.

    Source: Knuth, The art of computer programming, volume 2, section 4.2.2, theorem B.
    """

    high: Array
    low: Array

    @classmethod
    def of(cls, value: Array) -> "CompensatedSum":
        """The sum of one number, or of each number of an array."""
        return cls(value.astype(jnp.float32), jnp.zeros(value.shape, jnp.float32))

    @classmethod
    def over(cls, values: Array, rest: Array | float = 0.0) -> "CompensatedSum":
        """The sum of `values + rest` along the first axis."""
        high = values.astype(jnp.float32)
        return cls(*_over(high, jnp.broadcast_to(jnp.asarray(rest, jnp.float32), high.shape)))

    @classmethod
    def of_products(cls, a: Array, b: Array) -> "CompensatedSum":
        """The sum of `a * b` along the first axis, of products that are exact."""
        return cls.over(*two_product(a.astype(jnp.float32), b.astype(jnp.float32)))

    def add(self, other: "CompensatedSum") -> "CompensatedSum":
        """Add two sums; their order changes no bit."""
        high, rest = _two_sum(self.high, other.high)
        return CompensatedSum(*_two_sum(high, self.low + other.low + rest))

    def value(self) -> Array:
        """The sum, rounded to float32."""
        return self.high + self.low


# The slope of a rounding error is 0 but for rounding; JAX would unroll the sum to find it.
@jax.custom_jvp
def _over(high: Array, low: Array) -> tuple[Array, Array]:
    def add(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
        both = CompensatedSum(*one).add(CompensatedSum(*other))
        return both.high, both.low

    zero = np.float32(0)
    return jax.lax.reduce((high, low), (zero, zero), add, (0,))


@_over.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    high, low = _over(*primals)
    slope = jnp.sum(tangents[0] + tangents[1], axis=0)
    return (high, low), (slope, jnp.zeros_like(slope))


@jax.custom_jvp
def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """`a * b` rounded, and the exact rounding error."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    rest = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, jnp.where(jnp.isfinite(product), rest, 0)


@two_product.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    (a, b), (da, db) = primals, tangents
    slope = da * b + a * db
    return two_product(a, b), (slope, jnp.zeros_like(slope))


def _halves(x: Array) -> tuple[Array, Array]:
    """The upper and the lower 12 bits of the mantissa: products of halves are exact."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFFF000)
    high = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return high, x - high


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """`a + b` rounded, and the exact rounding error."""
    total = a + b
    b_taken = total - a
    rest = (a - (total - b_taken)) + (b - b_taken)
    # Of an infinite sum the rounding error would be inf - inf.
    return total, jnp.where(jnp.isfinite(total), rest, 0)
