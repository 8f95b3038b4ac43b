"""The confusion matrix: counts of each target and prediction."""

import dataclasses
from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Float

from jaxmask import _check, _mask_ops
from jaxmask._types import Array, ArrayLike, Mask
from jaxmask.metrics._compensated import CompensatedSum
from jaxmask.metrics._metric import Metric, metric
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
