"""Convolution modules: parameters and configuration; the arithmetic is `jaxmask.conv`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmask import _check, _windows, conv
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask._windows import Padding
from jaxmask.nn._base import Weighted, check_sizes, configured
from jaxmask.nn._causal import Causal

NAMES = ("kernel_size", "strides")
_SIZES = ("in_features", "out_features", "multiplier", "groups")


class _Sizes:
    """What a class of convolutions may have; each makes fields of its own in its own order."""

    in_features: int
    out_features: int
    kernel_size: Any
    multiplier: int


@configured
class Conv(Weighted, _Sizes):
    """A kernel, a bias and the options of a function of `jaxmask.conv`; `Conv1D` documents all."""

    _function: ClassVar[Callable[..., Pair]]
    _: dataclasses.KW_ONLY
    use_bias: dataclasses.InitVar[bool] = True
    kernel_init: dataclasses.InitVar[nnx.Initializer] = nnx.initializers.lecun_normal()
    bias_init: dataclasses.InitVar[nnx.Initializer] = nnx.initializers.zeros
    kernel_metadata: dataclasses.InitVar[Mapping[str, Any] | None] = None
    bias_metadata: dataclasses.InitVar[Mapping[str, Any] | None] = None
    dtype: jax.typing.DTypeLike | None = None
    param_dtype: dataclasses.InitVar[jax.typing.DTypeLike] = jnp.float32
    rngs: dataclasses.InitVar[nnx.Rngs]

    def __post_init__(
        self,
        use_bias: bool,
        kernel_init: nnx.Initializer,
        bias_init: nnx.Initializer,
        kernel_metadata: Mapping[str, Any] | None,
        bias_metadata: Mapping[str, Any] | None,
        param_dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self._check()
        made = rngs, param_dtype
        self._make_kernels(kernel_init, kernel_metadata or {}, *made)
        shape = (self._out_features(),)
        self.bias: nnx.Param | None = nnx.data(None)
        if use_bias:
            self.bias = self._param(bias_init, shape, bias_metadata or {}, *made)

    def _check(self) -> None:
        """Refuse options that a call could only fail on."""
        sizes = {name: getattr(self, name) for name in _SIZES if hasattr(self, name)}
        check_sizes(type(self).__name__, **sizes)

    def _make_kernels(self, init: nnx.Initializer, metadata: Mapping[str, Any], *made: Any) -> None:
        self.kernel = self._param(init, self._kernel_shape(), metadata, *made)

    def _kernel_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _out_features(self) -> int:
        return self.out_features

    def _weights(self) -> tuple[nnx.Param | None, ...]:
        return self.kernel, self.bias

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        return self._convolve(x, mask)

    def _convolve(self, x: ArrayLike, mask: Mask, **instead: Any) -> Pair:
        self._require_features(x, self.in_features)
        x, *weights = self._cast(x, *self._weights())
        names = [field.name for field in dataclasses.fields(self) if field.kw_only]
        options = {name: getattr(self, name) for name in names if name != "dtype"}
        return type(self)._function(x, mask, *weights, **options | instead)


@configured
class GroupedConv(Conv):
    """A convolution with a kernel for each group of features."""

    in_features: int
    out_features: int
    kernel_size: Any
    _: dataclasses.KW_ONLY
    groups: int = 1

    def _check(self) -> None:
        super()._check()
        if self.in_features % self.groups or self.out_features % self.groups:
            raise ValueError(
                f"{type(self).__name__}: `groups` must divide in_features ({self.in_features}) and "
                f"out_features ({self.out_features}), got {self.groups}."
            )

    def _kernel_shape(self) -> tuple[int, ...]:
        size = self.kernel_size
        taps = size if isinstance(size, tuple) else (size,)
        return (*taps, self.in_features // self.groups, self.out_features)


@configured
class _WindowedConv(Conv, Causal):
    """A convolution over windows of time, which runs chunk by chunk if it is causal."""

    _: dataclasses.KW_ONLY
    padding: Padding = "same"
    padding_mode: str = "zeros"
    strides: int = 1
    dilation: int = 1
    mask_rule: str | None = None

    def _check(self) -> None:
        super()._check()
        where = type(self).__name__
        _check.choice(self.padding_mode, _windows.PADDING_MODES, where, "padding_mode")
        windows = self.kernel_size, self.strides, self.padding, self.mask_rule
        _windows.window(*windows, where, dilation=self.dilation, names=NAMES)

    def _require_causal(self) -> None:
        super()._require_causal()
        if self.padding_mode != "zeros":
            raise _check.MaskError(
                f"{type(self).__name__}: with padding_mode={self.padding_mode!r} the first results "
                'of a row need steps of later chunks. Use padding_mode="zeros" to run chunk by '
                "chunk."
            )

    def _reach(self) -> int:
        return (self.kernel.shape[0] - 1) * self.dilation

    def _past_features(self) -> tuple[int, ...]:
        return (self.in_features,)

    def _over_chunk(self, x: Array, real: Array) -> Array:
        # `x` is already 0 in the padding.
        return self._convolve(x, None, padding="valid", mask_rule=None)[0]


@configured
class Conv1D(_WindowedConv, GroupedConv):
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
        With `strides > 1`, `"same"` differs from SAME of `nnx.Conv` and Keras, whose windows move
        with the padded length.
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
    kernel_size: int


class _EachFeature(_WindowedConv):
    """A kernel for each feature, drawn with the fan-in of one, as each output feature has."""

    def _kernel_shape(self) -> tuple[int, ...]:
        return self.kernel_size, self.in_features, self.multiplier

    def _make_kernels(self, init: nnx.Initializer, metadata: Mapping[str, Any], *made: Any) -> None:
        def initialize(key: Array, shape: Any, *args: Any, **kwargs: Any) -> Array:
            size, features, multiplier = shape
            return init(key, (size, 1, features * multiplier), *args, **kwargs).reshape(shape)

        super()._make_kernels(initialize, metadata, *made)


@configured
class DepthwiseConv1D(_EachFeature):
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
    in_features: int
    kernel_size: int
    multiplier: int = 1

    def _out_features(self) -> int:
        return self.in_features * self.multiplier


@configured
class SeparableConv1D(_EachFeature):
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

    _function = staticmethod(conv.separable)
    in_features: int
    out_features: int
    kernel_size: int
    multiplier: int = 1

    def _make_kernels(self, init: nnx.Initializer, metadata: Mapping[str, Any], *made: Any) -> None:
        shape = self.in_features * self.multiplier, self.out_features
        self.pointwise = self._param(init, shape, metadata, *made)
        super()._make_kernels(init, metadata, *made)

    def _weights(self) -> tuple[nnx.Param | None, ...]:
        return self.kernel, self.pointwise, self.bias
