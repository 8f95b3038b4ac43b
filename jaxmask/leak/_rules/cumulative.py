"""Sums, products and extremes of all elements up to each."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask.leak._proof.domain import Value
from jaxmask.leak._proof.exact import whole
from jaxmask.leak._proof.interpret import Step, rule_for

ACCUMULATE: dict[str, Callable[..., Any]] = {
    "cummax": np.maximum.accumulate,
    "cummin": np.minimum.accumulate,
    "cumprod": np.multiply.accumulate,
    "cumsum": np.add.accumulate,
}


@rule_for(*ACCUMULATE, "cumlogsumexp")
def cumulative(step: Step) -> list[Value]:
    """An element depends on those before it, or after it in reverse."""
    (x,), axis = step.ins, step.params["axis"]
    if not x.size:
        return [Value(step.shape)]

    def along(function: Callable[..., Any], a: np.ndarray) -> np.ndarray:
        turned = np.flip(a, axis) if step.params["reverse"] else a
        found = np.asarray(function(turned, axis=axis))
        return np.flip(found, axis) if step.params["reverse"] else found

    taint = None if x.taint is None else _taint(step, x.taint, along)
    function = ACCUMULATE.get(step.name)
    if x.value is None or x.known is None or function is None:
        return [Value(step.shape, taint=taint)]
    value = np.where(x.known, x.value, np.zeros((), step.dtype))
    result = along(function, value).astype(step.dtype)
    known = along(np.logical_and.accumulate, x.known)
    if jnp.issubdtype(step.dtype, jnp.inexact):
        certain = whole(value)
        if step.name in ("cumsum", "cumprod"):
            certain = certain & whole(along(function, np.abs(value)))
        else:
            certain = certain & (value != 0)
        known = known & along(np.logical_and.accumulate, np.broadcast_to(certain, x.shape))
    return [Value(step.shape, result, known, taint)]


def _taint(step: Step, taint: np.ndarray, along: Callable[..., np.ndarray]) -> np.ndarray:
    bits = along(np.bitwise_or.accumulate, taint)
    if step.machine.causes is None:
        return bits
    raw = step.machine.causes.raw_in(taint)
    some, every = (along(f, raw) for f in (np.logical_or.accumulate, np.logical_and.accumulate))
    return step.mixed(bits, some & ~every)
