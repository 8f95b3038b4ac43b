"""Divergences between two distributions over the last axis.

A class that is impossible in both counts 0; one that is possible and predicted to be impossible
costs inf. At a target of 0 the slope of `t log t`, which is infinite, counts as 0.
"""

import jax.numpy as jnp

from jaxmask._errors import refusing_pairs
from jaxmask._logs import times
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _per_step


@refusing_pairs
def kl_divergence(log_predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Kullback-Leibler divergence of predicted log probabilities from target probabilities.

        y = sum_k targets[k] (log targets[k] - log_predictions[k]),   0 log 0 = 0

    Args:
      log_predictions: log probabilities, `[batch, time, ..., classes]`, or `[batch, ..., classes]`
        with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: probabilities, floating, the shape of `log_predictions`.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> log_predictions = jnp.log(jnp.array([[[0.5, 0.5], [0.0, 0.0]]]))
      >>> targets, mask = jnp.array([[[1.0, 0.0], [0.0, 0.0]]]), jnp.array([[True, False]])
      >>> y, _ = jm.losses.kl_divergence(log_predictions, mask, targets)
      >>> [round(value, 4) for value in y[0].tolist()]
      [0.6931, 0.0]

    Source: Kullback and Leibler, 1951, On information and sufficiency,
    doi:10.1214/aoms/1177729694. Agrees with `optax.losses.kl_divergence` of each unpadded row.
    """

    def loss(log_predictions: Array, targets: Array) -> Array:
        none = targets == 0
        log_targets = jnp.where(none, 0, jnp.log(jnp.where(none, 1, targets)))
        return jnp.sum(times(targets, log_targets - log_predictions), axis=-1)

    arrays = {"log_predictions": log_predictions, "targets": targets}
    return _per_step.over_features("kl_divergence", loss, mask, arrays)


@refusing_pairs
def kl_divergence_with_log_targets(
    log_predictions: ArrayLike, mask: Mask, log_targets: ArrayLike
) -> Pair:
    """Kullback-Leibler divergence, with both distributions as log probabilities.

        y = sum_k exp(log_targets[k]) (log_targets[k] - log_predictions[k]),   0 log 0 = 0

    Arguments and result are those of `kl_divergence`, with log probabilities as targets.

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
        # A target that underflows is still possible: infinite where the prediction rules it out.
        least = jnp.finfo(safe.dtype).tiny
        targets = jnp.where(none, 0, jnp.where(safe > jnp.log(least), jnp.exp(safe), least))
        return jnp.sum(times(targets, safe - log_predictions), axis=-1)

    arrays = {"log_predictions": log_predictions, "log_targets": log_targets}
    return _per_step.over_features("kl_divergence_with_log_targets", loss, mask, arrays)
