"""Losses of a binary target for each element."""

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._logs import times
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _per_step


@refusing_pairs
def sigmoid_binary_cross_entropy(
    logits: ArrayLike, mask: Mask, targets: ArrayLike, *, where: ArrayLike | None = None
) -> Pair:
    """Cross entropy of independent binary predictions.

        p = sigmoid(logits)
        y = -targets log p - (1 - targets) log(1 - p),   0 log 0 = 0

    Args:
      targets: the shape of `logits`; 0 or 1, or probabilities; boolean, integer or floating. An
        integer other than 0 and 1 at a real step is a ValueError; under `jit`, where values are not
        known, it gives nan.
      logits, mask, where: as `predictions`, `mask`, `where` of `squared_error`.

    Returns:
      The pair `(per_step, mask)`, `per_step` in the shape of `logits`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits, targets = jnp.array([[0.0, jnp.nan]]), jnp.array([[1, -100]])
      >>> mask = jnp.array([[True, False]])
      >>> y, _ = jm.losses.sigmoid_binary_cross_entropy(logits, mask, targets)
      >>> [round(value, 4) for value in y[0].tolist()]
      [0.6931, 0.0]

    Agrees with `optax.losses.sigmoid_binary_cross_entropy` of each unpadded row.
    """
    arrays = {"logits": logits, "targets": targets}
    return _per_step.elementwise(
        "sigmoid_binary_cross_entropy", _cross_entropy, mask, arrays, binary=True, present=where
    )


def _cross_entropy(logits: Array, targets: Array) -> Array:
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -times(targets, yes) - times(1 - targets, no)


@refusing_pairs
def sigmoid_focal_loss(
    logits: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    alpha: float | Array | None = None,
    gamma: float | Array = 2.0,
    where: ArrayLike | None = None,
) -> Pair:
    """Binary cross entropy that weighs down easy elements.

        p = sigmoid(logits) where targets = 1, 1 - sigmoid(logits) where targets = 0
        a = alpha where targets = 1, 1 - alpha where targets = 0; 1 without alpha
        y = -a (1 - p)^gamma log p

    Args:
      alpha: in (0, 1), the weight of target 1 against 0: a number, or an array by row, by step or
        by element.
      gamma: likewise; the larger, the less an easy element counts.
      logits, mask, targets, where: as in `sigmoid_binary_cross_entropy`.

    Returns:
      The pair `(per_step, mask)`, `per_step` in the shape of `logits`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits, targets = jnp.array([[0.0, jnp.nan]]), jnp.array([[1, -100]])
      >>> y, _ = jm.losses.sigmoid_focal_loss(logits, jnp.array([[True, False]]), targets)
      >>> [round(value, 4) for value in y[0].tolist()]
      [0.1733, 0.0]

    Source: Lin et al., 2017, Focal loss for dense object detection, arXiv:1708.02002.
    Agrees with `optax.losses.sigmoid_focal_loss` of each unpadded row.
    """

    def loss(logits: Array, targets: Array, gamma: Array, alpha: Array | None = None) -> Array:
        wrong = (1 - targets) * jax.nn.sigmoid(logits) + targets * jax.nn.sigmoid(-logits)
        some = wrong > 0
        # By the logarithm: a power below 1 has no slope at 0.
        log_wrong = jnp.log(jnp.where(some, wrong, 1))
        focus = jnp.where(some, jnp.exp(gamma * log_wrong), jnp.where(gamma == 0, 1, 0))
        cross_entropy = _cross_entropy(logits, targets)
        infinite = jnp.isinf(cross_entropy)
        # The focus is constant there: its slope is 0, and 0 * inf is nan.
        y = jnp.where(
            infinite,
            jax.lax.stop_gradient(focus) * cross_entropy,
            focus * jnp.where(infinite, 0, cross_entropy),
        )
        return y if alpha is None else (alpha * targets + (1 - alpha) * (1 - targets)) * y

    options = {"gamma": gamma} | ({} if alpha is None else {"alpha": alpha})
    arrays = {"logits": logits, "targets": targets}
    return _per_step.elementwise(
        "sigmoid_focal_loss", loss, mask, arrays, options, binary=True, present=where
    )


@refusing_pairs
def hinge_loss(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, where: ArrayLike | None = None
) -> Pair:
    """Zero where the score has the right sign and a size of at least 1, linear elsewhere.

        y = max(0, 1 - predictions targets),   with gradient 0 at the kink

    Args:
      targets: the shape of `predictions`; -1 or 1, integer or floating.
      predictions, mask, where: as in `squared_error`.

    Returns:
      The pair `(per_step, mask)`, `per_step` in the shape of `predictions`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[0.5, 0.5, 9.0]]), jnp.array([[1, -1, 0]])
      >>> jm.losses.hinge_loss(predictions, jnp.array([[True, True, False]]), targets)[0].tolist()
      [[0.5, 1.5, 0.0]]

    Source: Cortes and Vapnik, 1995, Support-vector networks, doi:10.1007/BF00994018.
    Agrees with `optax.losses.hinge_loss` of each unpadded row.
    """
    name = "hinge_loss"
    if _check.array(targets, "targets", name).dtype == jnp.bool_:
        raise TypeError(
            f"{name}: `targets` must be -1 or 1, got dtype bool. Pass `2 * targets - 1` in the "
            "dtype of `predictions`."
        )

    def loss(predictions: Array, targets: Array) -> Array:
        x = 1 - predictions * targets
        # Not `jnp.maximum`, whose gradient compares the result with its operands for equality.
        return jnp.where(x <= 0, 0, x)

    arrays = {"predictions": predictions, "targets": targets}
    return _per_step.elementwise(name, loss, mask, arrays, present=where)
