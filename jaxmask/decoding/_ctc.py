"""Labels of frames, by connectionist temporal classification."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops, masks, ops
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments
from jaxmask.decoding._autoregressive import NEVER

__all__ = ["ctc_beam", "ctc_greedy"]


def ctc_greedy(logits: ArrayLike, mask: Mask, *, blank_id: int = 0) -> Pair:
    """Take the best class of each frame, merge equal neighbours and drop blanks.

    Neighbours are real frames with no real frame between them, so padding may lie anywhere (mask
    class: any).

    Args:
      logits: `[batch, time, classes]`, floating.
      mask: `[batch, time]`, boolean, or `Segments` (each sequence on its own), or None.
      blank_id: static, the class of the blank.

    Returns:
      The pair `(ids, mask)`: `ids [batch, time]`, int32, the labels of each row first and 0 after
      them, and their mask (`Segments` for `Segments`), also where `mask` is None.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> logits = jax.nn.one_hot(jnp.array([[2, 2, 0, 2, 1, 1]]), 3)
      >>> ids, mask = jm.decoding.ctc_greedy(logits, jnp.arange(6)[None] < 5)
      >>> ids.tolist(), mask[0].tolist()
      ([[2, 2, 1, 0, 0, 0]], [True, True, True, False, False, False])

    Source: Graves et al., 2006, doi:10.1145/1143844.1143891, section 3.2.
    """
    logits, mask = _frames(logits, mask, blank_id, "ctc_greedy")
    best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    before, _ = ops.shift(best, mask, 1, value=blank_id)
    is_label = (best != blank_id) & (best != before)
    return ops.compact(best, _mask_ops.intersect(mask, is_label, "ctc_greedy"))


def ctc_beam(logits: ArrayLike, mask: Mask, *, beam_size: int = 16, blank_id: int = 0) -> Pair:
    """Find the most likely labels over all their alignments, by prefix beam search.

        p[b, t] = softmax(logits[b, t])
        ids[b] = argmax over labels l of sum over {alignments a of l} of prod_t p[b, t, a_t]

    The `beam_size` most likely prefixes are kept after each frame, so the search is exact if the
    beam holds all prefixes. Padding may lie anywhere (mask class: any).

    Args:
      beam_size: static, the number of prefixes kept. A frame costs `beam_size * classes` and
        `beam_size^2 * time`.
      logits, mask, blank_id: as in `ctc_greedy`.

    Returns:
      The pair `(ids, mask)`: `ids [batch, time]`, int32, the labels of each row first and 0 after
      them, and their mask (`Segments` for `Segments`), also where `mask` is None. Ties
      are broken by the order of the classes.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> p = jnp.array([[[0.6, 0.4], [0.6, 0.4]]])  # blank, blank is the best path, at 0.36
      >>> ids, mask = jm.decoding.ctc_beam(jnp.log(p), None)  # one label is 0.64
      >>> ids.tolist(), mask.tolist()
      ([[1, 0]], [[True, False]])

    Source: Hannun et al., 2014, First-pass large vocabulary continuous speech recognition,
    arXiv:1408.2873, algorithm 1, without a language model.
    """
    where = "ctc_beam"
    _check.count(beam_size, where, "beam_size", least=1)
    logits, mask = _frames(logits, mask, blank_id, where)
    log_p = jax.nn.log_softmax(logits.astype(accumulator(logits.dtype)), axis=-1)
    log_p = jnp.maximum(log_p, NEVER)
    if not isinstance(mask, Segments):
        return _search(log_p, _mask_ops.select_in(log_p, mask)[..., 0], beam_size, blank_id)
    each = jax.vmap(lambda real: _search(log_p, real, beam_size, blank_id), 1, 1)
    return _side_by_side(*each(_mask_ops.of_each_segment(mask)), mask)


def _frames(logits: ArrayLike, mask: Mask, blank_id: int, where: str) -> tuple[Array, Mask]:
    logits, mask = _class_ids.checked_frames(logits, mask, blank_id, where)
    # Labels have no gradient, so nothing of the search is kept for one.
    return jax.lax.stop_gradient(ops.fill(logits, mask)[0]), mask


def _side_by_side(ids: Array, mask: Array, segments: Segments) -> Pair:
    """The labels of each sequence, `[batch, segment, time]`, one after another in one row."""
    batch, size, time = ids.shape
    owner = jnp.where(mask, jnp.arange(1, size + 1)[:, None], 0).reshape(batch, size * time)
    packed = Segments(owner.astype(segments.ids.dtype), size)
    y, _ = ops.compact(ids.reshape(owner.shape), packed)
    owner, _ = ops.compact(packed.ids, packed)
    # There is at most one label for each frame, so all of them fit.
    return y[:, :time], Segments(owner[:, :time], size)


class _Beam(NamedTuple):
    """The most likely prefixes of each row so far."""

    ids: Array  # [batch, beam, time], -1 after the end
    length: Array  # [batch, beam]
    blank: Array  # [batch, beam]: log probability of the alignments that end in a blank
    label: Array  # [batch, beam]: of those that end in the last label

    @property
    def total(self) -> Array:
        return jnp.logaddexp(self.blank, self.label)

    @property
    def last(self) -> Array:
        """The last label, -1 where there is none."""
        index = jnp.maximum(self.length - 1, 0)[..., None]
        return jnp.take_along_axis(self.ids, index, axis=-1)[..., 0]


def _search(log_p: Array, real: Array, size: int, blank_id: int) -> tuple[Array, Array]:
    batch, time, _ = log_p.shape
    if not time:
        return jnp.zeros((batch, 0), jnp.int32), real
    never = jnp.full((batch, size), NEVER, log_p.dtype)
    none = jnp.zeros((batch, size), jnp.int32)
    ids = jnp.full((batch, size, time), -1, jnp.int32)
    first = _Beam(ids, none, never.at[:, 0].set(0), never)

    def step(beam: _Beam, inputs: tuple[Array, Array]) -> tuple[_Beam, None]:
        frame, is_real = inputs
        new = jax.vmap(lambda b, p: _next(_Beam(*b), p, size, blank_id))(tuple(beam), frame)
        held = [
            jnp.where(_mask_ops.expand(is_real, a.ndim), a, b)
            for a, b in zip(new, beam, strict=True)
        ]
        return _Beam(*held), None

    last, _ = jax.lax.scan(step, first, (log_p.swapaxes(0, 1), real.T))
    best = jnp.argmax(last.total, axis=1)
    length = jnp.take_along_axis(last.length, best[:, None], axis=1)[:, 0]
    ids = jnp.take_along_axis(last.ids, best[:, None, None], axis=1)[:, 0]
    mask = masks.from_lengths(length, time)
    return jnp.where(mask, ids, 0), mask


def _next(beam: _Beam, frame: Array, size: int, blank_id: int) -> _Beam:
    """One row, one frame `[classes]`: stay at each prefix or lengthen it, and keep the best."""
    classes = frame.shape[0]
    grown, stays = _grown(beam, frame, blank_id), _stays(beam, frame, blank_id)
    grown, gained = _merged(beam, grown)
    label = jnp.logaddexp(stays.label, gained)
    scores = jnp.concatenate([jnp.logaddexp(stays.blank, label), grown.reshape(-1)])
    best, index = jax.lax.top_k(scores, size)
    is_grown = index >= size
    parent = jnp.where(is_grown, (index - size) // classes, index)
    added = (index - size) % classes
    ids, length = beam.ids[parent], beam.length[parent]
    is_end = (jnp.arange(ids.shape[1])[None] == length[:, None]) & is_grown[:, None]
    return _Beam(
        jnp.where(is_end, added[:, None], ids),
        length + is_grown.astype(jnp.int32),
        # Kept from drifting below `NEVER`, which marks empty entries of the beam.
        jnp.where(is_grown, NEVER, jnp.maximum(stays.blank[parent], NEVER)),
        jnp.where(is_grown, jnp.maximum(best, NEVER), jnp.maximum(label[parent], NEVER)),
    )


def _stays(beam: _Beam, frame: Array, blank_id: int) -> _Beam:
    """The same prefixes after a blank, or after a repeat of their last label."""
    again = jnp.where(beam.length > 0, frame[jnp.maximum(beam.last, 0)], NEVER)
    return beam._replace(blank=beam.total + frame[blank_id], label=beam.label + again)


def _grown(beam: _Beam, frame: Array, blank_id: int) -> Array:
    """Log probability of each prefix extended by each label, `[beam, classes]`."""
    label = jnp.arange(frame.shape[0])[None]
    # An equal label needs a blank in between.
    before = jnp.where(label == beam.last[:, None], beam.blank[:, None], beam.total[:, None])
    return jnp.where(label == blank_id, NEVER, before + frame[None])


def _merged(beam: _Beam, grown: Array) -> tuple[Array, Array]:
    """`grown` without the extensions that are prefixes of the beam already, and what these gain."""
    at_end = jnp.arange(beam.ids.shape[1])[None] == beam.length[:, None] - 1
    parents = jnp.where(at_end, -1, beam.ids)
    same = jnp.all(beam.ids[:, None] == parents[None], axis=2)
    # Empty entries of the beam have no children, and are none.
    known = beam.total > NEVER / 2
    is_child = same & ((beam.length > 0) & known)[None] & known[:, None]
    last = jnp.maximum(beam.last, 0)
    gained = jnp.max(jnp.where(is_child, grown[:, last], NEVER), axis=0, initial=NEVER)
    taken = jnp.any(
        is_child[:, :, None] & (jnp.arange(grown.shape[1])[None] == last[:, None])[None], axis=1
    )
    return jnp.where(taken, NEVER, grown), gained
