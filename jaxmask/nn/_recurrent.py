"""Recurrent modules: parameters and configuration; the arithmetic is `jaxmask.recurrent`."""

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, masks, pool, recurrent
from jaxmask._types import Activation, Array, ArrayLike, Mask, Pair, PyTree
from jaxmask.nn._base import NOTHING, MaskedModule, ParamOptions, Weighted, check_sizes
from jaxmask.nn._options import NoiseCall, draw, opened


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
    """A recurrent module: a call starts from the initial carry, `run` from a given one."""

    return_sequences: bool
    reverse: bool

    def initial_carry(self, batch: int) -> PyTree:
        """The carry that a call starts from, for `batch` rows."""
        raise NotImplementedError

    def run(
        self,
        carry: PyTree,
        x: ArrayLike,
        mask: Mask = None,
        *,
        reverse: bool | None = None,
        resets: ArrayLike | None = None,
    ) -> tuple[PyTree, Pair]:
        """Run from `carry` and return `(carry, (y, mask))`, whatever `return_sequences` says."""
        reverse = self.reverse if reverse is None else reverse
        return self._run(carry, x, mask, reverse, resets)

    # Separate from `run`: `nnx.tabulate` lists the public methods that a call uses, and cannot
    # print a carry with fields.
    def _run(
        self, carry: PyTree, x: ArrayLike, mask: Mask, reverse: bool, resets: ArrayLike | None
    ) -> tuple[PyTree, Pair]:
        raise NotImplementedError

    def __call__(
        self,
        x: ArrayLike,
        mask: Mask = None,
        *,
        reverse: bool | None = None,
        resets: ArrayLike | None = None,
    ) -> Pair:
        """Run from the initial carry and return `(y, mask)`, or `(last, row_mask)`."""
        x, mask = _check.pair(x, mask, type(self).__name__, over_time=True)
        return self._called(self.initial_carry(x.shape[0]), x, mask, reverse, resets)

    def _called(
        self, carry: PyTree, x: Array, mask: Mask, reverse: bool | None, resets: ArrayLike | None
    ) -> Pair:
        reverse = self.reverse if reverse is None else reverse
        return self._shown(self._run(carry, x, mask, reverse, resets)[1], reverse)

    def _shown(self, pair: Pair, reverse: bool) -> Pair:
        y, mask = pair
        if self.return_sequences:
            return y, mask
        # In reverse the last step computed is the first of the row.
        return pool.first(y, mask) if reverse else pool.last(y, mask)

    def compute_mask(self, x: ArrayLike, mask: Mask = None) -> Mask:
        """The mask that calling the module gives, without running it."""
        _, mask = _check.pair(x, mask, type(self).__name__, over_time=True)
        return mask if self.return_sequences else masks.rows(mask)


class RecurrentOptions(ParamOptions, total=False):
    """What `LSTM`, `GRU` and `SimpleRNN` take; `LSTM` documents each."""

    return_sequences: bool
    reverse: bool
    method: str | recurrent.Choice
    activation: Activation
    gate_activation: Activation
    recurrent_dropout_rate: float
    kernel_init: nnx.Initializer
    recurrent_kernel_init: nnx.Initializer
    bias_init: nnx.Initializer
    kernel_metadata: Mapping[str, Any]
    recurrent_kernel_metadata: Mapping[str, Any]
    bias_metadata: Mapping[str, Any]


_PROJECTION = nnx.initializers.lecun_normal()


class _Gated(Recurrent, Weighted):
    """A layer with the matrices `w_x` and `w_h` and a bias, and a function that runs them."""

    gates: ClassVar[int]

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        return_sequences: bool = True,
        reverse: bool = False,
        method: str | recurrent.Choice = "auto",
        activation: Activation = "tanh",
        gate_activation: Activation = "sigmoid",
        recurrent_dropout_rate: float = 0.0,
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),
        recurrent_kernel_init: nnx.Initializer = nnx.initializers.orthogonal(),
        bias_init: nnx.Initializer = nnx.initializers.zeros,
        kernel_metadata: Mapping[str, Any] = NOTHING,
        recurrent_kernel_metadata: Mapping[str, Any] = NOTHING,
        bias_metadata: Mapping[str, Any] = NOTHING,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check.count(in_features, type(self).__name__, "in_features")
        check_sizes(type(self).__name__, hidden_features=hidden_features)
        if not isinstance(method, recurrent.Choice):
            _check.choice(method, _check.METHODS, type(self).__name__, "method")
        self.hidden_features = hidden_features
        self.in_features = in_features
        where, rate = type(self).__name__, recurrent_dropout_rate
        self.activation, self.gate_activation = activation, gate_activation
        for name, value in self._activations().items():
            _check.activation(value, where, name)
        _check.dropout_rate(rate, where, "recurrent_dropout_rate")
        self.dropout = nnx.Dropout(rate, rngs=rngs) if rate else None
        width, made = self.gates * hidden_features, (rngs, param_dtype)
        self.w_x = self._param(kernel_init, (in_features, width), kernel_metadata, *made)
        shape = self._out_features(), width
        self.w_h = self._param(recurrent_kernel_init, shape, recurrent_kernel_metadata, *made)
        self.b = self._param(bias_init, self._bias_shape(), bias_metadata, *made)
        self.return_sequences = return_sequences
        self.reverse = _check.flag(reverse, where, "reverse")
        self.method = method
        self.dtype = dtype

    def _bias_shape(self) -> tuple[int, ...]:
        return (self.gates * self.hidden_features,)

    def _out_features(self) -> int:
        return self.hidden_features

    def _activations(self) -> dict[str, Any]:
        return {"activation": self.activation, "gate_activation": self.gate_activation}

    def _more(self) -> tuple[nnx.Param | None, ...]:
        """The parameters behind `w_x`, `w_h` and `b`."""
        return ()

    @property
    def variations(self) -> list[str]:
        """The options by which it differs from the layer that every library has."""
        usual = {"activation": ("tanh",), "gate_activation": ("sigmoid",)}
        return [name for name, f in self._activations().items() if f not in usual[name]]

    def __call__(
        self,
        x: ArrayLike,
        mask: Mask = None,
        *,
        reverse: bool | None = None,
        resets: ArrayLike | None = None,
        **options: Unpack[NoiseCall],
    ) -> Pair:
        """Run from the initial carry and return `(y, mask)`, or `(last, row_mask)`.

        `reverse` and `resets` as in `jaxmask.recurrent.lstm`; the other options, as in
        `Sequential`, are for a recurrent dropout.
        """
        layer, given = opened(self, options, resets=False)
        x, mask = _check.pair(x, mask, type(self).__name__, over_time=True)
        noise: dict[str, Any] = {}
        if layer.dropout is not None and not layer.dropout.deterministic:
            key = draw(layer.dropout.rngs, given.get("rngs"), type(self).__name__)
            noise = {"recurrent_dropout_rate": layer.dropout.rate, "key": key}
            noise["row_ids"] = given.get("row_ids")
        reverse = self.reverse if reverse is None else reverse
        carry = self.initial_carry(x.shape[0])
        return self._shown(self._noisy_run(carry, x, mask, reverse, resets, noise)[1], reverse)

    def run(
        self,
        carry: PyTree,
        x: ArrayLike,
        mask: Mask = None,
        *,
        reverse: bool | None = None,
        resets: ArrayLike | None = None,
        **options: Unpack[NoiseCall],
    ) -> tuple[PyTree, Pair]:
        """Run from `carry` and return `(carry, (y, mask))`, whatever `return_sequences` says."""
        layer, _ = opened(self, options, resets=False)
        if layer.dropout is not None and not layer.dropout.deterministic:
            raise ValueError(
                f"{type(self).__name__}: `run` does not carry a recurrent dropout from chunk to "
                "chunk. Call whole rows, or `model.eval()` first."
            )
        return super().run(carry, x, mask, reverse=reverse, resets=resets)

    def _layer(self, x: ArrayLike, mask: Mask, weights: Any, carry: PyTree, **options: Any) -> Any:
        """The function of `jaxmask.recurrent` below this module."""
        raise NotImplementedError

    def initial_carry(self, batch: int) -> PyTree:
        """Zeros, float32."""
        return jnp.zeros(
            (_check.rows(batch, f"{type(self).__name__}.initial_carry"), self.hidden_features)
        )

    def _run(
        self, carry: PyTree, x: ArrayLike, mask: Mask, reverse: bool, resets: ArrayLike | None
    ) -> tuple[PyTree, Pair]:
        return self._noisy_run(carry, x, mask, reverse, resets, {})

    def _noisy_run(
        self,
        carry: PyTree,
        x: ArrayLike,
        mask: Mask,
        reverse: bool,
        resets: ArrayLike | None,
        noise: Mapping[str, Any],
    ) -> tuple[PyTree, Pair]:
        self._require_features(x, self.in_features)
        x, *weights = self._cast(x, self.w_x, self.w_h, self.b, *self._more())
        options = {"reverse": reverse, "resets": resets, "method": self.method}
        return self._layer(x, mask, weights, carry, **options, **self._activations(), **noise)


class LSTM(_Gated):
    """Long short-term memory; the arithmetic is `jaxmask.recurrent.lstm`.

    A masked step neither updates the state nor emits: `y` is exactly 0 there, so the final state
    is the one after the last real step wherever the padding lies (mask class: any).

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time, hidden_features]` and the same mask; with `return_sequences=False` to
    `last [batch, hidden_features]` and a row mask `[batch]`.

    Args:
      in_features: size of the last axis of `x`.
      hidden_features: size of the last axis of `y` and of the carry.
      peepholes: gates see the cell, through `w_c [3, hidden_features]`, zeros at first.
      projected_features: size of the last axis of `y` and of `h` (`proj_size` of PyTorch), through
        `w_p [hidden_features, projected_features]`; None: no projection.
      cell_clip: bound of the cell; None: none.
      return_sequences: return every step, else only the last one computed; default True.
      reverse: from the last real step to the first; outputs stay at their steps; default False.
      method: see `jaxmask.recurrent.lstm`; default "auto".
      activation, gate_activation: see `jaxmask.recurrent.lstm`; default "tanh", "sigmoid".
      recurrent_dropout_rate: of the output where the layer reads it again, in training mode: the
        same features at all steps of a row. `run` refuses it. Default 0.
      kernel_init: of `w_x [in_features, 4 * hidden_features]`; default LeCun normal.
      recurrent_kernel_init: of `w_h [hidden_features, 4 * hidden_features]`, with a projection
        `[projected_features, ...]`; default orthogonal.
      bias_init: of `b [4 * hidden_features]`, gates i, f, g, o; default `unit_forget_bias`.
      kernel_metadata: metadata of `w_x`, such as its sharding.
      recurrent_kernel_metadata: metadata of `w_h`.
      bias_metadata: metadata of `b`.
      dtype: what `x` and the weights are cast to; None (the default): `y` has the dtype of `x`.
      param_dtype: dtype in which parameters are stored; default float32.
      rngs: source of the `params` random stream.

    Example:
      >>> import jaxmask as jm, flax.nnx as nnx
      >>> x, mask = jm.pad_sequences([[[1.0], [2.0]], [[3.0]]])
      >>> layer = jm.nn.LSTM(1, 4, rngs=nnx.Rngs(0))
      >>> y, mask = layer(x, mask)
      >>> y.shape, mask.tolist()
      ((2, 2, 4), [[True, True], [True, False]])

    Agrees with `keras.layers.LSTM`. Source: Hochreiter and Schmidhuber, 1997,
    doi:10.1162/neco.1997.9.8.1735.
    """

    gates = 4

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        peepholes: bool = False,
        projected_features: int | None = None,
        cell_clip: float | None = None,
        **options: Unpack[RecurrentOptions],
    ):
        options.setdefault("bias_init", unit_forget_bias)
        least: dict[str, Any] = {"least": 1}
        self.projected_features = _check.optional_count(
            projected_features, "LSTM", "projected_features", **least
        )
        self.cell_clip = cell_clip
        super().__init__(in_features, hidden_features, **options)
        made = options["rngs"], options.get("param_dtype", jnp.float32)
        init, out = nnx.initializers.zeros, self.projected_features
        self.w_c = self._param(init, (3, hidden_features), NOTHING, *made) if peepholes else None
        shape = hidden_features, self._out_features()
        self.w_p = None if out is None else self._param(_PROJECTION, shape, NOTHING, *made)

    def _out_features(self) -> int:
        return self.projected_features or self.hidden_features

    def _more(self) -> tuple[nnx.Param | None, ...]:
        return self.w_c, self.w_p

    @property
    def variations(self) -> list[str]:
        """The options by which it differs from the layer that every library has."""
        given = {"peepholes": self.w_c, "projected_features": self.w_p, "cell_clip": self.cell_clip}
        return [*super().variations, *(name for name, v in given.items() if v is not None)]

    def initial_carry(self, batch: int) -> recurrent.LSTMCarry:
        """Zeros, float32."""
        weights = recurrent.LSTMWeights(self.w_x[...], self.w_h[...], self.b[...])
        return recurrent.zero_carry(weights, batch)

    def _layer(self, x: ArrayLike, mask: Mask, weights: Any, carry: PyTree, **options: Any) -> Any:
        options["cell_clip"] = self.cell_clip
        given = recurrent.ExtendedLSTMWeights(*weights)
        return recurrent.lstm(x, mask, given, carry, **options)


class GRU(_Gated):
    """Gated recurrent unit; the arithmetic is `jaxmask.recurrent.gru`.

    Padding and shapes as in `LSTM`.

    Args:
      in_features: size of the last axis of `x`.
      hidden_features: size of the last axis of `y` and of the carry.
      reset_after: reset the product of the state, as PyTorch, Flax and (by default) Keras do, not
        the state itself.
      method: see `jaxmask.recurrent.gru`; default "auto".
      bias_init: initializer of `b`, `[2, 3 * hidden_features]` with `reset_after`, else
        `[3 * hidden_features]`; gates in the order r, z, n; default zeros.
      **options: as in `LSTM`, with its defaults, for `w_x [in_features, 3 * hidden_features]` and
        `w_h [hidden_features, 3 * hidden_features]`.

    Example:
      >>> import jaxmask as jm, flax.nnx as nnx
      >>> x, mask = jm.pad_sequences([[[1.0], [2.0]], [[3.0]]])
      >>> layer = jm.nn.GRU(1, 4, return_sequences=False, rngs=nnx.Rngs(0))
      >>> last, row_mask = layer(x, mask)
      >>> last.shape, row_mask.tolist()
      ((2, 4), [True, True])

    Agrees with `keras.layers.GRU`. Source: Cho et al., 2014, doi:10.3115/v1/D14-1179.
    """

    gates = 3

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        reset_after: bool = True,
        **options: Unpack[RecurrentOptions],
    ):
        self.reset_after = reset_after
        super().__init__(in_features, hidden_features, **options)

    def _bias_shape(self) -> tuple[int, ...]:
        width = super()._bias_shape()
        return (2, *width) if self.reset_after else width

    def _layer(self, x: ArrayLike, mask: Mask, weights: Any, carry: PyTree, **options: Any) -> Any:
        options["reset_after"] = self.reset_after
        return recurrent.gru(x, mask, recurrent.GRUWeights(*weights), carry, **options)


class SimpleRNN(_Gated):
    """Simple recurrent network; the arithmetic is `jaxmask.recurrent.simple`.

    Padding and shapes as in `LSTM`.

    Args:
      in_features: size of the last axis of `x`.
      hidden_features: size of the last axis of `y` and of the carry.
      activation: as in `jaxmask.recurrent.lstm`; default "tanh".
      method: see `jaxmask.recurrent.simple`; default "auto".
      bias_init: initializer of `b [hidden_features]`; default zeros.
      **options: as in `LSTM`, with its defaults, for `w_x [in_features, hidden_features]` and
        `w_h [hidden_features, hidden_features]`.

    Example:
      >>> import jaxmask as jm, flax.nnx as nnx
      >>> x, mask = jm.pad_sequences([[[1.0], [2.0]], [[3.0]]])
      >>> layer = jm.nn.SimpleRNN(1, 4, activation="relu", rngs=nnx.Rngs(0))
      >>> layer(x, mask)[0].shape
      (2, 2, 4)

    Agrees with `keras.layers.SimpleRNN`. Source: Elman, 1990, doi:10.1207/s15516709cog1402_1.
    """

    gates = 1

    def __init__(self, in_features: int, hidden_features: int, **options: Unpack[RecurrentOptions]):
        if "gate_activation" in options:
            raise TypeError("SimpleRNN: has no gates, so it takes no `gate_activation`.")
        super().__init__(in_features, hidden_features, **options)

    def _activations(self) -> dict[str, Any]:
        return {"activation": self.activation}

    @property
    def variations(self) -> list[str]:
        """The options by which it differs from the layer that every library has."""
        return [] if self.activation in ("tanh", "relu") else ["activation"]

    def _layer(self, x: ArrayLike, mask: Mask, weights: Any, carry: PyTree, **options: Any) -> Any:
        return recurrent.simple(x, mask, recurrent.SimpleWeights(*weights), carry, **options)
