"""Checks of weights and carries, shared by `lstm`, `gru` and `simple`."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxmask import _check
from jaxmask._keys import row_keys
from jaxmask._types import Array, ArrayLike, common_dtype
from jaxmask.recurrent._cells import (
    LSTM_WEIGHTS,
    ExtendedLSTMWeights,
    GRUWeights,
    LSTMCarry,
    LSTMWeights,
    SimpleWeights,
    zero_carry,
)

Weights = TypeVar("Weights", LSTMWeights, ExtendedLSTMWeights, GRUWeights, SimpleWeights)
_NAMES = ("weights.w_x", "weights.w_h", "weights.b")


class Noise(NamedTuple):
    """A recurrent dropout."""

    rate: float = 0.0
    key: Array | None = None
    row_ids: ArrayLike | None = None


def check_weights(
    x: Array, weights: Any, kind: type, gates: int, where: str, *, biases: int = 1
) -> Any:
    """Check `w_x [feature, gates * hidden]`, `w_h [hidden, gates * hidden]` and `b`.

    `biases`: how many biases `b` may hold; two are `[2, gates * hidden]`.
    """
    is_extended = kind is LSTMWeights and isinstance(weights, ExtendedLSTMWeights)
    if not (is_extended or (isinstance(weights, tuple) and len(weights) == 3)):
        raise TypeError(
            f"{where}: `weights` must be `jm.recurrent.{kind.__name__}(w_x, w_h, b)`, got "
            f"{type(weights).__name__}."
        )
    if x.ndim != 3:
        raise ValueError(f"{where}: `x` must be [batch, time, feature], got shape {x.shape}.")
    given = zip(("w_c", "w_p"), weights[3:], strict=False)
    more = {name: array for name, array in given if array is not None}
    weights = (type(weights) if is_extended else kind)(
        *map(_check.array, weights[:3], _NAMES, [where] * 3)
    )
    for array, name in zip((x, *weights[:3]), ("x", *_NAMES), strict=True):
        _check.floating(array, where, name)
    width = f"{gates}*hidden" if gates > 1 else "hidden"
    if weights.w_h.ndim != 2:
        raise ValueError(
            f"{where}: `weights.w_h` must be [hidden, {width}], got {weights.w_h.shape}."
        )
    output = weights.w_h.shape[0]
    hidden = weights.w_h.shape[1] // gates if "w_p" in more else output
    size, rows = gates * hidden, "projected" if "w_p" in more else "hidden"
    _check.shape(weights.w_h, (output, size), f"[{rows}, {width}]", where, "weights.w_h")
    _check.shape(weights.w_x, (x.shape[2], size), f"[feature, {width}]", where, "weights.w_x")
    shapes = {"w_c": ((3, hidden), "[3, hidden]"), "w_p": ((hidden, output), "[hidden, projected]")}
    for field, array in more.items():
        name = f"weights.{field}"
        array = _check.array(array, name, where)
        _check.floating(array, where, name)
        _check.shape(array, *shapes[field], where, name)
        weights = weights._replace(**{field: array})
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
    if not isinstance(weights, LSTM_WEIGHTS):
        h = _check_state(carry, (x.shape[0], weights.w_h.shape[0]), where, "carry")
        return h.astype(common_dtype(dtype, h.dtype))
    if not isinstance(carry, tuple) or len(carry) != 2:
        raise TypeError(
            f"lstm: `carry` must be `LSTMCarry(h, c)` or a tuple `(h, c)`, got "
            f"{type(carry).__name__}."
        )
    h = _check_state(carry[0], (x.shape[0], weights.w_h.shape[0]), where, "carry.h")
    c = _check_state(carry[1], (x.shape[0], weights.w_h.shape[1] // 4), where, "carry.c")
    dtype = common_dtype(dtype, h.dtype, c.dtype)
    return LSTMCarry(h.astype(dtype), c.astype(dtype))


def _check_state(array: Any, shape: tuple[int, int], where: str, name: str) -> Array:
    array = _check.array(array, name, where)
    _check.floating(array, where, name)
    _check.shape(array, shape, "[batch, hidden]", where, name)
    return array


def check_clip(value: float | None, where: str) -> float | None:
    if value is None:
        return None
    if not _check.static_number(value, where, "cell_clip") > 0:
        raise ValueError(f"{where}: `cell_clip` must be positive, got {value}.")
    return float(value)


def recurrent_dropout(
    noise: Noise, x: Array, weights: Weights, where: str
) -> Float[Array, "batch hidden"] | None:
    """What multiplies the state of each row at all of its steps, where it is read."""
    rate = _check.dropout_rate(noise.rate, where, "recurrent_dropout_rate")
    if not rate:
        return None
    if noise.key is None:
        raise ValueError(
            f"{where}: `recurrent_dropout_rate` needs a random `key`; without noise leave it 0."
        )
    keys = row_keys(noise.key, x, where, noise.row_ids)
    size = (weights.w_h.shape[0],)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, size))(keys)
    return jnp.where(kept, 1 / (1 - rate), 0)
