"""Convolution modules: parameters and configuration; the arithmetic is `jaxmask.conv`."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, conv
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.nn._base import MaskedModule
from jaxmask.nn._causal import Causal


class _Weighted(nnx.Module):
    """A kernel and a bias, and the dtype to compute in."""

    def _make_weights(
        self,
        kernel_shape: tuple[int, ...],
        features_out: int,
        *,
        use_bias: bool,
        kernel_init: nnx.Initializer,
        bias_init: nnx.Initializer,
        kernel_metadata: Mapping[str, Any] | None,
        bias_metadata: Mapping[str, Any] | None,
        dtype: jax.typing.DTypeLike | None,
        param_dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        for size in (*kernel_shape, features_out):
            _check.count(size, type(self).__name__, "kernel_size and features", least=1)
        kernel = kernel_init(rngs.params(), kernel_shape, param_dtype)
        self.kernel = nnx.Param(kernel, **(kernel_metadata or {}))
        self.bias = nnx.data(None)
        if use_bias:
            bias = bias_init(rngs.params(), (features_out,), param_dtype)
            self.bias = nnx.Param(bias, **(bias_metadata or {}))
        self.dtype = dtype

    def _cast(self, x: ArrayLike) -> tuple[Array, Array, Array | None]:
        x = _check.array(x, "x", type(self).__name__)
        kernel = self.kernel[...]
        bias = None if self.bias is None else self.bias[...]
        if self.dtype is None:
            return x, kernel, bias
        return jax.tree.map(lambda a: a.astype(self.dtype), (x, kernel, bias))


class Conv1D(_Weighted, Causal):
    """Convolution over time; the arithmetic, the mask and its class are `jaxmask.conv.conv1d`'s.

    With `padding="causal"` and `strides=1` it runs chunk by chunk: the carry holds the last
    `(kernel_size - 1) * dilation` steps and their mask.

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, out_features]` and mask `[batch, time_out]`.

    Args:
      in_features: size of the last axis of `x`.
      out_features: size of the last axis of `y`.
      kernel_size: steps of a window.
      padding: `"same"`, `"causal"`, `"reverse_causal"`, `"valid"` or `"full"`.
      strides: steps from one window to the next.
      dilation: steps from one tap of a window to the next.
      groups: divides `in_features` and `out_features`.
      mask_rule: see `jaxmask.conv.conv1d`.
      use_bias: add a bias.
      kernel_init: initializer of `kernel [kernel_size, in_features // groups, out_features]`.
      bias_init: initializer of `bias [out_features]`.
      kernel_metadata: metadata of `kernel`, such as its sharding.
      bias_metadata: metadata of `bias`.
      dtype: what `x` and the weights are cast to; where None, `y` has the dtype of `x`.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Raises:
      ValueError: if `groups` does not divide the features.
      TypeError, ValueError, MaskError: on call, under the rules of `jaxmask.conv.conv1d`; from
        `run`, if the layer is not causal.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.Conv1D(3, 4, 5, strides=2, rngs=nnx.Rngs(0))
      >>> y, mask = layer(jnp.ones((1, 6, 3)), jnp.array([[True, True, True, False, False, False]]))
      >>> y.shape, mask.tolist()
      ((1, 3, 4), [[True, True, False]])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        padding: str = "same",
        strides: int = 1,
        dilation: int = 1,
        groups: int = 1,
        mask_rule: str | None = None,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),
        bias_init: nnx.Initializer = nnx.initializers.zeros,
        kernel_metadata: Mapping[str, Any] | None = None,
        bias_metadata: Mapping[str, Any] | None = None,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check_groups("Conv1D", groups, in_features, out_features)
        self._make_weights(
            (kernel_size, in_features // groups, out_features),
            out_features,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
            kernel_metadata=kernel_metadata,
            bias_metadata=bias_metadata,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.in_features = in_features
        self.padding = padding
        self.strides = strides
        self.dilation = dilation
        self.groups = groups
        self.mask_rule = mask_rule

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        return self._convolve(x, mask, self.padding, self.mask_rule)

    def _convolve(self, x: ArrayLike, mask: Mask, padding: str, mask_rule: str | None) -> Pair:
        x, kernel, bias = self._cast(x)
        options: dict[str, Any] = {"strides": self.strides, "dilation": self.dilation}
        options |= {"groups": self.groups, "padding": padding, "mask_rule": mask_rule}
        return conv.conv1d(x, mask, kernel, bias, **options)

    def _reach(self) -> int:
        return (self.kernel.shape[0] - 1) * self.dilation

    def _past_features(self) -> tuple[int, ...]:
        return (self.in_features,)

    def _over_chunk(self, x: Array, real: Array) -> Array:
        # `x` is 0 in the padding already.
        return self._convolve(x, None, "valid", None)[0]


class DepthwiseConv1D(_Weighted, Causal):
    """Convolution of each feature over time; the arithmetic is `jaxmask.conv.depthwise`.

    With `padding="causal"` and `strides=1` it runs chunk by chunk, as `Conv1D` does.

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, in_features * multiplier]` and mask `[batch, time_out]`.

    Args:
      in_features: size of the last axis of `x`.
      kernel_size: steps of a window.
      multiplier: results of each feature.
      padding: `"same"`, `"causal"`, `"reverse_causal"`, `"valid"` or `"full"`.
      strides: steps from one window to the next.
      dilation: steps from one tap of a window to the next.
      mask_rule: see `jaxmask.conv.conv1d`.
      use_bias: add a bias.
      kernel_init: initializer of `kernel [kernel_size, 1, in_features * multiplier]`, reshaped to
        `[kernel_size, in_features, multiplier]`, so that it counts the inputs of a result right.
      bias_init: initializer of `bias [in_features * multiplier]`.
      kernel_metadata: metadata of `kernel`, such as its sharding.
      bias_metadata: metadata of `bias`.
      dtype: what `x` and the weights are cast to; where None, `y` has the dtype of `x`.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Raises:
      TypeError, ValueError, MaskError: on call, under the rules of `jaxmask.conv.depthwise`; from
        `run`, if the layer is not causal.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.DepthwiseConv1D(3, 5, padding="causal", rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 6, 3)), jnp.ones((2, 6), bool))[0].shape
      (2, 6, 3)
    """

    def __init__(
        self,
        in_features: int,
        kernel_size: int,
        multiplier: int = 1,
        *,
        padding: str = "same",
        strides: int = 1,
        dilation: int = 1,
        mask_rule: str | None = None,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),
        bias_init: nnx.Initializer = nnx.initializers.zeros,
        kernel_metadata: Mapping[str, Any] | None = None,
        bias_metadata: Mapping[str, Any] | None = None,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self._make_weights(
            (kernel_size, in_features, multiplier),
            in_features * multiplier,
            use_bias=use_bias,
            kernel_init=_each_feature(kernel_init),
            bias_init=bias_init,
            kernel_metadata=kernel_metadata,
            bias_metadata=bias_metadata,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.in_features = in_features
        self.padding = padding
        self.strides = strides
        self.dilation = dilation
        self.mask_rule = mask_rule

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        return self._convolve(x, mask, self.padding, self.mask_rule)

    def _convolve(self, x: ArrayLike, mask: Mask, padding: str, mask_rule: str | None) -> Pair:
        x, kernel, bias = self._cast(x)
        options: dict[str, Any] = {"strides": self.strides, "dilation": self.dilation}
        options |= {"padding": padding, "mask_rule": mask_rule}
        return conv.depthwise(x, mask, kernel, bias, **options)

    def _reach(self) -> int:
        return (self.kernel.shape[0] - 1) * self.dilation

    def _past_features(self) -> tuple[int, ...]:
        return (self.in_features,)

    def _over_chunk(self, x: Array, real: Array) -> Array:
        # `x` is 0 in the padding already.
        return self._convolve(x, None, "valid", None)[0]


class ConvTranspose1D(_Weighted, MaskedModule):
    """Transposed convolution over time; the arithmetic is `jaxmask.conv.conv1d_transpose`.

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, out_features]` and mask `[batch, time_out]`.

    Args:
      in_features: size of the last axis of `x`.
      out_features: size of the last axis of `y`.
      kernel_size: outputs that a step reaches.
      strides: outputs a step.
      padding: `"same"`, `"valid"` or `"causal"`, see `jaxmask.conv.conv1d_transpose`.
      use_bias: add a bias.
      kernel_init: initializer of `kernel [kernel_size, in_features, out_features]`.
      bias_init: initializer of `bias [out_features]`.
      kernel_metadata: metadata of `kernel`, such as its sharding.
      bias_metadata: metadata of `bias`.
      dtype: what `x` and the weights are cast to; where None, `y` has the dtype of `x`.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Raises:
      TypeError, ValueError, MaskError: on call, under the rules of `jaxmask.conv.conv1d_transpose`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.ConvTranspose1D(3, 4, 5, strides=2, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 6, 3)), jnp.ones((2, 6), bool))[0].shape
      (2, 12, 4)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        strides: int = 1,
        padding: str = "same",
        use_bias: bool = True,
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),
        bias_init: nnx.Initializer = nnx.initializers.zeros,
        kernel_metadata: Mapping[str, Any] | None = None,
        bias_metadata: Mapping[str, Any] | None = None,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self._make_weights(
            (kernel_size, in_features, out_features),
            out_features,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
            kernel_metadata=kernel_metadata,
            bias_metadata=bias_metadata,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.strides = strides
        self.padding = padding

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        x, kernel, bias = self._cast(x)
        return conv.conv1d_transpose(
            x, mask, kernel, bias, strides=self.strides, padding=self.padding
        )


class Conv2D(_Weighted, MaskedModule):
    """Convolution over time and frequency; the arithmetic is `jaxmask.conv.conv2d`.

    Shapes: `x [batch, time, frequency, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, frequency_out, out_features]` and mask `[batch, time_out]`.

    Args:
      in_features: channels, the last axis of `x`.
      out_features: channels, the last axis of `y`.
      kernel_size: steps and frequency bins of a window.
      padding: over time; `"same"`, `"causal"`, `"reverse_causal"`, `"valid"` or `"full"`.
      frequency_padding: over frequency, by the same words.
      strides: over time and over frequency.
      dilation: over time and over frequency.
      groups: divides `in_features` and `out_features`.
      mask_rule: see `jaxmask.conv.conv1d`.
      use_bias: add a bias.
      kernel_init: initializer of `kernel [*kernel_size, in_features // groups, out_features]`.
      bias_init: initializer of `bias [out_features]`.
      kernel_metadata: metadata of `kernel`, such as its sharding.
      bias_metadata: metadata of `bias`.
      dtype: what `x` and the weights are cast to; where None, `y` has the dtype of `x`.
      param_dtype: dtype in which parameters are stored.
      rngs: source of the `params` random stream.

    Raises:
      ValueError: if `groups` does not divide the features.
      TypeError, ValueError, MaskError: on call, under the rules of `jaxmask.conv.conv2d`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> layer = jm.nn.Conv2D(1, 4, (3, 3), strides=(2, 2), rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 6, 8, 1)), jnp.ones((2, 6), bool))[0].shape
      (2, 3, 4, 4)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: tuple[int, int],
        *,
        padding: str = "same",
        frequency_padding: str = "same",
        strides: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        mask_rule: str | None = None,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),
        bias_init: nnx.Initializer = nnx.initializers.zeros,
        kernel_metadata: Mapping[str, Any] | None = None,
        bias_metadata: Mapping[str, Any] | None = None,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check_groups("Conv2D", groups, in_features, out_features)
        self._make_weights(
            (*kernel_size, in_features // groups, out_features),
            out_features,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
            kernel_metadata=kernel_metadata,
            bias_metadata=bias_metadata,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.padding = padding
        self.frequency_padding = frequency_padding
        self.strides = strides
        self.dilation = dilation
        self.groups = groups
        self.mask_rule = mask_rule

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        x, kernel, bias = self._cast(x)
        return conv.conv2d(
            *(x, mask, kernel, bias),
            padding=self.padding,
            frequency_padding=self.frequency_padding,
            strides=self.strides,
            dilation=self.dilation,
            groups=self.groups,
            mask_rule=self.mask_rule,
        )


def _check_groups(where: str, groups: int, in_features: int, out_features: int) -> None:
    groups = _check.count(groups, where, "groups", least=1)
    if in_features % groups or out_features % groups:
        raise ValueError(
            f"{where}: `groups` must divide in_features ({in_features}) and out_features "
            f"({out_features}), got {groups}."
        )


def _each_feature(init: nnx.Initializer) -> nnx.Initializer:
    """An initializer reads the fan-in off the shape, and each result has one feature in."""

    def initialize(key: Array, shape: Any, *args: Any, **kwargs: Any) -> Array:
        size, features, multiplier = shape
        return init(key, (size, 1, features * multiplier), *args, **kwargs).reshape(shape)

    return initialize
