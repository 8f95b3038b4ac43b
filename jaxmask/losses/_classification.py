"""Losses of one class out of several; the classes are the last axis of the predictions."""

import jax
import jax.numpy as jnp

from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _per_step
from jaxmask.losses._logs import times

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
        `mask & (targets != -100)`.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, 0 in padding.

    Raises:
      TypeError: if `predictions` is not floating, `targets` not integer, or `mask` not boolean.
      ValueError: if `targets` has another shape, if there is no axis after those of the mask, or if
        a real target is no class; under `jit`, where values cannot be seen, such a step gives nan.
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

    def loss(logits: Array, targets: Array) -> Array:
        return jax.nn.logsumexp(logits, axis=-1) - _per_step.chosen(logits, targets)

    where = "softmax_cross_entropy_with_integer_labels"
    return _per_step.of_class_ids(where, loss, predictions, mask, targets)


def softmax_cross_entropy(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Cross entropy of a softmax, with a probability for each class.

        y = -sum_k targets[k] log softmax(predictions)[k],   0 log 0 = 0

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

    Agrees with `optax.losses.softmax_cross_entropy` of each unpadded row, except that a class of
    logit -inf and probability 0 counts 0, which is nan there.
    """
    return _per_step.over_features(
        "softmax_cross_entropy", _cross_entropy, predictions, mask, targets, floating=False
    )


def _cross_entropy(logits: Array, targets: Array) -> Array:
    return -jnp.sum(times(targets, jax.nn.log_softmax(logits, axis=-1)), axis=-1)


def safe_softmax_cross_entropy(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """`softmax_cross_entropy`, which is safe too, by the name that optax has for it.

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
    return _per_step.over_features(
        "safe_softmax_cross_entropy", _cross_entropy, predictions, mask, targets
    )


def poly_loss_cross_entropy(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, epsilon: float | Array = 2.0
) -> Pair:
    """Cross entropy of a softmax, with its first polynomial term weighted.

        p = softmax(predictions)
        y = sum_k targets[k] (-log p[k] + epsilon (1 - p[k])),   0 log 0 = 0

    Args:
      predictions: logits, `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row
        mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: one-hot or probabilities, floating, the shape of `predictions`.
      epsilon: the weight of the first term: a number, or an array by row or by step.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `safe_softmax_cross_entropy`; ValueError if `epsilon` has
        another shape.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits, targets = jnp.zeros((1, 1, 2)), jnp.array([[[1.0, 0.0]]])
      >>> y, _ = jm.losses.poly_loss_cross_entropy(logits, jnp.array([[True]]), targets)
      >>> round(float(y[0, 0]), 4)
      1.6931

    Source: Leng et al., 2022, PolyLoss, arXiv:2204.12511. Agrees with
    `optax.losses.poly_loss_cross_entropy` of each unpadded row.
    """

    def loss(logits: Array, targets: Array, epsilon: Array) -> Array:
        missed = jnp.sum(targets * (1 - jax.nn.softmax(logits, axis=-1)), axis=-1)
        return _cross_entropy(logits, targets) + epsilon * missed

    where = "poly_loss_cross_entropy"
    return _per_step.over_features(where, loss, predictions, mask, targets, epsilon=epsilon)


def multiclass_hinge_loss(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Zero where the right class leads every other by at least 1, linear before.

        y = max_k (predictions[k] + [k != targets]) - predictions[targets]

    Of classes that tie, the first has the gradient.

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

    def loss(scores: Array, targets: Array) -> Array:
        wrong = jnp.arange(scores.shape[-1]) != targets[..., None]
        return _highest(scores + wrong.astype(scores.dtype)) - _per_step.chosen(scores, targets)

    return _per_step.of_class_ids("multiclass_hinge_loss", loss, predictions, mask, targets)


def multiclass_perceptron_loss(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """How far the right class is behind the highest score.

        y = max_k predictions[k] - predictions[targets]

    Of classes that tie, the first has the gradient.

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

    def loss(scores: Array, targets: Array) -> Array:
        return _highest(scores) - _per_step.chosen(scores, targets)

    return _per_step.of_class_ids("multiclass_perceptron_loss", loss, predictions, mask, targets)


def _highest(scores: Array) -> Array:
    # Not `jnp.max`, whose gradient asks which score is equal to the highest: XLA may compare two
    # roundings of it, and the gradient is lost.
    return _per_step.chosen(scores, jnp.argmax(scores, axis=-1))


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

    def loss(scores: Array, targets: Array) -> Array:
        lead = scores - _per_step.chosen(scores, targets)[..., None]
        chosen, p = _sparsemax(scores)
        gained = jnp.sum(jnp.where(chosen, p * jnp.where(chosen, lead, 0), 0), axis=-1)
        return gained + (1 - jnp.sum(p * p, axis=-1)) / 2

    return _per_step.of_class_ids("multiclass_sparsemax_loss", loss, predictions, mask, targets)


def _sparsemax(scores: Array) -> tuple[Array, Array]:
    """The nearest point of the simplex, and where it is above 0."""
    fixed = jax.lax.stop_gradient(scores)
    falling = -jnp.sort(-fixed, axis=-1)
    number = jnp.arange(1, scores.shape[-1] + 1, dtype=scores.dtype)
    total = jnp.cumsum(falling, axis=-1)
    count = jnp.sum(1 + number * falling > total, axis=-1, keepdims=True)
    last = jnp.take_along_axis(total, count - 1, axis=-1)
    chosen = ~(fixed <= (last - 1) / count)  # a nan too, lest it be dropped in silence
    # The slope of p too comes from the scores that were chosen, not from the sorted ones.
    inside = jnp.where(chosen, scores, 0)
    size = jnp.sum(chosen, axis=-1, keepdims=True)
    threshold = (jnp.sum(inside, axis=-1, keepdims=True) - 1) / size
    return chosen, jnp.where(chosen, inside - threshold, 0)
