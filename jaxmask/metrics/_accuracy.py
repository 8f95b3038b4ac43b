"""Fractions of steps whose class is right."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops, ops
from jaxmask._reduction import total_and_count
from jaxmask._sums import divide
from jaxmask._types import Array, ArrayLike, Mask
from jaxmask.metrics._averages import Averaging, averaged, averaging
from jaxmask.metrics._compensated import CompensatedSum
from jaxmask.metrics._mean import Ratio
from jaxmask.metrics._metric import metric, static
from jaxmask.metrics._reading import check_ids, check_logits, class_ids


@metric
class Accuracy(Ratio):
    """Fraction of the real steps whose predicted class is the target.

        compute() = number of real steps with prediction = target / number of real steps

    Attributes:
      total: number of right steps, compensated; `[num_classes]`, by target, if that was given.
      count: number of real steps, likewise.
      averaging: static, how the classes become one number.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 2, 0]]), jnp.array([[1, 0, 0]])
      >>> mask = jnp.array([[True, True, False]])
      >>> float(jm.metrics.Accuracy.empty().update(predictions, mask, targets).compute())
      0.5

    Agrees with `sklearn.metrics.accuracy_score` of the real steps, and by "macro" with
    `balanced_accuracy_score` and torchmetrics' accuracy: the accuracy of a class is its recall.
    """

    averaging: Averaging = static(default=Averaging("micro"))

    @classmethod
    def empty(
        cls,
        num_classes: int | None = None,
        average: str | None = "micro",
        *,
        classes: Sequence[int] | None = None,
        zero_division: float = 0.0,
    ) -> Self:
        """The metric of no step at all.

        Args:
          num_classes: static; None counts all steps together, whatever their classes.
          average: static. "micro": all steps alike, as "weighted", which weighs classes by their
            number of steps. "macro": the mean over the classes that occur in targets. None: one
            accuracy for each class.
          classes: static, ids: only steps whose target is one of these count.
          zero_division: static, 0, 1 or nan: the accuracy of a class that does not occur.
        """
        where = "Accuracy.empty"
        if num_classes is None:
            if average != "micro" or classes is not None or zero_division != 0:
                options = "`average`, `classes` and `zero_division`"
                raise ValueError(f"{where}: {options} need `num_classes`, got None.")
            return super().empty()
        size = _check.count(num_classes, where, "num_classes", least=1)
        rule = averaging(average, classes, zero_division, size, where, binary=False)
        total, count = (CompensatedSum.of(jnp.zeros(size)) for _ in range(2))
        return cls(total, count, rule)

    def update(
        self,
        predictions: ArrayLike,
        mask: Mask,
        targets: ArrayLike,
        *,
        where: ArrayLike | None = None,
    ) -> Self:
        """Take in a batch.

        Args:
          predictions: class ids in the shape of `targets`, integer or boolean; or logits with one
            more axis, `[..., classes]`, floating, whose first maximum counts. A step with a nan
            logit is never right.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: class ids, `[batch, time, ...]`, or `[batch, ...]` with a row mask; integer or
            boolean. A step with several targets counts once, by the fraction that is right; each
            of them counts where `num_classes` was given.
          where: boolean, the shape of `targets`, False where a value is missing; None: none is.

        Raises:
          ValueError: if shapes disagree, or a real id is below 0 or, of logits or where
            `num_classes` was given, no class; under `jit`, where values are not known, the metric
            is then nan.
        """
        name = "Accuracy.update"
        size = self.count.high.size if self.count.high.ndim else None
        read = class_ids(predictions, mask, targets, name, size, where)
        right = (read.predictions == read.targets).astype(jnp.float32)
        right = _class_ids.nan_unless(read.valid, right)
        if size is None:
            return self._plus(*total_and_count(right, mask, None, "step", name, where))
        real = _mask_ops.entries(mask, where, read.targets.shape, name)
        ids = jnp.where(real, read.targets, 0).ravel()
        sums = (jnp.where(real, x, 0).ravel() for x in (right, jnp.ones_like(right)))
        total, count = (jnp.zeros(size).at[ids].add(x) for x in sums)
        # An id that is no class counts in none, so it makes all of them nan.
        return self._plus(_class_ids.nan_unless(jnp.all(read.valid | ~real), total), count)

    def compute(self) -> Array:
        """The accuracy, float32: a scalar; or one for each class where the average is None."""
        total, count = self.total.value(), self.count.value()
        if not count.ndim:
            return divide(total, count)
        return averaged(total, count, count != 0, count, self.averaging)


@metric
class TopKAccuracy(Ratio):
    """Fraction of the real steps whose target is among the `k` highest logits.

        compute() = number of real steps with rank of the target's logit < k / number of real steps

    Of equal logits the first class wins, so `k=1` is `Accuracy`.

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

    k: int = static(default=5)

    @classmethod
    def empty(cls, k: int = 5) -> Self:
        """The metric of no step at all, for a static `k` of at least 1."""
        return dataclasses.replace(super().empty(), k=_check.count(k, "TopKAccuracy", "k", least=1))

    def update(self, logits: ArrayLike, mask: Mask, targets: ArrayLike) -> Self:
        """Take in a batch. A step with a nan logit is never right.

        Args:
          logits, mask, targets: as in `Accuracy.update`, which says what raises.
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
