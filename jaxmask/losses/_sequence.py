"""Cross entropy as sequence-to-sequence models train with it."""

import jax
import jax.numpy as jnp

from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _per_step

__all__ = ["seq2seq_cross_entropy"]


def seq2seq_cross_entropy(
    logits: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Pair:
    """Cross entropy of a softmax with smoothed labels, and a pull of the normaliser towards 1.

        log Z = log sum_k exp(logits[k])
        q[k] = (1 - label_smoothing) [k = targets] + label_smoothing / classes
        y = log Z - sum_k q[k] logits[k] + z_loss (log Z)^2

    Args:
      logits: `[batch, time, ..., classes]`, or `[batch, ..., classes]` with a row mask; floating.
      mask: of the targets: boolean, or `Segments`, or None.
      targets: class ids, the shape of `logits` without its last axis; integer. Any id may stand in
        padding.
      label_smoothing: static, in [0, 1): the share of the label that goes to all classes alike.
        With more than 0, a logit of -inf at a real step costs inf, as its class has a share.
      z_loss: static, at least 0; 1e-4 keeps half precision logits from drifting.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]` in nats, in at least float32, 0 in
      padding.

    Raises:
      TypeError: if `logits` is not floating, `targets` not integer, `mask` not boolean, or an
        option not a Python number.
      ValueError: if `targets` has another shape, an option is out of its range, or a real target is
        no class; under `jit`, where values cannot be seen, such a step gives nan.
      MaskError: if `mask` does not belong to `logits`.

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
        score = _per_step.chosen(logits, targets)
        # Not by a factor of 0: a class that is ruled out has the logit -inf.
        if label_smoothing:
            score = (1 - label_smoothing) * score + label_smoothing * jnp.mean(logits, axis=-1)
        return log_z - score + (z_loss * log_z**2 if z_loss else 0)

    return _per_step.of_class_ids(where, loss, logits, mask, targets, name="logits", wide=True)


def _within(value: float, limit: float, where: str, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{where}: `{name}` must be a Python number, got {type(value).__name__}. It is static."
        )
    if not 0 <= value < limit:
        raise ValueError(f"{where}: `{name}` must be at least 0 and below {limit}, got {value}.")
