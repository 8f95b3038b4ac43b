"""Recurrent modules: parameters and configuration; the arithmetic is `jaxmask.recurrent`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, masks, ops, pool, recurrent
from jaxmask._types import Array, ArrayLike, Mask, Pair, PyTree
from jaxmask.nn._base import MaskedModule

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def unit_forget_bias(
    key: Array, shape: tuple[int], dtype: jax.typing.DTypeLike = jnp.float32
) -> Array:
    """Zeros, but ones for the forget gate, so that an untrained cell remembers.

    Args:
      key: unused, as initializers take one.
      shape: `(4 * hidden,)`, gates in the order i, f, g, o.
      dtype: of the result.

    Returns:
      `[4 * hidden]`.

    Example:
      >>> import jax, jaxmask as jm
      >>> jm.nn.unit_forget_bias(jax.random.key(0), (8,)).tolist()
      [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]

    Source: Jozefowicz et al., 2015, proceedings.mlr.press/v37/jozefowicz15.html; Keras's default.
    """
    return jnp.zeros((4, shape[0] // 4), dtype).at[1].set(1).reshape(shape)


class Recurrent(MaskedModule):
    """What recurrent modules share: a call from the initial carry, sequences or last steps."""

    return_sequences: bool
    reverse: bool

    def initial_carry(self, batch: int) -> PyTree:
        """The carry that a call starts from, for `batch` rows."""
        raise NotImplementedError

    def _carry_for(self, x: Array) -> PyTree:
        return self.initial_carry(x.shape[0])

    def run(
        self, carry: PyTree, x: ArrayLike, mask: Mask = None, *, reverse: bool | None = None
    ) -> tuple[PyTree, Pair]:
        """Run from `carry` and return `(carry, (y, mask))`, in `lax.scan`'s order."""
        raise NotImplementedError

    def __call__(self, x: ArrayLike, mask: Mask = None, *, reverse: bool | None = None) -> Pair:
        """Run from the initial carry and return `(y, mask)`, or `(last, row_mask)`."""
        x, mask = _check.pair(x, mask, type(self).__name__, over_time=True)
        reverse = self.reverse if reverse is None else reverse
        _, (y, mask) = self.run(self._carry_for(x), x, mask, reverse=reverse)
        if self.return_sequences:
            return y, mask
        # In reverse the step that is computed last is the first of the row.
        return pool.first(y, mask) if reverse else pool.last(y, mask)

    def compute_mask(self, x: ArrayLike, mask: Mask = None) -> Mask:
        """The mask that calling the module gives, without running it."""
        _, mask = _check.pair(x, mask, type(self).__name__, over_time=True)
        return mask if self.return_sequences else masks.rows(mask)


class LSTM(Recurrent):
    """Long short-term memory; the arithmetic is `jaxmask.recurrent.lstm`.

    A masked step neither updates the state nor emits: `y` is exactly 0 there, so the final state
    is the one after the last real step wherever the padding lies (mask class: any).

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time, hidden_features]` and the same mask; with `return_sequences=False` to
    `last [batch, hidden_features]` and a row mask `[batch]`.

    Args:
      in_features: size of the last axis of `x`.
      hidden_features: size of the last axis of `y`, `h` and `c`.
      return_sequences: give every step, not the last one computed.
      reverse: from the last real step of each row to the first; outputs stay at their own steps.
      method: see `jaxmask.recurrent.lstm`.
      kernel_init: initializer of `w_x [in_features, 4 * hidden_features]`.
      recurrent_kernel_init: initializer of `w_h [hidden_features, 4 * hidden_features]`.
      bias_init: initializer of `b [4 * hidden_features]`, gates in the order i, f, g, o.
      kernel_metadata: metadata of `w_x`, such as its sharding.
      recurrent_kernel_metadata: metadata of `w_h`.
      bias_metadata: metadata of `b`.
      dtype: what `x` and the weights are cast to; where None, `y` has the dtype of `x`.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Raises:
      TypeError, ValueError, MaskError: on call, under the rules of `jaxmask.recurrent.lstm`.

    Example:
      >>> import jaxmask as jm
      >>> from flax import nnx
      >>> x, mask = jm.pad_sequences([[[1.0], [2.0]], [[3.0]]])
      >>> layer = jm.nn.LSTM(1, 4, rngs=nnx.Rngs(0))
      >>> y, mask = layer(x, mask)
      >>> y.shape, mask.tolist()
      ((2, 2, 4), [[True, True], [True, False]])

    Agrees with `keras.layers.LSTM`. Source: Hochreiter and Schmidhuber, 1997,
    doi:10.1162/neco.1997.9.8.1735.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        return_sequences: bool = True,
        reverse: bool = False,
        method: str = "auto",
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),
        recurrent_kernel_init: nnx.Initializer = nnx.initializers.orthogonal(),
        bias_init: nnx.Initializer = unit_forget_bias,
        kernel_metadata: Mapping[str, Any] = _NOTHING,
        recurrent_kernel_metadata: Mapping[str, Any] = _NOTHING,
        bias_metadata: Mapping[str, Any] = _NOTHING,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        gates = 4 * hidden_features
        w_x = kernel_init(rngs.params(), (in_features, gates), param_dtype)
        w_h = recurrent_kernel_init(rngs.params(), (hidden_features, gates), param_dtype)
        b = bias_init(rngs.params(), (gates,), param_dtype)
        self.w_x = nnx.Param(w_x, **kernel_metadata)
        self.w_h = nnx.Param(w_h, **recurrent_kernel_metadata)
        self.b = nnx.Param(b, **bias_metadata)
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.return_sequences = return_sequences
        self.reverse = reverse
        self.method = method
        self.dtype = dtype

    def initial_carry(self, batch: int) -> recurrent.LSTMCarry:
        """Zeros, float32."""
        return recurrent.zero_carry(batch, self.hidden_features)

    def run(
        self,
        carry: recurrent.LSTMCarry | tuple[Array, Array],
        x: ArrayLike,
        mask: Mask = None,
        *,
        reverse: bool | None = None,
    ) -> tuple[recurrent.LSTMCarry, Pair]:
        """Run from `carry` and return `(carry, (y, mask))`, whatever `return_sequences` says."""
        x = _check.array(x, "x", "LSTM")
        weights = recurrent.LSTMWeights(self.w_x[...], self.w_h[...], self.b[...])
        if self.dtype is not None:
            x, weights = jax.tree.map(lambda a: a.astype(self.dtype), (x, weights))
        reverse = self.reverse if reverse is None else reverse
        return recurrent.lstm(x, mask, weights, carry, reverse=reverse, method=self.method)


class RNN(Recurrent):
    """Any Flax NNX cell over padded rows; the arithmetic is `jaxmask.recurrent.scan`.

    Mask class: any. The cell never sees padding.

    Shapes: `x [batch, time, feature]` and mask `[batch, time]` to `y [batch, time, ...]` and the
    same mask; with `return_sequences=False` to `last [batch, ...]` and a row mask `[batch]`.

    Args:
      cell: `nnx.LSTMCell`, `nnx.GRUCell` or any module `cell(carry, x) -> (carry, y)` with
        `initialize_carry(input_shape, rngs)` and `in_features`. Its carry keeps its own layout.
      return_sequences: give every step, not the last one computed.
      reverse: from the last real step of each row to the first; outputs stay at their own steps.

    Raises:
      TypeError, ValueError, MaskError: on call, under the rules of `jaxmask.recurrent.scan`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.RNN(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)), return_sequences=False)
      >>> last, row_mask = layer(jnp.ones((2, 5, 3)), jnp.zeros((2, 5), bool))
      >>> last.tolist(), row_mask.tolist()
      ([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], [False, False])

    Agrees with `flax.nnx.RNN` of the unpadded row.
    """

    def __init__(
        self, cell: nnx.RNNCellBase, *, return_sequences: bool = True, reverse: bool = False
    ):
        self.cell = cell
        self.return_sequences = return_sequences
        self.reverse = reverse

    def initial_carry(self, batch: int) -> PyTree:
        """What the cell starts from, at least float32, for inputs of `cell.in_features`."""
        return self._initialize((batch, self.cell.in_features))  # type: ignore[attr-defined]

    def _carry_for(self, x: Array) -> PyTree:
        return self._initialize(x.shape[:1] + x.shape[2:])

    def _initialize(self, input_shape: tuple[int, ...]) -> PyTree:
        # Flax's cells ask for a random stream even where their initializer is zeros.
        carry = self.cell.initialize_carry(input_shape, nnx.Rngs(0))
        return jax.tree.map(lambda a: a.astype(ops.accumulator(a.dtype)), carry)

    def run(
        self, carry: PyTree, x: ArrayLike, mask: Mask = None, *, reverse: bool | None = None
    ) -> tuple[PyTree, Pair]:
        """Run from `carry` and return `(carry, (y, mask))`, whatever `return_sequences` says."""
        reverse = self.reverse if reverse is None else reverse
        return recurrent.scan(self.cell, x, mask, carry, reverse=reverse)


_MERGES: dict[str | None, Callable[[Array, Array], Any]] = {
    "concat": lambda a, b: jnp.concatenate([a, b], axis=-1),
    "sum": jnp.add,
    "mul": jnp.multiply,
    "ave": lambda a, b: (a + b) / 2,
    None: lambda a, b: (a, b),
}


class Bidirectional(MaskedModule):
    """One layer over each row forward, another over it backward, and both results merged.

    Backward means each row reversed within its own real steps, never the padded array flipped.
    The results stand at their own steps: `y[b, t]` joins what was seen up to `t` and from `t` on.

    Shapes: those of the two layers, `hidden` of both added up by `"concat"`.

    Args:
      forward: a masked layer `(x, mask) -> (y, mask)`.
      backward: another; a recurrent one runs in reverse whatever its own flag says.
      merge: `"concat"` (along features), `"sum"`, `"mul"`, `"ave"`, or None for a tuple of both.

    Raises:
      ValueError: if `forward` is a reversed layer, or `merge` is unknown.
      MaskError: on call, if the two layers return masks of different shapes.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> layer = jm.nn.Bidirectional(jm.nn.LSTM(3, 4, rngs=rngs), jm.nn.LSTM(3, 4, rngs=rngs))
      >>> y, mask = layer(jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool))
      >>> y.shape
      (2, 5, 8)

    Agrees with `keras.layers.Bidirectional`. Source: Schuster and Paliwal, 1997,
    doi:10.1109/78.650093.
    """

    def __init__(
        self,
        forward: Callable[..., Pair],
        backward: Callable[..., Pair],
        merge: str | None = "concat",
    ):
        _check.choice(merge, _MERGES, "Bidirectional", "merge")
        if getattr(forward, "reverse", False) is True:
            raise ValueError(
                "Bidirectional: `forward` has `reverse=True`, so both directions would run "
                "backward. Build it with `reverse=False`."
            )
        self.forward = forward
        self.backward = backward
        self.merge = merge

    def __call__(self, x: ArrayLike, mask: Mask = None) -> tuple[Any, Mask]:
        """Run both directions and return `(y, mask)`."""
        x, mask = _check.pair(x, mask, "Bidirectional", over_time=True)
        y_forward, mask_forward = self.forward(x, mask)
        y_backward, mask_backward = _run_backward(self.backward, x, mask)
        y = _MERGES[self.merge](y_forward, y_backward)
        if mask_forward is None or mask_backward is None:
            return y, mask_forward
        if isinstance(mask_backward, masks.Segments):
            return y, mask_forward
        return y, masks.intersect(mask_forward, mask_backward, "Bidirectional")


def _run_backward(layer: Callable[..., Pair], x: Array, mask: Mask) -> Pair:
    if isinstance(layer, Recurrent):
        return layer(x, mask, reverse=True)
    # An explicit full mask shows by the rank of what comes out whether there is time left to flip.
    given = jnp.ones(x.shape[:2], bool) if mask is None else mask
    y, out = layer(*ops.flip(x, given))
    if out is not None and out.ndim == 2:
        y, out = ops.flip(y, out)
    return y, None if mask is None else out
