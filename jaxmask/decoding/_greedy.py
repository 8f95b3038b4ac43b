"""One token after another: the likeliest, or one that is drawn; and what given tokens score."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _keys, _mask_ops, _room, ops
from jaxmask._errors import refusing_pairs
from jaxmask._meshes import rows_like
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, PyTree
from jaxmask.decoding._constraints import Constraints, checked_constraints, constrained
from jaxmask.decoding._token_step import (
    NEVER,
    UNKNOWN,
    Step,
    called,
    hold,
    refuse_unknown,
    rows,
    safe_carry,
)


@refusing_pairs
def greedy(
    step: Step,
    carry: PyTree,
    start: ArrayLike,
    row_mask: Mask,
    *,
    max_length: int,
    end_id: int,
    min_length: int = 0,
    no_repeat_ngram_size: int = 0,
    prefix: Pair | None = None,
) -> Pair:
    """Take the most likely next token until every row has ended.

        carry, logits = step(carry, token);   token = argmax logits     from token = start

    A row that has ended holds its carry. The loop ends with the last row.

    Args:
      step: `(carry, ids [batch]) -> (carry, logits [batch, classes])`. It never sees an empty row,
        but a copy of another in its place. It may give `(carry, (logits, row_mask))`, as `run` of
        a model does: where `row_mask [batch]` is False, the logits say nothing.
      carry: pytree of arrays `[batch, ...]`; scalars belong to the whole batch.
      start: `[batch]`, integer: the token before the first; not part of the result.
      row_mask: `[batch]`, boolean, as from pooling an encoder; or None: every row is real.
      max_length: static, the maximum number of tokens in a row.
      end_id: static, the token that ends a row; not part of the result.
      min_length: static; a row does not end before it has so many tokens. `start` and the end token
        do not count (in Hugging Face's `min_length` both do).
      no_repeat_ngram_size: static; no n-gram of so many tokens occurs twice in a row (`start` is
        part of none); 0 allows all. A row where no other token is left ends.
      prefix: the pair `(ids [batch, token], mask)` of the tokens that a row begins with, whatever
        the other constraints say; a row without one is free. Padding may lie anywhere. An id that
        is not a class is an error where it is known, and ends its row under `jit`.

    Returns:
      The pair `(ids, mask)`: `ids [batch, max_length]`, int32, and `mask [batch, max_length]`, True
      before the end. A row that is full did not end. An empty row has no token. Among equal logits
      the first class is taken.

    Raises:
      ValueError: if a token cannot be scored, since a `KVCache` of the row is full or the mask of
        the logits is False; under `jit`, where that is not known, the id of this token is -1, and
        the row ends with it. Layers that cannot hold `max_length` tokens are refused when traced.

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
    start, real = rows(start, row_mask, where)
    constraints = checked_constraints(
        end_id, max_length, min_length, no_repeat_ngram_size, prefix, real, where
    )
    carry = safe_carry(carry, row_mask, start, where)
    return _decode(
        step, carry, start, real, max_length, constraints, lambda x, _: jnp.argmax(x, -1)
    )


@refusing_pairs
def sample(
    step: Step,
    carry: PyTree,
    start: ArrayLike,
    row_mask: Mask,
    key: Array,
    *,
    max_length: int,
    end_id: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_length: int = 0,
    no_repeat_ngram_size: int = 0,
    prefix: Pair | None = None,
    row_ids: ArrayLike | None = None,
) -> Pair:
    """Draw the next token until every row has ended.

        carry, logits = step(carry, token);   token ~ softmax(logits / temperature)

    of the `top_k` likeliest classes, and of these the fewest whose probabilities add up to `top_p`.
    The noise of a token is that of its row's id and of its place among the tokens, so that neither
    padding nor other rows change it.

    Args:
      key: a JAX random key.
      temperature: static, above 0; towards 0 this is `greedy`.
      top_k: static, at least 1; None allows all. Of equal classes the first are kept, so never more
        than `top_k` (Hugging Face keeps all that equal the last).
      top_p: static, above 0 and at most 1. The class that crosses it is kept.
      row_ids: `[batch]` or `[batch, n]`, integer; the index in the batch where None.
      step, carry, start, row_mask, max_length, end_id: as in `greedy`.
      min_length, no_repeat_ngram_size, prefix: as in `greedy`; the other classes share the
        probability of those that are ruled out.

    Returns:
      The pair `(ids, mask)`, as `greedy`. `score` gives their probabilities.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> def step(carry, ids):
      ...     return carry, jnp.log(jnp.array([[0.1, 0.5, 0.4]]))
      >>> ids, mask = jm.decoding.sample(
      ...     step, (), jnp.array([0]), None, jax.random.key(0), max_length=9, end_id=0, top_p=0.8
      ... )
      >>> sorted(set(ids[0].tolist()))  # the end is not among the likeliest classes
      [1, 2]

    Source: Holtzman et al., 2020, arXiv:1904.09751 (top-p).
    """
    where = "sample"
    start, real = rows(start, row_mask, where)
    constraints = checked_constraints(
        end_id, max_length, min_length, no_repeat_ngram_size, prefix, real, where
    )
    if _check.static_number(temperature, where, "temperature") <= 0:
        raise ValueError(
            f"{where}: `temperature` must be above 0, got {temperature}. Its limit, the likeliest "
            "token, is `greedy`."
        )
    if not 0 < _check.static_number(top_p, where, "top_p") <= 1:
        raise ValueError(f"{where}: `top_p` must be above 0 and at most 1, got {top_p}.")
    _check.optional_count(top_k, where, "top_k", least=1)
    keys = rows_like(start, _keys.row_keys(key, start, where, row_ids))
    draw = functools.partial(_drawn, temperature=temperature, top_k=top_k, top_p=top_p)

    def choose(values: Array, time: Array) -> Array:
        return jax.vmap(draw)(jax.vmap(jax.random.fold_in, (0, None))(keys, time), values)

    carry = safe_carry(carry, row_mask, start, where)
    return _decode(step, carry, start, real, max_length, constraints, choose)


def _drawn(
    key: Array, logits: Array, *, temperature: float, top_k: int | None, top_p: float
) -> Array:
    """One class of one row. By ranks: the bits of a value computed twice may differ."""
    # Less the highest, so that those next to `NEVER` do not all become -inf.
    top = jnp.max(logits)
    logits = (logits - jnp.where(jnp.isfinite(top), top, 0)) / temperature
    if top_k is None and top_p == 1:
        return jax.random.categorical(key, logits)
    classes = logits.shape[0]
    logits, order = jax.lax.top_k(logits, classes if top_k is None else min(top_k, classes))
    p = jax.nn.softmax(logits)
    logits = jnp.where(jnp.cumsum(p) - p < top_p, logits, NEVER)
    return order[jax.random.categorical(key, logits)]


class _State(NamedTuple):
    time: Array
    carry: PyTree
    token: Array
    active: Array
    ids: Array
    mask: Array


def _decode(
    step: Step,
    carry: PyTree,
    start: Array,
    real: Array,
    max_length: int,
    constraints: Constraints,
    choose: Callable[[Array, Array], Array],
) -> Pair:
    """Tokens by `choose(logits, time)` until every row has ended."""

    def more(state: _State) -> Array:
        return (state.time < max_length) & jnp.any(state.active)

    def body(state: _State) -> _State:
        # Ids have no gradient, so nothing of the search is kept for one.
        with _room.needed(constraints.where, max_length):
            found = called(step, state.carry, state.token, constraints.where)
        new, logits, known = jax.lax.stop_gradient(found)
        values = logits.astype(accumulator(logits.dtype))
        values = constrained(values, state.ids, state.time, constraints)
        token = choose(values, state.time).astype(jnp.int32)
        token = jnp.where(state.active, token, state.token)
        active = state.active & (token != constraints.end_id)
        now = (jnp.arange(max_length) == state.time)[None] & active[:, None]
        return _State(
            state.time + 1,
            hold(state.active, new, state.carry),
            token,
            active & known,
            jnp.where(now, jnp.where(known, token, UNKNOWN)[:, None], state.ids),
            state.mask | now,
        )

    ids = rows_like(start, jnp.zeros((start.shape[0], max_length), jnp.int32))
    first = _State(jnp.array(0), jax.lax.stop_gradient(carry), start, real, ids, ids.astype(bool))
    last = jax.lax.while_loop(more, body, first)
    refuse_unknown(last.ids, constraints.where)
    return last.ids, last.mask


@refusing_pairs
def score(
    step: Step,
    carry: PyTree,
    start: ArrayLike,
    row_mask: Mask,
    ids: ArrayLike,
    mask: Mask,
    *,
    end_id: int | None = None,
) -> Pair:
    """Log probability of each given token after those before it.

        carry, logits = step(carry, token);   y[b, i] = log softmax(logits)[ids[b, i]]

    What `greedy`, `beam` and `sample` return is without the end token, whose probability is part
    of a row's. `end_id` adds it as one more step, real in rows with fewer tokens than the width of
    `ids`, the `max_length` of the search: a row that is full did not end. The sum over a row,
    `jm.pool.sum`, is then the log probability that `sample` draws it (without `temperature`,
    `top_k`, `top_p`, limits and prefix), and the score of `beam` with a `length_penalty` of 0.
    Without `end_id` the sum is that of the given tokens alone. It has gradients, so it also trains.

    Padding may lie anywhere (mask class: any); a masked step holds the carry. A row that `row_mask`
    rules out has no tokens.

    Args:
      ids: `[batch, token]`, integer.
      mask: `[batch, token]`, boolean, or None.
      end_id: static, the token that ends a row, which `ids` then lack; or None, no step is added.
      step, carry, start, row_mask: as in `greedy`. A step that is -inf where a token is not gives
        that token -inf.

    Returns:
      The pair `(y, mask)`: `y [batch, token]` in at least float32, in nats; `[batch, token + 1]`,
      the end last, with `end_id`.

    Raises:
      ValueError: if a real id is not a class, is `end_id` or cannot be scored, as in `greedy`;
        under `jit`, where values are not known, its log probability is nan.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> table = jnp.log(jnp.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]]))
      >>> ids, start = jnp.array([[2, 0, 0]]), jnp.array([0])
      >>> mask = jnp.array([[True, True, False]])
      >>> y, _ = jm.decoding.score(lambda c, i: (c, table[i]), (), start, None, ids, mask)
      >>> [round(float(p), 3) for p in jnp.exp(y[0])]
      [0.4, 0.9, 1.0]
      >>> ids, mask = jnp.array([[2, 0]]), jnp.array([[True, False]])  # as `beam` returns them
      >>> y, _ = jm.decoding.score(
      ...     lambda c, i: (c, table[i]), (), start, None, ids, mask, end_id=0
      ... )
      >>> [round(float(p), 3) for p in jnp.exp(y[0])]
      [0.4, 1.0, 0.9]

    A conditional random field scores tags by `-jm.losses.crf`, CTC labels by `-jm.losses.ctc_loss`.
    """
    where = "score"
    start, real = rows(start, row_mask, where)
    given, given_mask = ids, mask
    ids, mask = _check.pair(ids, mask, where, over_time=True, segments=False, name="ids")
    (batch,) = start.shape
    if ids.ndim != 2 or ids.shape[0] != batch or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"{where}: `ids` must be [batch, token], integer, with batch = {batch}, got shape "
            f"{ids.shape} and dtype {ids.dtype}."
        )
    at = _mask_ops.real_steps(mask, ids.shape) & real[:, None]
    carry = safe_carry(carry, row_mask, start, where)
    shape = jax.eval_shape(lambda c, t: called(step, c, t, where), carry, start).logits.shape
    if end_id is not None and _check.count(end_id, where, "end_id") >= shape[1]:
        raise ValueError(
            f"{where}: `end_id` must be below the {shape[1]} classes of the logits, got {end_id}."
        )
    ids, valid = _class_ids.real_ids(
        *(given, given_mask, shape[1], where, "ids"), but=end_id, but_is="the end"
    )
    if end_id is not None:
        ended = real & (jnp.sum(at, axis=1) < ids.shape[1])
        last = ((0, 0), (0, 1))
        ids, valid = (
            jnp.pad(ids, last, constant_values=end_id),
            jnp.pad(jnp.asarray(valid), last, constant_values=True),
        )
        at = jnp.concatenate([at, ended[:, None]], axis=1)

    def body(
        state: tuple[PyTree, Array], now: tuple[Array, Array]
    ) -> tuple[tuple[PyTree, Array], tuple[Array, Array]]:
        (carry, before), (token, is_real) = state, now
        new, logits, known = called(step, carry, before, where)
        log_p = jax.nn.log_softmax(logits.astype(accumulator(logits.dtype)), axis=1)
        y = jnp.take_along_axis(log_p, token[:, None], axis=1)[:, 0]
        return (hold(is_real, new, carry), jnp.where(is_real, token, before)), (y, known | ~is_real)

    _, (y, known) = jax.lax.scan(body, (carry, start), (ids.astype(jnp.int32).T, at.T))
    refuse_unknown(jnp.where(known.T, 0, UNKNOWN), where)
    y = _class_ids.nan_unless(valid & known.T, y.T)
    return ops.fill(y, None if mask is None and row_mask is None and end_id is None else at)
