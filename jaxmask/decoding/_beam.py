"""Beam search, token by token."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, _room
from jaxmask._errors import refusing_pairs
from jaxmask._meshes import rows_like
from jaxmask._types import Array, ArrayLike, Mask, Pair, PyTree, RowMask
from jaxmask.decoding._best import Decoded, Ranked, checked_n_best
from jaxmask.decoding._constraints import Constraints, checked_constraints, constrained
from jaxmask.decoding._token_step import (
    NEVER,
    UNKNOWN,
    Scored,
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
def beam(
    step: Step,
    carry: PyTree,
    start: ArrayLike,
    row_mask: Mask,
    *,
    max_length: int,
    end_id: int,
    beam_size: int = 4,
    n_best: int | None = None,
    length_penalty: float = 0.0,
    length_norm: str = "gnmt",
    min_length: int = 0,
    no_repeat_ngram_size: int = 0,
    prefix: Pair | None = None,
) -> Decoded:
    """Beam search for the most likely tokens of each row.

        score(y) = sum_i log softmax(logits_i)[y_i] / norm(|y|)

        length_norm   norm(n)
        "gnmt"        ((5 + n) / 6)^length_penalty
        "power"       n^length_penalty, as in Hugging Face and fairseq

    The `beam_size` best hypotheses are kept after each token. `|y|` counts the end token. A
    hypothesis that has ended changes no more, and stays in the beam while its score is among the
    best (Hugging Face keeps it apart, and fills its place); the loop ends when all have ended. With
    `beam_size=1` this is `greedy`; with a beam that holds every hypothesis it is exact. One with no
    other token left ends, as in `greedy`; where `step` gives its end -inf, it comes behind those
    that end by themselves, with the score -inf.

    Args:
      step: `(carry, ids [batch]) -> (carry, logits [batch, classes])`. It is mapped over the beam
        by `jax.vmap`, so it may close over arrays `[batch, ...]`, such as an encoder's memory.
      beam_size: static, the number of hypotheses kept for each row.
      n_best: static, at most `beam_size`: return so many hypotheses and their scores.
      length_penalty: static; 0 favours short rows, 1 is nearly (`"power"`: exactly) the mean log
        probability of a token.
      length_norm: static, see above.
      carry, start, row_mask, max_length, end_id: as in `greedy`.
      min_length, no_repeat_ngram_size, prefix: as in `greedy`. What is ruled out takes its
        probability along. A prefix counts in the score, but for tokens that are -inf in the logits.

    Returns:
      The pair `(ids, mask)` of the best hypothesis, as `greedy`. With `n_best`, two pairs
      `(ids, mask), (scores, found)`: `ids` and `mask [batch, n_best, max_length]`, best first,
      `scores [batch, n_best]`, float32, and `found [batch, n_best]`, False where there is no such
      hypothesis, as in an empty row. Scores have no gradient; `score` has.

    Raises:
      ValueError: as `greedy`; under `jit` a token that cannot be scored is -1, and ends its
        hypothesis, whose score is nan; its rank is that of the tokens before.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> table = jnp.log(jnp.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]]))
      >>> def step(carry, ids):
      ...     return carry, table[ids]
      >>> start = jnp.array([0])
      >>> ids, mask = jm.decoding.beam(step, (), start, None, max_length=2, end_id=0)
      >>> ids.tolist(), mask.tolist()  # greedy takes 1, and then 0.4 at best
      ([[2, 0]], [[True, False]])
      >>> (ids, mask), (scores, found) = jm.decoding.beam(
      ...     step, (), start, None, max_length=2, end_id=0, n_best=2
      ... )
      >>> ids[0].tolist(), [round(float(p), 2) for p in jnp.exp(scores[0])]
      ([[2, 0], [1, 2]], [0.36, 0.2])

    Source: Wu et al., 2016, arXiv:1609.08144, section 7 (length penalty).
    """
    where = "beam"
    beam_size = _check.count(beam_size, where, "beam_size", least=1)
    checked_n_best(n_best, where, beam_size)
    _check.static_number(length_penalty, where, "length_penalty")
    _check.choice(length_norm, ("gnmt", "power"), where, "length_norm")
    start, real = rows(start, row_mask, where)
    constraints = checked_constraints(
        end_id, max_length, min_length, no_repeat_ngram_size, prefix, real, where
    )
    norm = _Norm(length_penalty, length_norm)
    carry = safe_carry(carry, row_mask, start, where)
    # Nothing of the search is kept for a gradient: `score` has that of the result.
    carry = jax.tree.map(lambda leaf: spread(leaf, beam_size), jax.lax.stop_gradient(carry))

    def more(state: _Hypotheses) -> Array:
        return (state.time < max_length) & jnp.any(state.active)

    def body(state: _Hypotheses) -> _Hypotheses:
        with _room.needed(where, max_length):
            found = called_on_beams(step, state.carry, state.token, where)
        return _extended(state, jax.lax.stop_gradient(found), constraints, norm)

    last = jax.lax.while_loop(more, body, _first(carry, start, real, beam_size, max_length))

    @jax.jit  # an impossible score is -inf, which JAX's debug checks must not see on the way
    def best(last: Any, real: Array) -> Decoded:
        # The beam is sorted by score.
        counted = last.length + (~last.active).astype(jnp.int32)
        scores = jnp.where(_is_possible(last.log_p), last.log_p / norm(counted), -jnp.inf)
        scores = jnp.where(jnp.any(last.ids == UNKNOWN, axis=2), jnp.nan, scores)
        found = (last.log_p > 0.75 * NEVER) & real[:, None]
        return Ranked(last.ids, last.length, scores, found).decoded(n_best)

    ranked = best(last, real)
    refuse_unknown(jax.tree.leaves(ranked)[0], where)
    return ranked


def _is_possible(log_p: Array) -> Array:
    """Not for a hypothesis that `step` rules out, nor for one that ended as nothing was left."""
    return log_p > NEVER / 2


class _Norm(NamedTuple):
    penalty: float
    kind: str

    def __call__(self, length: Array) -> Array:
        length = length.astype(jnp.float32)
        base = (5 + length) / 6 if self.kind == "gnmt" else jnp.maximum(length, 1)
        return base**self.penalty


class _Hypotheses(NamedTuple):
    time: Array
    carry: PyTree  # [batch, beam, ...]
    token: Array  # [batch, beam]
    active: Array  # [batch, beam]: it has not ended
    log_p: Array  # [batch, beam]
    length: Array  # [batch, beam]: without the end token
    ids: Array  # [batch, beam, max_length]


def _first(carry: PyTree, start: Array, real: RowMask, size: int, max_length: int) -> _Hypotheses:
    token = spread(start, size)
    log_p = jnp.full(token.shape, NEVER).at[:, 0].set(0)
    ids = jnp.zeros((*token.shape, max_length), jnp.int32)
    active = spread(real, size) & _is_possible(log_p)
    first = _Hypotheses(jnp.array(0), carry, token, active, log_p, jnp.zeros_like(token), ids)
    return rows_like(start, first)


def _extended(
    state: _Hypotheses, scored: Scored, constraints: Constraints, norm: _Norm
) -> _Hypotheses:
    """The best of all hypotheses extended by a token, and of those that have ended."""
    carry, logits, known = scored
    batch, size, classes = logits.shape
    extends, unknown = state.active & known, state.active & ~known
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    nothing_left = jnp.all(logits == -jnp.inf, axis=-1, keepdims=True)
    log_p = jnp.where(nothing_left, NEVER, log_p)  # and not nan
    log_p = constrained(jnp.maximum(log_p, NEVER), state.ids, state.time, constraints)
    log_p = state.log_p[..., None] + log_p
    # One that has ended, or cannot be scored, has one extension, at the index of the end token.
    ended = jnp.where(jnp.arange(classes) == constraints.end_id, state.log_p[..., None], NEVER)
    log_p = jnp.where(extends[..., None], log_p, ended)
    # An active one has as many tokens as steps were made; the other counts its end token.
    scores = jnp.where(_is_possible(log_p), log_p / norm(state.length + 1)[..., None], log_p)
    _, index = jax.lax.top_k(scores.reshape(batch, size * classes), size)
    parent, token = index // classes, (index % classes).astype(jnp.int32)
    log_p = jnp.take_along_axis(log_p.reshape(batch, size * classes), index, axis=1)
    # What is ruled out leads nowhere, and must not keep the loop going.
    active = of_parents(extends, parent) & (token != constraints.end_id) & _is_possible(log_p)
    unknown = of_parents(unknown, parent) & _is_possible(log_p)
    grown = active | unknown
    now = (jnp.arange(state.ids.shape[2]) == state.time)[None, None] & grown[..., None]
    held = hold(state.active, carry, state.carry)
    return _Hypotheses(
        state.time + 1,
        jax.tree.map(lambda leaf: of_parents(leaf, parent), held),
        jnp.where(active, token, of_parents(state.token, parent)),
        active,
        jnp.maximum(log_p, NEVER),
        of_parents(state.length, parent) + grown.astype(jnp.int32),
        jnp.where(
            now, jnp.where(unknown, UNKNOWN, token)[..., None], of_parents(state.ids, parent)
        ),
    )
