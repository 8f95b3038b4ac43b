"""SpecAugment: warp time."""

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks, ops
from jaxmask._errors import refusing_pairs
from jaxmask._keys import at_steps, sequence_keys
from jaxmask._steps import filled, gather
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.random._spans import sequence_lengths, uniform_int


@refusing_pairs
def time_warp(
    x: ArrayLike, mask: Mask, key: Array, max_distance: int, *, row_ids: ArrayLike | None = None
) -> Pair:
    """Stretch one part of each row and squeeze the other, which keeps its length.

        y[t] = x[t c / d]                                     for t <= d
        y[t] = x[c + (t - d) (n - 1 - c) / (n - 1 - d)]       for t > d

    with linear interpolation between steps, where n is the real steps of the row. The step d is
    `max_distance` or less from c, which is drawn uniformly from the steps that have `max_distance`
    and one more on either side; a row that is too short is warped less. Both count real steps, so
    no padding is read. Mask class: any. Extra padding changes no warp.

    Args:
      x: `[batch, time, feature...]`, floating.
      mask: `[batch, time]`, boolean, or `Segments` (each sequence has its own warp), or None.
      key: a JAX random key.
      max_distance: static; W in the paper.
      row_ids: as in `step_keys`.

    Returns:
      The pair `(y, mask)`, `y` like `x`, with the mask that came in.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(6.0)[None], jnp.arange(6)[None] < 5
      >>> y, _ = jm.random.time_warp(x, mask, jax.random.key(1), 1)
      >>> y.tolist()
      [[0.0, 2.0, 2.6666667461395264, 3.3333334922790527, 4.0, 0.0]]

    The paper warps by a spline through points of the edge, and ESPnet by cubic interpolation.
    Source: Park et al., 2019, SpecAugment, arxiv.org/abs/1904.08779.
    """
    where = "time_warp"
    x, mask = _check.pair(x, mask, where, over_time=True)
    _check.floating(x, where)
    distance = _check.count(max_distance, where, "max_distance")
    keys = sequence_keys(key, x, mask, where, row_ids)
    lengths = jnp.broadcast_to(sequence_lengths(x, mask), keys.shape)
    source, target = _points(keys, lengths, distance)
    last, source, target = (
        at_steps(each, mask).astype(jnp.float32) for each in (lengths - 1, source, target)
    )
    real = jnp.ones(x.shape[:2], bool) if mask is None else mask
    ranks = masks.positions(real)
    rank = ranks.astype(jnp.float32)
    before = rank * source / jnp.maximum(target, 1)
    after = source + (rank - target) * (last - source) / jnp.maximum(last - target, 1)
    position = jnp.clip(jnp.where(rank <= target, before, after), 0, jnp.maximum(last, 0))
    low = jnp.floor(position)
    high = jnp.minimum(low + 1, jnp.maximum(last, 0))
    begin = masks.positions(masks.as_bool(real)) - ranks  # of the sequence, without holes
    closed, _ = ops.compact(x, mask)
    wide = closed.astype(accumulator(x.dtype))
    share = _mask_ops.expand((position - low).astype(wide.dtype), x.ndim)
    one, other = (gather(wide, begin + step.astype(begin.dtype)) for step in (low, high))
    return filled(((1 - share) * one + share * other).astype(x.dtype), mask), mask


def _points(keys: Array, lengths: Array, distance: int) -> tuple[Array, Array]:
    """Where a step is taken from and where it goes, the same where the sequence is too short."""
    most = jnp.clip(jnp.minimum(distance, (lengths - 3) // 2), 0)
    draw = jax.vmap(jax.vmap(lambda k: jax.random.uniform(k, (2,))))(keys)
    source = most + 1 + uniform_int(draw[..., 0], jnp.maximum(lengths - 3 - 2 * most, 0))
    return source, source - most + uniform_int(draw[..., 1], 2 * most)
