"""The area under a curve over all thresholds, of scores by level or of the scores themselves."""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._sums import divide
from jaxmask._types import Array, ArrayLike, Mask, Scalar
from jaxmask.metrics._compensated import CompensatedSum
from jaxmask.metrics._metric import Metric, metric, static
from jaxmask.metrics._reading import BinaryScores, binary_scores

# Levels that are spaced evenly in the logit, from -30 to 30: 500 for each unit.
_REACH = 30
_PER_UNIT = 500
_TAILS = 2 * _REACH * _PER_UNIT


def _level(scores: Array, resolution: int) -> Array:
    """The level of each score: even in the score and in its logit at once."""
    least = jnp.finfo(scores.dtype).tiny  # log 0 would trip `jax_debug_infs`
    logit = jnp.log(jnp.maximum(scores, least)) - jnp.log(jnp.maximum(1 - scores, least))
    logit = jnp.clip(logit, -_REACH, _REACH)
    return jnp.round(scores * resolution + (logit + _REACH) * _PER_UNIT).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Curve(Metric):
    """The area under a curve of scores."""

    def update(
        self,
        predictions: ArrayLike,
        mask: Mask,
        targets: ArrayLike,
        *,
        where: ArrayLike | None = None,
    ) -> Self:
        """Take in a batch. A step with several scores counts each of them.

        Args:
          predictions: scores of the positive class, `[batch, time, ...]`, or `[batch, ...]` with a
            row mask; floating.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: the shape of `predictions`; boolean, or integer, 0 or 1.
          where: boolean, the shape of `predictions`, False where a value is missing; None: none is.

        Raises:
          ValueError: if shapes disagree, or a real target is neither 0 nor 1; under `jit`, where
            values are not known, the area is nan then.
        """
        name = f"{type(self).__name__}.update"
        return self._taken_in(binary_scores(predictions, mask, targets, name, where))

    def _taken_in(self, read: BinaryScores) -> Self:
        raise NotImplementedError


@metric
class AUC(Curve):
    """Area under a curve of all thresholds, over the real steps of all batches.

        "roc"  fraction of (positive, negative) pairs in which the positive scores higher; ties half
        "pr"   sum over thresholds of precision * (gain in recall): the average precision

    Scores are counted by level, so that batches and devices merge by adding counts. Two scores are
    told apart if they differ by `1 / resolution`, or by 0.2 % of themselves or of their distance to
    1 (down to 1e-13), so that rare positives with small scores are ranked too. The area is exact
    for multiples of `1 / resolution`; other scores that share a level tie, which moves "roc" by at
    most half the fraction of such pairs. A score outside [0, 1] makes the area nan: pass
    `jax.nn.sigmoid(logits)`. `ExactAUC` keeps the scores themselves.

    Attributes:
      positives: `[resolution + 30001]`, number of positive steps at each level, compensated.
      negatives: `[resolution + 30001]`, number of negative steps, compensated.
      curve: static, "roc" or "pr".

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> scores, targets = jnp.array([[0.9, 0.4, 0.6, 7.0]]), jnp.array([[1, 0, 0, 1]])
      >>> mask = jnp.array([[True, True, True, False]])
      >>> float(jm.metrics.AUC.empty().update(scores, mask, targets).compute())
      1.0

    Agrees with `sklearn.metrics.roc_auc_score` and `average_precision_score` of the real steps.
    """

    positives: CompensatedSum
    negatives: CompensatedSum
    curve: str = static(default="roc")

    @classmethod
    def empty(cls, resolution: int = 1000, curve: str = "roc") -> Self:
        """The metric of no step at all.

        Args:
          resolution: static, the least number of levels between the scores 0 and 1.
          curve: static, "roc" or "pr".
        """
        _check.choice(curve, ("roc", "pr"), "AUC.empty", "curve")
        levels = _check.count(resolution, "AUC.empty", "resolution", least=1) + _TAILS + 1
        # Two arrays, since one buffer cannot be donated twice.
        positives, negatives = (CompensatedSum.of(jnp.zeros(levels)) for _ in range(2))
        return cls(positives, negatives, curve)

    def _taken_in(self, read: BinaryScores) -> Self:
        scores, positive, real, is_class = read
        levels = len(self.positives.high)
        # False for nan too.
        valid = (scores >= 0) & (scores <= 1)
        level = _level(jnp.where(valid, scores, 0), levels - 1 - _TAILS)
        sums = []
        for held, belongs in ((self.positives, positive), (self.negatives, ~positive)):
            ones = (real & belongs).astype(jnp.float32)
            counts = jnp.zeros(levels, jnp.float32).at[level.ravel()].add(ones.ravel())
            counts = jnp.where(jnp.all(valid & is_class), counts, jnp.nan)
            sums.append(held.add(CompensatedSum.of(counts)))
        return dataclasses.replace(self, positives=sums[0], negatives=sums[1])

    def _options(self) -> dict[str, Any]:
        return {"resolution": len(self.positives.high) - 1 - _TAILS, **super()._options()}

    def compute(self) -> Scalar:
        """The area, float32; 0 without a positive, and for "roc" without a negative."""
        positives, negatives = self.positives.value(), self.negatives.value()
        # The number of steps at or above each threshold.
        true, false = (jnp.cumsum(x[::-1])[::-1] for x in (positives, negatives))
        if self.curve == "pr":
            return jnp.sum(divide(true, true + false) * divide(positives, true[0]))
        # Fractions, not counts: a product of two large counts has no exact float32.
        higher = divide(true - positives / 2, true[0])
        return jnp.sum(higher * divide(negatives, false[0]))


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
