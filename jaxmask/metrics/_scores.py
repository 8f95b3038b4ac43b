"""The confusion matrix, and precision, recall, F and intersection over union of its counts."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Float

from jaxmask import _check, _mask_ops
from jaxmask._types import Array, ArrayLike, Mask
from jaxmask.metrics._averages import Averaging, averaged, averaging
from jaxmask.metrics._compensated import CompensatedSum
from jaxmask.metrics._metric import Metric, metric, static
from jaxmask.metrics._reading import NO_CLASS, class_ids


@metric
class ConfusionMatrix(Metric):
    """Counts of each target and prediction, over the real steps of all batches.

        compute()[i, j] = number of real steps with target i and prediction j

    A step that fits no cell makes the whole matrix nan, so that none is dropped in silence: nan
    logits, or, under `jit`, an id that is not a class.

    Attributes:
      counts: `[num_classes, num_classes]`, compensated.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 1, 0]]), jnp.array([[1, 0, 0]])
      >>> mask = jnp.array([[True, True, False]])
      >>> metric = jm.metrics.ConfusionMatrix.empty(2).update(predictions, mask, targets)
      >>> metric.compute().tolist()
      [[0.0, 1.0], [0.0, 1.0]]

    Agrees with `sklearn.metrics.confusion_matrix` of the real steps.
    """

    counts: CompensatedSum

    @classmethod
    def empty(cls, num_classes: int) -> Self:
        """The metric of no step at all, for a static number of classes."""
        size = _check.count(num_classes, f"{cls.__name__}.empty", "num_classes", least=1)
        return cls(CompensatedSum.of(jnp.zeros((size, size))))

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.counts.high.shape[-1]

    def update(
        self,
        predictions: ArrayLike,
        mask: Mask,
        targets: ArrayLike,
        *,
        where: ArrayLike | None = None,
    ) -> Self:
        """Take in a batch. A step with several targets counts each of them.

        Args:
          predictions, mask, targets, where: as in `Accuracy.update`, which says what raises.
        """
        name, classes = f"{type(self).__name__}.update", self.num_classes
        read = class_ids(predictions, mask, targets, name, classes, where)
        real = _mask_ops.entries(mask, where, read.targets.shape, name)
        known = read.valid & (read.predictions != NO_CLASS)
        cell = jnp.where(real & known, read.targets * classes + read.predictions, 0)
        ones = (real & known).astype(jnp.float32)
        counts = jnp.zeros(classes**2).at[cell.ravel()].add(ones.ravel())
        counts = jnp.where(jnp.all(known | ~real), counts, jnp.nan)
        added = CompensatedSum.of(counts.reshape(classes, classes))
        return dataclasses.replace(self, counts=self.counts.add(added))

    def _options(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, **super()._options()}

    def compute(self) -> Float[Array, "target prediction"]:
        """The counts, float32 `[num_classes, num_classes]`, a row for each target."""
        return self.counts.value()


@metric
class _Score(ConfusionMatrix):
    """A quotient of counts for each class, averaged to one number."""

    averaging: Averaging = static(default=Averaging("binary"))

    @classmethod
    def empty(
        cls,
        num_classes: int = 2,
        average: str | None = "binary",
        *,
        classes: Sequence[int] | None = None,
        zero_division: float = 0.0,
    ) -> Self:
        """The metric of no step at all.

        Args:
          num_classes: static.
          average: static. "binary": class 1 of two. "macro": the mean over the classes that occur
            in targets or predictions. "weighted": the mean weighted by the number of targets of
            each class. "micro": all classes counted together. None: one score for each class.
          classes: static, ids: only these classes are averaged, or given where `average` is None;
            "macro" then counts those that do not occur too (scikit-learn's `labels`). Steps of
            other classes still count as wrong predictions of these.
          zero_division: static, 0, 1 or nan: the score where there is nothing to divide by. A nan
            is left out of averages.
        """
        where = f"{cls.__name__}.empty"
        rule = averaging(average, classes, zero_division, num_classes, where)
        return dataclasses.replace(super().empty(num_classes), averaging=rule)

    def compute(self) -> Array:
        """The score, float32: a scalar; or `[num_classes]`, or as many as `classes`, by None.

        `zero_division` where nothing was counted to divide by.
        """
        matrix = self.counts.value()
        right, predicted, true = jnp.diagonal(matrix), jnp.sum(matrix, 0), jnp.sum(matrix, 1)
        top, bottom = self._quotient(right, predicted, true)
        return averaged(top, bottom, (predicted + true) != 0, true, self.averaging)

    def _quotient(self, right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
        raise NotImplementedError


@metric
class Precision(_Score):
    """Fraction of the real steps predicted as a class that are of it.

        compute() = number with prediction = target = k / number with prediction = k

    Attributes:
      counts: the confusion matrix, `[num_classes, num_classes]`, compensated.
      averaging: static, how the classes become one number.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 1, 1]]), jnp.array([[1, 0, 0]])
      >>> mask = jnp.array([[True, True, False]])
      >>> float(jm.metrics.Precision.empty().update(predictions, mask, targets).compute())
      0.5

    Agrees with `sklearn.metrics.precision_score(..., zero_division=0)` of the real steps.
    """

    def _quotient(self, right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
        return right, predicted


@metric
class Recall(_Score):
    """Fraction of the real steps of a class that are predicted as it.

        compute() = number with prediction = target = k / number with target = k

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 0, 0]]), jnp.array([[1, 1, 1]])
      >>> mask = jnp.array([[True, True, False]])
      >>> float(jm.metrics.Recall.empty().update(predictions, mask, targets).compute())
      0.5

    Agrees with `sklearn.metrics.recall_score(..., zero_division=0)` of the real steps.
    """

    def _quotient(self, right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
        return right, true


@metric
class F1(_Score):
    """Harmonic mean of precision and recall.

        compute() = 2 * number with prediction = target = k
                    / (number with prediction = k + number with target = k)

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 1, 0]]), jnp.array([[1, 0, 1]])
      >>> float(jm.metrics.F1.empty().update(predictions, None, targets).compute())
      0.5

    Agrees with `sklearn.metrics.f1_score(..., zero_division=0)` of the real steps.
    """

    def _quotient(self, right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
        return 2 * right, predicted + true


@metric
class FBeta(_Score):
    """Harmonic mean of precision and recall, where recall weighs `beta` times as much.

        compute() = (1 + beta^2) * number with prediction = target = k
                    / (number with prediction = k + beta^2 * number with target = k)

    Attributes:
      counts, averaging: as in `Precision`; beta: static.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 0, 0]]), jnp.array([[1, 1, 0]])
      >>> metric = jm.metrics.FBeta.empty(beta=2.0).update(predictions, None, targets)
      >>> round(float(metric.compute()), 4)
      0.5556

    Agrees with `sklearn.metrics.fbeta_score(..., zero_division=0)` of the real steps.
    """

    beta: float = static(default=1.0)

    @classmethod
    def empty(
        cls,
        num_classes: int = 2,
        average: str | None = "binary",
        *,
        beta: float = 1.0,
        classes: Sequence[int] | None = None,
        zero_division: float = 0.0,
    ) -> Self:
        """The metric of no step at all.

        Args:
          beta: static, above 0: 0.5 favours precision, 2 recall.
          num_classes, average, classes, zero_division: as in `F1.empty`.
        """
        beta = float(_check.static_number(beta, "FBeta.empty", "beta"))
        if not 0 < beta < math.inf:
            raise ValueError(f"FBeta.empty: `beta` must be above 0 and finite, got {beta}.")
        metric = super().empty(num_classes, average, classes=classes, zero_division=zero_division)
        return dataclasses.replace(metric, beta=beta)

    def _quotient(self, right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
        return (1 + self.beta**2) * right, predicted + self.beta**2 * true


@metric
class IoU(_Score):
    """Intersection over union of the real steps predicted as a class and those of it.

        compute() = number with prediction = target = k
                    / number with prediction = k or target = k

    The Jaccard index; `average="macro"` is the mean IoU.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 1, 0, 9]]), jnp.array([[1, 0, 1, 9]])
      >>> mask = jnp.array([[True, True, True, False]])
      >>> metric = jm.metrics.IoU.empty().update(predictions, mask, targets)
      >>> round(float(metric.compute()), 4)
      0.3333

    Agrees with `sklearn.metrics.jaccard_score(..., zero_division=0)` of the real steps.
    """

    def _quotient(self, right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
        return right, predicted + true - right
