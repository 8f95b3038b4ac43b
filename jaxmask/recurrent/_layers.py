"""The recurrent layers: equations, checks, and the choice of a method."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxmask import _check, ops
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask
from jaxmask.recurrent import _arguments
from jaxmask.recurrent import _scan as masked_scan
from jaxmask.recurrent._cells import (
    ACTIVATIONS,
    GRUWeights,
    LSTMCarry,
    LSTMWeights,
    SimpleWeights,
    gru_cell,
    lstm_cell,
    simple_cell,
)
from jaxmask.recurrent._choice import Choice, choose, is_full
from jaxmask.recurrent._engine import kinds, transforms


def lstm(
    x: ArrayLike,
    mask: Mask,
    weights: LSTMWeights,
    carry: LSTMCarry | tuple[Array, Array] | None = None,
    *,
    reverse: bool = False,
    segments: Segments | ArrayLike | None = None,
    resets: ArrayLike | None = None,
    method: str | Choice = "auto",
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
        In each row the first segment to run starts from `carry`, the others from zeros.
      resets: `[batch, time]`, boolean: where an episode begins. The state is zeros before that step
        (in reverse, after it). A reset at a masked step counts too.
      method: `"scan"` is the reference, a masked `lax.scan`; `"tiled"` works only where real steps
        are, in values and in gradients; `"dense"` is a scan with its own backward, which keeps
        what a step computed and takes one product per weight; `"pallas"` is the same with a forward
        that keeps state and weights on the chip of a TPU, and is interpreted, slowly, elsewhere.
        These three have no forward-mode derivative. `"auto"` takes one of the first three, see
        `jaxmask.recurrent.explain`. A `jaxmask.recurrent.Choice` gives the sizes too.

    Returns:
      `(carry, (y, mask))`: `carry` an `LSTMCarry`, `y [batch, time, hidden]` in the dtype of `x`.

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
    return _run(_LSTM, x, mask, weights, carry, reverse, segments, resets, method)


def gru(
    x: ArrayLike,
    mask: Mask,
    weights: GRUWeights,
    carry: Array | None = None,
    *,
    reset_after: bool = True,
    reverse: bool = False,
    segments: Segments | ArrayLike | None = None,
    resets: ArrayLike | None = None,
    method: str | Choice = "auto",
) -> tuple[Array, Pair]:
    """Gated recurrent unit over the real steps of each row.

        r, z = sigmoid(x[t] @ w_x + h @ w_h + b)               the first two thirds of the gates
        n = tanh(x[t] @ w_xn + b_n + r * (h @ w_hn + b_hn))    with `reset_after`
        n = tanh(x[t] @ w_xn + b_n + (r * h) @ w_hn)           without
        h = (1 - z) * n + z * h                                where mask[t]; elsewhere h stays
        y[t] = h                                               where mask[t], else 0

    Mask class and final carry as of `lstm`.

    Weights of other libraries, where `swap` exchanges the first and the second third of the last
    axis (their order is z, r, n):

        PyTorch   GRUWeights(weight_ih.T, weight_hh.T, stack([bias_ih, bias_hh]))
        Flax      GRUWeights(dense_i.kernel, dense_h.kernel, dense_i.bias)
        Keras     GRUWeights(swap(kernel), swap(recurrent_kernel), swap(bias))

    Args:
      weights: `w_x [feature, 3 * hidden]`, `w_h [hidden, 3 * hidden]`, gates in the order r, z, n,
        and `b [3 * hidden]`, or `[2, 3 * hidden]`: the bias of the input and that of the state,
        allowed only with `reset_after`. Matrices multiply in the common dtype of `x`, `w_x`.
      carry: `h [batch, hidden]`; zeros where None. At least float32, in and out.
      reset_after: True in PyTorch, in Flax and by default in Keras; False in the paper.
      x, mask, reverse, segments, resets, method: as in `lstm`.

    Returns:
      `(h, (y, mask))`: `h [batch, hidden]`, and `y [batch, time, hidden]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.GRUWeights(jnp.ones((1, 6)), jnp.ones((2, 6)), jnp.zeros(6))
      >>> x = jnp.array([[[1.0], [jnp.nan]]])
      >>> h, (y, mask) = jm.recurrent.gru(x, jnp.array([[True, False]]), weights)
      >>> y.shape, mask.tolist(), bool((h == y[:, 0]).all())
      ((1, 2, 2), [[True, False]], True)

    Agrees with `keras.layers.GRU`, `torch.nn.GRU` and `flax.nnx.GRUCell`. Source: Cho et al., 2014,
    doi:10.3115/v1/D14-1179.
    """
    layer = _GRU._replace(options=(("reset_after", reset_after),))
    return _run(layer, x, mask, weights, carry, reverse, segments, resets, method)


def simple(
    x: ArrayLike,
    mask: Mask,
    weights: SimpleWeights,
    carry: Array | None = None,
    *,
    activation: str = "tanh",
    reverse: bool = False,
    segments: Segments | ArrayLike | None = None,
    resets: ArrayLike | None = None,
    method: str | Choice = "auto",
) -> tuple[Array, Pair]:
    """Simple recurrent network over the real steps of each row.

        h = activation(x[t] @ w_x + h @ w_h + b)     where mask[t]; elsewhere h stays
        y[t] = h                                     where mask[t], else 0

    Mask class and final carry as of `lstm`.

    Args:
      weights: `w_x [feature, hidden]`, `w_h [hidden, hidden]`, `b [hidden]` (of PyTorch's two
        biases the sum). Matrices multiply in the common dtype of `x` and `w_x`.
      carry: `h [batch, hidden]`; zeros where None. At least float32, in and out.
      activation: `"tanh"` or `"relu"`.
      x, mask, reverse, segments, resets, method: as in `lstm`.

    Returns:
      `(h, (y, mask))`: `h [batch, hidden]`, and `y [batch, time, hidden]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.SimpleWeights(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.zeros(1))
      >>> x = jnp.array([[[1.0], [jnp.nan], [2.0]]])
      >>> mask = jnp.array([[True, False, True]])
      >>> _, (y, _) = jm.recurrent.simple(x, mask, weights, activation="relu")
      >>> y[0, :, 0].tolist()
      [1.0, 0.0, 3.0]

    Agrees with `keras.layers.SimpleRNN` and `torch.nn.RNN`. Source: Elman, 1990,
    doi:10.1207/s15516709cog1402_1.
    """
    _check.choice(activation, ACTIVATIONS, "simple", "activation")
    layer = _SIMPLE._replace(kind=kinds.SIMPLE[activation], options=(("activation", activation),))
    return _run(layer, x, mask, weights, carry, reverse, segments, resets, method)


class _Layer(NamedTuple):
    """What the layers differ in; static under `jit`."""

    name: str
    gates: int
    weights: type
    cell: Callable  # for the scan
    kind: kinds.Kind  # for the engine
    options: tuple[tuple[str, Any], ...] = ()  # of the cell


_LSTM = _Layer("lstm", 4, LSTMWeights, lstm_cell, kinds.LSTM)
_GRU = _Layer("gru", 3, GRUWeights, gru_cell, kinds.GRU)
_SIMPLE = _Layer("simple", 1, SimpleWeights, simple_cell, kinds.SIMPLE["tanh"])


def _run(
    layer: _Layer,
    x: ArrayLike,
    mask: Mask,
    weights: Any,
    carry: Any,
    reverse: bool,
    segments: Segments | ArrayLike | None,
    resets: ArrayLike | None,
    method: str | Choice,
) -> tuple[Any, Pair]:
    """Check the arguments, choose a method, and run it."""
    options = dict(layer.options)
    x, mask, starts = masked_scan.with_starts(x, mask, segments, resets, layer.name)
    two_biases = options.get("reset_after", False)
    weights = _arguments.check_weights(
        x, weights, layer.weights, layer.gates, layer.name, biases=2 if two_biases else 1
    )
    carry = _arguments.check_carry(x, weights, carry, layer.name)
    choice = choose(
        *(method, x, weights.w_h.shape[0]),
        reset_after=options.get("reset_after", True),
        full=is_full(mask, segments),
        where=layer.name,
    )
    try:
        return _compiled(layer, x, mask, starts, weights, carry, reverse=reverse, choice=choice)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise TypeError(
            f'{layer.name}: `method="tiled"`, "dense" and "pallas", asked for or taken by "auto", '
            "have no forward-mode derivative (`jax.jvp`, `jax.jacfwd`). Pass "
            '`method="scan"`.'
        ) from error


# Compiled here, since the scan closes over the weights: op by op it would compile at every call.
@functools.partial(jax.jit, static_argnames=("layer", "reverse", "choice"))
def _compiled(
    layer: _Layer,
    x: Array,
    mask: Mask,
    starts: StepMask | None,
    weights: Any,
    carry: Any,
    *,
    reverse: bool,
    choice: Choice,
) -> tuple[Any, Pair]:
    with jax.named_scope(f"jaxmask.{layer.name}"):
        if choice.method == "scan":
            safe, _ = ops.fill(x, mask)
            cell = functools.partial(layer.cell, weights, **dict(layer.options))
            return masked_scan.run(cell, safe, mask, starts, carry, reverse=reverse)
        state = tuple(jax.tree.leaves(carry))
        state, pair = transforms.run(
            *(layer.kind, choice, x, mask, starts, weights, state), reverse=reverse
        )
        return jax.tree.unflatten(jax.tree.structure(carry), state), pair
