"""The forward-backward algorithm of hidden Markov models."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops, masks, ops
from jaxmask._chain import ChainWeights, backward_scores, checked_chain, forward_scores
from jaxmask._errors import refusing_pairs
from jaxmask._logs import log_sum_exp
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments


class ForwardBackward(NamedTuple):
    """What is known of the states of a hidden Markov model; four pairs.

    Attributes:
      forward: `(y [batch, time, states], mask)`: log probability of the steps up to this one and of
        the state. Its softmax is the filtered distribution.
      backward: `(y [batch, time, states], mask)`: that of the steps after this, given the state.
      smoothed: `(y [batch, time, states], mask)`: the probability of the state given the whole row;
        nan in a row that is impossible.
      log_likelihood: `(y [batch], row_mask)`, of the row.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> even = jnp.log(jnp.full((2, 2), 0.5))
      >>> found = jm.decoding.forward_backward(jnp.zeros((1, 3, 2)), None, even)
      >>> found.smoothed[0][0, 0].tolist()
      [0.5, 0.5]
    """

    forward: Pair
    backward: Pair
    smoothed: Pair
    log_likelihood: Pair


@refusing_pairs
def forward_backward(
    log_likelihoods: ArrayLike,
    mask: Mask,
    transitions: ArrayLike,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> ForwardBackward:
    """Filter and smooth the hidden states of each row, and give its likelihood.

        forward[b, t, k] = log p(x[b, ..t], z[b, t] = k)
        backward[b, t, k] = log p(x[b, t + 1..] | z[b, t] = k)
        smoothed[b, t, k] = p(z[b, t] = k | x[b]) = exp(forward + backward - log_likelihood)

    over the real steps: a masked step holds the state, so padding may lie anywhere (mask class:
    any). To keep a step without an observation, make its `log_likelihoods` 0 and its mask True. The
    scores need not be normalised; then this is the same of a conditional random field, `smoothed`
    is `crf_marginals` and `log_likelihood` is `jm.losses.crf_log_partition`. The likeliest states
    are `viterbi` of the same arguments. All has gradients.

    Args:
      log_likelihoods: `log p(x[b, t] | z = k)`, `[batch, time, states]`, floating.
      mask: `[batch, time]`, boolean, or None.
      transitions: `log p(z' | z)`, `[states, states]`, floating, from the row's state to the
        column's.
      start: `log p(z)` of the first step, `[states]`, floating. None is 0, which counts each state
        with weight 1: pass `-log(states)` for a uniform one.
      end: `[states]`, floating: log probability to end after each state; None is 0.

    Returns:
      `ForwardBackward(forward, backward, smoothed, log_likelihood)`: pairs in at least float32,
      but `smoothed` in the dtype of `log_likelihoods`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> seen = jnp.log(jnp.array([[[0.9, 0.2], [0.9, 0.2], [0.1, 0.8]]]))
      >>> stay = jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]]))
      >>> mask = jnp.array([[True, True, False]])
      >>> found = jm.decoding.forward_backward(seen, mask, stay, start=jnp.log(jnp.full(2, 0.5)))
      >>> [round(float(p), 3) for p in found.smoothed[0][0, 0]], found.log_likelihood[1].tolist()
      ([0.883, 0.117], [True])

    Source: Rabiner, 1989, doi:10.1109/5.18626. Agrees with `hmm_smoother` of dynamax for rows of
    one length, and with `hmmlearn`, whose rows are joined with their lengths.
    """
    where = "forward_backward"
    dtype = _check.array(log_likelihoods, "log_likelihoods", where).dtype
    x, mask, weights = checked_chain(
        log_likelihoods, mask, transitions, start, end, where, name="log_likelihoods"
    )
    if isinstance(mask, Segments):
        _check.refuse_segments(where)
    found = _forward_backward(x, mask, weights)
    return found._replace(smoothed=(found.smoothed[0].astype(dtype), mask))


# Compiled as a whole even in eager mode: the infinities inside are intended, and would trip
# `jax_debug_infs` op by op.
@jax.jit
def _forward_backward(x: Array, mask: Mask, weights: ChainWeights) -> ForwardBackward:
    last, forward = forward_scores(x, mask, weights, every=True)
    backward = backward_scores(x, mask, weights)
    assert forward is not None
    total = log_sum_exp(last + weights.end[None], axis=1)
    both = forward + backward
    # Normalised at each step, which is finer than the likelihood of a long row.
    scale = log_sum_exp(both, axis=2)[..., None]
    has_path = scale > -jnp.inf
    smoothed = jnp.exp(jnp.where(has_path, both - jnp.where(has_path, scale, 0), 0))
    is_nan = ~has_path & _mask_ops.select_in(x, mask)
    smoothed = _class_ids.nan_unless(~is_nan, smoothed)
    return ForwardBackward(
        ops.fill(forward, mask),
        ops.fill(backward, mask),
        ops.fill(smoothed, mask),
        ops.fill(total, masks.rows(mask)),
    )
