"""Cells for `RNN(cell)` that Flax does not have: one step, no mask."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check
from jaxmask._types import Array


class LayerNormLSTMCell(nnx.RNNCellBase):
    """LSTM cell with layer normalisation, for `jaxmask.nn.RNN`.

        i, f, g, o = split(norm_x(x @ w_x) + norm_h(h @ w_h) + b)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(norm_c(c'))

    Each norm has a scale; that of `c` has a bias too.

    Args:
      in_features: size of the last axis of `x`.
      hidden_features: size of `h` and `c`.
      epsilon: added to the variance.
      dtype: what the arithmetic is done in; that of the inputs and parameters where None.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.RNN(jm.nn.LayerNormLSTMCell(3, 4, rngs=nnx.Rngs(0)))
      >>> layer(jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool))[0].shape
      (2, 5, 4)

    Source: Ba et al., 2016, Layer normalization, arXiv:1607.06450, equations 20 to 22.
    """

    output_index: ClassVar[int] = 0  # index in the carry of what the cell outputs: `h`

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        epsilon: float = 1e-6,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        width = 4 * hidden_features
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        orthogonal = nnx.initializers.orthogonal()
        self.w_x = nnx.Linear(in_features, width, use_bias=False, **options)
        self.w_h = nnx.Linear(
            hidden_features, width, use_bias=False, kernel_init=orthogonal, **options
        )
        self.norm_x = nnx.LayerNorm(width, epsilon=epsilon, use_bias=False, **options)
        # The bias of the gates: the sum of both norms needs only one.
        self.norm_h = nnx.LayerNorm(width, epsilon=epsilon, **options)
        self.norm_c = nnx.LayerNorm(hidden_features, epsilon=epsilon, **options)
        self.in_features = in_features
        self.hidden_features = hidden_features

    def __call__(self, carry: tuple[Array, Array], inputs: Array) -> Any:
        """One step: `((h, c), x) -> ((h', c'), h')`."""
        h, c = carry
        gates = self.norm_x(self.w_x(inputs)) + self.norm_h(self.w_h(h))
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h = jax.nn.sigmoid(o) * jnp.tanh(self.norm_c(new_c))
        return (new_h.astype(h.dtype), new_c.astype(c.dtype)), new_h.astype(inputs.dtype)

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> tuple[Array, Array]:
        """Zeros `(h, c)`, float32."""
        shape = (*input_shape[:-1], self.hidden_features)
        return jnp.zeros(shape), jnp.zeros(shape)  # two, so that both can be donated

    @property
    def num_feature_axes(self) -> int:
        return 1


class ConvLSTMCell(nnx.RNNCellBase):
    """LSTM cell whose products are convolutions, for steps with spatial axes (`jaxmask.nn.RNN`).

        i, f, g, o = split(conv(x, w_x) + conv(h, w_h) + b)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    Shapes, in `RNN`: `x [batch, time, spatial..., in_features]` and mask `[batch, time]` to
    `y [batch, time, spatial..., hidden_features]`. The convolutions run over the spatial axes of
    one step, which the mask says nothing about; the one over `h` keeps its size.

    Args:
      in_features: size of the last axis of `x`.
      hidden_features: size of the last axis of `h` and `c`.
      kernel_size: one number for each spatial axis.
      padding: `"SAME"` or `"VALID"`, of the convolution over `x`.
      dtype: what the arithmetic is done in; that of the inputs and parameters where None.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.RNN(jm.nn.ConvLSTMCell(3, 4, (3,), rngs=nnx.Rngs(0)))
      >>> layer(jnp.ones((2, 5, 8, 3)), jnp.ones((2, 5), bool))[0].shape
      (2, 5, 8, 4)

    Agrees with `keras.layers.ConvLSTM1D`. Source: Shi et al., 2015, arXiv:1506.04214, without
    peepholes.
    """

    output_index: ClassVar[int] = 0  # index in the carry of what the cell outputs: `h`

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        kernel_size: Sequence[int],
        *,
        padding: str = "SAME",
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check.choice(padding, ("SAME", "VALID"), "ConvLSTMCell", "padding")
        width, size = 4 * hidden_features, tuple(kernel_size)
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv_x = nnx.Conv(in_features, width, size, padding=padding, **options)
        self.conv_h = nnx.Conv(hidden_features, width, size, use_bias=False, **options)
        self.kernel_size = size
        self.padding = padding
        self.in_features = in_features
        self.hidden_features = hidden_features

    def __call__(self, carry: tuple[Array, Array], inputs: Array) -> Any:
        """One step: `((h, c), x) -> ((h', c'), h')`."""
        h, c = carry
        i, f, g, o = jnp.split(self.conv_x(inputs) + self.conv_h(h), 4, axis=-1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
        return (new_h.astype(h.dtype), new_c.astype(c.dtype)), new_h.astype(inputs.dtype)

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> tuple[Array, Array]:
        """Zeros `(h, c)`, float32, of the size that the convolution over `x` gives."""
        batch, *spatial, _ = input_shape
        if len(spatial) != len(self.kernel_size):
            raise ValueError(
                f"ConvLSTMCell: a step must be [batch, {len(self.kernel_size)} spatial axes, "
                f"feature], as `kernel_size` has it, got shape {tuple(input_shape)}."
            )
        if self.padding == "VALID":
            spatial = [n - k + 1 for n, k in zip(spatial, self.kernel_size, strict=True)]
        shape = (batch, *spatial, self.hidden_features)
        return jnp.zeros(shape), jnp.zeros(shape)  # two, so that both can be donated

    @property
    def num_feature_axes(self) -> int:
        return len(self.kernel_size) + 1
