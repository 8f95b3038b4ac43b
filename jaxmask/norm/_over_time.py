"""Normalise each row by statistics over its own real steps."""

import jax.numpy as jnp

from jaxmask import _check, _mask_ops
from jaxmask._steps import segments_apart
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask.norm._moments import floating_pair, inverse_root, moments, scale_and_shift, widened


@segments_apart
def group(
    x: ArrayLike,
    mask: Mask,
    num_groups: int,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    epsilon: float = 1e-6,
) -> Pair:
    """Give each group of features mean 0 and variance 1 over the real steps of each row.

        y[b, t, f] = (x[b, t, f] - mean[b, g]) / sqrt(var[b, g] + epsilon) * scale[f] + bias[f]

    with g the group of f, and mean and variance over the real steps, every feature axis but the
    last, and the features of the group. Mask class: any.

    Args:
      x: `[batch, time, ..., feature]`, floating.
      mask: `[batch, time]`, boolean, or `Segments` (each has its own statistics), or None.
      num_groups: static; it divides `feature`. Neighbouring features form a group.
      scale, bias, epsilon: as in `layer`.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[1.0, 7.0], [3.0, 5.0], [jnp.nan, 0.0]]])
      >>> y, _ = jm.norm.group(x, jnp.array([[True, True, False]]), 2, epsilon=0.0)
      >>> y.tolist()
      [[[-1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]]

    Agrees with `flax.nnx.GroupNorm` and `torch.nn.GroupNorm` of the unpadded row. Source: Wu and
    He, 2018, arxiv.org/abs/1803.08494.
    """
    x, mask, real = floating_pair(x, mask, "group", over_time=True)
    groups = _check.count(num_groups, "group", "num_groups", least=1)
    if x.shape[-1] % groups:
        raise ValueError(
            f"group: `num_groups` must divide the {x.shape[-1]} features of `x`, got {groups}."
        )
    folded = widened(x, real).reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    axes = (1, *range(2, x.ndim - 1), x.ndim)
    centred, _, variance, _ = moments(folded, real[..., None], axes)
    y = (centred * inverse_root(variance, epsilon, "group")).reshape(x.shape)
    return scale_and_shift(y, x, real, scale, bias, "group"), mask


@segments_apart
def instance(
    x: ArrayLike,
    mask: Mask,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    epsilon: float = 1e-6,
) -> Pair:
    """Give each feature mean 0 and variance 1 over the real steps of each row.

        y[b, t, f] = (x[b, t, f] - mean[b, f]) / sqrt(var[b, f] + epsilon) * scale[f] + bias[f]

    with mean and variance over the real steps and every feature axis but the last. Mask class: any.

    Args:
      x, mask, scale, bias, epsilon: as in `group`.

    Returns:
      The pair `(y, mask)`, `y` like `x`. A row with one real step gives `bias` there.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[1.0], [3.0], [jnp.nan]]])
      >>> jm.norm.instance(x, jnp.array([[True, True, False]]), epsilon=0.0)[0].tolist()
      [[[-1.0], [1.0], [0.0]]]

    Agrees with `flax.nnx.InstanceNorm` and `torch.nn.InstanceNorm1d` of the unpadded row. Source:
    Ulyanov et al., 2016, arxiv.org/abs/1607.08022.
    """
    x, mask, real = floating_pair(x, mask, "instance", over_time=True)
    centred, _, variance, _ = moments(widened(x, real), real, tuple(range(1, x.ndim - 1)))
    y = centred * inverse_root(variance, epsilon, "instance")
    return scale_and_shift(y, x, real, scale, bias, "instance"), mask


@segments_apart
def standardize(x: ArrayLike, mask: Mask, *, epsilon: float = 1e-7, variance: bool = True) -> Pair:
    """Give inputs mean 0 and variance 1 over the real steps of each row, feature by feature.

        y[b, t] = (x[b, t] - mean_t x[b]) / sqrt(var_t x[b] + epsilon)

    For speech features this is the cepstral mean and variance normalisation of an utterance. Mask
    class: any.

    Args:
      x: `[batch, time, feature...]`, floating; each feature has its own statistics, whatever axes
        features have. A step may be one number, `[batch, time]`, as in a sound wave.
      mask: `[batch, time]`, boolean, or `Segments` (each has its own statistics), or None.
      epsilon: added to the variance.
      variance: divide by the deviation too, not only subtract the mean.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[1.0, 3.0, jnp.nan]])
      >>> jm.norm.standardize(x, jnp.array([[True, True, False]]), epsilon=0.0)[0].tolist()
      [[-1.0, 1.0, 0.0]]

    Agrees with `sklearn.preprocessing.StandardScaler` of the unpadded row.
    """
    x, mask = _check.pair(x, mask, "standardize", over_time=True)
    _check.floating(x, "standardize")
    real = _mask_ops.select_in(x, mask)
    y, _, squares, _ = moments(widened(x, real), real, (1,))
    if _check.flag(variance, "standardize", "variance"):
        y = y * inverse_root(squares, epsilon, "standardize")
    return jnp.where(real, y, 0).astype(x.dtype), mask
