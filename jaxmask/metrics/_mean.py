"""Metrics that are a total over a count of real steps."""

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, losses, ops
from jaxmask._reduction import total_and_count
from jaxmask._sums import accumulator, divide
from jaxmask._types import Array, ArrayLike, Mask, Scalar
from jaxmask.metrics._compensated import CompensatedSum
from jaxmask.metrics._reading import check_ids, check_logits, class_ids, same_kind

__all__ = ["Accuracy", "Mean", "MeanSquaredError", "Perplexity", "TopKAccuracy"]


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A total over a count, which add up over batches and devices."""

    total: CompensatedSum
    count: CompensatedSum

    @classmethod
    def empty(cls) -> Self:
        """The metric of no step at all."""
        # Four arrays, since one buffer cannot be donated twice.
        total, count = (CompensatedSum.of(jnp.zeros(())) for _ in range(2))
        return cls(total, count)

    def merge(self, other: Self) -> Self:
        """The metric of the steps of both; their order changes no bit.

        Raises:
          TypeError: if `other` is another kind of metric.
          ValueError: if it was made with other options.
        """
        same_kind(self, other)
        total, count = self.total.add(other.total), self.count.add(other.count)
        return dataclasses.replace(self, total=total, count=count)

    def compute(self) -> Scalar:
        """The total over the count, float32; 0 where nothing was counted."""
        return divide(self.total.value(), self.count.value())

    def _plus(self, total: Array, count: Array) -> Self:
        sums = {"total": CompensatedSum.of(total), "count": CompensatedSum.of(count)}
        return self.merge(dataclasses.replace(self, **sums))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
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

    def update(self, per_step: ArrayLike, mask: Mask, weights: ArrayLike | None = None) -> Self:
        """Take in a batch.

        Args:
          per_step: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; real
            numbers. Features are averaged within their step.
          mask: boolean, or `Segments`, or None: every step is real.
          weights: `[batch, time]` or `[batch]`, as in `jm.losses.reduce`; None weighs all alike.
        """
        return self._plus(*total_and_count(per_step, mask, weights, "step", "Mean.update"))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Accuracy(Ratio):
    """Fraction of the real steps whose predicted class is the target.

        compute() = number of real steps with prediction = target / number of real steps

    An immutable pytree, as `Mean`.

    Attributes:
      total: number of right steps, compensated.
      count: number of real steps, compensated.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 2, 0]]), jnp.array([[1, 0, 0]])
      >>> mask = jnp.array([[True, True, False]])
      >>> float(jm.metrics.Accuracy.empty().update(predictions, mask, targets).compute())
      0.5

    Agrees with `sklearn.metrics.accuracy_score` of the real steps.
    """

    def update(self, predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Self:
        """Take in a batch.

        Args:
          predictions: class ids in the shape of `targets`, integer or boolean; or logits with one
            more axis, `[..., classes]`, floating, whose first maximum counts. A step with a nan
            logit is never right.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: class ids, `[batch, time, ...]`, or `[batch, ...]` with a row mask; integer or
            boolean. A step with several targets counts once, by the fraction that is right.

        Raises:
          ValueError: if shapes disagree, or a real id is below 0 or, of logits, no class; under
            `jit`, where values are not known, the metric is then nan.
        """
        where = "Accuracy.update"
        read = class_ids(predictions, mask, targets, where)
        right = (read.predictions == read.targets).astype(jnp.float32)
        right = _class_ids.nan_unless(read.valid, right)
        return self._plus(*total_and_count(right, mask, None, "step", where))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Perplexity(Ratio):
    """Exponential of the mean cross entropy of the real steps.

        compute() = exp(sum y / number of real steps)     over all updates

    An immutable pytree, as `Mean`. A mean of the perplexities of batches is not a perplexity.

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
          per_step: cross entropies in nats, `[batch, time, feature...]`, or `[batch, feature...]`
            with a row mask; real numbers.
          mask: boolean, or `Segments`, or None: every step is real.
        """
        return self._plus(*total_and_count(per_step, mask, None, "step", "Perplexity.update"))

    def compute(self) -> Scalar:
        """The exponential of the mean, float32; 0, no perplexity, where nothing was counted."""
        return jnp.where(self.count.value() != 0, jnp.exp(super().compute()), 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TopKAccuracy(Ratio):
    """Fraction of the real steps whose target is among the `k` highest logits.

        compute() = number of real steps with rank of the target's logit < k / number of real steps

    An immutable pytree, as `Mean`. Of equal logits the first class wins, so `k=1` is `Accuracy`.

    Attributes:
      total: number of right steps, compensated.
      count: number of real steps, compensated.
      k: static.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits = jnp.array([[[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 0.0, 0.0]]])
      >>> targets, mask = jnp.array([[1, 2, 0]]), jnp.array([[True, True, False]])
      >>> float(jm.metrics.TopKAccuracy.empty(2).update(logits, mask, targets).compute())
      0.5

    Agrees with `sklearn.metrics.top_k_accuracy_score` of the real steps.
    """

    k: int = dataclasses.field(default=5, metadata={"static": True})

    @classmethod
    def empty(cls, k: int = 5) -> Self:
        """The metric of no step at all, for a static `k` of at least 1."""
        return dataclasses.replace(super().empty(), k=_check.count(k, "TopKAccuracy", "k", least=1))

    def update(self, logits: ArrayLike, mask: Mask, targets: ArrayLike) -> Self:
        """Take in a batch.

        Args:
          logits: `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row mask;
            floating.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: class ids, the shape of `logits` without its last axis; integer or boolean.

        Returns:
          A new metric. A step with a nan logit is never right.

        Raises:
          ValueError: if shapes disagree, or a real target is not a class; under `jit`, where values
            are not known, the metric is then nan.
        """
        where = "TopKAccuracy.update"
        logits, ids = _check.array(logits, "logits", where), _check.array(targets, "targets", where)
        check_ids(ids, where, "targets")
        check_logits(logits, ids, where, "logits")
        _check.pair(ids, mask, where, name="targets")
        logits, _ = ops.fill(logits, mask)
        classes = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        ids, valid = _class_ids.real_ids(targets, mask, logits.shape[-1], where, "targets")
        is_target = classes == ids[..., None]
        score = jnp.sum(jnp.where(is_target, logits, 0), axis=-1, keepdims=True)
        ahead = (logits > score) | ((logits == score) & (classes < ids[..., None]))
        # XLA may compute a logit twice, with two roundings: it must not be ahead of itself.
        ahead &= ~is_target
        # A nan is ahead of nothing; it must not make its step right.
        has_nan = jnp.any(jnp.isnan(logits), axis=-1)
        right = ((jnp.sum(ahead, axis=-1) < self.k) & ~has_nan).astype(jnp.float32)
        right = _class_ids.nan_unless(valid, right)
        return self._plus(*total_and_count(right, mask, None, "step", where))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeanSquaredError(Ratio):
    """Mean of the squared errors of the real steps.

        compute() = sum w (predictions - targets)^2 / sum w     over the real steps of all updates

    An immutable pytree, as `Mean`. Its square root is the root mean squared error; a mean of the
    roots of batches is not.

    Attributes:
      total: sum of the squared errors, compensated.
      count: number of real steps, or sum of their weights, compensated.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1.0, 5.0, jnp.nan]]), jnp.zeros((1, 3))
      >>> mask = jnp.array([[True, True, False]])
      >>> metric = jm.metrics.MeanSquaredError.empty().update(predictions, mask, targets)
      >>> float(metric.compute())
      13.0

    Agrees with `sklearn.metrics.mean_squared_error` of the real steps.
    """

    def update(
        self,
        predictions: ArrayLike,
        mask: Mask,
        targets: ArrayLike,
        weights: ArrayLike | None = None,
    ) -> Self:
        """Take in a batch.

        Args:
          predictions: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask;
            floating. Features are averaged within their step.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: the shape of `predictions`.
          weights: `[batch, time]` or `[batch]`, as in `jm.losses.reduce`; None weighs all alike.
        """
        wide = _check.array(predictions, "predictions", "MeanSquaredError.update")
        wide = wide.astype(accumulator(wide.dtype))  # a square may not fit in 16 bits
        per_step, mask = losses.squared_error(wide, mask, targets)
        where = "MeanSquaredError.update"
        return self._plus(*total_and_count(per_step, mask, weights, "step", where))
