"""Metrics that are a total over a count of real steps."""

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, losses, ops
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Scalar
from jaxmask.losses import _reduction as reduction
from jaxmask.metrics._compensated import CompensatedSum
from jaxmask.metrics._reading import class_ids, integer, logits, same_kind

__all__ = ["Accuracy", "Mean", "MeanSquaredError", "Perplexity", "TopKAccuracy"]


@dataclasses.dataclass(frozen=True)
class Ratio:
    """What all metrics share: a total and a count that add up over batches and devices.

    Attributes:
      total: what is averaged, added up.
      count: what it is divided by.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> isinstance(jm.metrics.Mean.empty(), Ratio)
      True
    """

    total: CompensatedSum
    count: CompensatedSum

    @classmethod
    def empty(cls) -> Self:
        """The metric of no step at all."""
        # Four arrays, since one buffer cannot be donated twice.
        total, count = (CompensatedSum.of(jnp.zeros(())) for _ in range(2))
        return cls(total, count)

    def merge(self, other: Self) -> Self:
        """The metric of the steps of both; the order of the two changes no bit.

        Raises:
          TypeError: if `other` is another kind of metric.
          ValueError: if it was made with other options.
        """
        same_kind(self, other)
        total, count = self.total.add(other.total), self.count.add(other.count)
        return dataclasses.replace(self, total=total, count=count)

    def compute(self) -> Scalar:
        """The total over the count, float32; 0 where nothing was counted."""
        return reduction.divide(self.total.value(), self.count.value())

    def _plus(self, total: Array, count: Array) -> Self:
        sums = {"total": CompensatedSum.of(total), "count": CompensatedSum.of(count)}
        return self.merge(dataclasses.replace(self, **sums))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean(Ratio):
    """Mean over the real steps of all batches, each step counted once however long its batch is.

        compute() = sum w y / sum w     over the real steps of every update

    An immutable pytree: carry it through `jax.lax.scan`, donate it to `jax.jit`, checkpoint it.

    Attributes:
      total: sum of `w y`, compensated.
      count: sum of `w`, compensated, so that 1e8 steps are still counted one by one.

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

    def update(self, values: ArrayLike, mask: Mask, weights: ArrayLike | None = None) -> Self:
        """Take in a batch.

        Args:
          values: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; real
            numbers. Features are averaged within their step.
          mask: boolean, or `Segments`, or None: every step is real.
          weights: `[batch, time]` or `[batch]`, as in `jm.losses.reduce`; None weighs all alike.

        Returns:
          A new metric.

        Raises:
          TypeError, ValueError, MaskError: as `jm.losses.reduce`.
        """
        return self._plus(*reduction.add_up(values, mask, weights, "step", "Mean.update"))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Accuracy(Ratio):
    """Share of the real steps whose predicted class is the right one.

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
            more axis, `[..., classes]`, floating, of which the first highest counts. With a nan
            among them they are never right.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: class ids, `[batch, time, ...]`, or `[batch, ...]` with a row mask; integer or
            boolean. Steps with several targets count once, by the share that is right.

        Returns:
          A new metric.

        Raises:
          TypeError: if ids are not integer or boolean, logits not floating, or `mask` not boolean.
          ValueError: if shapes disagree, or a real id is below 0 or, of logits, no class; under
            `jit`, where values cannot be seen, the metric is nan then.
          MaskError: if `mask` does not belong to `targets`.
        """
        where = "Accuracy.update"
        read = class_ids(predictions, mask, targets, where)
        right = (read.predictions == read.targets).astype(jnp.float32)
        right = _class_ids.nan_unless(read.valid, right)
        return self._plus(*reduction.add_up(right, mask, None, "step", where))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Perplexity(Ratio):
    """Exponential of the mean cross entropy of the real steps.

        compute() = exp(sum y / number of real steps)     over every update

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

        Returns:
          A new metric.

        Raises:
          TypeError, MaskError: if `mask` does not belong to `per_step`.
        """
        return self._plus(*reduction.add_up(per_step, mask, None, "step", "Perplexity.update"))

    def compute(self) -> Scalar:
        """The exponential of the mean, float32; 0, no perplexity, where nothing was counted."""
        return jnp.where(self.count.value() != 0, jnp.exp(super().compute()), 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TopKAccuracy(Ratio):
    """Share of the real steps whose right class is among the `k` of the highest scores.

        compute() = number of real steps with rank of the target's logit < k / number of real steps

    An immutable pytree, as `Mean`. Of equal scores the first class counts, so `k=1` is `Accuracy`.

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

    def update(self, predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Self:
        """Take in a batch.

        Args:
          predictions: logits, `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row
            mask; floating.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: class ids, the shape of `predictions` without its last axis; integer or boolean.

        Returns:
          A new metric. A step with a nan logit is never right.

        Raises:
          TypeError: if `targets` is not integer or boolean, `predictions` not floating, or `mask`
            not boolean.
          ValueError: if shapes disagree, or a real target is no class; under `jit`, where values
            cannot be seen, the metric is nan then.
          MaskError: if `mask` does not belong to `targets`.
        """
        where = "TopKAccuracy.update"
        predictions = _check.array(predictions, "predictions", where)
        ids = _check.array(targets, "targets", where)
        integer(ids, where, "targets")
        logits(predictions, ids, where)
        _check.pair(ids, mask, where, name="targets")
        predictions, _ = ops.fill(predictions, mask)
        classes = jax.lax.broadcasted_iota(jnp.int32, predictions.shape, predictions.ndim - 1)
        own, valid = _class_ids.real_ids(targets, mask, predictions.shape[-1], where, "targets")
        is_own = classes == own[..., None]
        score = jnp.sum(jnp.where(is_own, predictions, 0), axis=-1, keepdims=True)
        ahead = (predictions > score) | ((predictions == score) & (classes < own[..., None]))
        # XLA may compute a logit twice, with two roundings: it must not be ahead of itself.
        ahead &= ~is_own
        # A nan is ahead of nothing; it must not make its step right.
        has_nan = jnp.any(jnp.isnan(predictions), axis=-1)
        right = ((jnp.sum(ahead, axis=-1) < self.k) & ~has_nan).astype(jnp.float32)
        right = _class_ids.nan_unless(valid, right)
        return self._plus(*reduction.add_up(right, mask, None, "step", where))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeanSquaredError(Ratio):
    """Mean of the squared errors of the real steps.

        compute() = sum w (predictions - targets)^2 / sum w     over the real steps of every update

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

        Returns:
          A new metric.

        Raises:
          TypeError, ValueError, MaskError: as `jm.losses.squared_error` and `jm.losses.reduce`.
        """
        wide = _check.array(predictions, "predictions", "MeanSquaredError.update")
        wide = wide.astype(accumulator(wide.dtype))  # a square may not fit in 16 bits
        per_step, mask = losses.squared_error(wide, mask, targets)
        where = "MeanSquaredError.update"
        return self._plus(*reduction.add_up(per_step, mask, weights, "step", where))
