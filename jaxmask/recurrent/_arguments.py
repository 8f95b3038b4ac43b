"""Checks of weights and carries, shared by `lstm`, `gru` and `simple`."""

from typing import Any, TypeVar

import jax.numpy as jnp

from jaxmask import _check
from jaxmask._types import Array, common_dtype
from jaxmask.recurrent._cells import (
    GRUWeights,
    LSTMCarry,
    LSTMWeights,
    SimpleWeights,
    zero_carry,
)

Weights = TypeVar("Weights", LSTMWeights, GRUWeights, SimpleWeights)
_NAMES = ("weights.w_x", "weights.w_h", "weights.b")


def check_weights(
    x: Array, weights: Weights, kind: type[Weights], gates: int, where: str, *, biases: int = 1
) -> Weights:
    """Check `w_x [feature, gates * hidden]`, `w_h [hidden, gates * hidden]` and `b`.

    `biases`: how many biases `b` may hold; two are `[2, gates * hidden]`.
    """
    if not isinstance(weights, tuple) or len(weights) != 3:
        raise TypeError(
            f"{where}: `weights` must be `jm.recurrent.{kind.__name__}(w_x, w_h, b)`, got "
            f"{type(weights).__name__}."
        )
    if x.ndim != 3:
        raise ValueError(f"{where}: `x` must be [batch, time, feature], got shape {x.shape}.")
    weights = kind(*map(_check.array, weights, _NAMES, [where] * 3))
    for array, name in zip((x, *weights), ("x", *_NAMES), strict=True):
        _check.floating(array, where, name)
    width = f"{gates}*hidden" if gates > 1 else "hidden"
    if weights.w_h.ndim != 2:
        raise ValueError(
            f"{where}: `weights.w_h` must be [hidden, {width}], got {weights.w_h.shape}."
        )
    hidden = weights.w_h.shape[0]
    size = gates * hidden
    _check.shape(weights.w_h, (hidden, size), f"[hidden, {width}]", where, "weights.w_h")
    _check.shape(weights.w_x, (x.shape[2], size), f"[feature, {width}]", where, "weights.w_x")
    if biases == 2 and weights.b.ndim == 2:
        _check.shape(weights.b, (2, size), f"[{width}] or [2, {width}]", where, "weights.b")
    else:
        _check.shape(weights.b, (size,), f"[{width}]", where, "weights.b")
    return weights


def check_carry(x: Array, weights: Weights, carry: Any, where: str) -> Any:
    """The carry in its dtype, at least float32; zeros where None."""
    dtype = common_dtype(x.dtype, weights.w_x.dtype, jnp.float32)
    if carry is None:
        return zero_carry(weights, x.shape[0], dtype)
    if not isinstance(weights, LSTMWeights):
        h = _check_state(carry, x, weights, where, "carry")
        return h.astype(common_dtype(dtype, h.dtype))
    if not isinstance(carry, tuple) or len(carry) != 2:
        raise TypeError(
            f"lstm: `carry` must be `LSTMCarry(h, c)` or a tuple `(h, c)`, got "
            f"{type(carry).__name__}."
        )
    h, c = (
        _check_state(array, x, weights, where, name)
        for array, name in zip(carry, ("carry.h", "carry.c"), strict=True)
    )
    dtype = common_dtype(dtype, h.dtype, c.dtype)
    return LSTMCarry(h.astype(dtype), c.astype(dtype))


def _check_state(array: Any, x: Array, weights: Weights, where: str, name: str) -> Array:
    array = _check.array(array, name, where)
    _check.floating(array, where, name)
    expected = (x.shape[0], weights.w_h.shape[0])
    _check.shape(array, expected, "[batch, hidden]", where, name)
    return array
