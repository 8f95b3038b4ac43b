"""A running sum in two float32 numbers, so that long epochs lose nothing."""

import dataclasses

import jax
import jax.numpy as jnp

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

    def add(self, other: "CompensatedSum") -> "CompensatedSum":
        """Add two sums; their order changes no bit."""
        high, rest = _two_sum(self.high, other.high)
        return CompensatedSum(*_two_sum(high, self.low + other.low + rest))

    def value(self) -> Array:
        """The sum, rounded to float32."""
        return self.high + self.low


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """`a + b` rounded, and the exact rounding error."""
    total = a + b
    b_taken = total - a
    rest = (a - (total - b_taken)) + (b - b_taken)
    # Of an infinite sum the rounding error would be inf - inf.
    return total, jnp.where(jnp.isfinite(total), rest, 0)
