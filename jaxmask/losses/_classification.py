"""Losses over classes, which are the last axis of the logits."""

import jax
import jax.numpy as jnp

from jaxmask._errors import refusing_pairs
from jaxmask._logs import times
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _per_step


@refusing_pairs
def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike, mask: Mask, targets: ArrayLike
) -> Pair:
    """Cross entropy of a softmax, with class ids as targets.

        y = log sum_k exp(logits[k]) - logits[targets]

    Args:
      logits: `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: class ids, the shape of `logits` without its last axis; integer. Any id may stand in
        padding. An id that means "ignore" at a real step belongs in the mask:
        `mask & (targets != -100)`.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, 0 in padding.

    Raises:
      ValueError: if a real target is not a class; under `jit`, where values are not known, such a
        step gives nan.

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
        return jax.nn.logsumexp(logits, axis=-1) - _per_step.of_target(logits, targets)

    where = "softmax_cross_entropy_with_integer_labels"
    return _per_step.of_class_ids(where, loss, logits, mask, targets)


@refusing_pairs
def softmax_cross_entropy(logits: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Cross entropy of a softmax, with a probability for each class.

        y = -sum_k targets[k] log softmax(logits)[k],   0 log 0 = 0

    Args:
      targets: one-hot or probabilities, the shape of `logits`.
      logits, mask: as in `softmax_cross_entropy_with_integer_labels`.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits, targets = jnp.zeros((1, 1, 2)), jnp.array([[[0.5, 0.5]]])
      >>> y, _ = jm.losses.softmax_cross_entropy(logits, jnp.array([[True]]), targets)
      >>> round(float(y[0, 0]), 4)
      0.6931

    Agrees with `optax.losses.softmax_cross_entropy` of each unpadded row, except that a class of
    logit -inf and probability 0 counts 0, which is nan there.
    """
    arrays = {"logits": logits, "targets": targets}
    return _per_step.over_features(
        "softmax_cross_entropy", _cross_entropy, mask, arrays, floating=False
    )


def _cross_entropy(logits: Array, targets: Array) -> Array:
    return -jnp.sum(times(targets, jax.nn.log_softmax(logits, axis=-1)), axis=-1)


@refusing_pairs
def safe_softmax_cross_entropy(logits: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """The same as `softmax_cross_entropy`, which is safe too, by optax's other name.

        y = -sum_k targets[k] log softmax(logits)[k],   0 log 0 = 0

    Arguments and result are those of `softmax_cross_entropy`, for floating `targets`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits, targets = jnp.array([[[0.0, -jnp.inf]]]), jnp.array([[[1.0, 0.0]]])
      >>> y, _ = jm.losses.safe_softmax_cross_entropy(logits, jnp.array([[True]]), targets)
      >>> abs(float(y[0, 0]))
      0.0

    Agrees with `optax.losses.safe_softmax_cross_entropy` of each unpadded row.
    """
    where = "safe_softmax_cross_entropy"
    arrays = {"logits": logits, "targets": targets}
    return _per_step.over_features(where, _cross_entropy, mask, arrays)


@refusing_pairs
def seq2seq_cross_entropy(
    logits: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Pair:
    """Cross entropy of a softmax with label smoothing and z-loss.

        log Z = log sum_k exp(logits[k])
        q[k] = (1 - label_smoothing) [k = targets] + label_smoothing / classes
        y = log Z - sum_k q[k] logits[k] + z_loss (log Z)^2

    Args:
      logits: `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row mask; floating.
      mask: of the targets: boolean, or `Segments`, or None.
      targets: class ids, the shape of `logits` without its last axis; integer. Any id may stand in
        padding.
      label_smoothing: static, in [0, 1): the part of the label spread evenly over all classes.
        Above 0, a logit of -inf at a real step costs inf, since its class has a part too.
      z_loss: static, at least 0; 1e-4 keeps half precision logits from drifting.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, in at least float32, 0 in
      padding.

    Raises:
      ValueError: if `targets` has another shape, an option is out of its range, or a real target is
        no class; under `jit`, where values are not known, such a step gives nan.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits = jnp.array([[[0.0, 0.0], [jnp.nan, jnp.nan]]])
      >>> y, _ = jm.losses.seq2seq_cross_entropy(
      ...     logits, jnp.array([[True, False]]), jnp.array([[1, -100]]), z_loss=1.0
      ... )
      >>> [round(value, 4) for value in y[0].tolist()]
      [1.1736, 0.0]

    Source: Szegedy et al., 2016, arXiv:1512.00567 (label smoothing); Chowdhery et al., 2022,
    PaLM, arXiv:2204.02311, section 5 (z-loss). Agrees with `optax.losses.softmax_cross_entropy` of
    `optax.losses.smooth_labels`, and with PyTorch's `cross_entropy(label_smoothing=...)`.
    """
    where = "seq2seq_cross_entropy"
    _within(label_smoothing, 1.0, where, "label_smoothing")
    _within(z_loss, float("inf"), where, "z_loss")

    def loss(logits: Array, targets: Array) -> Array:
        log_z = jax.nn.logsumexp(logits, axis=-1)
        score = _per_step.of_target(logits, targets)
        # Not by a factor of 0: a class that is ruled out has the logit -inf.
        if label_smoothing:
            score = (1 - label_smoothing) * score + label_smoothing * jnp.mean(logits, axis=-1)
        return log_z - score + (z_loss * log_z**2 if z_loss else 0)

    return _per_step.of_class_ids(where, loss, logits, mask, targets, wide=True)


def _within(value: float, limit: float, where: str, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{where}: `{name}` must be a Python number, got {type(value).__name__}. It is static."
        )
    if not 0 <= value < limit:
        raise ValueError(f"{where}: `{name}` must be at least 0 and below {limit}, got {value}.")
