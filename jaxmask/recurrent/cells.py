"""One step of a recurrence for a whole batch: no time axis and no mask."""

from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Float

from jaxmask._types import Array


class LSTMWeights(NamedTuple):
    """Parameters of one LSTM layer; gates side by side in the order i, f, g, o.

    Nothing is checked when it is built; `jm.recurrent.lstm` checks the shapes it is given.

    Attributes:
      w_x: `[feature, 4 * hidden]`, floating.
      w_h: `[hidden, 4 * hidden]`, floating.
      b: `[4 * hidden]`, floating.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.LSTMWeights(
      ...     w_x=jnp.zeros((3, 8)), w_h=jnp.zeros((2, 8)), b=jnp.zeros(8)
      ... )
      >>> weights.w_h.shape
      (2, 8)

    Source: the gate order of Keras and PyTorch.
    """

    w_x: Float[Array, "feature 4*hidden"]
    w_h: Float[Array, "hidden 4*hidden"]
    b: Float[Array, "4*hidden"]


class LSTMCarry(NamedTuple):
    """State of an LSTM: the output `h` and the cell `c`, each `[batch, hidden]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> carry = jm.recurrent.LSTMCarry(h=jnp.zeros((2, 3)), c=jnp.zeros((2, 3)))
      >>> carry.h.shape
      (2, 3)
    """

    h: Float[Array, "batch hidden"]
    c: Float[Array, "batch hidden"]


for _tuple, _name in ((LSTMWeights, "jaxmask.LSTMWeights"), (LSTMCarry, "jaxmask.LSTMCarry")):
    jax.export.register_namedtuple_serialization(_tuple, serialized_name=_name)


def lstm_cell(
    weights: LSTMWeights, carry: LSTMCarry, x: Float[Array, "batch feature"]
) -> tuple[LSTMCarry, Float[Array, "batch hidden"]]:
    """One LSTM step.

        i, f, g, o = split(x @ w_x + h @ w_h + b)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    The matrices multiply in the common dtype of `x` and `w_x` and add up in the dtype of the
    carry; gates and state stay in the dtype of the carry.

    Args:
      weights: gates in the order i, f, g, o.
      carry: `h` and `c`, each `[batch, hidden]`.
      x: `[batch, feature]`.

    Returns:
      The pair `(carry, h')`, `h'` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.LSTMWeights(jnp.ones((1, 4)), jnp.ones((1, 4)), jnp.zeros(4))
      >>> carry = jm.recurrent.LSTMCarry(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> carry, y = jm.recurrent.lstm_cell(weights, carry, jnp.ones((1, 1)))
      >>> round(float(y[0, 0]), 4)
      0.3696

    Source: Hochreiter and Schmidhuber, 1997, doi:10.1162/neco.1997.9.8.1735, with the forget gate
    of Gers et al., 2000, doi:10.1162/089976600300015015.
    """
    state = carry.c.dtype
    compute = jnp.promote_types(x.dtype, weights.w_x.dtype)

    def product(a: Array, w: Array) -> Array:
        return jnp.matmul(a.astype(compute), w.astype(compute), preferred_element_type=state)

    gates = product(x, weights.w_x) + product(carry.h, weights.w_h) + weights.b.astype(state)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * carry.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return LSTMCarry(h, c), h.astype(x.dtype)
