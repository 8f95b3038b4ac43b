"""The confusion matrix: counts of each target and prediction."""

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxmask import _check, _mask_ops
from jaxmask._types import Array, ArrayLike, Mask
from jaxmask.metrics._compensated import CompensatedSum
from jaxmask.metrics._reading import NO_CLASS, class_ids, same_kind

__all__ = ["ConfusionMatrix"]


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
            more axis, `[..., num_classes]`, floating, whose first maximum counts.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: class ids, `[batch, time, ...]`, or `[batch, ...]` with a row mask.
          where: boolean, the shape of `targets`, False where a value is missing; None: none is.

        Returns:
          A new metric. A step with several targets counts each of them.

        Raises:
          ValueError: if shapes disagree, or a real id is not a class; under `jit`, where values are
            not known, the matrix is then nan.
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
