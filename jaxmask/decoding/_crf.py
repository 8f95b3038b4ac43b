"""The best path through a chain of tags, and the marginal probability of each tag."""

import functools

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops, ops
from jaxmask._chain import ChainWeights, checked_chain, first_steps, log_partition
from jaxmask._errors import refusing_pairs
from jaxmask._steps import segments_apart
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask
from jaxmask.decoding._best import Decoded


@refusing_pairs
def viterbi(
    logits: ArrayLike,
    mask: Mask,
    transitions: ArrayLike,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
    n_best: int | None = None,
) -> Decoded:
    """The highest-scoring tags of each row, by the scores of `jm.losses.crf`.

        tags[b] = argmax over {paths p} of score(b, p)

    A masked step holds the state, so padding may lie anywhere (mask class: any). Of tied paths, and
    where -inf forbids every path, one of them is returned. Log probabilities of a hidden Markov
    model serve as well, see `forward_backward`.

    Args:
      logits: scores of the tags at each step, `[batch, time, tags]`, floating.
      mask: `[batch, time]`, boolean, or `Segments` (each sequence is a separate chain), or None.
      transitions: `[tags, tags]`, floating: the score of a step from the row's tag to the column's.
      start: `[tags]`, floating: the score of each first tag; None is 0.
      end: `[tags]`, floating: the score of each last tag; None is 0.
      n_best: static: return so many paths and their scores.

    Returns:
      The pair `(tags, mask)`: `tags [batch, time]`, int32, each at its own step, 0 in padding. With
      `n_best`, two pairs `(tags, mask), (scores, found)`: `tags` and `mask [batch, n_best, time]`,
      best first, `scores [batch, n_best]` in at least float32, and `found [batch, n_best]`, False
      where there is no further path, as in an empty row; for
      `Segments`, `scores` and `found` are `[batch * max_segments, n_best]`, and the best paths of
      all sequences of a row stand together. Less `jm.losses.crf_log_partition`, scores are log
      probabilities.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits = jnp.array([[[2.0, 0.0], [0.0, 1.0], [jnp.nan, jnp.nan]]])
      >>> mask = jnp.array([[True, True, False]])
      >>> stay = jnp.array([[0.0, -5.0], [-5.0, 0.0]])
      >>> jm.decoding.viterbi(logits, mask, stay)[0].tolist()
      [[0, 0, 0]]
      >>> (tags, _), (scores, _) = jm.decoding.viterbi(logits, mask, stay, n_best=2)
      >>> tags[0].tolist(), scores[0].tolist()
      ([[0, 0, 0], [1, 1, 0]], [2.0, 1.0])

    Source: Viterbi, 1967, doi:10.1109/TIT.1967.1054010.
    """
    logits, mask, weights = checked_chain(logits, mask, transitions, start, end, "viterbi")
    # Ids have no gradient, so nothing of the search is kept for one.
    logits, mask, weights = jax.lax.stop_gradient((logits, mask, weights))
    count = _check.optional_count(n_best, "viterbi", "n_best", least=1)
    if count is None:
        return _best_path(logits, mask, weights)
    if not isinstance(mask, Segments):
        return _n_best(logits, mask, weights, count)
    each = jax.vmap(lambda m: _n_best(logits, m, weights, count), in_axes=1, out_axes=1)
    (tags, at), of_sequences = each(_mask_ops.of_each_segment(mask))
    scores, found = (y.reshape(-1, count) for y in of_sequences)
    return (jnp.sum(tags, axis=1, dtype=tags.dtype), jnp.any(at, axis=1)), (scores, found)


def _n_best(logits: Array, mask: StepMask | None, weights: ChainWeights, count: int) -> Decoded:
    tags, scores = _best_paths(logits, mask, weights, count)
    real = _mask_ops.select_in(logits, mask)[..., 0]
    found = (scores > -jnp.inf) & jnp.any(real, axis=1)[:, None]
    at = real[:, None] & found[..., None]
    return (jnp.where(at, tags, 0), at), ops.fill(scores, found)


@segments_apart
def _best_path(logits: Array, mask: Mask, weights: ChainWeights) -> Pair:
    return ops.fill(_best_paths(logits, mask, weights, 1)[0][:, 0], mask)


# Compiled as a whole even in eager mode: the infinities inside are intended, and would trip
# `jax_debug_infs` op by op.
@functools.partial(jax.jit, static_argnums=3)
def _best_paths(
    logits: Array, mask: Mask, weights: ChainWeights, count: int
) -> tuple[Array, Array]:
    """The `count` best paths `[batch, count, time]` and their scores, -inf where there is none.

    At each step, the `count` best ways to each tag; a way is `tag * count + rank`.
    """
    batch, _, tags = logits.shape
    real = _mask_ops.select_in(logits, mask)[..., 0]
    own = jnp.broadcast_to(jnp.arange(tags * count), (batch, tags * count))
    is_best = jnp.arange(tags * count) % count == 0
    transitions = jnp.repeat(weights.transitions, count, axis=0)[None]
    alone = jnp.where(is_best, jnp.repeat(weights.start, count), -jnp.inf)[None]

    def forward(best: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        logit, is_first, is_real = (x[:, None] if x.ndim == 1 else x for x in inputs)
        entered, came_from = _largest(best[:, :, None] + transitions, count)
        before = jnp.where(is_first, alone, entered)
        new = jnp.where(is_real, before + jnp.repeat(logit, count, axis=1), best)
        # A masked step points at itself, so that the backward scan passes through it.
        return new, jnp.where(is_real, came_from, own.astype(came_from.dtype))

    def backward(way: Array, came_from: Array) -> tuple[Array, Array]:
        return jnp.take_along_axis(came_from, way, axis=1), way // count

    by_time = logits.swapaxes(0, 1), first_steps(logits, mask).T, real.T
    first = jnp.broadcast_to(jnp.where(is_best, 0, -jnp.inf), own.shape).astype(logits.dtype)
    best, came_from = jax.lax.scan(forward, first, by_time)
    ends = best + jnp.repeat(weights.end, count)[None]
    scores, last = _largest(ends[..., None], count)
    _, paths = jax.lax.scan(backward, last, came_from, reverse=True)
    return paths.astype(jnp.int32).transpose(1, 2, 0), scores


def _largest(x: Array, count: int) -> tuple[Array, Array]:
    """The largest of `x [batch, way, tag]` and where they stand, `[batch, tag * count]`."""
    if count == 1:  # a maximum is quicker than a selection
        return jnp.max(x, axis=1), jnp.argmax(x, axis=1)
    values, index = jax.lax.top_k(x.swapaxes(1, 2), count)
    shape = x.shape[0], x.shape[2] * count  # -1 is no size of an empty batch
    return values.reshape(shape), index.reshape(shape)


@refusing_pairs
def crf_marginals(
    logits: ArrayLike,
    mask: Mask,
    transitions: ArrayLike,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Pair:
    """Marginal probability of each tag at each step, by the scores of `jm.losses.crf`.

        y[b, t, k] = sum over {paths p: p_t = k} of exp(score(b, p)) / Z
        Z = sum over {paths p} of exp(score(b, p))

    Computed as the gradient of log Z in the logits, at the cost of a forward and a backward pass.
    Padding may lie anywhere (mask class: any).

    Args:
      logits, mask, transitions, start, end: as in `viterbi`.

    Returns:
      The pair `(y, mask)`: `y [batch, time, tags]` in the dtype of `logits`, 0 in padding; nan in a
      row where every path is forbidden.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, _ = jm.decoding.crf_marginals(jnp.zeros((1, 3, 2)), None, jnp.zeros((2, 2)))
      >>> y[0, 0].tolist()
      [0.5, 0.5]
    """
    where = "crf_marginals"
    dtype = _check.array(logits, "logits", where).dtype
    wide, mask, weights = checked_chain(logits, mask, transitions, start, end, where)
    y = jax.grad(lambda x: jnp.sum(log_partition(x, mask, weights)[0]))(wide)
    # They sum to 1, or to 0 where logits or transitions of -inf leave no path.
    has_path = (jnp.sum(y, axis=2, keepdims=True) > 0) | ~_mask_ops.select_in(y, mask)
    return ops.fill(_class_ids.nan_unless(has_path, y.astype(dtype)), mask)
