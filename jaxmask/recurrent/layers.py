"""The public face of the recurrent layers: checks, dtypes, and the choice of a method."""

import functools

import jax
import jax.numpy as jnp

from jaxmask import _check, ops
from jaxmask._types import Array, ArrayLike, Ids, Mask, Segments
from jaxmask.recurrent import masked_scan
from jaxmask.recurrent.cells import LSTMCarry, LSTMWeights, lstm_cell

METHODS = ("auto", "scan")


def lstm(
    x: ArrayLike,
    mask: Mask,
    weights: LSTMWeights,
    carry: LSTMCarry | tuple[Array, Array] | None = None,
    *,
    reverse: bool = False,
    segments: Segments | ArrayLike | None = None,
    method: str = "auto",
) -> tuple[LSTMCarry, tuple[Array, Mask]]:
    """Long short-term memory over the real steps of each row.

        i, f, g, o = split(x[t] @ w_x + h @ w_h + b)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)                      where mask[t]; elsewhere h, c stay
        y[t] = h                                      where mask[t], else 0

    Any mask works (mask class: any): right and left padding, holes, empty rows. The final carry is
    the state after the last real step.

    Args:
      x: `[batch, time, feature]`, floating.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      weights: `w_x [feature, 4 * hidden]`, `w_h [hidden, 4 * hidden]`, `b [4 * hidden]`, gates in
        the order i, f, g, o. Matrices multiply in the common dtype of `x` and `w_x`.
      carry: `(h, c)`, each `[batch, hidden]`; zeros where None. At least float32, in and out.
      reverse: from the last real step of each row to the first; outputs stay at their own steps.
      segments: ids `[batch, time]` or `Segments`, shorthand for `Segments` in the mask's place.
        The first segment that a row meets goes on from `carry`, every later one from zeros.
      method: `"scan"` is the reference, a masked `lax.scan`; `"auto"` the fastest that serves the
        arguments, which is the reference today.

    Returns:
      `(carry, (y, mask))`: `carry` an `LSTMCarry`, `y [batch, time, hidden]` in the dtype of `x`.

    Raises:
      TypeError: if `x` is not floating or `mask` not boolean.
      ValueError, MaskError: if `mask`, `segments`, `carry` or a weight has the wrong shape, or
        `method` is unknown.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.LSTMWeights(jnp.ones((1, 8)), jnp.ones((2, 8)), jnp.zeros(8))
      >>> x = jnp.array([[[1.0], [jnp.nan]]])
      >>> carry, (y, mask) = jm.recurrent.lstm(x, jnp.array([[True, False]]), weights)
      >>> y.shape, mask.tolist(), bool((carry.h == y[:, 0]).all())
      ((1, 2, 2), [[True, False]], True)

    Agrees with `keras.layers.LSTM` and `torch.nn.LSTM`. Source: Hochreiter and Schmidhuber, 1997,
    doi:10.1162/neco.1997.9.8.1735.
    """
    _check.choice(method, METHODS, "lstm", "method")
    x, mask, ids = masked_scan.with_segments(x, mask, segments, "lstm")
    weights = _check_lstm_weights(x, weights)
    carry = _lstm_carry(x, weights, carry)
    return _lstm(x, mask, ids, weights, carry, reverse=reverse)


# Compiled here, since the scan closes over the weights: op by op it would compile at every call.
@functools.partial(jax.jit, static_argnames="reverse")
def _lstm(
    x: Array, mask: Mask, ids: Ids | None, weights: LSTMWeights, carry: LSTMCarry, *, reverse: bool
) -> tuple[LSTMCarry, tuple[Array, Mask]]:
    safe, _ = ops.fill(x, mask)
    cell = functools.partial(lstm_cell, weights)
    with jax.named_scope("jaxmask.lstm"):
        return masked_scan.run(cell, safe, mask, ids, carry, reverse=reverse)


def zero_carry(batch: int, hidden: int, dtype: jax.typing.DTypeLike = jnp.float32) -> LSTMCarry:
    """The state that an LSTM starts from.

    Args:
      batch: number of rows.
      hidden: number of hidden features.
      dtype: float32 or wider.

    Returns:
      An `LSTMCarry` of zeros, each `[batch, hidden]`.

    Example:
      >>> import jaxmask as jm
      >>> jm.recurrent.zero_carry(2, 3).c.shape
      (2, 3)
    """
    zeros = jnp.zeros((batch, hidden), dtype)
    return LSTMCarry(zeros, zeros)


def _check_lstm_weights(x: Array, weights: LSTMWeights) -> LSTMWeights:
    where = "lstm"
    if not isinstance(weights, tuple) or len(weights) != 3:
        raise TypeError(
            f"{where}: `weights` must be `jm.recurrent.LSTMWeights(w_x, w_h, b)`, got "
            f"{type(weights).__name__}."
        )
    if x.ndim != 3:
        raise ValueError(f"{where}: `x` must be [batch, time, feature], got shape {x.shape}.")
    names = ("weights.w_x", "weights.w_h", "weights.b")
    weights = LSTMWeights(*map(_check.array, weights, names, [where] * 3))
    for array, name in zip((x, *weights), ("x", *names), strict=True):
        _check.floating(array, where, name)
    if weights.w_h.ndim != 2:
        raise ValueError(
            f"{where}: `weights.w_h` must be [hidden, 4*hidden], got {weights.w_h.shape}."
        )
    hidden = weights.w_h.shape[0]
    gates = 4 * hidden
    _check.shape(weights.w_h, (hidden, gates), "[hidden, 4*hidden]", where, "weights.w_h")
    _check.shape(weights.w_x, (x.shape[2], gates), "[feature, 4*hidden]", where, "weights.w_x")
    _check.shape(weights.b, (gates,), "[4*hidden]", where, "weights.b")
    return weights


def _lstm_carry(
    x: Array, weights: LSTMWeights, carry: LSTMCarry | tuple[Array, Array] | None
) -> LSTMCarry:
    batch, hidden = x.shape[0], weights.w_h.shape[0]
    dtype = jnp.promote_types(jnp.promote_types(x.dtype, weights.w_x.dtype), jnp.float32)
    if carry is None:
        return zero_carry(batch, hidden, dtype)
    if not isinstance(carry, tuple) or len(carry) != 2:
        raise TypeError(
            f"lstm: `carry` must be `LSTMCarry(h, c)` or a tuple `(h, c)`, got "
            f"{type(carry).__name__}."
        )
    h, c = map(_check.array, carry, ("carry.h", "carry.c"), ["lstm"] * 2)
    for array, name in ((h, "carry.h"), (c, "carry.c")):
        _check.floating(array, "lstm", name)
        _check.shape(array, (batch, hidden), "[batch, hidden]", "lstm", name)
    dtype = jnp.promote_types(dtype, jnp.promote_types(h.dtype, c.dtype))
    return LSTMCarry(h.astype(dtype), c.astype(dtype))
