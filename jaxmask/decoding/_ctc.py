"""Labels of frames, by connectionist temporal classification."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops, ops
from jaxmask._errors import refusing_pairs
from jaxmask._meshes import rows_like
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, PyTree, Segments
from jaxmask.decoding._best import Decoded, Ranked, checked_n_best
from jaxmask.decoding._token_step import (
    NEVER,
    UNKNOWN,
    Step,
    called_on_beams,
    hold,
    of_parents,
    refuse_unknown,
    rows,
    safe_carry,
    spread,
)


@refusing_pairs
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


@refusing_pairs
def ctc_beam(
    logits: ArrayLike,
    mask: Mask,
    *,
    beam_size: int = 16,
    blank_id: int = 0,
    n_best: int | None = None,
    scorer: Step | None = None,
    carry: PyTree = (),
    start: ArrayLike | None = None,
) -> Decoded:
    """Find the most likely labels over all their alignments, by prefix beam search.

        p[b, t] = softmax(logits[b, t])
        score(l) = log sum over {alignments a of l} of prod_t p[b, t, a_t]  +  sum_i s_i[l_i]

    where `carry, s_i = scorer(carry, l_(i-1))`, from `l_0 = start`, is what a language model adds
    to each label (shallow fusion); it is 0 without one. The `beam_size` best prefixes are kept
    after each frame, so the search is exact if the beam holds all prefixes. Padding may lie
    anywhere (mask class: any).

    Args:
      beam_size: static, the number of prefixes kept. A frame costs `beam_size * classes` and
        `beam_size^2 * time`.
      n_best: static, at most `beam_size`: return so many rows of labels and their scores.
      scorer: `(carry, ids [batch]) -> (carry, s [batch, classes])`, floating, or `(carry, (s,
        row_mask))`, mapped over the beam by `jax.vmap` as the `step` of `beam` is. Weigh a model
        inside, and add a constant to reward length: `0.3 * log_p + 0.5`. The column of the blank is
        not read; what the end of a row scores, add to the scores of `n_best`.
      carry: of `scorer`, a pytree of arrays `[batch, ...]`.
      start: `[batch]`, integer, what `scorer` is given before the first label; needed with it.
      logits, mask, blank_id: as in `ctc_greedy`.

    Returns:
      The pair `(ids, mask)`: `ids [batch, time]`, int32, the labels of each row first and 0 after
      them, and their mask (`Segments` for `Segments`), also where `mask` is None. Ties
      are broken by the order of the classes. With `n_best`, two pairs
      `(ids, mask), (scores, found)`: `ids` and `mask [batch, n_best, time]`, best first, `scores`
      and `found [batch, n_best]`; False where there are no such labels, as in an empty row. For
      `Segments`, these have a row for each sequence, `[batch * max_segments, n_best, ...]`.

    Raises:
      ValueError: if `scorer` cannot score a label, as in `greedy`; under `jit` this label and those
        after it are -1, and the score of the row is nan.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> p = jnp.array([[[0.6, 0.4], [0.6, 0.4]]])  # blank, blank is the best path, at 0.36
      >>> ids, mask = jm.decoding.ctc_beam(jnp.log(p), None)  # one label is 0.64
      >>> ids.tolist(), mask.tolist()
      ([[1, 0]], [[True, False]])
      >>> _, (scores, found) = jm.decoding.ctc_beam(jnp.log(p), None, n_best=3)
      >>> [round(float(p), 2) for p in jnp.exp(scores[0, :2])], found[0].tolist()
      ([0.64, 0.36], [True, True, False])

    Source: Hannun et al., 2014, First-pass large vocabulary continuous speech recognition,
    arXiv:1408.2873, algorithm 1.
    """
    where = "ctc_beam"
    beam_size = _check.count(beam_size, where, "beam_size", least=1)
    checked_n_best(n_best, where, beam_size)
    logits, mask = _frames(logits, mask, blank_id, where)
    log_p = jax.nn.log_softmax(logits.astype(accumulator(logits.dtype)), axis=-1)
    log_p = jnp.maximum(log_p, NEVER)
    scoring = _scoring(scorer, carry, start, log_p, mask, blank_id, where)
    if not isinstance(mask, Segments):
        real = _mask_ops.select_in(log_p, mask)[..., 0]
        return _known(_search(log_p, real, beam_size, scoring).decoded(n_best), where)
    each = jax.vmap(lambda real: tuple(_search(log_p, real, beam_size, scoring)), 1, 1)
    found = each(_mask_ops.of_each_segment(mask))
    of_sequences = Ranked(*(y.reshape(y.shape[0] * y.shape[1], *y.shape[2:]) for y in found))
    if n_best is not None:
        return _known(of_sequences.decoded(n_best), where)
    ids, labels = _known(of_sequences.best(), where)
    return _side_by_side(ids, labels, mask)


def _known(found: Decoded, where: str) -> Decoded:
    refuse_unknown(jax.tree.leaves(found)[0], where)
    return found


def _frames(logits: ArrayLike, mask: Mask, blank_id: int, where: str) -> tuple[Array, Mask]:
    logits, mask = _class_ids.checked_frames(logits, mask, blank_id, where)
    # Labels have no gradient, so nothing of the search is kept for one.
    return jax.lax.stop_gradient(ops.fill(logits, mask)[0]), mask


def _side_by_side(ids: Array, mask: Array, segments: Segments) -> Pair:
    """The labels of each sequence, `[batch * segment, time]`, one after another in one row."""
    (batch, time), size = segments.ids.shape, segments.max_segments
    mask = mask.reshape(batch, size, time)
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


class _Scoring(NamedTuple):
    """What is added to each label; nothing without a function."""

    blank_id: int
    dtype: jnp.dtype
    scorer: Step | None
    carry: PyTree
    start: Array
    where: str

    def of_next(
        self, carry: tuple[PyTree, Array], ids: Array, classes: int
    ) -> tuple[tuple[PyTree, Array], Array]:
        """The carry after the last labels `[batch, beam]`, and what the next of each adds.

        The carry counts the labels that could be scored, the next one included.
        """
        if self.scorer is None:
            return carry, jnp.zeros((*ids.shape, 1), self.dtype)
        options: dict[str, Any] = {"name": "scorer", "classes": classes}
        of_scorer, count = carry
        of_scorer, added, known = jax.lax.stop_gradient(
            called_on_beams(self.scorer, of_scorer, ids, self.where, **options)
        )
        added = jnp.maximum(added.astype(self.dtype), NEVER)
        return (of_scorer, count + known.astype(count.dtype)), jnp.where(known[..., None], added, 0)


def _scoring(
    scorer: Step | None,
    carry: PyTree,
    start: ArrayLike | None,
    log_p: Array,
    mask: Mask,
    blank_id: int,
    where: str,
) -> _Scoring:
    batch = log_p.shape[0]
    if scorer is None:
        if start is not None or jax.tree.leaves(carry):
            raise ValueError(f"{where}: `carry` and `start` belong to a `scorer`, which is None.")
        return _Scoring(blank_id, log_p.dtype, None, (), jnp.zeros(batch, jnp.int32), where)
    _check.function(scorer, where, "scorer")
    if start is None:
        raise ValueError(
            f"{where}: `scorer` needs `start` [batch], the ids that it is given before the first "
            "label."
        )
    row_mask = jnp.any(_mask_ops.select_in(log_p, mask), axis=(1, 2))
    start, _ = rows(start, row_mask, where)
    carry = jax.lax.stop_gradient(safe_carry(carry, row_mask, start, where))
    if not all(leaf.ndim for leaf in jax.tree.leaves(carry)):
        raise ValueError(
            f"{where}: arrays of `carry` must be [batch, ...], got a scalar: rows add labels at "
            "different frames, so nothing belongs to the whole batch."
        )
    return _Scoring(blank_id, log_p.dtype, scorer, carry, start, where)


def _search(log_p: Array, real: Array, size: int, scoring: _Scoring) -> Ranked:
    batch, time, classes = log_p.shape
    never = rows_like(log_p, jnp.full((batch, size), NEVER, log_p.dtype))
    none = rows_like(log_p, jnp.zeros((batch, size), jnp.int32))
    if not time:
        ids = jnp.zeros((batch, size, 0), jnp.int32)
        return Ranked(ids, none, never, none.astype(bool))
    ids = rows_like(log_p, jnp.full((batch, size, time), -1, jnp.int32))
    first = _Beam(ids, none, never.at[:, 0].set(0), never)
    carry = jax.tree.map(lambda leaf: spread(leaf, size), scoring.carry)
    scored = scoring.of_next((carry, none), spread(scoring.start, size), classes)

    def step(state: tuple, inputs: tuple[Array, Array]) -> tuple:
        (beam, carry, added), (frame, is_real) = state, inputs
        each = jax.vmap(lambda b, p, s: _next(_Beam(*b), p, s, size, scoring.blank_id))
        new, parent, is_grown = each(tuple(beam), frame, added)
        carry = jax.tree.map(lambda leaf: of_parents(leaf, parent), carry)
        after, next_added = scoring.of_next(carry, jnp.maximum(new.last, 0), classes)
        carry = hold(is_grown & is_real[:, None], after, carry)
        added = jnp.where(is_grown[..., None], next_added, of_parents(added, parent))
        return hold(is_real, (new, carry, added), state), None

    (last, (_, known), _), _ = jax.lax.scan(step, (first, *scored), (log_p.swapaxes(0, 1), real.T))
    scores, order = jax.lax.top_k(last.total, size)
    found = (scores > NEVER / 2) & jnp.any(real, axis=1)[:, None]
    ids, length = of_parents(last.ids, order), of_parents(last.length, order)
    if scoring.scorer is not None:
        known = of_parents(known, order)
        scored_labels = jnp.arange(time)[None, None] < known[..., None]
        ids = jnp.where(scored_labels, ids, UNKNOWN)
        scores = jnp.where(length > known, jnp.nan, scores)
    return Ranked(ids, length, scores, found)


def _next(
    beam: _Beam, frame: Array, added: Array, size: int, blank_id: int
) -> tuple[_Beam, Array, Array]:
    """One row, one frame `[classes]`: stay at each prefix or lengthen it, and keep the best."""
    classes = frame.shape[0]
    stays = _stays(beam, frame, blank_id)
    grown, gained = _merged(beam, _grown(beam, frame, added, blank_id))
    label = jnp.logaddexp(stays.label, gained)
    scores = jnp.concatenate([jnp.logaddexp(stays.blank, label), grown.reshape(-1)])
    best, index = jax.lax.top_k(scores, size)
    is_grown = index >= size
    parent = jnp.where(is_grown, (index - size) // classes, index)
    newest = (index - size) % classes
    ids, length = beam.ids[parent], beam.length[parent]
    is_end = (jnp.arange(ids.shape[1])[None] == length[:, None]) & is_grown[:, None]
    new = _Beam(
        jnp.where(is_end, newest[:, None], ids),
        length + is_grown.astype(jnp.int32),
        # Kept from drifting below `NEVER`, which marks empty entries of the beam.
        jnp.where(is_grown, NEVER, jnp.maximum(stays.blank[parent], NEVER)),
        jnp.where(is_grown, jnp.maximum(best, NEVER), jnp.maximum(label[parent], NEVER)),
    )
    return new, parent, is_grown


def _stays(beam: _Beam, frame: Array, blank_id: int) -> _Beam:
    """The same prefixes after a blank, or after a repeat of their last label."""
    again = jnp.where(beam.length > 0, frame[jnp.maximum(beam.last, 0)], NEVER)
    return beam._replace(blank=beam.total + frame[blank_id], label=beam.label + again)


def _grown(beam: _Beam, frame: Array, added: Array, blank_id: int) -> Array:
    """Log probability of each prefix extended by each label, `[beam, classes]`."""
    label = jnp.arange(frame.shape[0])[None]
    # An equal label needs a blank in between.
    before = jnp.where(label == beam.last[:, None], beam.blank[:, None], beam.total[:, None])
    return jnp.where(label == blank_id, NEVER, before + frame[None] + added)


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
