"""Losses of one class out of several; the classes are the last axis of the predictions."""

import functools

import optax

from jaxmask import ops
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _delegate

__all__ = [
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multiclass_sparsemax_loss",
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]


def softmax_cross_entropy_with_integer_labels(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike
) -> Pair:
    """Cross entropy of a softmax, with the right class as an id.

        y = log sum_k exp(predictions[k]) - predictions[targets]

    Args:
      predictions: logits, `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row
        mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: class ids, the shape of `predictions` without its last axis; integer. Any id may
        stand in padding. An id that means "ignore" at a real step belongs in the mask, as
        `mask & (targets != -100)`: optax would read it as a class, counted from the end.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, 0 in padding.

    Raises:
      TypeError: if `predictions` is not floating, `targets` not integer, or `mask` not boolean.
      ValueError: if `targets` has another shape, or there is no axis after those of the mask.
      MaskError: if `mask` does not belong to `predictions`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits = jnp.array([[[0.0, 0.0], [jnp.nan, jnp.nan]]])
      >>> y, mask = jm.losses.softmax_cross_entropy_with_integer_labels(
      ...     logits, jnp.array([[True, False]]), jnp.array([[1, -100]])
      ... )
      >>> [round(value, 4) for value in y[0].tolist()], mask.tolist()
      ([0.6931, 0.0], [[True, False]])

    Agrees with `optax.losses.softmax_cross_entropy_with_integer_labels` of each unpadded row.
    """
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    return _delegate.of_class_ids(loss, predictions, mask, targets)


def softmax_cross_entropy(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Cross entropy of a softmax, with a probability for each class.

        y = -sum_k targets[k] log softmax(predictions)[k]

    Args:
      predictions: logits, `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row
        mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: one-hot or probabilities, the shape of `predictions`.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, 0 in padding.

    Raises:
      TypeError: if `predictions` is not floating, or `mask` not boolean.
      ValueError: if `targets` has another shape, or there is no axis after those of the mask.
      MaskError: if `mask` does not belong to `predictions`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits, targets = jnp.zeros((1, 1, 2)), jnp.array([[[0.5, 0.5]]])
      >>> y, _ = jm.losses.softmax_cross_entropy(logits, jnp.array([[True]]), targets)
      >>> round(float(y[0, 0]), 4)
      0.6931

    Agrees with `optax.losses.softmax_cross_entropy` of each unpadded row.
    """
    loss = optax.losses.softmax_cross_entropy
    return _delegate.over_features(loss, predictions, mask, targets, floating=False)


def safe_softmax_cross_entropy(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Cross entropy of a softmax, where a class of logit -inf and probability 0 counts 0.

        y = -sum_k targets[k] log softmax(predictions)[k],   0 log 0 = 0

    Args:
      predictions: logits, `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row
        mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: one-hot or probabilities, floating, the shape of `predictions`.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `softmax_cross_entropy`; TypeError if `targets` is not
        floating.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits, targets = jnp.array([[[0.0, -jnp.inf]]]), jnp.array([[[1.0, 0.0]]])
      >>> y, _ = jm.losses.safe_softmax_cross_entropy(logits, jnp.array([[True]]), targets)
      >>> abs(float(y[0, 0]))
      0.0

    Agrees with `optax.losses.safe_softmax_cross_entropy` of each unpadded row.
    """
    loss = optax.losses.safe_softmax_cross_entropy
    return _delegate.over_features(loss, predictions, mask, targets)


def poly_loss_cross_entropy(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, epsilon: float | Array = 2.0
) -> Pair:
    """Cross entropy of a softmax, with its first polynomial term weighted.

        p = softmax(predictions)
        y = sum_k targets[k] (-log p[k] + epsilon (1 - p[k]))

    Args:
      predictions: logits, `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row
        mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: one-hot or probabilities, floating, the shape of `predictions`.
      epsilon: a scalar, the weight of the first term.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `safe_softmax_cross_entropy`; ValueError if `epsilon` is
        not a scalar.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits, targets = jnp.zeros((1, 1, 2)), jnp.array([[[1.0, 0.0]]])
      >>> y, _ = jm.losses.poly_loss_cross_entropy(logits, jnp.array([[True]]), targets)
      >>> round(float(y[0, 0]), 4)
      1.6931

    Source: Leng et al., 2022, PolyLoss, arXiv:2204.12511. Agrees with
    `optax.losses.poly_loss_cross_entropy` of each unpadded row.
    """
    loss = optax.losses.poly_loss_cross_entropy
    return _delegate.over_features(loss, predictions, mask, targets, epsilon=epsilon)


def multiclass_hinge_loss(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Zero where the right class leads every other by at least 1, linear before.

        y = max_k (predictions[k] + [k != targets]) - predictions[targets]

    Args:
      predictions: scores, `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row
        mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: class ids, the shape of `predictions` without its last axis; integer.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `softmax_cross_entropy_with_integer_labels`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> scores, targets = jnp.array([[[3.0, 2.5, 0.0]]]), jnp.array([[0]])
      >>> jm.losses.multiclass_hinge_loss(scores, jnp.array([[True]]), targets)[0].tolist()
      [[0.5]]

    Source: Crammer and Singer, 2001, On the algorithmic implementation of multiclass kernel-based
    vector machines, JMLR 2. Agrees with `optax.losses.multiclass_hinge_loss` of each unpadded row.
    """
    return _delegate.of_class_ids(optax.losses.multiclass_hinge_loss, predictions, mask, targets)


def multiclass_perceptron_loss(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """How far the right class is behind the highest score.

        y = max_k predictions[k] - predictions[targets]

    Args:
      predictions: scores, `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row
        mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: class ids, the shape of `predictions` without its last axis; integer.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `softmax_cross_entropy_with_integer_labels`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> scores, targets = jnp.array([[[3.0, 2.5, 0.0]]]), jnp.array([[1]])
      >>> jm.losses.multiclass_perceptron_loss(scores, jnp.array([[True]]), targets)[0].tolist()
      [[0.5]]

    Source: Collins, 2002, Discriminative training methods for hidden Markov models,
    doi:10.3115/1118693.1118694. Agrees with `optax.losses.multiclass_perceptron_loss` of each
    unpadded row.
    """
    loss = optax.losses.multiclass_perceptron_loss
    return _delegate.of_class_ids(loss, predictions, mask, targets)


def multiclass_sparsemax_loss(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Loss of a sparsemax: 0 where the right class leads every other by at least 1.

        p = the point of the simplex that is nearest to z = predictions
        y = sum over {k: p[k] > 0} of p[k] (z[k] - z[targets]) + (1 - |p|^2) / 2

    Args:
      predictions: scores, `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row
        mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: class ids, the shape of `predictions` without its last axis; integer.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `softmax_cross_entropy_with_integer_labels`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> scores, targets = jnp.array([[[3.0, 0.0], [1.0, 1.0]]]), jnp.array([[0, 0]])
      >>> jm.losses.multiclass_sparsemax_loss(scores, jnp.ones((1, 2), bool), targets)[0].tolist()
      [[0.0, 0.25]]

    Source: Martins and Astudillo, 2016, From softmax to sparsemax, arXiv:1602.02068. Agrees with
    `optax.losses.multiclass_sparsemax_loss` of each unpadded row.
    """
    return _delegate.of_class_ids(_multiclass_sparsemax, predictions, mask, targets)


@functools.wraps(optax.losses.multiclass_sparsemax_loss)
def _multiclass_sparsemax(scores: Array, labels: Array) -> Array:
    # optax maps over one leading axis only, and its derivative refuses 16-bit floats.
    flat = scores.reshape(labels.size, scores.shape[-1]).astype(ops.accumulator(scores.dtype))
    return optax.losses.multiclass_sparsemax_loss(flat, labels.reshape(-1)).reshape(labels.shape)
