"""SpecAugment: hide spans of time and bands of features."""

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks, ops
from jaxmask._errors import refusing_pairs
from jaxmask._keys import at_features, at_steps, sequence_keys
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments


@refusing_pairs
def time_masking(
    x: ArrayLike,
    mask: Mask,
    key: Array,
    max_width: int,
    *,
    num_masks: int = 1,
    max_ratio: float = 1.0,
    row_ids: ArrayLike | None = None,
) -> Pair:
    """Set spans of real steps of each row to 0; they stay real in the mask.

    The width of a span is drawn uniformly from 0 to `max_width` (or to `max_ratio` times the real
    steps of the row, if that is less), and its start from the real steps at which it fits. Both
    count real steps, so no span falls on padding. Mask class: any. Extra padding changes no span.

    Args:
      x: `[batch, time, feature...]`, floating.
      mask: `[batch, time]`, boolean, or `Segments` (each sequence has its own spans), or None.
      key: a JAX random key.
      max_width: static, the widest span; T in the paper.
      num_masks: static, the number of spans, which may overlap.
      max_ratio: the widest span as a fraction of the row, from 0 to 1; p in the paper.
      row_ids: as in `step_keys`.

    Returns:
      The pair `(y, mask)`, `y` like `x`, with the mask that came in.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 6)), jnp.array([[True] * 5 + [False]])
      >>> y, _ = jm.random.time_masking(x, mask, jax.random.key(2), 3)
      >>> y.tolist()
      [[1.0, 1.0, 0.0, 0.0, 1.0, 0.0]]

    Source: Park et al., 2019, SpecAugment, arxiv.org/abs/1904.08779.
    """
    x, mask = _check.pair(x, mask, "time_masking", over_time=True)
    _check.floating(x, "time_masking")
    _check.static_number(max_ratio, "time_masking", "max_ratio")
    if not 0 <= max_ratio <= 1:
        raise ValueError(f"time_masking: `max_ratio` must lie within 0 and 1, got {max_ratio}.")
    keys = sequence_keys(key, x, mask, "time_masking", row_ids)
    lengths = jnp.broadcast_to(sequence_lengths(x, mask), keys.shape)
    widest = jnp.floor(max_ratio * lengths.astype(float)).astype(jnp.int32)
    spans = _spans(keys, lengths, widest, max_width, num_masks, "time_masking")
    real = jnp.ones(x.shape[:2], bool) if mask is None else mask
    start, stop = (at_steps(bound, mask) for bound in spans)
    hidden = _covered(masks.positions(real)[..., None], start, stop)
    return jnp.where(_mask_ops.expand(hidden, x.ndim), 0, ops.fill(x, mask)[0]), mask


@refusing_pairs
def feature_masking(
    x: ArrayLike,
    mask: Mask,
    key: Array,
    max_width: int,
    *,
    num_masks: int = 1,
    row_ids: ArrayLike | None = None,
) -> Pair:
    """Set bands of features to 0, the same at every step of a row.

    The width of a band is drawn uniformly from 0 to `max_width`, and its start from the features at
    which it fits. Mask class: any. Extra padding changes no band.

    Args:
      x: `[batch, time, ..., feature]`, or `[batch, ..., feature]` with a row mask; floating. Bands
        lie on the last axis.
      mask: boolean, or `Segments` (each sequence has its own bands), or None.
      max_width: static, the widest band; F in the paper.
      num_masks: static, the number of bands, which may overlap.
      key, row_ids: as in `time_masking`.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 2, 5)), jnp.array([[True, False]])
      >>> y, _ = jm.random.feature_masking(x, mask, jax.random.key(2), 3)
      >>> y.tolist()
      [[[1.0, 1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]]]

    Source: Park et al., 2019, SpecAugment, arxiv.org/abs/1904.08779.
    """
    x, mask = _check.pair(x, mask, "feature_masking")
    _check.floating(x, "feature_masking")
    _check.features(x, mask, "feature_masking")
    keys = sequence_keys(key, x, mask, "feature_masking", row_ids)
    size = jnp.full(keys.shape, x.shape[-1])
    start, stop = _spans(keys, size, size, max_width, num_masks, "feature_masking")
    hidden = _covered(
        jnp.arange(x.shape[-1])[None, None, :, None], start[:, :, None], stop[:, :, None]
    )
    return jnp.where(at_features(hidden, x, mask), 0, ops.fill(x, mask)[0]), mask


def sequence_lengths(x: Array, mask: Mask) -> Array:
    """Real steps of each sequence: `[batch, 1]`, or `[batch, max_segments]` for packed rows."""
    if isinstance(mask, Segments):
        return jnp.sum(_mask_ops.of_each_segment(mask), axis=2, dtype=jnp.int32)
    return jnp.asarray(x.shape[1]) if mask is None else masks.lengths(mask)[:, None]


def _spans(
    keys: Array, size: Array, widest: Array, max_width: int, num_masks: int, where: str
) -> tuple[Array, Array]:
    """The starts and stops of the spans, each `[batch, sequence, num_masks]`."""
    num_masks = _check.count(num_masks, where, "num_masks")
    widest = jnp.minimum(widest, _check.count(max_width, where, "max_width"))[..., None]
    draw = jax.vmap(jax.vmap(lambda k: jax.random.uniform(k, (2, num_masks))))(keys)
    width = uniform_int(draw[..., 0, :], widest)
    start = uniform_int(draw[..., 1, :], size[..., None] - width)
    return start, start + width


def uniform_int(uniform: Array, most: Array) -> Array:
    """Integers from 0 to `most`, each equally likely, from `uniform` in [0, 1)."""
    # The product can round up to `most + 1`.
    return jnp.minimum((uniform * (most + 1).astype(uniform.dtype)).astype(jnp.int32), most)


def _covered(position: Array, start: Array, stop: Array) -> Array:
    return jnp.any((position >= start) & (position < stop), axis=-1)
