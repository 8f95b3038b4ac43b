"""Normalise by statistics over the real steps of the whole batch, or of many batches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.norm._moments import (
    AxisName,
    floating_pair,
    inverse_root,
    moments,
    scale_and_shift,
    widened,
)


class BatchStatistics(NamedTuple):
    """The statistics of batch normalisation, for each feature.

    Attributes:
      mean: `[feature]`, at least float32.
      variance: `[feature]`, the biased one.
      seen: the number of real values of each feature behind them, int32.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[1.0], [3.0], [jnp.nan]]])
      >>> jm.norm.batch_statistics(x, jnp.array([[True, True, False]])).variance.tolist()
      [1.0]
    """

    mean: Float[Array, "feature"]
    variance: Float[Array, "feature"]
    seen: Int[Array, ""] | int


@refusing_pairs
def batch_statistics(x: ArrayLike, mask: Mask, *, axis_name: AxisName = None) -> BatchStatistics:
    """Mean and variance of each feature over the real steps of all rows.

    Sums and counts are added over all rows, and over devices, before dividing: a mean of means
    would weigh a short row as much as a long one.

    Args:
      x: `[batch, time, ..., feature]`, or `[batch, ..., feature]` with a row mask; floating.
      mask: boolean, or `Segments` (whose sequences are steps like all others), or None.
      axis_name: mapped axis or axes (of `shard_map`, `vmap` or `pmap`) that hold parts of the
        batch.

    Returns:
      The statistics; all 0 where no step is real.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[1.0], [3.0], [jnp.nan]]])
      >>> mean, variance, seen = jm.norm.batch_statistics(x, jnp.array([[True, True, False]]))
      >>> mean.tolist(), variance.tolist(), int(seen)
      ([2.0], [1.0], 2)
    """
    x, mask, real = floating_pair(x, mask, "batch_statistics")
    return _statistics(x, real, axis_name)[1]


def _statistics(x: Array, real: Array, axis_name: AxisName) -> tuple[Array, BatchStatistics]:
    axes = tuple(range(x.ndim - 1))
    centred, mean, variance, count = moments(widened(x, real), real, axes, axis_name)
    return centred, BatchStatistics(mean.reshape(-1), variance.reshape(-1), count.reshape(()))


def update_statistics(
    running: BatchStatistics, new: BatchStatistics, *, momentum: float = 0.99
) -> BatchStatistics:
    """Update running averages by one more batch; a batch without a real step changes nothing.

        mean'     = momentum * mean     + (1 - momentum) * mean of the batch
        variance' = momentum * variance + (1 - momentum) * variance of the batch

    Args:
      running: the statistics so far.
      new: the statistics of the batch. No gradient flows into them.
      momentum: weight of the running average.

    Returns:
      The statistics, with `seen` the total number of real values seen (it wraps around after
      2^31).

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> old = jm.norm.BatchStatistics(jnp.array([0.0]), jnp.array([1.0]), 0)
      >>> x = jnp.array([[[4.0], [jnp.nan]]])
      >>> one = jm.norm.batch_statistics(x, jnp.array([[True, False]]))
      >>> none = jm.norm.batch_statistics(x, jnp.array([[False, False]]))
      >>> jm.norm.update_statistics(old, one, momentum=0.5).mean.tolist()
      [2.0]
      >>> jm.norm.update_statistics(old, none, momentum=0.5).mean.tolist()
      [0.0]
    """

    def average(old: Array, fresh: Array) -> Array:
        fresh = jax.lax.stop_gradient(fresh).astype(old.dtype)
        return jnp.where(new.seen > 0, momentum * old + (1 - momentum) * fresh, old)

    mean, variance = average(running.mean, new.mean), average(running.variance, new.variance)
    return BatchStatistics(mean, variance, running.seen + new.seen)


@refusing_pairs
def batch(
    x: ArrayLike,
    mask: Mask,
    statistics: BatchStatistics | None = None,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    epsilon: float = 1e-5,
    axis_name: AxisName = None,
) -> Pair:
    """Give each feature mean 0 and variance 1 over the real steps of all rows.

        y[b, t] = (x[b, t] - mean) / sqrt(variance + epsilon) * scale + bias

    Mask class: any. With the statistics of its own batch a row depends on the others, by
    definition; with given statistics each step is independent.

    Args:
      x: `[batch, time, ..., feature]`, or `[batch, ..., feature]` with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      statistics: what to normalise by, such as running averages; where None, those of this batch,
        with gradients through them (`batch_statistics` returns them).
      epsilon: added to the variance; the default, larger than that of the other norms, is Flax's.
      axis_name: as in `batch_statistics`; used where `statistics` is None.
      scale, bias: as in `layer`.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[1.0], [jnp.nan]], [[3.0], [jnp.nan]]])
      >>> mask = jnp.array([[True, False], [True, False]])
      >>> jm.norm.batch(x, mask, epsilon=0.0)[0].ravel().tolist()
      [-1.0, 0.0, 1.0, 0.0]

    Agrees with `flax.nnx.BatchNorm` and `torch.nn.BatchNorm1d` of the real steps laid end to end.
    Source: Ioffe and Szegedy, 2015, arxiv.org/abs/1502.03167.
    """
    x, mask, real = floating_pair(x, mask, "batch")
    if statistics is None:
        centred, found = _statistics(x, real, axis_name)
        each = inverse_root(found.variance, epsilon, "batch")
        y = centred * jax.lax.broadcast_to_rank(each, x.ndim)
        return scale_and_shift(y, x, real, scale, bias, "batch"), mask
    if not (isinstance(statistics, tuple) and len(statistics) == 3):
        raise TypeError(
            f"batch: `statistics` must be `BatchStatistics`, got {_check.kind_of(statistics)}."
        )
    mean, variance, _ = statistics
    for value, name in ((mean, "statistics.mean"), (variance, "statistics.variance")):
        _check.shape(_check.array(value, name, "batch"), x.shape[-1:], "[feature]", "batch", name)
    mean, variance = (jax.lax.broadcast_to_rank(value, x.ndim) for value in (mean, variance))
    y = (widened(x, real) - mean) * inverse_root(variance, epsilon, "batch")
    return scale_and_shift(y, x, real, scale, bias, "batch"), mask
