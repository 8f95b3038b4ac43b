"""Autoregressive decoding: greedy and beam search, each row up to its own end token."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks, ops
from jaxmask._steps import filled_with_copies
from jaxmask._types import Array, ArrayLike, Mask, Pair, PyTree, RowMask

__all__ = ["beam", "greedy"]

Step: TypeAlias = Callable[[Any, Array], tuple[Any, Array]]

# In place of the log probability -inf, of which inf - inf would make nan.
NEVER = -1e30


def greedy(
    step: Step,
    carry: PyTree,
    start: ArrayLike,
    row_mask: Mask,
    *,
    max_length: int,
    end_id: int,
) -> Pair:
    """Take the most likely next token until every row has ended.

        carry, logits = step(carry, token);   token = argmax logits     from token = start

    A row that has ended holds its carry. The loop ends with the last row.

    Args:
      step: `(carry, ids [batch]) -> (carry, logits [batch, classes])`. It never sees an empty row,
        but a copy of another in its place.
      carry: pytree of arrays `[batch, ...]`; scalars belong to the whole batch.
      start: `[batch]`, integer: the token before the first; not part of the result.
      row_mask: `[batch]`, boolean, as from pooling an encoder; or None: every row is real.
      max_length: static, the maximum number of tokens in a row.
      end_id: static, the token that ends a row; not part of the result.

    Returns:
      The pair `(ids, mask)`: `ids [batch, max_length]`, int32, and `mask [batch, max_length]`, True
      before the end. A row that is full did not end. An empty row has no token.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> def count_down(carry, ids):
      ...     return carry, jax.nn.one_hot(ids - 1, 5)
      >>> start, row_mask = jnp.array([3, 2, 4]), jnp.array([True, True, False])
      >>> ids, mask = jm.decoding.greedy(
      ...     count_down, (), start, row_mask, max_length=4, end_id=0
      ... )
      >>> ids.tolist(), jm.masks.lengths(mask).tolist()
      ([[2, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], [2, 1, 0])
    """
    where = "greedy"
    start, real = _rows(start, row_mask, max_length, end_id, where)
    batch = len(start)
    state = _Greedy(jnp.array(0), _safe(carry, row_mask, batch, where), start, real)

    def more(loop: tuple[_Greedy, Array, Array]) -> Array:
        return (loop[0].time < max_length) & jnp.any(loop[0].active)

    def body(loop: tuple[_Greedy, Array, Array]) -> tuple[_Greedy, Array, Array]:
        (time, carry, token, active), ids, mask = loop
        new, logits = _called(step, carry, token, batch, end_id, where)
        token = jnp.where(active, jnp.argmax(logits, axis=-1).astype(jnp.int32), token)
        still_active = active & (token != end_id)
        state = _Greedy(time + 1, _hold(active, new, carry), token, still_active)
        now = (jnp.arange(max_length) == time)[None] & still_active[:, None]
        return state, jnp.where(now, token[:, None], ids), mask | now

    ids = jnp.zeros((batch, max_length), jnp.int32)
    _, ids, mask = jax.lax.while_loop(more, body, (state, ids, ids.astype(bool)))
    return ids, mask


class _Greedy(NamedTuple):
    time: Array
    carry: PyTree
    token: Array
    active: Array


def beam(
    step: Step,
    carry: PyTree,
    start: ArrayLike,
    row_mask: Mask,
    *,
    max_length: int,
    end_id: int,
    beam_size: int = 4,
    length_penalty: float = 0.0,
) -> Pair:
    """Beam search for the most likely tokens of each row.

        score(y) = sum_i log softmax(logits_i)[y_i] / ((5 + |y|) / 6)^length_penalty

    The `beam_size` best hypotheses are kept after each token. `|y|` counts the end token. A
    hypothesis that has ended stays in the beam while its score is among the best; the loop ends
    when all have ended. With `beam_size=1` this is `greedy`; with a beam that holds every
    hypothesis it is exact.

    Args:
      step: `(carry, ids [batch]) -> (carry, logits [batch, classes])`. It is mapped over the beam
        by `jax.vmap`, so it may close over arrays `[batch, ...]`, such as an encoder's memory.
      beam_size: static, the number of hypotheses kept for each row.
      length_penalty: static; 0 favours short rows, 1 is nearly the mean log probability of a token.
      carry, start, row_mask, max_length, end_id: as in `greedy`.

    Returns:
      The pair `(ids, mask)` of the best hypothesis, as `greedy`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> table = jnp.log(jnp.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]]))
      >>> def step(carry, ids):
      ...     return carry, table[ids]
      >>> start = jnp.array([0])
      >>> ids, mask = jm.decoding.beam(step, (), start, None, max_length=2, end_id=0)
      >>> ids.tolist(), mask.tolist()  # greedy takes 1, and then 0.4 at best
      ([[2, 0]], [[True, False]])

    Source: Wu et al., 2016, arXiv:1609.08144, section 7 (length penalty).
    """
    where = "beam"
    _check.count(beam_size, where, "beam_size", least=1)
    start, real = _rows(start, row_mask, max_length, end_id, where)
    batch = len(start)
    carry = jax.tree.map(
        lambda leaf: _spread(leaf, beam_size), _safe(carry, row_mask, batch, where)
    )
    axes = jax.tree.map(lambda leaf: 1 if leaf.ndim else None, carry)

    def wide(carry: PyTree, token: Array) -> tuple[PyTree, Array]:
        def one(carry: PyTree, token: Array) -> tuple[PyTree, Array]:
            return _called(step, carry, token, batch, end_id, where)

        return jax.vmap(one, in_axes=(axes, 1), out_axes=(axes, 1))(carry, token)

    def more(state: _Hypotheses) -> Array:
        return (state.time < max_length) & jnp.any(state.active)

    def body(state: _Hypotheses) -> _Hypotheses:
        new, logits = wide(state.carry, state.token)
        return _extended(state, new, logits, end_id, length_penalty)

    first = _first(carry, start, real, beam_size, max_length)
    last = jax.lax.while_loop(more, body, first)
    # The beam is sorted by score.
    return ops.fill(last.ids[:, 0], masks.from_lengths(last.length[:, 0], max_length))


class _Hypotheses(NamedTuple):
    time: Array
    carry: PyTree  # [batch, beam, ...]
    token: Array  # [batch, beam]
    active: Array  # [batch, beam]: it has not ended
    log_p: Array  # [batch, beam]
    length: Array  # [batch, beam]: without the end token
    ids: Array  # [batch, beam, max_length]


def _first(carry: PyTree, start: Array, real: RowMask, size: int, max_length: int) -> _Hypotheses:
    token = _spread(start, size)
    log_p = jnp.full(token.shape, NEVER).at[:, 0].set(0)
    ids = jnp.zeros((*token.shape, max_length), jnp.int32)
    active = _spread(real, size)
    return _Hypotheses(jnp.array(0), carry, token, active, log_p, jnp.zeros_like(token), ids)


def _extended(
    state: _Hypotheses, carry: PyTree, logits: Array, end_id: int, penalty: float
) -> _Hypotheses:
    """The best of all hypotheses extended by a token, and of those that have ended."""
    batch, size, classes = logits.shape
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    log_p = state.log_p[..., None] + jnp.maximum(log_p, NEVER)
    # An ended hypothesis has one extension, at the index of the end token.
    ended = jnp.where(jnp.arange(classes) == end_id, state.log_p[..., None], NEVER)
    log_p = jnp.where(state.active[..., None], log_p, ended)
    lengths = jnp.where(state.active, state.time + 1, state.length + 1).astype(jnp.float32)
    scores = log_p / (((5 + lengths) / 6) ** penalty)[..., None]
    _, index = jax.lax.top_k(scores.reshape(batch, size * classes), size)
    parent, token = index // classes, (index % classes).astype(jnp.int32)

    def of_parent(leaf: Array) -> Array:
        if not leaf.ndim:
            return leaf
        return jnp.take_along_axis(leaf, _mask_ops.expand(parent, leaf.ndim), axis=1)

    held = _hold(state.active, carry, state.carry)
    active = of_parent(state.active) & (token != end_id)
    now = (jnp.arange(state.ids.shape[2]) == state.time)[None, None] & active[..., None]
    return _Hypotheses(
        state.time + 1,
        jax.tree.map(of_parent, held),
        jnp.where(active, token, of_parent(state.token)),
        active,
        jnp.maximum(
            jnp.take_along_axis(log_p.reshape(batch, size * classes), index, axis=1), NEVER
        ),
        of_parent(state.length) + active.astype(jnp.int32),
        jnp.where(now, token[..., None], of_parent(state.ids)),
    )


def _rows(
    start: ArrayLike, row_mask: Mask, max_length: int, end_id: int, where: str
) -> tuple[Array, RowMask]:
    """The first tokens, safe in empty rows, and which rows are real."""
    _check.count(max_length, where, "max_length")
    _check.count(end_id, where, "end_id")
    start, row_mask = _check.pair(start, row_mask, where, segments=False, name="start")
    if start.ndim != 1 or not jnp.issubdtype(start.dtype, jnp.integer):
        raise TypeError(
            f"{where}: `start` must be [batch], integer, and the mask a row mask [batch]; got "
            f"shape {start.shape} and dtype {start.dtype}."
        )
    real = _mask_ops.real_steps(row_mask, start.shape)
    return filled_with_copies(start, row_mask).astype(jnp.int32), real


def _safe(carry: PyTree, row_mask: Mask, batch: int, where: str) -> PyTree:
    """The carry with copies of real rows in the empty ones."""

    def safe(leaf: ArrayLike) -> Array:
        leaf = jnp.asarray(leaf)
        if not leaf.ndim:
            return leaf
        if len(leaf) != batch:
            raise ValueError(
                f"{where}: arrays of `carry` must be [batch, ...] with batch = {batch}, got shape "
                f"{leaf.shape}."
            )
        # Tokens have no gradient, so nothing of the search is kept for one.
        return jax.lax.stop_gradient(filled_with_copies(leaf, row_mask))

    return jax.tree.map(safe, carry)


def _called(
    step: Step, carry: PyTree, token: Array, batch: int, end_id: int, where: str
) -> tuple[PyTree, Array]:
    _check.function(step, where, "step")
    result = step(carry, token)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"{where}: {_check.name_of(step)} must give `(carry, logits)`, got "
            f"{_check.kind_of(result)}."
        )
    carry, logits = jax.lax.stop_gradient(result)
    if logits.ndim != 2 or len(logits) != batch or logits.shape[1] <= end_id:
        raise ValueError(
            f"{where}: {_check.name_of(step)} must give logits [batch, classes] with batch = "
            f"{batch} and `end_id` = {end_id} one of the classes, got shape {logits.shape}."
        )
    return carry, logits


def _hold(active: Array, new: PyTree, old: PyTree) -> PyTree:
    """The new carry of active hypotheses, the old one of others; scalars are always new."""

    def hold(a: Array, b: Array) -> Array:
        return jnp.where(_mask_ops.expand(active, a.ndim), a, b) if b.ndim else a

    return jax.tree.map(hold, new, old)


def _spread(leaf: Array, size: int) -> Array:
    """`[batch, beam, ...]`: repeated for each hypothesis; scalars stay."""
    return jnp.repeat(leaf[:, None], size, axis=1) if leaf.ndim else leaf
