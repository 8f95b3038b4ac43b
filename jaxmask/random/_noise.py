"""Additive noise."""

import jax

from jaxmask import _check, ops
from jaxmask._keys import step_keys
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair


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
    keys = step_keys(key, x, mask, row_ids=row_ids)
    # Drawn in the accumulator's dtype, so that the noise of a seed does not depend on that of `x`.
    wide, features = accumulator(x.dtype), x.shape[keys.ndim :]
    noise = jax.vmap(lambda k: jax.random.normal(k, features, wide))(keys.reshape(-1))
    x, _ = ops.fill(x, mask)
    return ops.fill((x.astype(wide) + stddev * noise.reshape(x.shape)).astype(x.dtype), mask)
