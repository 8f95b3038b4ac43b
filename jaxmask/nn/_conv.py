"""Convolution modules: parameters and configuration; the arithmetic is `jaxmask.conv`."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, _windows, conv
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask._windows import Padding
from jaxmask.nn._base import NOTHING, ParamOptions, Weighted, check_sizes
from jaxmask.nn._causal import Causal

NAMES = ("kernel_size", "strides")


class ConvOptions(ParamOptions, total=False):
    """What all convolution modules take; `Conv1D` documents each."""

    use_bias: bool
    kernel_init: nnx.Initializer
    bias_init: nnx.Initializer
    kernel_metadata: Mapping[str, Any]
    bias_metadata: Mapping[str, Any]


class Conv(Weighted):
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


class _WindowedConv(Conv, Causal):
    """A convolution over windows of time, which runs chunk by chunk if it is causal."""

    _function: ClassVar[Callable[..., Pair]]
    in_features: int

    def _set_windows(
        self,
        kernel_size: int,
        padding: Padding,
        strides: int,
        dilation: int,
        mask_rule: str | None,
        padding_mode: str,
    ) -> None:
        where = type(self).__name__
        _check.choice(padding_mode, _windows.PADDING_MODES, where, "padding_mode")
        _windows.window(
            *(kernel_size, strides, padding, mask_rule, where), dilation=dilation, names=NAMES
        )
        self.padding = padding
        self.strides = strides
        self.dilation = dilation
        self.mask_rule = mask_rule
        self.padding_mode = padding_mode

    def _options(self) -> dict[str, Any]:
        names = ("strides", "dilation", "padding_mode")
        return {name: getattr(self, name) for name in names}

    def _require_causal(self) -> None:
        super()._require_causal()
        if self.padding_mode != "zeros":
            raise _check.MaskError(
                f"{type(self).__name__}: with padding_mode={self.padding_mode!r} the first results "
                'of a row need steps of later chunks. Use padding_mode="zeros" to run chunk by '
                "chunk."
            )

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        return self._convolve(x, mask, self.padding, self.mask_rule)

    def _convolve(self, x: ArrayLike, mask: Mask, padding: Padding, mask_rule: str | None) -> Pair:
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
      padding: `"same"`, `"causal"`, `"reverse_causal"`, `"valid"`, `"full"`, or numbers of steps.
      padding_mode: `"zeros"`, `"reflect"`, `"replicate"` or `"circular"`, at the ends of each row.
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
        padding: Padding = "same",
        padding_mode: str = "zeros",
        strides: int = 1,
        dilation: int = 1,
        groups: int = 1,
        mask_rule: str | None = None,
        **options: Unpack[ConvOptions],
    ):
        check_features("Conv1D", groups, in_features, out_features)
        self._set_windows(kernel_size, padding, strides, dilation, mask_rule, padding_mode)
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
      padding, padding_mode, strides, dilation, mask_rule: as in `Conv1D`.
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
        padding: Padding = "same",
        padding_mode: str = "zeros",
        strides: int = 1,
        dilation: int = 1,
        mask_rule: str | None = None,
        **options: Unpack[ConvOptions],
    ):
        check_sizes("DepthwiseConv1D", in_features=in_features, multiplier=multiplier)
        self._set_windows(kernel_size, padding, strides, dilation, mask_rule, padding_mode)
        init = options.get("kernel_init", nnx.initializers.lecun_normal())
        options["kernel_init"] = _each_feature(init)
        shape = (kernel_size, in_features, multiplier)
        self._make_weights(shape, in_features * multiplier, **options)
        self.in_features = in_features


class SeparableConv1D(_WindowedConv):
    """A convolution of each feature, then a mixture; the arithmetic is `jaxmask.conv.separable`.

    With `padding="causal"` and `strides=1` it runs chunk by chunk, as `Conv1D` does.

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, out_features]` and mask `[batch, time_out]`.

    Args:
      in_features: size of the last axis of `x`.
      out_features: size of the last axis of `y`.
      kernel_size: steps of a window.
      multiplier: features between the two, per input feature.
      padding, padding_mode, strides, dilation, mask_rule: as in `Conv1D`.
      **options: as in `Conv1D`. `kernel_init` makes both `kernel`, as in `DepthwiseConv1D`, and
        `pointwise [in_features * multiplier, out_features]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.SeparableConv1D(3, 4, 5, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 6, 3)), jnp.ones((2, 6), bool))[0].shape
      (2, 6, 4)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        multiplier: int = 1,
        *,
        padding: Padding = "same",
        padding_mode: str = "zeros",
        strides: int = 1,
        dilation: int = 1,
        mask_rule: str | None = None,
        **options: Unpack[ConvOptions],
    ):
        sizes = {"in_features": in_features, "out_features": out_features}
        check_sizes("SeparableConv1D", **sizes, multiplier=multiplier)
        self._set_windows(kernel_size, padding, strides, dilation, mask_rule, padding_mode)
        init = options.get("kernel_init", nnx.initializers.lecun_normal())
        self.pointwise = self._param(
            *(init, (in_features * multiplier, out_features)),
            options.get("kernel_metadata", NOTHING),
            options["rngs"],
            options.get("param_dtype", jnp.float32),
        )
        options["kernel_init"] = _each_feature(init)
        self._make_weights((kernel_size, in_features, multiplier), out_features, **options)
        self.in_features = in_features

    def _convolve(self, x: ArrayLike, mask: Mask, padding: Padding, mask_rule: str | None) -> Pair:
        arrays = self._cast(x, self.kernel, self.pointwise, self.bias)
        options = self._options() | {"padding": padding, "mask_rule": mask_rule}
        return conv.separable(arrays[0], mask, *arrays[1:], **options)


def check_features(where: str, groups: int, in_features: int, out_features: int) -> None:
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
