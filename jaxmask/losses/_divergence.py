"""Divergences between two distributions over the last axis.

What is impossible in both counts 0; what is possible and predicted to be impossible costs inf. At a
target of 0 the slope of `t log t`, which is infinite, counts as 0.
"""

import jax.numpy as jnp

from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _per_step
from jaxmask.losses._logs import times

__all__ = ["generalized_kl_divergence", "kl_divergence", "kl_divergence_with_log_targets"]


def kl_divergence(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Kullback-Leibler divergence of predicted log probabilities from target probabilities.

        y = sum_k targets[k] (log targets[k] - predictions[k]),   0 log 0 = 0

    Args:
      predictions: log probabilities, `[batch, time, ..., classes]`, or `[batch, ..., classes]`
        with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: probabilities, floating, the shape of `predictions`.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `safe_softmax_cross_entropy`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions = jnp.log(jnp.array([[[0.5, 0.5], [0.0, 0.0]]]))
      >>> targets, mask = jnp.array([[[1.0, 0.0], [0.0, 0.0]]]), jnp.array([[True, False]])
      >>> y, _ = jm.losses.kl_divergence(predictions, mask, targets)
      >>> [round(value, 4) for value in y[0].tolist()]
      [0.6931, 0.0]

    Source: Kullback and Leibler, 1951, On information and sufficiency,
    doi:10.1214/aoms/1177729694. Agrees with `optax.losses.kl_divergence` of each unpadded row.
    """
    return _per_step.over_features("kl_divergence", _divergence, predictions, mask, targets)


def _divergence(log_predictions: Array, targets: Array) -> Array:
    none = targets == 0
    log_targets = jnp.where(none, 0, jnp.log(jnp.where(none, 1, targets)))
    return jnp.sum(times(targets, log_targets - log_predictions), axis=-1)


def kl_divergence_with_log_targets(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Kullback-Leibler divergence, with both distributions as log probabilities.

        y = sum_k exp(targets[k]) (targets[k] - predictions[k]),   0 log 0 = 0

    Args:
      predictions: log probabilities, `[batch, time, ..., classes]`, or `[batch, ..., classes]`
        with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: log probabilities, floating, the shape of `predictions`.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `safe_softmax_cross_entropy`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logs = jnp.log(jnp.array([[[0.5, 0.5]]]))
      >>> jm.losses.kl_divergence_with_log_targets(logs, None, logs)[0].tolist()
      [[0.0]]

    Agrees with `optax.losses.kl_divergence_with_log_targets` of each unpadded row.
    """

    def loss(log_predictions: Array, log_targets: Array) -> Array:
        none = log_targets == -jnp.inf
        safe = jnp.where(none, 0, log_targets)
        # A target that underflows still is one: infinite where the prediction rules it out.
        least = jnp.finfo(safe.dtype).tiny
        targets = jnp.where(none, 0, jnp.where(safe > jnp.log(least), jnp.exp(safe), least))
        return jnp.sum(times(targets, safe - log_predictions), axis=-1)

    where = "kl_divergence_with_log_targets"
    return _per_step.over_features(where, loss, predictions, mask, targets)


def generalized_kl_divergence(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Kullback-Leibler divergence of measures that need not sum to 1.

        y = sum_k targets[k] (log targets[k] - predictions[k]) + exp(predictions[k]) - targets[k]
                                                                                     0 log 0 = 0

    Args:
      predictions: logarithms, `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row
        mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: not negative, floating, the shape of `predictions`.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `safe_softmax_cross_entropy`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.zeros((1, 1, 2)), jnp.array([[[1.0, 0.0]]])
      >>> jm.losses.generalized_kl_divergence(predictions, None, targets)[0].tolist()
      [[1.0]]

    Agrees with `optax.losses.generalized_kl_divergence` of each unpadded row.
    """

    def loss(log_predictions: Array, targets: Array) -> Array:
        excess = jnp.sum(jnp.exp(log_predictions) - targets, axis=-1)
        return _divergence(log_predictions, targets) + excess

    return _per_step.over_features("generalized_kl_divergence", loss, predictions, mask, targets)
