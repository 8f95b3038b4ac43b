"""The forward and backward algorithms over chains of tags, which `losses.crf` and `decoding` share.

    score(b, y) = start[y_1] + sum_t logits[b, t, y_t] + sum_{t > 1} transitions[y_{t-1}, y_t]
                  + end[y_n]                              over the n real steps of row b

A masked step holds the state, so padding may lie anywhere (mask class: any).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks, ops
from jaxmask._logs import log_sum_exp
from jaxmask._steps import segments_apart
from jaxmask._types import Array, ArrayLike, Mask, Pair, StepMask, common_dtype


class ChainWeights(NamedTuple):
    """The terms of a path's score besides the logits of its steps."""

    transitions: Array  # [tags, tags], from the row's tag to the column's
    start: Array  # [tags]
    end: Array  # [tags]


def checked_chain(
    logits: ArrayLike,
    mask: Mask,
    transitions: ArrayLike,
    start: ArrayLike | None,
    end: ArrayLike | None,
    where: str,
    *,
    name: str = "logits",
) -> tuple[Array, Mask, ChainWeights]:
    """The arguments of a chain, in at least float32, with 0 in the padding of the logits."""
    logits, mask = _check.pair(logits, mask, where, over_time=True, name=name)
    _check.floating(logits, where, name)
    if logits.ndim != 3:
        raise ValueError(f"{where}: `{name}` must be [batch, time, tags], got {logits.shape}.")
    tags = logits.shape[2]
    shapes = {"transitions": (tags, tags), "start": (tags,), "end": (tags,)}
    weights = []
    for (part, shape), given in zip(shapes.items(), (transitions, start, end), strict=True):
        weight = jnp.zeros(shape, jnp.float32) if given is None else given
        weight = _check.array(weight, part, where)
        _check.floating(weight, where, part)
        _check.shape(weight, shape, f"[{', '.join(['tags'] * len(shape))}]", where, part)
        weights.append(weight)
    dtype = common_dtype(jnp.float32, logits.dtype, *(weight.dtype for weight in weights))
    weights = [weight.astype(dtype) for weight in weights]
    return ops.fill(logits, mask)[0].astype(dtype), mask, ChainWeights(*weights)


def first_steps(x: Array, mask: Mask) -> StepMask:
    """True at the first real step of each row, or of each segment."""
    if mask is None:
        return jnp.broadcast_to(jnp.arange(x.shape[1]) == 0, x.shape[:2])
    return masks.as_bool(mask) & (masks.positions(mask) == 0)


def forward_scores(
    logits: Array, mask: Mask, weights: ChainWeights, *, every: bool
) -> tuple[Array, Array | None]:
    """Log of the sum of `exp(score)` over the paths that end in each tag, `[batch, tags]`.

    `every` also returns that of the paths up to each step, `[batch, time, tags]`. The mask is
    boolean, or None.
    """

    def step(alpha: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, Array | None]:
        logit, is_first, is_real = inputs
        before = log_sum_exp(alpha[:, :, None] + weights.transitions[None], axis=1)
        before = jnp.where(is_first[:, None], weights.start[None], before)
        alpha = jnp.where(is_real[:, None], before + logit, alpha)
        return alpha, alpha if every else None

    real = _mask_ops.select_in(logits, mask)[..., 0]
    by_time = logits.swapaxes(0, 1), first_steps(logits, mask).T, real.T
    alpha, alphas = jax.lax.scan(step, jnp.zeros(logits.shape[::2], logits.dtype), by_time)
    return alpha, None if alphas is None else alphas.swapaxes(0, 1)


def backward_scores(logits: Array, mask: Mask, weights: ChainWeights) -> Array:
    """Log of the sum of `exp(score)` of what follows each tag at each step, `[batch, time, tags]`.

    The mask is boolean, or None.
    """

    def step(beta: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        logit, is_real = inputs
        after = weights.transitions[None] + (logit + beta)[:, None]
        return jnp.where(is_real[:, None], log_sum_exp(after, axis=2), beta), beta

    real = _mask_ops.select_in(logits, mask)[..., 0]
    last = jnp.broadcast_to(weights.end, logits.shape[::2]).astype(logits.dtype)
    _, betas = jax.lax.scan(step, last, (logits.swapaxes(0, 1), real.T), reverse=True)
    return betas.swapaxes(0, 1)


@functools.partial(segments_apart, pooled=True)
def log_partition(logits: Array, mask: Mask, weights: ChainWeights) -> Pair:
    """Log of the sum of `exp(score)` over all paths, `[batch]`, of what `checked_chain` gives."""
    alpha, _ = forward_scores(logits, mask, weights, every=False)
    return ops.fill(log_sum_exp(alpha + weights.end[None], axis=1), masks.rows(mask))
