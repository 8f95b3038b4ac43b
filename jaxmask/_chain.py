"""The forward algorithm over chains of tags, which `losses.crf` and `decoding` share.

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
) -> tuple[Array, Mask, ChainWeights]:
    """The arguments of a chain, in at least float32, with 0 in the padding of the logits."""
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
    return ops.fill(logits, mask)[0].astype(dtype), mask, ChainWeights(*weights)


def first_steps(x: Array, mask: Mask) -> StepMask:
    """True at the first real step of each row, or of each segment."""
    if mask is None:
        return jnp.broadcast_to(jnp.arange(x.shape[1]) == 0, x.shape[:2])
    return masks.as_bool(mask) & (masks.positions(mask) == 0)


@functools.partial(segments_apart, pooled=True)
def log_partition(logits: Array, mask: Mask, weights: ChainWeights) -> Pair:
    """Log of the sum of `exp(score)` over all paths, `[batch]`, of what `checked_chain` gives."""

    def step(alpha: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, None]:
        logit, is_first, is_real = inputs
        before = log_sum_exp(alpha[:, :, None] + weights.transitions[None], axis=1)
        before = jnp.where(is_first[:, None], weights.start[None], before)
        return jnp.where(is_real[:, None], before + logit, alpha), None

    real = _mask_ops.select_in(logits, mask)[..., 0]
    by_time = logits.swapaxes(0, 1), first_steps(logits, mask).T, real.T
    alpha, _ = jax.lax.scan(step, jnp.zeros(logits.shape[::2], logits.dtype), by_time)
    return ops.fill(log_sum_exp(alpha + weights.end[None], axis=1), masks.rows(mask))
