"""The recurrent layers: equations, checks, and the choice of a method."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmask import _check, ops
from jaxmask._errors import refusing_pairs
from jaxmask._types import (
    Activation,
    Array,
    ArrayLike,
    Mask,
    Pair,
    Segments,
    StepMask,
    common_dtype,
)
from jaxmask.recurrent import _arguments
from jaxmask.recurrent import _scan as masked_scan
from jaxmask.recurrent._cells import (
    ExtendedLSTMWeights,
    GRUWeights,
    LSTMCarry,
    LSTMWeights,
    SimpleWeights,
    gru_cell,
    lstm_cell,
    simple_cell,
)
from jaxmask.recurrent._choice import Choice, choose, is_full, only_scan
from jaxmask.recurrent._engine import kinds, transforms, variants


@refusing_pairs
def lstm(
    x: ArrayLike,
    mask: Mask,
    weights: LSTMWeights | ExtendedLSTMWeights,
    carry: LSTMCarry | tuple[Array, Array] | None = None,
    *,
    activation: Activation = "tanh",
    gate_activation: Activation = "sigmoid",
    cell_clip: float | None = None,
    recurrent_dropout_rate: float = 0.0,
    key: Array | None = None,
    row_ids: ArrayLike | None = None,
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

    With peepholes `w_c`, i and f get `w_c[0] * c` and `w_c[1] * c` before their sigmoid, and o gets
    `w_c[2] * c` of the new `c`. With a projection `w_p`, `h = (sigmoid(o) * tanh(c)) @ w_p`.

    Any mask works (mask class: any): right and left padding, holes, empty rows. The final carry is
    the state after the last real step.

    Args:
      x: `[batch, time, feature]`, floating.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      weights: `w_x [feature, 4 * hidden]`, `w_h [hidden, 4 * hidden]`, `b [4 * hidden]`, gates in
        the order i, f, g, o. Matrices multiply in the common dtype of `x` and `w_x`. In
        `ExtendedLSTMWeights` also peepholes `w_c [3, hidden]` and a projection `w_p [hidden,
        projected]`, with which `w_h` is `[projected, 4 * hidden]`; either may be None.
      carry: `(h, c)`, `[batch, hidden]` (`h [batch, projected]`) and `[batch, hidden]`; zeros where
        None. At least float32, in and out.
      activation: in the place of both tanh: `"tanh"`, `"relu"`, `"sigmoid"`, `"hard_sigmoid"`,
        `"softsign"`, `"linear"`, or a function that acts on each element alone (one object for all
        calls: each is compiled for itself).
      gate_activation: in the place of the sigmoids.
      cell_clip: static; `c` is clipped between plus and minus this before it is read. None: not.
      recurrent_dropout_rate: static, from 0 to below 1, of the `h` that `w_h` multiplies: features
        of it that are dropped in a row are dropped at all of its steps, for all gates (Keras draws
        for each gate). Needs `key`.
      key: a JAX random key; noise is keyed by row, so padding changes none of it.
      row_ids: `[batch]`, integer: what keys the noise of each row; its batch index where None.
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
        `jaxmask.recurrent.explain`. A `jaxmask.recurrent.Choice` gives the sizes too. A
        projection and a recurrent dropout are left to the scan.

    Returns:
      `(carry, (y, mask))`: `carry` an `LSTMCarry`, `y [batch, time, hidden or
      projected]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> weights = jm.recurrent.LSTMWeights(jnp.ones((1, 8)), jnp.ones((2, 8)), jnp.zeros(8))
      >>> x = jnp.array([[[1.0], [jnp.nan]]])
      >>> carry, (y, mask) = jm.recurrent.lstm(x, jnp.array([[True, False]]), weights)
      >>> y.shape, mask.tolist(), bool((carry.h == y[:, 0]).all())
      ((1, 2, 2), [[True, False]], True)

    Agrees with `keras.layers.LSTM` and `torch.nn.LSTM`. Sources: Hochreiter and Schmidhuber, 1997,
    doi:10.1162/neco.1997.9.8.1735; peepholes: Gers et al., 2002,
    jmlr.org/papers/v3/gers02a.html; projection: Sak et al., 2014, arXiv:1402.1128; recurrent
    dropout: Gal and Ghahramani, 2016, arXiv:1512.05287.
    """
    cell_clip = _arguments.check_clip(cell_clip, "lstm")
    peeps, projection = (getattr(weights, name, None) is not None for name in ("w_c", "w_p"))
    options = _activations("lstm", activation, gate_activation)
    layer = _LSTM._replace(
        kind=variants.lstm_kind(activation, gate_activation, cell_clip, peeps),
        options=(*options, ("cell_clip", cell_clip)),
        only_scan=only_scan(projection=projection),
    )
    noise = _arguments.Noise(recurrent_dropout_rate, key, row_ids)
    return _run(layer, x, mask, weights, carry, reverse, segments, resets, method, noise)


@refusing_pairs
def gru(
    x: ArrayLike,
    mask: Mask,
    weights: GRUWeights,
    carry: Array | None = None,
    *,
    reset_after: bool = True,
    activation: Activation = "tanh",
    gate_activation: Activation = "sigmoid",
    recurrent_dropout_rate: float = 0.0,
    key: Array | None = None,
    row_ids: ArrayLike | None = None,
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
      x, mask, activation, gate_activation, recurrent_dropout_rate, key, row_ids, reverse, segments,
        resets, method: as in `lstm`. What `z * h` reads is not dropped (in Keras it is).

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
    options = _activations("gru", activation, gate_activation)
    reset_after = _check.flag(reset_after, "gru", "reset_after")
    layer = _GRU._replace(
        kind=variants.gru_kind(activation, gate_activation),
        options=(*options, ("reset_after", reset_after)),
        only_scan=only_scan(reset_after=reset_after),
    )
    noise = _arguments.Noise(recurrent_dropout_rate, key, row_ids)
    return _run(layer, x, mask, weights, carry, reverse, segments, resets, method, noise)


@refusing_pairs
def simple(
    x: ArrayLike,
    mask: Mask,
    weights: SimpleWeights,
    carry: Array | None = None,
    *,
    activation: Activation = "tanh",
    recurrent_dropout_rate: float = 0.0,
    key: Array | None = None,
    row_ids: ArrayLike | None = None,
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
      x, mask, activation, recurrent_dropout_rate, key, row_ids, reverse, segments, resets, method:
        as in `lstm`.

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
    options = _activations("simple", activation)
    layer = _SIMPLE._replace(kind=variants.simple_kind(activation), options=options)
    noise = _arguments.Noise(recurrent_dropout_rate, key, row_ids)
    return _run(layer, x, mask, weights, carry, reverse, segments, resets, method, noise)


def _activations(where: str, *given: Activation) -> tuple[tuple[str, Any], ...]:
    options = tuple(zip(("activation", "gate_activation"), given, strict=False))
    for name, value in options:
        _check.activation(value, where, name)
    return options


class _Layer(NamedTuple):
    """What the layers differ in; static under `jit`."""

    name: str
    gates: int
    weights: type
    cell: Callable  # for the scan
    kind: kinds.Kind  # for the engine
    options: tuple[tuple[str, Any], ...] = ()  # of the cell
    only_scan: str | None = None  # why only the scan has it


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
    noise: _arguments.Noise,
) -> tuple[Any, Pair]:
    """Check the arguments, choose a method, and run it."""
    options = dict(layer.options)
    x, mask, starts = masked_scan.with_starts(x, mask, segments, resets, layer.name)
    reverse = _check.flag(reverse, layer.name, "reverse")
    two_biases = options.get("reset_after", False)
    weights = _arguments.check_weights(
        x, weights, layer.weights, layer.gates, layer.name, biases=2 if two_biases else 1
    )
    carry = _arguments.check_carry(x, weights, carry, layer.name)
    dropped = _arguments.recurrent_dropout(noise, x, weights, layer.name)
    choice = choose(
        *(method, x, weights.w_h.shape[0]),
        only_scan=layer.only_scan or only_scan(recurrent_dropout=dropped is not None),
        full=is_full(mask, segments),
        where=layer.name,
    )
    try:
        given = x, mask, starts, weights, carry, dropped
        return _compiled(layer, *given, reverse=reverse, choice=choice)
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
    dropped: Array | None,
    *,
    reverse: bool,
    choice: Choice,
) -> tuple[Any, Pair]:
    with jax.named_scope(f"jaxmask.{layer.name}"):
        if choice.method == "scan":
            safe, _ = ops.fill(x, mask)
            options = {**dict(layer.options), "dropped": dropped}
            cell = functools.partial(layer.cell, weights, **options)
            return masked_scan.run(cell, safe, mask, starts, carry, reverse=reverse)
        state = tuple(jax.tree.leaves(carry))
        state, pair = transforms.run(
            *(layer.kind, choice, x, mask, starts, _of_engine(weights), state), reverse=reverse
        )
        return jax.tree.unflatten(jax.tree.structure(carry), state), pair


def _of_engine(weights: Any) -> tuple[Array, Array, Array]:
    """Matrices and a bias, behind which peepholes stand as more of it, gate by gate."""
    w_x, w_h, b, *more = weights
    if not more or more[0] is None:
        return w_x, w_h, b
    i, f, o = more[0]
    dtype = common_dtype(b.dtype, i.dtype)
    peeps = jnp.concatenate([i, f, jnp.zeros_like(i), o])
    return w_x, w_h, jnp.concatenate([b.astype(dtype), peeps.astype(dtype)])
