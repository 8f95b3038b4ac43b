"""Noise in the features: dropout and normal noise."""

import jax
import jax.numpy as jnp

from jaxmask import _check, ops
from jaxmask._errors import refusing_pairs
from jaxmask._keys import at_features, keys_of_steps, sequence_keys
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair


@refusing_pairs
def dropout(
    x: ArrayLike, mask: Mask, key: Array, dropout_rate: float, *, row_ids: ArrayLike | None = None
) -> Pair:
    """Zero each value with probability `dropout_rate`, and scale the others up.

        y[b, t] = kept[b, t] * x[b, t] / (1 - dropout_rate),   kept ~ Bernoulli(1 - dropout_rate)

    Mask class: any. Extra padding changes no noise at a real step.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      key: a JAX random key.
      dropout_rate: static, from 0 to below 1.
      row_ids: as in `step_keys`.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

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
    _check.dropout_rate(dropout_rate, "dropout")
    x, _ = ops.fill(x, mask)
    if dropout_rate == 0:
        return x, mask
    keys = keys_of_steps(key, x, mask, "dropout", row_ids)
    features = x.shape[keys.ndim :]
    draw = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - dropout_rate, features))
    kept = draw(keys.reshape(-1))
    return _scaled_up(x, kept.reshape(x.shape), dropout_rate), mask


@refusing_pairs
def spatial_dropout(
    x: ArrayLike, mask: Mask, key: Array, dropout_rate: float, *, row_ids: ArrayLike | None = None
) -> Pair:
    """Zero whole feature maps: a feature is dropped at every step of a row, or at none.

        y[b, t] = kept[b] * x[b, t] / (1 - dropout_rate),   kept ~ Bernoulli(1 - dropout_rate)

    Neighbouring steps are correlated, so dropping single values hides little. Mask class: any.
    Extra padding changes no noise at a real step.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; floating. With
        several feature axes, maps are those of the last.
      mask: boolean, or `Segments` (each sequence has its own draw), or None.
      key, dropout_rate, row_ids: as in `dropout`.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

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
    _check.dropout_rate(dropout_rate, "spatial_dropout")
    _check.features(x, mask, "spatial_dropout")
    x, _ = ops.fill(x, mask)
    if dropout_rate == 0:
        return x, mask
    keys = sequence_keys(key, x, mask, "spatial_dropout", row_ids)
    draw = jax.vmap(jax.vmap(lambda k: jax.random.bernoulli(k, 1 - dropout_rate, x.shape[-1:])))
    return _scaled_up(x, at_features(draw(keys), x, mask), dropout_rate), mask


def _scaled_up(x: Array, kept: Array, dropout_rate: float) -> Array:
    return jnp.where(kept, x / (1 - dropout_rate), 0).astype(x.dtype)


@refusing_pairs
def gaussian_noise(
    x: ArrayLike, mask: Mask, key: Array, stddev: float, *, row_ids: ArrayLike | None = None
) -> Pair:
    """Add normal noise to every value of the real steps.

        y[b, t] = x[b, t] + stddev * noise[b, t],   noise ~ N(0, 1)

    Mask class: any. Extra padding changes no noise at a real step.

    Args:
      stddev: static; standard deviation of the noise, at least 0.
      row_ids: as in `step_keys`.
      x, mask, key: as in `dropout`.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 2, 3)), jnp.array([[True, False]])
      >>> y, _ = jm.random.gaussian_noise(x, mask, jax.random.key(0), 0.1)
      >>> bool((y[0, 0] != 1).all()), y[0, 1].tolist()
      (True, [0.0, 0.0, 0.0])

    Agrees with `keras.layers.GaussianNoise` in distribution. Source: Bishop, 1995,
    doi:10.1162/neco.1995.7.1.108.
    """
    x, mask = _check.pair(x, mask, "gaussian_noise")
    _check.floating(x, "gaussian_noise")
    _check.static_number(stddev, "gaussian_noise", "stddev")
    if not stddev >= 0:
        raise ValueError(f"gaussian_noise: `stddev` must be at least 0, got {stddev}.")
    if stddev == 0:
        return ops.fill(x, mask)
    keys = keys_of_steps(key, x, mask, "gaussian_noise", row_ids)
    # Drawn in the accumulator's dtype, so that the noise of a seed does not depend on that of `x`.
    wide, features = accumulator(x.dtype), x.shape[keys.ndim :]
    noise = jax.vmap(lambda k: jax.random.normal(k, features, wide))(keys.reshape(-1))
    x, _ = ops.fill(x, mask)
    return ops.fill((x.astype(wide) + stddev * noise.reshape(x.shape)).astype(x.dtype), mask)
