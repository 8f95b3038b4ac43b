"""A running sum in two float32 numbers, so that a long epoch loses nothing."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxmask._types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CompensatedSum:
    """The sum `high + low`, where `low` holds what `high` was too coarse to take up.

    One float32 stands still at 2^24 when ones are added. The pair keeps about 48 bits, without
    64-bit numbers, which JAX has off by default and TPUs do not have at all.

    Attributes:
      high: float32, the sum rounded; a scalar, or an array of sums.
      low: float32, what the rounding left over.

    Example:
      >>> import jax.numpy as jnp
      >>> million = CompensatedSum.of(jnp.float32(2**24))
      >>> total = million.add(CompensatedSum.of(jnp.float32(1)))
      >>> float(total.high), float(total.low)
      (16777216.0, 1.0)

    Source: Knuth, The art of computer programming, volume 2, section 4.2.2, theorem B.
    """

    high: Array
    low: Array

    @classmethod
    def of(cls, value: Array) -> "CompensatedSum":
        """Start from a number, or an array of them, rounded to float32."""
        return cls(value.astype(jnp.float32), jnp.zeros(value.shape, jnp.float32))

    def add(self, other: "CompensatedSum") -> "CompensatedSum":
        """Add two sums; the order of the two changes no bit."""
        high, rest = _two_sum(self.high, other.high)
        return CompensatedSum(*_two_sum(high, self.low + other.low + rest))

    def value(self) -> Array:
        """The sum, rounded to float32."""
        return self.high + self.low


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """`a + b` rounded, and exactly what the rounding left over."""
    total = a + b
    b_taken = total - a
    rest = (a - (total - b_taken)) + (b - b_taken)
    # Once the sum is infinite, what is left over is inf - inf.
    return total, jnp.where(jnp.isfinite(total), rest, 0)
