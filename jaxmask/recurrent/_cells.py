"""One step of a recurrence for a whole batch: no time axis and no mask."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Float

from jaxmask import _check
from jaxmask._types import Activation, Array, common_dtype

Dropped: TypeAlias = Float[Array, "batch hidden"] | None

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "softsign": jax.nn.soft_sign,
    "linear": lambda x: x,
}


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


class ExtendedLSTMWeights(NamedTuple):
    """Parameters of an LSTM layer with peepholes, a projection of its output, or both.

    Attributes:
      w_x, b: as in `LSTMWeights`.
      w_h: `[hidden, 4 * hidden]`, floating; `[projected, 4 * hidden]` with `w_p`.
      w_c: peepholes, `[3, hidden]`: what each feature of the cell adds to its gates i, f and o.
      w_p: projection of the output, `[hidden, projected]`, `weight_hr.T` of PyTorch's `proj_size`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.LSTMWeights(jnp.ones((3, 8)), jnp.ones((2, 8)), jnp.zeros(8))
      >>> peeping = jm.recurrent.ExtendedLSTMWeights(*weights, w_c=jnp.zeros((3, 2)))
      >>> peeping.w_p is None
      True

    Sources: Gers et al., 2002, jmlr.org/papers/v3/gers02a.html; Sak et al., 2014, arXiv:1402.1128.
    """

    w_x: Float[Array, "feature 4*hidden"]
    w_h: Float[Array, "output 4*hidden"]
    b: Float[Array, "4*hidden"]
    w_c: Float[Array, "3 hidden"] | None = None
    w_p: Float[Array, "hidden output"] | None = None


# What an LSTM takes.
LSTM_WEIGHTS = (LSTMWeights, ExtendedLSTMWeights)


class GRUWeights(NamedTuple):
    """Parameters of one GRU layer; gates side by side in the order r, z, n.

    That is the order of PyTorch, cuDNN and Flax. Keras has z, r, n, so its first two thirds must be
    swapped. Nothing is checked when it is built; `jm.recurrent.gru` checks the shapes it is given.

    Attributes:
      w_x: `[feature, 3 * hidden]`, floating.
      w_h: `[hidden, 3 * hidden]`, floating.
      b: `[3 * hidden]`, or `[2, 3 * hidden]`: separate biases of the input and of the state,
        as in PyTorch and Keras. Keeping them separate matters in the gate n alone.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.GRUWeights(
      ...     w_x=jnp.zeros((3, 6)), w_h=jnp.zeros((2, 6)), b=jnp.zeros(6)
      ... )
      >>> weights.w_h.shape
      (2, 6)

    Source: the gate order of PyTorch and Flax.
    """

    w_x: Float[Array, "feature 3*hidden"]
    w_h: Float[Array, "hidden 3*hidden"]
    b: Float[Array, "*two 3*hidden"]


class SimpleWeights(NamedTuple):
    """Parameters of one simple recurrent layer.

    Nothing is checked when it is built; `jm.recurrent.simple` checks the shapes it is given.

    Attributes:
      w_x: `[feature, hidden]`, floating.
      w_h: `[hidden, hidden]`, floating.
      b: `[hidden]`, floating: the sum of both biases of PyTorch.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.SimpleWeights(
      ...     w_x=jnp.zeros((3, 2)), w_h=jnp.zeros((2, 2)), b=jnp.zeros(2)
      ... )
      >>> weights.w_h.shape
      (2, 2)
    """

    w_x: Float[Array, "feature hidden"]
    w_h: Float[Array, "hidden hidden"]
    b: Float[Array, "hidden"]


class LSTMCarry(NamedTuple):
    """State of an LSTM: the output `h` and the cell `c`, each `[batch, hidden]`.

    With a projection `h` is `[batch, projected]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> carry = jm.recurrent.LSTMCarry(h=jnp.zeros((2, 3)), c=jnp.zeros((2, 3)))
      >>> carry.h.shape
      (2, 3)
    """

    h: Float[Array, "batch output"]
    c: Float[Array, "batch hidden"]


Weights: TypeAlias = LSTMWeights | ExtendedLSTMWeights | GRUWeights | SimpleWeights


def zero_carry(
    weights: Weights,
    batch: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Any:
    """The carry that `lstm`, `gru` or `simple` starts from where it is given none.

    `linear` has no weights, and starts from zeros like a step of `x`; a cell of `scan` chooses
    the layout of its carry, and Flax's make it with `initialize_carry`.

    Args:
      weights: of the layer; they determine the type and size of its carry.
      batch: number of rows.
      dtype: float32 or wider.

    Returns:
      Zeros `h [batch, hidden]`; for the weights of an LSTM an `LSTMCarry` of them.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.LSTMWeights(jnp.ones((3, 8)), jnp.ones((2, 8)), jnp.zeros(8))
      >>> jm.recurrent.zero_carry(weights, batch=5).c.shape
      (5, 2)
    """
    batch = _check.rows(batch, "zero_carry")
    shape = batch, weights.w_h.shape[0]
    if isinstance(weights, LSTM_WEIGHTS):
        # Two arrays, since one buffer cannot be donated twice.
        cell = batch, weights.w_h.shape[1] // 4
        return LSTMCarry(jnp.zeros(shape, dtype), jnp.zeros(cell, dtype))
    return jnp.zeros(shape, dtype)


for _tuple in (LSTMWeights, ExtendedLSTMWeights, GRUWeights, SimpleWeights, LSTMCarry):
    jax.export.register_namedtuple_serialization(
        _tuple, serialized_name=f"jaxmask.{_tuple.__name__}"
    )


def lstm_cell(
    weights: LSTMWeights | ExtendedLSTMWeights,
    carry: LSTMCarry,
    x: Float[Array, "batch feature"],
    *,
    activation: Activation = "tanh",
    gate_activation: Activation = "sigmoid",
    cell_clip: float | None = None,
    dropped: Dropped = None,
) -> tuple[LSTMCarry, Float[Array, "batch output"]]:
    """One LSTM step.

        i, f, g, o = split(x @ w_x + h @ w_h + b)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    With peepholes `w_c`, i and f get `w_c[0] * c` and `w_c[1] * c` before their sigmoid, and o gets
    `w_c[2] * c'`. With a projection, `h' = (sigmoid(o) * tanh(c')) @ w_p`.

    The matrices multiply in the common dtype of `x` and `w_x` and add up in the dtype of the
    carry; gates and state stay in the dtype of the carry.

    Args:
      weights: gates in the order i, f, g, o.
      carry: `h` and `c`, each `[batch, hidden]`.
      x: `[batch, feature]`.
      activation: in the place of tanh: `"tanh"`, `"relu"`, `"sigmoid"`, `"hard_sigmoid"`,
        `"softsign"`, `"linear"`, or a function that acts on each element alone.
      gate_activation: in the place of the sigmoid.
      cell_clip: `c'` is clipped between plus and minus this, before it is read. None: not.
      dropped: `[batch, hidden]`: what multiplies `h` before its product, where it is not 0; a
        recurrent dropout. None: nothing.

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
    if not (isinstance(carry, tuple) and len(carry) == 2):
        raise TypeError(
            f"lstm_cell: `carry` must be `LSTMCarry(h, c)`, got {_check.kind_of(carry)}."
        )
    carry, cells = LSTMCarry(*carry), weights.w_h.shape[1] // 4
    x = _checked(x, weights, carry.h, weights.w_h.shape[0], "lstm_cell", "carry.h")
    x = _checked(x, weights, carry.c, cells, "lstm_cell", "carry.c")
    state = carry.c.dtype
    act, gate = activation_of(activation), activation_of(gate_activation)
    product = _product(x, weights, state)
    gates = product(x, weights.w_x) + product(scaled(carry.h, dropped), weights.w_h)
    gates = with_bias(gates, weights.b.astype(state))
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    w_c, w_p = (getattr(weights, name, None) for name in ("w_c", "w_p"))
    peeps = None if w_c is None else w_c.astype(state)
    if peeps is not None:
        i, f = i + peeps[0] * carry.c, f + peeps[1] * carry.c
    c = gate(f) * carry.c + gate(i) * act(g)
    c = c if cell_clip is None else jnp.clip(c, -cell_clip, cell_clip)
    h = gate(o if peeps is None else o + peeps[2] * c) * act(c)
    h = h if w_p is None else product(h, w_p)
    return LSTMCarry(h, c), h.astype(x.dtype)


def gru_cell(
    weights: GRUWeights,
    carry: Float[Array, "batch hidden"],
    x: Float[Array, "batch feature"],
    *,
    reset_after: bool = True,
    activation: Activation = "tanh",
    gate_activation: Activation = "sigmoid",
    dropped: Dropped = None,
) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]:
    """One GRU step.

        r, z = sigmoid(x @ w_x + h @ w_h + b)              the first two thirds of the gates
        n = tanh(x @ w_xn + b_n + r * (h @ w_hn + b_hn))   with `reset_after`
        n = tanh(x @ w_xn + b_n + (r * h) @ w_hn)          without
        h' = (1 - z) * n + z * h

    The matrices multiply in the common dtype of `x` and `w_x` and add up in the dtype of the
    carry; gates and state stay in the dtype of the carry.

    Args:
      weights: gates in the order r, z, n.
      carry: `h [batch, hidden]`.
      x: `[batch, feature]`.
      reset_after: reset the product of the state, not the state itself.
      activation, gate_activation, dropped: as in `lstm_cell`. What `z * h` reads is not dropped.

    Returns:
      The pair `(h', h')`, the second in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.GRUWeights(jnp.ones((1, 3)), jnp.ones((1, 3)), jnp.zeros(3))
      >>> _, y = jm.recurrent.gru_cell(weights, jnp.zeros((1, 1)), jnp.ones((1, 1)))
      >>> round(float(y[0, 0]), 4)
      0.2048

    Source: Cho et al., 2014, doi:10.3115/v1/D14-1179; reset after the product: cuDNN's form.
    """
    x = _checked(x, weights, carry, weights.w_h.shape[0], "gru_cell")
    product = _product(x, weights, carry.dtype)
    bias = weights.b.astype(carry.dtype)
    b_x, b_h = (bias, None) if bias.ndim == 1 else (bias[0], bias[1])
    x_r, x_z, x_n = jnp.split(with_bias(product(x, weights.w_x), b_x), 3, axis=-1)
    act, gate = activation_of(activation), activation_of(gate_activation)
    read = scaled(carry, dropped)
    h_r, h_z, h_n = jnp.split(with_bias(product(read, weights.w_h), b_h), 3, axis=-1)
    r, z = gate(x_r + h_r), gate(x_z + h_z)
    if reset_after:
        n = act(x_n + r * h_n)
    else:
        n = act(x_n + product(r * read, weights.w_h[:, 2 * carry.shape[-1] :]))
    h = (1 - z) * n + z * carry
    return h, h.astype(x.dtype)


def simple_cell(
    weights: SimpleWeights,
    carry: Float[Array, "batch hidden"],
    x: Float[Array, "batch feature"],
    *,
    activation: Activation = "tanh",
    dropped: Dropped = None,
) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]:
    """One step of a simple recurrent network.

        h' = activation(x @ w_x + h @ w_h + b)

    The matrices multiply in the common dtype of `x` and `w_x` and add up in the dtype of the
    carry, in which the state stays.

    Args:
      weights: `w_x`, `w_h` and `b`.
      carry: `h [batch, hidden]`.
      x: `[batch, feature]`.
      activation, dropped: as in `lstm_cell`.

    Returns:
      The pair `(h', h')`, the second in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.SimpleWeights(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.zeros(1))
      >>> _, y = jm.recurrent.simple_cell(weights, jnp.ones((1, 1)), jnp.ones((1, 1)))
      >>> round(float(y[0, 0]), 4)
      0.964

    Source: Elman, 1990, doi:10.1207/s15516709cog1402_1.
    """
    x = _checked(x, weights, carry, weights.w_h.shape[0], "simple_cell")
    product = _product(x, weights, carry.dtype)
    total = product(x, weights.w_x) + product(scaled(carry, dropped), weights.w_h)
    h = activation_of(activation)(with_bias(total, weights.b.astype(carry.dtype)))
    return h, h.astype(x.dtype)


def _checked(
    x: Array, weights: Weights, state: Array, size: int, where: str, name: str = "carry"
) -> Array:
    """`x` as an array, where it and the state fit the weights."""
    x, features = _check.array(x, "x", where), weights.w_x.shape[0]
    if x.ndim < 1 or x.shape[-1] != features:
        raise ValueError(f"{where}: `x` must be [batch, feature] of {features}, got {x.shape}.")
    state = _check.array(state, name, where)
    _check.floating(state, where, name)
    _check.shape(state, (*x.shape[:-1], size), "[batch, hidden]", where, name)
    return x


def activation_of(given: Activation) -> Callable[[Array], Array]:
    return ACTIVATIONS[given] if isinstance(given, str) else given


def scaled(h: Array, factor: Array | None) -> Array:
    """Multiplied, and 0 where the factor is: 0 times nan would be nan."""
    return h if factor is None else jnp.where(factor == 0, 0, h * factor)


def with_bias(z: Array, b: Array | None) -> Array:
    """Add a bias, one number per feature, if there is one."""
    return z if b is None else z + jax.lax.broadcast_to_rank(b, z.ndim)


def _product(
    x: Array,
    weights: Weights,
    state: jnp.dtype,
) -> Callable[[Array, Array], Array]:
    """Multiply in the common dtype of `x` and `w_x`, and add up in that of the state."""
    compute = common_dtype(x.dtype, weights.w_x.dtype)

    def product(a: Array, w: Array) -> Array:
        return jnp.matmul(a.astype(compute), w.astype(compute), preferred_element_type=state)

    return product
