"""The best path through a chain of tags, and the marginal probability of each tag."""

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops, ops
from jaxmask._chain import ChainWeights, checked_chain, first_steps, log_partition
from jaxmask._steps import segments_apart
from jaxmask._types import Array, ArrayLike, Mask, Pair

__all__ = ["crf_marginals", "viterbi"]


def viterbi(
    logits: ArrayLike,
    mask: Mask,
    transitions: ArrayLike,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Pair:
    """The highest-scoring tags of each row, by the scores of `jm.losses.crf`.

        tags[b] = argmax over {paths p} of score(b, p)

    A masked step holds the state, so padding may lie anywhere (mask class: any). Of tied paths, and
    where -inf forbids every path, one of them is returned.

    Args:
      logits: scores of the tags at each step, `[batch, time, tags]`, floating.
      mask: `[batch, time]`, boolean, or `Segments` (each sequence is a separate chain), or None.
      transitions: `[tags, tags]`, floating: the score of a step from the row's tag to the column's.
      start: `[tags]`, floating: the score of each first tag; None is 0.
      end: `[tags]`, floating: the score of each last tag; None is 0.

    Returns:
      The pair `(tags, mask)`: `tags [batch, time]`, int32, each at its own step, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> logits = jnp.array([[[2.0, 0.0], [0.0, 1.0], [jnp.nan, jnp.nan]]])
      >>> stay = jnp.array([[0.0, -5.0], [-5.0, 0.0]])
      >>> jm.decoding.viterbi(logits, jnp.array([[True, True, False]]), stay)[0].tolist()
      [[0, 0, 0]]

    Source: Viterbi, 1967, doi:10.1109/TIT.1967.1054010.
    """
    logits, mask, weights = checked_chain(logits, mask, transitions, start, end, "viterbi")
    # Ids have no gradient, so nothing of the search is kept for one.
    return _best_path(*jax.lax.stop_gradient((logits, mask, weights)))


@segments_apart
def _best_path(logits: Array, mask: Mask, weights: ChainWeights) -> Pair:
    real = _mask_ops.select_in(logits, mask)[..., 0]
    own = jnp.broadcast_to(jnp.arange(logits.shape[2]), logits.shape[::2])

    def forward(best: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        logit, is_first, is_real = inputs
        entered = best[:, :, None] + weights.transitions[None]
        before = jnp.where(is_first[:, None], weights.start[None], jnp.max(entered, axis=1))
        new = jnp.where(is_real[:, None], before + logit, best)
        # A masked step points at itself, so that the backward scan passes through it.
        return new, jnp.where(is_real[:, None], jnp.argmax(entered, axis=1), own)

    def backward(tag: Array, came_from: Array) -> tuple[Array, Array]:
        return jnp.take_along_axis(came_from, tag[:, None], axis=1)[:, 0], tag

    by_time = logits.swapaxes(0, 1), first_steps(logits, mask).T, real.T
    best, came_from = jax.lax.scan(forward, jnp.zeros(logits.shape[::2], logits.dtype), by_time)
    last = jnp.argmax(best + weights.end[None], axis=1)
    _, tags = jax.lax.scan(backward, last, came_from, reverse=True)
    return ops.fill(tags.T.astype(jnp.int32), mask)


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
