"""Metrics that are a total over a count of real steps."""

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._types import Array, ArrayLike, Mask, Scalar
from jaxmask.losses import reduction
from jaxmask.metrics._compensated import CompensatedSum

__all__ = ["Accuracy", "Mean", "Perplexity"]


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
        """
        if type(other) is not type(self):
            raise TypeError(
                f"{type(self).__name__}.merge: expected another {type(self).__name__}, got "
                f"{type(other).__name__}."
            )
        return type(self)(self.total.add(other.total), self.count.add(other.count))

    def compute(self) -> Scalar:
        """The total over the count, float32; 0 where nothing was counted."""
        return reduction.divide(self.total.value(), self.count.value())

    def _plus(self, total: Array, count: Array) -> Self:
        return self.merge(type(self)(CompensatedSum.of(total), CompensatedSum.of(count)))


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
            more axis, `[..., classes]`, floating, of which the first highest counts.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: class ids, `[batch, time, ...]`, or `[batch, ...]` with a row mask; integer or
            boolean. Steps with several targets count once, by the share that is right.

        Returns:
          A new metric.

        Raises:
          TypeError: if ids are not integer or boolean, logits not floating, or `mask` not boolean.
          ValueError, MaskError: if shapes disagree.
        """
        where = "Accuracy.update"
        predictions = _check.array(predictions, "predictions", where)
        targets = _check.array(targets, "targets", where)
        _ids(targets, where, "targets")
        if predictions.ndim == targets.ndim + 1:
            _check.floating(predictions, where, "predictions")
            axes = "the shape of `predictions` without its last axis"
            _check.shape(targets, predictions.shape[:-1], axes, where, "targets")
            predictions = jnp.argmax(predictions, axis=-1)
        else:
            axes = "the shape of `predictions`"
            _check.shape(targets, predictions.shape, axes, where, "targets")
            _ids(predictions, where, "predictions")
        return self._plus(*reduction.add_up(predictions == targets, mask, None, "step", where))


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


def _ids(x: Array, where: str, name: str) -> None:
    if not (x.dtype == jnp.bool_ or jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(
            f"{where}: `{name}` must be class ids, integer or boolean, got dtype {x.dtype}. "
            "Logits have one axis more than the targets."
        )
