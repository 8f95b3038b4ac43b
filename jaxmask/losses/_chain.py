"""Conditional random field over a chain of tags: its likelihood, by the forward algorithm.

    score(b, y) = start[y_1] + sum_t logits[b, t, y_t] + sum_{t > 1} transitions[y_{t-1}, y_t]
                  + end[y_n]                              over the n real steps of row b

A masked step holds the state, so padding may lie anywhere (mask class: any).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops, masks, ops, pool
from jaxmask._steps import segments_apart
from jaxmask._types import Array, ArrayLike, Mask, Pair, StepMask, common_dtype
from jaxmask.losses._logs import log_sum_exp

__all__ = ["crf"]


class Weights(NamedTuple):
    """What a path costs besides the logits of its steps.

    Example:
      >>> import jax.numpy as jnp
      >>> Weights(jnp.zeros((2, 2)), jnp.zeros(2), jnp.zeros(2)).start.shape
      (2,)
    """

    transitions: Array  # [tags, tags], from the row's tag to the column's
    start: Array  # [tags]
    end: Array  # [tags]


def crf(
    logits: ArrayLike,
    mask: Mask,
    tags: ArrayLike,
    transitions: ArrayLike,
    *,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Pair:
    """Negative log likelihood of the tags of each row, against all other paths through it.

        y[b] = log sum over {paths p} of exp(score(b, p)) - score(b, tags[b])

    Args:
      logits: how well each tag fits each step, `[batch, time, tags]`, floating.
      mask: `[batch, time]`, boolean, or `Segments` (each sequence is a chain of its own), or None.
      tags: `[batch, time]`, integer ids of tags; anything may stand in padding.
      transitions: `[tags, tags]`, floating: how well the column's tag follows the row's; -inf where
        it must not. A row whose path is ruled out costs inf; where no path is left at all, the
        gradient is 0.
      start: `[tags]`, floating: how well a row begins with a tag; None is 0.
      end: `[tags]`, floating: how well a row ends with a tag; None is 0.

    Returns:
      The pair `(per_row, row_mask)`: `per_row [batch]` in nats, in at least float32, and
      `row_mask [batch]`, True where the row has a real step. A row without one gives 0 and False.

    Raises:
      TypeError: if weights are not floating, `tags` not integer, or `mask` not boolean.
      ValueError: if shapes disagree, or a real id is no tag; under `jit`, where values cannot be
        seen, the row of such an id gives nan.
      MaskError: if `mask` does not belong to `logits`.

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
    logits, mask, weights = checked(logits, mask, transitions, start, end, where)
    ids = _check.array(tags, "tags", where)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{where}: `tags` must be integer, got dtype {ids.dtype}.")
    _check.shape(ids, logits.shape[:2], "[batch, time]", where, "tags")
    ids, valid = _class_ids.real_ids(tags, given, logits.shape[2], where, "tags")
    total, row_mask = log_partition(logits, mask, weights)
    score = _score(logits, mask, ids, valid, weights)
    no_path = total == -jnp.inf  # -inf - -inf is nan
    return ops.fill(jnp.where(no_path, -total, total - jnp.where(no_path, 0, score)), row_mask)


def checked(
    logits: ArrayLike,
    mask: Mask,
    transitions: ArrayLike,
    start: ArrayLike | None,
    end: ArrayLike | None,
    where: str,
) -> tuple[Array, Mask, Weights]:
    """Check the arguments; everything in at least float32, and 0 in the padding of the logits.

    Example:
      >>> import jax.numpy as jnp
      >>> logits, _, weights = checked(
      ...     jnp.ones((1, 3, 2)), None, jnp.zeros((2, 2)), None, None, "example"
      ... )
      >>> logits.shape, weights.end.tolist()
      ((1, 3, 2), [0.0, 0.0])
    """
    logits, mask = _check.pair(logits, mask, where, over_time=True, name="logits")
    _check.floating(logits, where, "logits")
    if logits.ndim != 3:
        raise ValueError(f"{where}: `logits` must be [batch, time, tags], got {logits.shape}.")
    tags = logits.shape[2]
    shapes = {"transitions": (tags, tags), "start": (tags,), "end": (tags,)}
    weights = []
    for (name, shape), given in zip(shapes.items(), (transitions, start, end), strict=True):
        weight = jnp.zeros(shape, jnp.float32) if given is None else given
        weight = _check.array(weight, name, where)
        _check.floating(weight, where, name)
        _check.shape(weight, shape, f"[{', '.join(['tags'] * len(shape))}]", where, name)
        weights.append(weight)
    dtype = common_dtype(jnp.float32, logits.dtype, *(weight.dtype for weight in weights))
    weights = [weight.astype(dtype) for weight in weights]
    return ops.fill(logits, mask)[0].astype(dtype), mask, Weights(*weights)


def first_steps(x: Array, mask: Mask) -> StepMask:
    """True at the first real step of each row, or of each segment.

    Example:
      >>> import jax.numpy as jnp
      >>> first_steps(jnp.zeros((1, 3)), jnp.array([[False, True, True]])).tolist()
      [[False, True, False]]
    """
    if mask is None:
        return jnp.broadcast_to(jnp.arange(x.shape[1]) == 0, x.shape[:2])
    return masks.as_bool(mask) & (masks.positions(mask) == 0)


@functools.partial(segments_apart, pooled=True)
def log_partition(logits: Array, mask: Mask, weights: Weights) -> Pair:
    """Log of the sum over all paths, `[batch]`, of what `checked` gives.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = Weights(jnp.zeros((2, 2)), jnp.zeros(2), jnp.zeros(2))
      >>> round(float(jnp.exp(log_partition(jnp.zeros((1, 3, 2)), None, weights)[0][0])), 4)
      8.0
    """

    def step(alpha: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, None]:
        logit, is_first, is_real = inputs
        before = log_sum_exp(alpha[:, :, None] + weights.transitions[None], axis=1)
        before = jnp.where(is_first[:, None], weights.start[None], before)
        return jnp.where(is_real[:, None], before + logit, alpha), None

    real = _mask_ops.select_in(logits, mask)[..., 0]
    by_time = logits.swapaxes(0, 1), first_steps(logits, mask).T, real.T
    alpha, _ = jax.lax.scan(step, jnp.zeros(logits.shape[::2], logits.dtype), by_time)
    return ops.fill(log_sum_exp(alpha + weights.end[None], axis=1), masks.rows(mask))


def _score(logits: Array, mask: Mask, tags: Array, valid: Array, weights: Weights) -> Array:
    """The score of the one path `tags`, `[batch]`; nan where one of them is not valid."""
    before, _ = ops.shift(tags, mask)
    entered = jnp.where(
        first_steps(logits, mask), weights.start[tags], weights.transitions[before, tags]
    )
    chosen = jnp.take_along_axis(logits, tags[..., None], axis=2)[..., 0]
    total, _ = pool.sum(_class_ids.nan_unless(valid, chosen + entered), mask)
    return total + weights.end[pool.last(tags, mask)[0]]
