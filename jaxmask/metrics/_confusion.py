"""The confusion matrix, and precision, recall and F1 of its counts."""

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxmask import _check, _mask_ops
from jaxmask._sums import divide
from jaxmask._types import Array, ArrayLike, Mask, Scalar
from jaxmask.metrics._compensated import CompensatedSum
from jaxmask.metrics._reading import NO_CLASS, class_ids, same_kind

__all__ = ["F1", "ConfusionMatrix", "Precision", "Recall"]

_AVERAGES = ("binary", "macro", "micro")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of each target and prediction, over the real steps of all batches.

        compute()[i, j] = number of real steps with target i and prediction j

    An immutable pytree, as `Mean`. A step that fits no cell makes the whole matrix nan, so that
    none is dropped in silence: nan logits, or, under `jit`, an id that is not a class.

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

    def update(self, predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Self:
        """Take in a batch.

        Args:
          predictions: class ids in the shape of `targets`, integer or boolean; or logits with one
            more axis, `[..., num_classes]`, floating, whose first maximum counts.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: class ids, `[batch, time, ...]`, or `[batch, ...]` with a row mask.

        Returns:
          A new metric. A step with several targets counts each of them.

        Raises:
          ValueError: if shapes disagree, or a real id is not a class; under `jit`, where values are
            not known, the matrix is then nan.
        """
        where, classes = f"{type(self).__name__}.update", self.num_classes
        read = class_ids(predictions, mask, targets, where, classes)
        real = _mask_ops.real_steps(mask, read.targets.shape)
        real = jnp.broadcast_to(_mask_ops.expand(real, read.targets.ndim), read.targets.shape)
        known = read.valid & (read.predictions != NO_CLASS)
        cell = jnp.where(real & known, read.targets * classes + read.predictions, 0)
        ones = (real & known).astype(jnp.float32)
        counts = jnp.zeros(classes**2).at[cell.ravel()].add(ones.ravel())
        counts = jnp.where(jnp.all(known | ~real), counts, jnp.nan)
        added = CompensatedSum.of(counts.reshape(classes, classes))
        return dataclasses.replace(self, counts=self.counts.add(added))

    def merge(self, other: Self) -> Self:
        """The metric of the steps of both.

        Raises:
          TypeError, ValueError: if `other` is another kind of metric, or of other classes.
        """
        same_kind(self, other)
        if other.num_classes != self.num_classes:
            raise ValueError(
                f"{type(self).__name__}.merge: both metrics must have the same `num_classes`, got "
                f"{self.num_classes} and {other.num_classes}."
            )
        return dataclasses.replace(self, counts=self.counts.add(other.counts))

    def compute(self) -> Float[Array, "target prediction"]:
        """The counts, float32 `[num_classes, num_classes]`, a row for each target."""
        return self.counts.value()


@dataclasses.dataclass(frozen=True)
class _Score(ConfusionMatrix):
    """A quotient of counts for each class, averaged to one number."""

    average: str = dataclasses.field(default="binary", metadata={"static": True})

    @classmethod
    def empty(cls, num_classes: int = 2, average: str = "binary") -> Self:
        """The metric of no step at all.

        Args:
          num_classes: static.
          average: static. "binary": class 1 of two. "macro": the mean over the classes that occur
            in targets or predictions. "micro": all classes counted together.
        """
        where = f"{cls.__name__}.empty"
        _check.choice(average, _AVERAGES, where, "average")
        if average == "binary" and num_classes != 2:
            raise ValueError(
                f"{where}: `average` of {num_classes} classes must be 'macro' or 'micro', got "
                "'binary'."
            )
        return dataclasses.replace(super().empty(num_classes), average=average)

    def compute(self) -> Scalar:
        """The score, float32; 0 where nothing was counted to divide by."""
        matrix = self.counts.value()
        right, predicted, true = jnp.diagonal(matrix), jnp.sum(matrix, 0), jnp.sum(matrix, 1)
        top, bottom = self._quotient(right, predicted, true)
        if self.average == "micro":
            return divide(jnp.sum(top), jnp.sum(bottom))
        each = divide(top, bottom)
        if self.average == "binary":
            return each[1]
        occurs = (predicted + true) != 0
        return divide(jnp.sum(jnp.where(occurs, each, 0)), jnp.sum(occurs))

    @staticmethod
    def _quotient(right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
        raise NotImplementedError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Precision(_Score):
    """Fraction of the real steps predicted as a class that are of it.

        compute() = number with prediction = target = k / number with prediction = k

    An immutable pytree, as `Mean`; it holds the confusion matrix.

    Attributes:
      counts: `[num_classes, num_classes]`, compensated.
      average: static, how the classes become one number.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 1, 1]]), jnp.array([[1, 0, 0]])
      >>> mask = jnp.array([[True, True, False]])
      >>> float(jm.metrics.Precision.empty().update(predictions, mask, targets).compute())
      0.5

    Agrees with `sklearn.metrics.precision_score(..., zero_division=0)` of the real steps.
    """

    @staticmethod
    def _quotient(right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
        return right, predicted


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recall(_Score):
    """Fraction of the real steps of a class that are predicted as it.

        compute() = number with prediction = target = k / number with target = k

    An immutable pytree, as `Mean`; it holds the confusion matrix.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 0, 0]]), jnp.array([[1, 1, 1]])
      >>> mask = jnp.array([[True, True, False]])
      >>> float(jm.metrics.Recall.empty().update(predictions, mask, targets).compute())
      0.5

    Agrees with `sklearn.metrics.recall_score(..., zero_division=0)` of the real steps.
    """

    @staticmethod
    def _quotient(right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
        return right, true


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class F1(_Score):
    """Harmonic mean of precision and recall.

        compute() = 2 * number with prediction = target = k
                    / (number with prediction = k + number with target = k)

    An immutable pytree, as `Mean`; it holds the confusion matrix.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 1, 0]]), jnp.array([[1, 0, 1]])
      >>> float(jm.metrics.F1.empty().update(predictions, None, targets).compute())
      0.5

    Agrees with `sklearn.metrics.f1_score(..., zero_division=0)` of the real steps.
    """

    @staticmethod
    def _quotient(right: Array, predicted: Array, true: Array) -> tuple[Array, Array]:
        return 2 * right, predicted + true
