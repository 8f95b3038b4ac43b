"""Convolution modules: parameters and configuration; the arithmetic is `jaxmask.conv`."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, _windows, conv
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.nn._base import NOTHING, ParamOptions, Weighted, check_sizes
from jaxmask.nn._causal import Causal

_NAMES = ("kernel_size", "strides")


class ConvOptions(ParamOptions, total=False):
    """What all convolution modules take; `Conv1D` documents each."""

    use_bias: bool
    kernel_init: nnx.Initializer
    bias_init: nnx.Initializer
    kernel_metadata: Mapping[str, Any]
    bias_metadata: Mapping[str, Any]


class _Conv(Weighted):
    """A kernel and a bias."""

    def _make_weights(
        self,
        kernel_shape: tuple[int, ...],
        out_features: int,
        *,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = nnx.initializers.lecun_normal(),
        bias_init: nnx.Initializer = nnx.initializers.zeros,
        kernel_metadata: Mapping[str, Any] = NOTHING,
        bias_metadata: Mapping[str, Any] = NOTHING,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel = self._param(kernel_init, kernel_shape, kernel_metadata, rngs, param_dtype)
        self.bias: nnx.Param | None = nnx.data(None)
        if use_bias:
            self.bias = self._param(bias_init, (out_features,), bias_metadata, rngs, param_dtype)
        self.dtype = dtype


class _WindowedConv(_Conv, Causal):
    """A convolution over windows of time, which runs chunk by chunk if it is causal."""

    _function: ClassVar[Callable[..., Pair]]
    in_features: int

    def _set_windows(
        self, kernel_size: int, padding: str, strides: int, dilation: int, mask_rule: str | None
    ) -> None:
        where = type(self).__name__
        _windows.window(
            *(kernel_size, strides, padding, mask_rule, where), dilation=dilation, names=_NAMES
        )
        self.padding = padding
        self.strides = strides
        self.dilation = dilation
        self.mask_rule = mask_rule

    def _options(self) -> dict[str, Any]:
        return {"strides": self.strides, "dilation": self.dilation}

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        return self._convolve(x, mask, self.padding, self.mask_rule)

    def _convolve(self, x: ArrayLike, mask: Mask, padding: str, mask_rule: str | None) -> Pair:
        x, kernel, bias = self._cast(x, self.kernel, self.bias)
        options = self._options() | {"padding": padding, "mask_rule": mask_rule}
        return type(self)._function(x, mask, kernel, bias, **options)

    def _reach(self) -> int:
        return (self.kernel.shape[0] - 1) * self.dilation

    def _past_features(self) -> tuple[int, ...]:
        return (self.in_features,)

    def _over_chunk(self, x: Array, real: Array) -> Array:
        # `x` is already 0 in the padding.
        return self._convolve(x, None, "valid", None)[0]


class Conv1D(_WindowedConv):
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

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.Conv1D(3, 4, 5, strides=2, rngs=nnx.Rngs(0))
      >>> y, mask = layer(jnp.ones((1, 6, 3)), jnp.array([[True, True, True, False, False, False]]))
      >>> y.shape, mask.tolist()
      ((1, 3, 4), [[True, True, False]])
    """

    _function = staticmethod(conv.conv1d)

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
        **options: Unpack[ConvOptions],
    ):
        _check_features("Conv1D", groups, in_features, out_features)
        self._set_windows(kernel_size, padding, strides, dilation, mask_rule)
        shape = (kernel_size, in_features // groups, out_features)
        self._make_weights(shape, out_features, **options)
        self.in_features = in_features
        self.groups = groups

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"groups": self.groups}


class DepthwiseConv1D(_WindowedConv):
    """Convolution of each feature over time; the arithmetic is `jaxmask.conv.depthwise`.

    With `padding="causal"` and `strides=1` it runs chunk by chunk, as `Conv1D` does.

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, in_features * multiplier]` and mask `[batch, time_out]`.

    Args:
      in_features: size of the last axis of `x`.
      kernel_size: steps of a window.
      multiplier: output features per input feature.
      padding, strides, dilation, mask_rule: as in `Conv1D`.
      **options: as in `Conv1D`. `kernel_init` makes `[kernel_size, 1, in_features * multiplier]`,
        so that it sees the right fan-in, reshaped to `[kernel_size, in_features, multiplier]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.DepthwiseConv1D(3, 5, padding="causal", rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 6, 3)), jnp.ones((2, 6), bool))[0].shape
      (2, 6, 3)
    """

    _function = staticmethod(conv.depthwise)

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
        **options: Unpack[ConvOptions],
    ):
        check_sizes("DepthwiseConv1D", in_features=in_features, multiplier=multiplier)
        self._set_windows(kernel_size, padding, strides, dilation, mask_rule)
        init = options.get("kernel_init", nnx.initializers.lecun_normal())
        options["kernel_init"] = _each_feature(init)
        shape = (kernel_size, in_features, multiplier)
        self._make_weights(shape, in_features * multiplier, **options)
        self.in_features = in_features


class ConvTranspose1D(_Conv):
    """Transposed convolution over time; the arithmetic is `jaxmask.conv.conv1d_transpose`.

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, out_features]` and mask `[batch, time_out]`.

    Args:
      in_features: size of the last axis of `x`.
      out_features: size of the last axis of `y`.
      kernel_size: outputs to which a step contributes.
      strides: outputs per step.
      padding: `"same"`, `"valid"` or `"causal"`, see `jaxmask.conv.conv1d_transpose`.
      **options: as in `Conv1D`; the kernel is `[kernel_size, in_features, out_features]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
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
        **options: Unpack[ConvOptions],
    ):
        sizes = {"in_features": in_features, "out_features": out_features}
        check_sizes("ConvTranspose1D", **sizes, kernel_size=kernel_size, strides=strides)
        _check.choice(padding, ("same", "valid", "causal"), "ConvTranspose1D", "padding")
        self._make_weights((kernel_size, in_features, out_features), out_features, **options)
        self.strides = strides
        self.padding = padding

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        x, kernel, bias = self._cast(x, self.kernel, self.bias)
        options: dict[str, Any] = {"strides": self.strides, "padding": self.padding}
        return conv.conv1d_transpose(x, mask, kernel, bias, **options)


class Conv2D(_Conv):
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
      **options: as in `Conv1D`; the kernel is
        `[*kernel_size, in_features // groups, out_features]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
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
        **options: Unpack[ConvOptions],
    ):
        _check_features("Conv2D", groups, in_features, out_features)
        axes = {"kernel_size": kernel_size, "strides": strides, "dilation": dilation}
        for name, value in axes.items():
            _check.two_counts(value, "Conv2D", name, "time, frequency", least=1)
        rules = (padding, mask_rule), (frequency_padding, None)
        for size, stride, gap, rule in zip(kernel_size, strides, dilation, rules, strict=True):
            _windows.window(size, stride, *rule, "Conv2D", dilation=gap, names=_NAMES)
        shape = (*kernel_size, in_features // groups, out_features)
        self._make_weights(shape, out_features, **options)
        self.padding = padding
        self.frequency_padding = frequency_padding
        self.strides = strides
        self.dilation = dilation
        self.groups = groups
        self.mask_rule = mask_rule

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        x, kernel, bias = self._cast(x, self.kernel, self.bias)
        return conv.conv2d(
            *(x, mask, kernel, bias),
            padding=self.padding,
            frequency_padding=self.frequency_padding,
            strides=self.strides,
            dilation=self.dilation,
            groups=self.groups,
            mask_rule=self.mask_rule,
        )


def _check_features(where: str, groups: int, in_features: int, out_features: int) -> None:
    check_sizes(where, in_features=in_features, out_features=out_features, groups=groups)
    if in_features % groups or out_features % groups:
        raise ValueError(
            f"{where}: `groups` must divide in_features ({in_features}) and out_features "
            f"({out_features}), got {groups}."
        )


def _each_feature(init: nnx.Initializer) -> nnx.Initializer:
    """Give the initializer a shape with a fan-in of one feature, as each output feature has."""

    def initialize(key: Array, shape: Any, *args: Any, **kwargs: Any) -> Array:
        size, features, multiplier = shape
        return init(key, (size, 1, features * multiplier), *args, **kwargs).reshape(shape)

    return initialize
