"""Normalise each step by its own features; no step sees another."""

import jax.numpy as jnp

from jaxmask._errors import refusing_pairs
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask.norm._moments import floating_pair, inverse_root, moments, scale_and_shift, widened


@refusing_pairs
def layer(
    x: ArrayLike,
    mask: Mask,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    epsilon: float = 1e-6,
) -> Pair:
    """Give the features of each step mean 0 and variance 1.

        y[b, t] = (x[b, t] - mean_f x[b, t]) / sqrt(var_f x[b, t] + epsilon) * scale + bias

    Mask class: any.

    Args:
      x: `[batch, time, ..., feature]`, or `[batch, ..., feature]` with a row mask; floating. The
        statistics are taken over the last axis.
      mask: boolean, or `Segments`, or None.
      scale: `[feature]`, or None.
      bias: `[feature]`, or None.
      epsilon: added to the variance.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[1.0, 3.0], [jnp.nan, 0.0]]])
      >>> y, _ = jm.norm.layer(x, jnp.array([[True, False]]), epsilon=0.0)
      >>> y.tolist()
      [[[-1.0, 1.0], [0.0, 0.0]]]

    Agrees with `flax.nnx.LayerNorm` and `torch.nn.LayerNorm` of each real step. Source: Ba et al.,
    2016, arxiv.org/abs/1607.06450.
    """
    x, mask, real = floating_pair(x, mask, "layer")
    centred, _, variance, _ = moments(widened(x, real), real, (x.ndim - 1,))
    y = centred * inverse_root(variance, epsilon, "layer")
    return scale_and_shift(y, x, real, scale, bias, "layer"), mask


@refusing_pairs
def rms(x: ArrayLike, mask: Mask, scale: ArrayLike | None = None, *, epsilon: float = 1e-6) -> Pair:
    """Give the features of each step a mean square of 1; their mean stays.

        y[b, t] = x[b, t] / sqrt(mean_f x[b, t]^2 + epsilon) * scale

    Mask class: any.

    Args:
      x: `[batch, time, ..., feature]`, or `[batch, ..., feature]` with a row mask; floating. The
        mean square is taken over the last axis.
      mask: boolean, or `Segments`, or None.
      scale: `[feature]`, or None.
      epsilon: added to the mean square.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[3.0, 3.0], [jnp.nan, 0.0]]])
      >>> y, _ = jm.norm.rms(x, jnp.array([[True, False]]), epsilon=0.0)
      >>> y.round(5).tolist()
      [[[1.0, 1.0], [0.0, 0.0]]]

    Agrees with `flax.nnx.RMSNorm` and `torch.nn.RMSNorm` of each real step. Source: Zhang and
    Sennrich, 2019, arxiv.org/abs/1910.07467.
    """
    x, mask, real = floating_pair(x, mask, "rms")
    wide = widened(x, real)
    square = jnp.sum(jnp.square(wide), axis=-1, keepdims=True) / max(1, x.shape[-1])
    y = wide * inverse_root(square, epsilon, "rms")
    return scale_and_shift(y, x, real, scale, None, "rms"), mask
