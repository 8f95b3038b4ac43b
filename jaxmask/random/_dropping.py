"""Dropout of features, step by step or over all steps of a row."""

import jax
import jax.numpy as jnp

from jaxmask import _check, ops
from jaxmask._keys import at_features, sequence_keys, step_keys
from jaxmask._types import Array, ArrayLike, Mask, Pair


def _check_rate(rate: float, where: str) -> None:
    _check.static_number(rate, where, "rate")
    if not 0 <= rate <= 1:
        raise ValueError(f"{where}: `rate` must lie within 0 and 1, got {rate}.")


def dropout(
    x: ArrayLike, mask: Mask, key: Array, rate: float, *, row_ids: ArrayLike | None = None
) -> Pair:
    """Zero each feature with probability `rate` and scale the others by `1 / (1 - rate)`.

    Mask class: any. Extra padding changes no noise at a real step.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      key: a JAX random key.
      rate: static, from 0 (keep all) to 1 (drop all).
      row_ids: `[batch]`, integer: what to call each row, its place in the batch where None.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Raises:
      TypeError: if `x` is not floating or `mask` not boolean.
      ValueError, MaskError: if `rate` is not within 0 and 1, or `mask` does not belong to `x`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 3, 4)), jnp.array([[True, True, False]])
      >>> y, _ = jm.random.dropout(x, mask, jax.random.key(0), 0.5)
      >>> sorted(set(y[0, :2].ravel().tolist())), y[0, 2].tolist()
      ([0.0, 2.0], [0.0, 0.0, 0.0, 0.0])

    Source: Srivastava et al., 2014, jmlr.org/papers/v15/srivastava14a.html.
    """
    x, mask = _check.pair(x, mask, "dropout")
    _check.floating(x, "dropout")
    _check_rate(rate, "dropout")
    x, _ = ops.fill(x, mask)
    if rate in (0, 1):
        return (x if rate == 0 else jnp.zeros_like(x)), mask
    keys = step_keys(key, x, mask, row_ids=row_ids)
    features = x.shape[keys.ndim :]
    kept = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, features))(keys.reshape(-1))
    return jnp.where(kept.reshape(x.shape), x / (1 - rate), 0).astype(x.dtype), mask


def spatial_dropout(
    x: ArrayLike, mask: Mask, key: Array, rate: float, *, row_ids: ArrayLike | None = None
) -> Pair:
    """Zero whole feature maps: a feature is dropped at every step of a row, or at none.

    A feature is dropped with probability `rate`, and the others are scaled by `1 / (1 - rate)`.
    Neighbouring steps are alike, so that dropping single values hides little. Mask class: any.
    Extra padding changes no noise at a real step.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; floating. With
        several feature axes, maps are those of the last.
      mask: boolean, or `Segments` (each sequence has its own draw), or None.
      key: a JAX random key.
      rate: static, from 0 (keep all) to 1 (drop all).
      row_ids: `[batch]`, integer: what to call each row, its place in the batch where None.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Raises:
      TypeError: if `x` is not floating or `mask` not boolean.
      ValueError, MaskError: if `rate` is not within 0 and 1, there is no feature axis, or `mask`
        does not belong to `x`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 3, 50)), jnp.array([[True, True, False]])
      >>> y, _ = jm.random.spatial_dropout(x, mask, jax.random.key(0), 0.5)
      >>> bool((y[0, 0] == y[0, 1]).all()), sorted(set(y[0, 0].tolist()))
      (True, [0.0, 2.0])

    Agrees with `keras.layers.SpatialDropout1D` in distribution. Source: Tompson et al., 2015,
    arxiv.org/abs/1411.4280.
    """
    x, mask = _check.pair(x, mask, "spatial_dropout")
    _check.floating(x, "spatial_dropout")
    _check_rate(rate, "spatial_dropout")
    _check.features(x, mask, "spatial_dropout")
    x, _ = ops.fill(x, mask)
    if rate in (0, 1):
        return (x if rate == 0 else jnp.zeros_like(x)), mask
    keys = sequence_keys(key, x, mask, "spatial_dropout", row_ids)
    draw = jax.vmap(jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, x.shape[-1:])))
    return jnp.where(at_features(draw(keys), x, mask), x / (1 - rate), 0).astype(x.dtype), mask
