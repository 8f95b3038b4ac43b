"""Connectionist temporal classification, by the forward algorithm in logarithms.

`jax.checkpoint` keeps the scores of each frame and recomputes the rest in the backward pass, which
is faster here than storing it.
"""

import functools

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops, masks, ops
from jaxmask._errors import refusing_pairs
from jaxmask._logs import log_add
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair


@refusing_pairs
def ctc_loss(
    logits: ArrayLike,
    mask: Mask,
    labels: ArrayLike,
    label_mask: Mask,
    *,
    blank_id: int = 0,
    zero_infinity: bool = False,
) -> Pair:
    """Negative log probability of each row's labels, over all alignments to its frames.

        y[b] = -log sum over {alignments a of labels[b]} of prod_t softmax(logits[b, t])[a_t]

    Both masks may have their padding anywhere (mask class: any).

    Args:
      logits: `[batch, time, classes]`, floating; -inf rules a class out.
      mask: `[batch, time]`, boolean, or None.
      labels: `[batch, label]`, integer class ids, none of them `blank_id` and all below `classes`.
      label_mask: `[batch, label]`, boolean, or None.
      blank_id: static, the class of the blank.
      zero_infinity: static; leave out rows without an alignment, in place of an infinite cost.

    Returns:
      The pair `(per_row, row_mask)`: `per_row [batch]` in nats, at least 0 and in at least float32,
      and `row_mask [batch]`, True where the row has a real frame. A row without one gives 0 and
      False, whatever its labels; a row with frames and no label gives the cost of blanks alone.
      A row has no alignment if it has fewer frames than labels plus repeats (equal neighbours need
      a blank between them), or if logits of -inf rule out every one. It costs inf with gradient 0,
      so the other rows still train; with `zero_infinity` it gives 0 and False, so that a mean does
      not count it.

    Raises:
      ValueError: if ranks or batches disagree, `blank_id` is not a class, or a real label is
        `blank_id` or not a class; under `jit`, where values are not known, such a row gives nan.
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
    of each unpadded row that has an alignment, up to optax's -1e5 for log 0; `zero_infinity` is
    PyTorch's, which counts such rows in its mean.
    """
    where = "ctc_loss"
    logits, mask = _class_ids.checked_frames(logits, mask, blank_id, where, segments=False)
    batch, time, classes = logits.shape
    _class_ids.check_labels(labels, label_mask, batch, where)
    zero_infinity = _check.flag(zero_infinity, where, "zero_infinity")
    dtype = accumulator(logits.dtype)
    if not time:
        return jnp.zeros(batch, dtype), masks.rows(mask)
    labels, valid = _class_ids.real_ids(
        *(labels, label_mask, classes, where, "labels"), but=blank_id, mask_name="label_mask"
    )
    labels, in_front = ops.compact(labels, label_mask)
    log_p = jax.nn.log_softmax(ops.fill(logits, mask)[0].astype(dtype), axis=2)
    real = _mask_ops.select_in(logits, mask)[..., 0]
    # A row without a frame spells nothing, so that no infinity arises where the result is 0.
    spelled = _mask_ops.select_in(labels, in_front) & jnp.any(real, axis=1, keepdims=True)
    cost = _cost(log_p, real, labels, spelled, blank_id)
    cost = _class_ids.nan_unless(jnp.all(valid, axis=1), cost)
    rows: Mask = masks.rows(mask)
    if zero_infinity:
        rows = _mask_ops.intersect(rows, cost != jnp.inf, where)
    return ops.fill(cost, rows)


# Compiled as a whole even in eager mode: the infinities inside are intended, and would trip
# `jax_debug_infs` op by op.
@functools.partial(jax.jit, static_argnames="blank_id")
def _cost(log_p: Array, real: Array, labels: Array, spelled: Array, blank_id: int) -> Array:
    """`[batch]`, of labels that stand first in their rows; inf where there is no alignment."""
    batch, max_labels = labels.shape
    never = jnp.full((batch, 1), -jnp.inf, log_p.dtype)
    # States after the last label lead nowhere, and must not set the scale.
    at_label = jnp.where(spelled[:, None], _of_labels(log_p, labels), -jnp.inf)
    fresh = jnp.concatenate([never < 0, labels[:, 1:] != labels[:, :-1]], axis=1)[:, :max_labels]
    fresh &= (jnp.arange(max_labels) > 0)[None]

    def step(carry: tuple[Array, Array], frame: tuple[Array, Array, Array]) -> tuple:
        blank, label = carry
        p_blank, p_label, is_real = (x[:, None] if x.ndim == 1 else x for x in frame)
        before = jnp.concatenate([never, label], axis=1)
        skipped = jnp.where(fresh, before[:, :-1], -jnp.inf)
        new = (log_add(blank, before) + p_blank, log_add(label, blank[:, :-1], skipped) + p_label)
        blank, label = (jnp.where(is_real, *x) for x in zip(new, carry, strict=True))
        # Scores near 0 are rounded finely. The sum of `top` is added again below, so no gradient is
        # needed here.
        top = jnp.max(jnp.concatenate([blank, label], axis=1), axis=1, keepdims=True)
        top = jax.lax.stop_gradient(jnp.where(top == -jnp.inf, 0, top))
        return (blank - top, label - top), top

    empty = jnp.broadcast_to(
        jnp.where(jnp.arange(max_labels + 1)[None] == 0, 0, never), (batch, max_labels + 1)
    )
    frames = log_p[..., blank_id].T, at_label.swapaxes(0, 1), real.T
    step = jax.checkpoint(step, prevent_cse=False)
    (blank, label), tops = jax.lax.scan(step, (empty, empty[:, 1:]), frames)
    end = jnp.sum(spelled, axis=1, keepdims=True)
    label = jnp.concatenate([never, label], axis=1)
    last_states = (jnp.take_along_axis(x, end, axis=1) for x in (blank, label))
    cost = -jnp.squeeze(log_add(*last_states) + jnp.sum(tops, axis=0), axis=1)
    # Rounding may push a row of probability 1 below 0; the gradient is the same on either side.
    return cost + jax.lax.stop_gradient(jnp.where(cost < 0, -cost, 0))


@jax.custom_jvp
def _of_labels(log_p: Array, labels: Array) -> Array:
    """`[batch, time, label]`: the score of each label at each frame."""
    return jnp.take_along_axis(log_p, labels[:, None], axis=2)


@_of_labels.defjvp
def _of_labels_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple:
    # A product, whose transpose is deterministic; that of a gather is not on GPUs.
    log_p, labels = primals
    one_hot = (labels[..., None] == jnp.arange(log_p.shape[2])[None, None]).astype(log_p.dtype)
    exact = jax.lax.Precision.HIGHEST
    return _of_labels(log_p, labels), jnp.einsum(
        "btc,blc->btl", tangents[0], one_hot, precision=exact
    )
