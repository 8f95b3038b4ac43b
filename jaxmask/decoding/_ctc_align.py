"""CTC forced alignment."""

import functools

import jax
import jax.numpy as jnp

from jaxmask import _class_ids, _mask_ops, masks, ops, pool
from jaxmask._errors import refusing_pairs
from jaxmask._meshes import over_explicit_axes
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair


@over_explicit_axes
@refusing_pairs
def ctc_align(
    logits: ArrayLike, mask: Mask, labels: ArrayLike, label_mask: Mask, *, blank_id: int = 0
) -> tuple[Pair, Pair, Pair]:
    """The most likely alignment of given labels to frames (forced alignment).

        frames[b] = argmax over {alignments a of labels[b]} of sum_t log softmax(logits[b, t])[a_t]

    Both masks may have their padding anywhere (mask class: any). Ties go to the alignment
    that reaches each label earliest.

    Args:
      logits: `[batch, time, classes]`, floating; -inf rules a class out.
      mask: `[batch, time]`, boolean, or None.
      labels: `[batch, label]`, integer class ids, none of them `blank_id` and all below `classes`.
      label_mask: `[batch, label]`, boolean, or None.
      blank_id: static, the class of the blank.

    Returns:
      Three pairs, `(frames, mask), (spans, label_mask), (score, row_mask)`. `frames [batch, time]`,
      int32, is the class of each frame, blanks included. `spans [batch, label, 2]`, int32, holds
      the first frame of each label and the one after its last, counted in real frames: with padding
      on the right, `logits[b, spans[b, i, 0] : spans[b, i, 1]]`; times the length of a frame they
      are seconds. `score [batch]` is the log probability of the alignment in at least float32, with
      gradients; that of each frame is `log_softmax(logits)` at `frames`. A row of frames that has
      no alignment (fewer frames than labels plus repeats, or ruled out by -inf) scores -inf, and
      has no frame and no span in the masks. An empty row scores 0 and False.

    Raises:
      ValueError: if a real label is `blank_id` or not a class; under `jit`, where values are not
        known, its row has no alignment.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> p = jnp.array([[[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.2, 0.1, 0.7], [0.3, 0.2, 0.5]]])
      >>> labels = jnp.array([[1, 2]])
      >>> (frames, _), (spans, _), _ = jm.decoding.ctc_align(jnp.log(p), None, labels, None)
      >>> frames.tolist(), spans.tolist()
      ([[1, 0, 2, 2]], [[[0, 1], [2, 4]]])

    Agrees with `torchaudio.functional.forced_align`, which takes one row at a time, and with its
    `merge_tokens` of the frames.
    """
    where = "ctc_align"
    logits, mask = _class_ids.checked_frames(logits, mask, blank_id, where, segments=False)
    batch, _, classes = logits.shape
    _class_ids.check_labels(labels, label_mask, batch, where)
    labels, valid = _class_ids.real_ids(
        *(labels, label_mask, classes, where, "labels"), but=blank_id, mask_name="label_mask"
    )
    own_place = _mask_ops.real_steps(label_mask, labels.shape)
    ids, _ = ops.compact(labels.astype(jnp.int32), own_place)
    wide = ops.fill(logits, mask)[0].astype(accumulator(logits.dtype))
    log_p = jax.nn.log_softmax(wide, axis=2)
    real = _mask_ops.select_in(logits, mask)[..., 0]
    extended = jnp.full((batch, 2 * ids.shape[1] + 1), blank_id, jnp.int32).at[:, 1::2].set(ids)
    states, possible = _viterbi(
        jax.lax.stop_gradient(log_p), real, extended, jnp.sum(own_place, axis=1), blank_id
    )
    has_frame = jnp.any(real, axis=1)
    aligned = (possible & jnp.all(valid, axis=1) & has_frame)[:, None]
    frames = jnp.take_along_axis(extended, states, axis=1)
    each = jnp.take_along_axis(log_p, frames[..., None], axis=2)[..., 0]
    score, _ = pool.sum(each, real & aligned)
    spans = _spans(jnp.where(real & (states % 2 == 1), states // 2, -1), real, ids.shape[1])
    # Undo `compact`.
    place = jnp.maximum(jnp.cumsum(own_place, axis=1) - 1, 0)
    spans = jnp.take_along_axis(spans, place[..., None], axis=1)
    return (
        ops.fill(frames, real & aligned),
        ops.fill(spans, own_place & aligned),
        ops.fill(jnp.where(aligned[:, 0] | ~has_frame, score, -jnp.inf), masks.rows(mask)),
    )


# Compiled as a whole even in eager mode: the infinities inside are intended, and would trip
# `jax_debug_infs` op by op.
@functools.partial(jax.jit, static_argnames="blank_id")
def _viterbi(
    log_p: Array, real: Array, extended: Array, count: Array, blank_id: int
) -> tuple[Array, Array]:
    """The Viterbi path (state 2 i + 1: label i; 2 i: the blank before), and whether one exists."""
    before_last = jnp.pad(extended, ((0, 0), (2, 0)), constant_values=blank_id)[:, :-2]
    skips = extended != before_last  # equal labels need a blank in between
    emitted = jnp.take_along_axis(log_p, extended[:, None], axis=2)
    first = jnp.where(jnp.arange(extended.shape[1]) == 0, 0, -jnp.inf).astype(log_p.dtype)

    def forward(score: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        emission, is_real = frame[0], frame[1][:, None]
        longer = jnp.pad(score, ((0, 0), (2, 0)), constant_values=-jnp.inf)
        skipped = jnp.where(skips, longer[:, :-2], -jnp.inf)
        moves = jnp.stack([score, longer[:, 1:-1], skipped])
        new = jnp.max(moves, axis=0) + emission
        # A masked frame stays where it is, so that the backward scan passes through it.
        return jnp.where(is_real, new, score), jnp.where(is_real, jnp.argmax(moves, axis=0), 0)

    def backward(state: Array, steps: Array) -> tuple[Array, Array]:
        return state - jnp.take_along_axis(steps, state[:, None], axis=1)[:, 0], state

    first = jnp.broadcast_to(first, extended.shape)
    score, steps = jax.lax.scan(forward, first, (emitted.swapaxes(0, 1), real.T))
    ends = jnp.stack([jnp.maximum(2 * count - 1, 0), 2 * count], axis=1)
    at_ends = jnp.take_along_axis(score, ends, axis=1)
    last = jnp.take_along_axis(ends, jnp.argmax(at_ends, axis=1)[:, None], axis=1)[:, 0]
    _, states = jax.lax.scan(backward, last, steps, reverse=True)
    return states.T, jnp.max(at_ends, axis=1) > -jnp.inf


def _spans(label: Array, real: Array, size: int) -> Array:
    """First frame of each label and the one after its last, `[batch, label, 2]`."""
    rank = jnp.cumsum(real, axis=1, dtype=jnp.int32) - 1
    spoken = label[:, None] == jnp.arange(size)[None, :, None]
    after = jnp.max(jnp.where(spoken, rank[:, None] + 1, 0), axis=2, initial=0)
    # The frames of a label are contiguous, so the first is the end minus their count.
    return jnp.stack([after - jnp.sum(spoken, axis=2, dtype=jnp.int32), after], axis=2)
