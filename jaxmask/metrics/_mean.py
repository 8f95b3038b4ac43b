"""Metrics that are a total over a count of real steps."""

import dataclasses
import math
from typing import Self

import jax.numpy as jnp

from jaxmask import _check
from jaxmask._reduction import total_and_count
from jaxmask._sums import divide
from jaxmask._types import Array, ArrayLike, Mask, Scalar
from jaxmask.metrics._compensated import CompensatedSum
from jaxmask.metrics._metric import Metric, metric


@dataclasses.dataclass(frozen=True)
class Ratio(Metric):
    """A total over a count, which add up over batches and devices."""

    total: CompensatedSum
    count: CompensatedSum

    @classmethod
    def empty(cls) -> Self:
        """The metric of no step at all."""
        # Four arrays, since one buffer cannot be donated twice.
        total, count = (CompensatedSum.of(jnp.zeros(())) for _ in range(2))
        return cls(total, count)

    def compute(self) -> Scalar:
        """The total over the count, float32; 0 where nothing was counted."""
        return divide(self.total.value(), self.count.value())

    def _plus(self, total: Array, count: Array) -> Self:
        sums = {"total": CompensatedSum.of(total), "count": CompensatedSum.of(count)}
        return self.merge(dataclasses.replace(self, **sums))


@metric
class Mean(Ratio):
    """Mean over the real steps of all batches, each counted once, however long its batch.

        compute() = sum w y / sum w     over the real steps of all updates

    An immutable pytree: carry it through `jax.lax.scan`, donate it to `jax.jit`, checkpoint it.

    Attributes:
      total: sum of `w y`, compensated.
      count: sum of `w`, compensated, so that 1e8 steps are counted one by one.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> metric = jm.metrics.Mean.empty()
      >>> metric = metric.update(jnp.array([[1.0]]), jnp.array([[True]]))
      >>> mask = jnp.array([[True, True, True, True, False]])
      >>> metric = metric.update(jnp.array([[3.0, 3.0, 3.0, 3.0, jnp.nan]]), mask)
      >>> round(float(metric.compute()), 4)  # the mean of the two means is 2.0
      2.6

    Agrees with `jm.losses.reduce(..., by="step")` of all batches at once.
    """

    def update(
        self,
        per_step: ArrayLike,
        mask: Mask,
        weights: ArrayLike | None = None,
        *,
        where: ArrayLike | None = None,
    ) -> Self:
        """Take in a batch.

        Args:
          per_step: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; real
            numbers. Features are averaged within their step.
          mask: boolean, or `Segments`, or None: every step is real.
          weights: `[batch, time]` or `[batch]`, as in `jm.losses.reduce`; None weighs all alike.
          where: boolean, the shape of `per_step`, False where a value is missing, as in
            `jm.losses.reduce`; None: none is.
        """
        return self._plus(*total_and_count(per_step, mask, weights, "step", "Mean.update", where))


@metric
class Perplexity(Ratio):
    """Exponential of the mean cross entropy of the real steps.

        compute() = exp(sum y / number of real steps)     over all updates

    A mean of the perplexities of batches is not a perplexity.

    Attributes:
      total: sum of the cross entropies, compensated.
      count: number of real steps, compensated.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> targets, mask = jnp.array([[3, 1, 0]]), jnp.array([[True, True, False]])
      >>> loss = jm.losses.softmax_cross_entropy_with_integer_labels
      >>> per_step, mask = loss(jnp.zeros((1, 3, 8)), mask, targets)
      >>> round(float(jm.metrics.Perplexity.empty().update(per_step, mask).compute()), 4)
      8.0
    """

    def update(self, per_step: ArrayLike, mask: Mask) -> Self:
        """Take in a batch.

        Args:
          per_step, mask: as in `Mean.update`; cross entropies in nats.
        """
        return self._plus(*total_and_count(per_step, mask, None, "step", "Perplexity.update"))

    def compute(self) -> Scalar:
        """The exponential of the mean, float32; 0, no perplexity, where nothing was counted."""
        return jnp.where(self.count.value() != 0, jnp.exp(super().compute()), 0)


@metric
class BitsPerByte(Ratio):
    """Mean cross entropy in bits for each byte of text, whatever the tokens are.

        compute() = sum y / (log 2 * number of bytes)     over the real steps of all updates

    Unlike perplexity it compares models with different tokenizers.

    Attributes:
      total: sum of the cross entropies in bits, compensated.
      count: number of bytes, compensated.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> nats = jnp.log(2.0) * jnp.array([[3.0, 5.0, jnp.nan]])
      >>> mask, num_bytes = jnp.array([[True, True, False]]), jnp.array([[1, 3, 0]])
      >>> metric = jm.metrics.BitsPerByte.empty().update(nats, mask, num_bytes)
      >>> round(float(metric.compute()), 4)
      2.0

    Source: Gao et al., 2020, The Pile, arXiv:2101.00027, section 3.1.
    """

    def update(self, per_step: ArrayLike, mask: Mask, num_bytes: ArrayLike) -> Self:
        """Take in a batch.

        Args:
          per_step: cross entropies in nats, `[batch, time]`, or `[batch]` with a row mask; real
            numbers.
          mask: boolean, or `Segments`, or None: every step is real.
          num_bytes: how many bytes each token stands for, integer, the shape of `per_step`. A
            token that is predicted and stands for none, as that of an end, counts 0.
        """
        where = "BitsPerByte.update"
        values, mask = _check.pair(per_step, mask, where, name="per_step")
        sizes = _check.array(num_bytes, "num_bytes", where)
        _check.shape(sizes, values.shape, "the shape of `per_step`", where, "num_bytes")
        if values.ndim > 2 or not jnp.issubdtype(sizes.dtype, jnp.integer):
            raise TypeError(
                f"{where}: `num_bytes` must be integers, one number for each step, got dtype "
                f"{sizes.dtype} and shape {sizes.shape}."
            )
        nats, _ = total_and_count(values, mask, None, "step", where)
        count, _ = total_and_count(sizes.astype(jnp.float32), mask, None, "step", where)
        return self._plus(nats / math.log(2), count)

    def compute(self) -> Scalar:
        """Bits over bytes, float32; 0 where there was neither, inf where only bits."""
        only_bits = (self.count.value() == 0) & (self.total.value() > 0)
        return jnp.where(only_bits, jnp.inf, super().compute())
