"""The area under a curve from the scores themselves."""

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._sums import divide
from jaxmask._types import Array, Scalar
from jaxmask.metrics._curve import Curve
from jaxmask.metrics._metric import metric, static
from jaxmask.metrics._reading import BinaryScores


@metric
class ExactAUC(Curve):
    """Area under a curve, "roc" or "pr" as in `AUC`, from the scores of all real steps themselves.

    It keeps every score, a probability, a logit or any real number, so it needs room for all of
    them: 5 bytes for each of `capacity`. More scores than that make the area nan, and so does a
    score of nan. `AUC` counts scores by level in fixed memory. `jax.lax.psum` would add scores up,
    which makes the area nan: inside `shard_map` merge by `gather(axis_name)`.

    Attributes:
      scores: `[capacity]`, float32, in the order of their arrival; 0 where there is none yet.
      positive: `[capacity]`, boolean: whether the target is 1.
      count: number of scores, int32; beyond `capacity` where some did not fit.
      spoilt: int32; not 0 where a score was nan or lost, or a target no class.
      merged: int32, 1: the number of metrics that a sum ran over.
      curve: static, "roc" or "pr".

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits, targets = jnp.array([[2.5, -1.0, 0.5, jnp.nan]]), jnp.array([[1, 0, 0, 1]])
      >>> mask = jnp.array([[True, True, True, False]])
      >>> metric = jm.metrics.ExactAUC.empty(100).update(logits, mask, targets)
      >>> float(metric.compute()), int(metric.count)
      (1.0, 3)

    Agrees with `sklearn.metrics.roc_auc_score` and `average_precision_score` of the real steps.
    """

    scores: Array
    positive: Array
    count: Array
    spoilt: Array
    merged: Array
    curve: str = static(default="roc")

    @classmethod
    def empty(cls, capacity: int, curve: str = "roc") -> Self:
        """The metric of no step at all.

        Args:
          capacity: static, how many scores there is room for, over all updates.
          curve: static, "roc" or "pr".
        """
        _check.choice(curve, ("roc", "pr"), "ExactAUC.empty", "curve")
        size = _check.count(capacity, "ExactAUC.empty", "capacity", least=1)
        zero, spoilt, one = jnp.int32(0), jnp.int32(0), jnp.int32(1)
        return cls(jnp.zeros(size), jnp.zeros(size, bool), zero, spoilt, one, curve)

    def _taken_in(self, read: BinaryScores) -> Self:
        wrong = jnp.any(jnp.isnan(read.scores) | ~read.valid).astype(jnp.int32)
        real, scores = read.real.ravel(), read.scores.astype(jnp.float32).ravel()
        return self._plus(scores, read.positive.ravel(), real, wrong)

    def merge(self, other: Self) -> Self:
        """The metric of the steps of both, in the room of the first.

        Raises:
          TypeError, ValueError: if `other` is another kind of metric, or of another curve.
        """
        self._check_options(other)
        real = jnp.arange(len(other.scores)) < other.count
        # What did not fit there is in no room here.
        lost = (other.count > len(other.scores)).astype(jnp.int32)
        both = self._plus(other.scores, other.positive, real, other.spoilt + lost)
        return dataclasses.replace(both, merged=jnp.maximum(self.merged, other.merged))

    def gather(self, axis_name: str | tuple[str, ...]) -> Self:
        """The metric of all devices along an axis of `shard_map`, in the room of one.

        Args:
          axis_name: of the mesh, or of `jax.vmap`.
        """
        every = jax.lax.all_gather(self, axis_name)
        first, others = (jax.tree.map(lambda x: x[0], every), jax.tree.map(lambda x: x[1:], every))
        return jax.lax.scan(lambda metric, other: (metric.merge(other), None), first, others)[0]

    def compute(self) -> Scalar:
        """The area, float32; 0 without a positive, and for "roc" without a negative."""
        real = jnp.arange(len(self.scores)) < self.count
        # Those that are not there come last, whatever the scores are.
        absent, scores, positive = jax.lax.sort(
            ((~real).astype(jnp.int32), -self.scores, self.positive.astype(jnp.int32)), num_keys=2
        )
        real = absent == 0
        true, false = (jnp.cumsum(real & (positive == k)) for k in (1, 0))
        # A threshold is the last of the scores that are equal; each step of a curve ends at one.
        last = jnp.append(scores[1:] != scores[:-1], True) | jnp.append(~real[1:], True)
        here = (
            jax.lax.cummax(jnp.where(last & real, true, 0)),
            jax.lax.cummax(jnp.where(last & real, false, 0)),
        )
        before = (jnp.append(jnp.zeros(1, x.dtype), x[:-1]) for x in here)
        area = self._area(*(x.astype(jnp.float32) for x in (*here, *before)))
        good = (self.count <= len(self.scores)) & (self.spoilt == 0) & (self.merged == 1)
        return jnp.where(good, area, jnp.nan)

    def _area(self, true: Array, false: Array, true_before: Array, false_before: Array) -> Array:
        gain = divide(true - true_before, true[-1])
        if self.curve == "pr":
            return jnp.sum(gain * divide(true, true + false))
        height = divide(true + true_before, 2 * true[-1])
        return jnp.sum(height * divide(false - false_before, false[-1]))

    def _plus(self, scores: Array, positive: Array, real: Array, wrong: Array) -> Self:
        """With further scores behind those that are here; what does not fit is counted only."""
        place = self.count + jnp.cumsum(real, dtype=jnp.int32) - 1
        place = jnp.where(real, place, len(self.scores))
        return dataclasses.replace(
            self,
            scores=self.scores.at[place].set(scores, mode="drop"),
            positive=self.positive.at[place].set(positive, mode="drop"),
            count=self.count + jnp.sum(real, dtype=jnp.int32),
            spoilt=self.spoilt + wrong,
        )
