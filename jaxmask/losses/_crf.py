"""Likelihood of a conditional random field over a chain of tags."""

import jax.numpy as jnp

from jaxmask import _check, _class_ids, ops, pool
from jaxmask._chain import ChainWeights, checked_chain, first_steps, log_partition
from jaxmask._errors import refusing_pairs
from jaxmask._meshes import over_explicit_axes
from jaxmask._types import Array, ArrayLike, Mask, Pair


@over_explicit_axes
@refusing_pairs
def crf(
    logits: ArrayLike,
    mask: Mask,
    tags: ArrayLike,
    transitions: ArrayLike,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Pair:
    """Negative log likelihood of each row's tags under a linear-chain conditional random field.

        score(b, y) = start[y_1] + sum_t logits[b, t, y_t] + sum_{t > 1} transitions[y_{t-1}, y_t]
                      + end[y_n]                              over the n real steps of row b
        y[b] = log sum over {paths p} of exp(score(b, p)) - score(b, tags[b])

    A masked step holds the state, so padding may lie anywhere (mask class: any).

    Args:
      logits: scores of the tags at each step, `[batch, time, tags]`, floating.
      mask: `[batch, time]`, boolean, or `Segments` (each sequence is a separate chain), or None.
      tags: `[batch, time]`, integer ids of tags; padding may hold any value.
      transitions: `[tags, tags]`, floating: the score of a step from the row's tag to the column's;
        -inf forbids it. A row whose tags are forbidden costs inf; where every path is, the gradient
        is 0.
      start: `[tags]`, floating: the score of each first tag; None is 0.
      end: `[tags]`, floating: the score of each last tag; None is 0.

    Returns:
      The pair `(per_row, row_mask)`: `per_row [batch]` in nats, in at least float32, and
      `row_mask [batch]`, True where the row has a real step. A row without one gives 0 and False.

    Raises:
      ValueError: if shapes disagree, or a real id is not a tag; under `jit`, where values are not
        known, the row of such an id gives nan.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits = jnp.array([[[0.0, 0.0], [0.0, 0.0], [jnp.nan, jnp.nan]]])
      >>> mask, tags = jnp.array([[True, True, False]]), jnp.array([[0, 1, -100]])
      >>> y, row_mask = jm.losses.crf(logits, mask, tags, jnp.zeros((2, 2)))  # one of four paths
      >>> round(float(jnp.exp(-y[0])), 4), row_mask.tolist()
      (0.25, [True])

    Source: Lafferty, McCallum and Pereira, 2001, Conditional random fields, ICML.
    """
    where = "crf"
    given = mask
    logits, mask, weights = checked_chain(logits, mask, transitions, start, end, where)
    ids = _check.array(tags, "tags", where)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{where}: `tags` must be integer, got dtype {ids.dtype}.")
    _check.shape(ids, logits.shape[:2], "[batch, time]", where, "tags")
    ids, valid = _class_ids.real_ids(tags, given, logits.shape[2], where, "tags")
    total, row_mask = log_partition(logits, mask, weights)
    score = _score(logits, mask, ids, valid, weights)
    no_path = total == -jnp.inf  # -inf - -inf is nan
    return ops.fill(jnp.where(no_path, -total, total - jnp.where(no_path, 0, score)), row_mask)


@refusing_pairs
def crf_log_partition(
    logits: ArrayLike,
    mask: Mask,
    transitions: ArrayLike,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Pair:
    """Log of the sum over all paths of a linear-chain conditional random field.

        y[b] = log sum over {paths p} of exp(score(b, p)),   `score` as in `crf`

    Its gradients are the expected number of times that a tag or a transition occurs. With log
    probabilities for scores (see `jm.decoding.forward_backward`) it is the log likelihood of a
    hidden Markov model. Padding may lie anywhere (mask class: any).

    Args:
      logits, mask, transitions, start, end: as in `crf`.

    Returns:
      The pair `(per_row, row_mask)`: `per_row [batch]` in at least float32, -inf where every path
      is forbidden, and `row_mask [batch]`, True where the row has a real step. A row without one
      gives 0 and False.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, _ = jm.losses.crf_log_partition(jnp.zeros((1, 3, 2)), None, jnp.zeros((2, 2)))
      >>> round(float(jnp.exp(y[0])), 3)  # 2^3 paths
      8.0
    """
    chain = checked_chain(logits, mask, transitions, start, end, "crf_log_partition")
    return log_partition(*chain)


def _score(logits: Array, mask: Mask, tags: Array, valid: Array, weights: ChainWeights) -> Array:
    """The score of the path `tags`, `[batch]`; nan where one of them is not valid."""
    before, _ = ops.shift(tags, mask)
    entered = jnp.where(
        first_steps(logits, mask), weights.start[tags], weights.transitions[before, tags]
    )
    chosen = jnp.take_along_axis(logits, tags[..., None], axis=2)[..., 0]
    total, _ = pool.sum(_class_ids.nan_unless(valid, chosen + entered), mask)
    return total + weights.end[pool.last(tags, mask)[0]]
