"""Connectionist temporal classification: labels without an alignment to the frames."""

import jax
import jax.numpy as jnp
import optax

from jaxmask import _check, masks, ops
from jaxmask._types import Array, ArrayLike, Mask, Pair

__all__ = ["ctc_loss"]


def ctc_loss(
    logits: ArrayLike, mask: Mask, labels: ArrayLike, label_mask: Mask, *, blank_id: int = 0
) -> Pair:
    """Negative log probability of each row's labels, over all alignments to its frames.

        y[b] = -log sum over {alignments a of labels[b]} of prod_t softmax(logits[b, t])[a_t]

    Both masks may have their padding anywhere (mask class: any).

    Args:
      logits: `[batch, time, classes]`, floating; -inf rules a class out.
      mask: `[batch, time]`, boolean, or None.
      labels: `[batch, label]`, integer class ids, none of them `blank_id` and all below `classes`.
      label_mask: `[batch, label]`, boolean, or None.
      blank_id: static, the class that stands for no label.

    Returns:
      The pair `(per_row, row_mask)`: `per_row [batch]` in nats, in at least float32, and
      `row_mask [batch]`, True where the row has a real frame. A row without one gives 0 and False,
      whatever its labels; a row with frames and no label gives what it costs to say nothing.
      Labels that cannot fit (more labels, and blanks between equal ones, than frames) give no
      infinity: optax takes -1e5 for log 0, so they cost 1e5 or more, with finite gradients. Such
      rows drown a mean: filter them before training.

    Raises:
      TypeError: if `logits` is not floating, `labels` not integer, or a mask not boolean.
      ValueError: if ranks or batches disagree, or `blank_id` is not a class.
      MaskError: if a mask does not belong to its array, or is `Segments`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits = jnp.array([[[0.0, 0.0], [0.0, 0.0], [jnp.nan, jnp.nan]]])
      >>> mask = jnp.array([[True, True, False]])
      >>> labels, label_mask = jnp.array([[1, -100]]), jnp.array([[True, False]])
      >>> y, row_mask = jm.losses.ctc_loss(logits, mask, labels, label_mask)  # 3 of 4 alignments
      >>> round(float(jnp.exp(-y[0])), 4), row_mask.tolist()
      (0.75, [True])

    Source: Graves et al., 2006, doi:10.1145/1143844.1143891. Agrees with `optax.losses.ctc_loss`
    of each unpadded row.
    """
    where = "ctc_loss"
    logits, mask = _check.pair(logits, mask, where, over_time=True, segments=False, name="logits")
    labels, label_mask = _check.pair(
        labels, label_mask, where, over_time=True, segments=False, name="labels"
    )
    _check_arguments(logits, labels, blank_id, where)
    batch, time, _ = logits.shape
    if not time:
        return jnp.zeros(batch, ops.accumulator(logits.dtype)), masks.rows(mask)
    # optax carries its state over padded frames wherever they lie, but by multiplication, which
    # lets nan through; and it takes padded labels on the right only.
    logits, _ = ops.fill(logits, mask)
    logits = logits.astype(ops.accumulator(logits.dtype))
    # It multiplies by 0 what is not said, so a class that is ruled out gets its number for log 0.
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    logits = jnp.where(logits == -jnp.inf, top - 1e5, logits)
    labels, label_mask = ops.compact(labels, label_mask)
    per_row = optax.losses.ctc_loss(
        logits,
        _paddings(mask, logits),
        labels,
        _paddings(label_mask, labels),
        blank_id=blank_id,
    )
    return ops.fill(per_row, masks.rows(mask))


def _paddings(mask: Mask, x: Array) -> Array:
    return jnp.zeros(x.shape[:2]) if mask is None else masks.to_paddings(mask)


def _check_arguments(logits: Array, labels: Array, blank_id: int, where: str) -> None:
    _check.floating(logits, where, "logits")
    if logits.ndim != 3:
        raise ValueError(f"{where}: `logits` must be [batch, time, classes], got {logits.shape}.")
    if labels.ndim != 2 or labels.shape[0] != logits.shape[0]:
        raise ValueError(
            f"{where}: `labels` must be [batch, label] with a batch of {logits.shape[0]}, got "
            f"shape {labels.shape}."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{where}: `labels` must be integer class ids, got dtype {labels.dtype}.")
    # A negative id would select no class at all in optax.
    if _check.count(blank_id, where, "blank_id") >= logits.shape[2]:
        raise ValueError(
            f"{where}: `blank_id` must be one of the {logits.shape[2]} classes, got {blank_id}."
        )
