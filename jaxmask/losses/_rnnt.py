"""Transducer loss, by the forward algorithm in logarithms."""

import functools

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops, masks, ops
from jaxmask._errors import refusing_pairs
from jaxmask._logs import log_add, log_sum_exp
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses._diagonals import diagonals, moved


@refusing_pairs
def rnnt_loss(
    logits: ArrayLike, mask: Mask, labels: ArrayLike, label_mask: Mask, *, blank_id: int = 0
) -> Pair:
    """Negative log probability of each row's labels under a transducer (RNN-T).

        p(t, u) = softmax(logits[b, t, u])     at frame t, after the first u labels
        y[b] = -log sum over alignments of prod p(t, u)[blank] of each step to frame t + 1
                                         * prod p(t, u)[labels[b, u]] of each label

    An alignment begins at (0, 0) and ends with a blank at the last frame, after all labels. Both
    masks may have their padding anywhere (mask class: any). The logits are the largest array of
    such a model, so bucket rows by frames and by labels.

    Args:
      logits: of the joint network, `[batch, time, label + 1, classes]`, floating; -inf rules a
        class out. Along the third axis, 0 is before any label, and `j + 1` belongs to label `j` of
        `labels`: it is what the prediction network gives after it.
      mask: of the frames, `[batch, time]`, boolean, or None.
      labels: `[batch, label]`, integer class ids, none of them `blank_id` and all below `classes`.
      label_mask: `[batch, label]`, boolean, or None.
      blank_id: static, the class of the blank. (0 as in `ctc_loss`; torchaudio's default is the
        last class.)

    Returns:
      The pair `(per_row, row_mask)`: `per_row [batch]` in nats, in at least float32, and `row_mask
      [batch]`, True where the row has a real frame. A row without one gives 0 and False, whatever
      its labels; a row with frames and no label gives the cost of blanks alone. A row costs inf,
      with gradient 0, where logits of -inf rule out every alignment.

    Raises:
      ValueError: if shapes disagree, `blank_id` is not a class, or a real label is `blank_id` or
        not a class; under `jit`, where values are not known, such a row gives nan.
      MaskError: if a mask does not belong to its array, or is `Segments`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits = jnp.zeros((1, 3, 2, 2)).at[:, 2].set(jnp.nan)
      >>> mask, labels = jnp.array([[True, True, False]]), jnp.array([[1]])
      >>> y, row_mask = jm.losses.rnnt_loss(logits, mask, labels, None)  # 2 alignments of 3 steps
      >>> round(float(jnp.exp(-y[0])), 4), row_mask.tolist()
      (0.25, [True])

    Source: Graves, 2012, Sequence transduction with recurrent neural networks, arXiv:1211.3711.
    """
    where = "rnnt_loss"
    given, given_mask = labels, label_mask
    logits, mask = _check.pair(logits, mask, where, over_time=True, segments=False, name="logits")
    _check.floating(logits, where, "logits")
    labels, label_mask = _check.pair(
        *(labels, label_mask, where),
        over_time=True,
        segments=False,
        name="labels",
        mask_name="label_mask",
    )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{where}: `labels` must be integer class ids, got dtype {labels.dtype}.")
    batch, count = labels.shape[:2]
    if logits.ndim != 4 or labels.ndim != 2 or logits.shape[::2][:2] != (batch, count + 1):
        raise ValueError(
            f"{where}: `labels` must be [batch, label] and `logits` [batch, time, label + 1, "
            f"classes], got shapes {labels.shape} and {logits.shape}."
        )
    if _check.count(blank_id, where, "blank_id") >= logits.shape[3]:
        raise ValueError(
            f"{where}: `blank_id` must be one of the {logits.shape[3]} classes, got {blank_id}."
        )
    dtype = accumulator(logits.dtype)
    if not logits.shape[1]:
        return jnp.zeros(batch, dtype), masks.rows(mask)
    ids, valid = _class_ids.real_ids(
        *(given, given_mask, logits.shape[3], where, "labels"),
        but=blank_id,
        mask_name="label_mask",
    )
    real = _mask_ops.real_steps(mask, logits.shape[:2])
    spoken = _mask_ops.real_steps(label_mask, labels.shape)
    y = _cost(logits.astype(dtype), real, ids, spoken, blank_id)
    return ops.fill(_class_ids.nan_unless(jnp.all(valid, axis=1), y), masks.rows(mask))


# Compiled as a whole even in eager mode: the infinities inside are intended, and would trip
# `jax_debug_infs` op by op.
@functools.partial(jax.jit, static_argnames="blank_id")
def _cost(logits: Array, real: Array, labels: Array, spoken: Array, blank_id: int) -> Array:
    blank, emit = _steps(logits, real, labels, spoken, blank_id)
    frames, ends = (jnp.sum(m, axis=1, dtype=jnp.int32) for m in (real, spoken))
    states = jnp.arange(blank.shape[2])[None]

    def step(before: tuple[Array, Array, Array], here: tuple[Array, Array]) -> tuple:
        alpha, blank, emit = before
        alpha = log_add(alpha + blank, moved(alpha + emit, -jnp.inf))
        # Scores near 0 are rounded finely; `top` is added again below, so it needs no gradient.
        top = jax.lax.stop_gradient(jnp.max(alpha, axis=1, keepdims=True))
        top = jnp.where(top == -jnp.inf, 0, top)
        # Where it is -inf, no gradient: of one term it is the term itself.
        end = log_add(alpha - top + here[0])
        last = jnp.take_along_axis(end, ends[:, None], axis=1)
        return (alpha - top, *here), (last[:, 0], top[:, 0])

    # The step to the first diagonal comes from a state of probability 1 by a blank of 1.
    start = jnp.broadcast_to(jnp.where(states == 0, 0, -jnp.inf), blank.shape[::2])
    start = start.astype(blank.dtype)
    none = jnp.full_like(start, -jnp.inf)
    along = diagonals(blank, -jnp.inf), diagonals(emit, -jnp.inf)
    step = jax.checkpoint(step, prevent_cse=False)
    _, (last, tops) = jax.lax.scan(step, (start, jnp.zeros_like(start), none), along)
    read = jnp.maximum(frames - 1 + ends, 0)[None]
    total = jnp.take_along_axis(last, read, axis=0) + jnp.take_along_axis(
        jnp.cumsum(tops, axis=0), read, axis=0
    )
    # A row without a frame has no alignment, and its result is 0.
    return jnp.where(frames > 0, -total[0], 0)


def _steps(
    logits: Array, real: Array, labels: Array, spoken: Array, blank_id: int
) -> tuple[Array, Array]:
    """Log probabilities `[batch, time, label + 1]` of a blank and of the next label, compacted."""
    states = jnp.pad(spoken, ((0, 0), (1, 0)), constant_values=True)
    here = real[:, :, None] & states[:, None]
    logits = jnp.where(here[..., None], logits, 0)
    # The next label of a state: as many labels as are real come before it.
    in_order, _ = ops.compact(labels, spoken)
    rank = jnp.cumsum(states, axis=1) - 1
    next_label = jnp.take_along_axis(jnp.pad(in_order, ((0, 0), (0, 1))), rank, axis=1)
    score = jnp.take_along_axis(logits, next_label[:, None, :, None], axis=3)[..., 0]
    total = log_sum_exp(logits, axis=3)
    is_last = rank == jnp.sum(spoken, axis=1, keepdims=True)
    blank = jnp.where(here, logits[..., blank_id] - total, -jnp.inf)
    emit = jnp.where(here & ~is_last[:, None], score - total, -jnp.inf)
    return _compacted(blank, real, states), _compacted(emit, real, states)


def _compacted(x: Array, real: Array, states: Array) -> Array:
    """`[batch, time, label + 1]` with the padding of both axes at their ends, as -inf."""
    for mask in (real, states):
        x, front = ops.compact(x, mask)
        x = jnp.where(_mask_ops.expand(masks.as_bool(front), 3), x, -jnp.inf).swapaxes(1, 2)
    return x
