"""Keras's layers of windows, pooling and shapes: what changes time."""

from typing import Any

import numpy as np
from flax import nnx

from jaxmask import nn
from jaxmask.interop import _keras_modules as modules
from jaxmask.interop._keras_layers import DROPS, ZEROS, activated, followed
from jaxmask.interop._keras_parts import (
    KerasContext,
    Part,
    Refused,
    array,
    built,
    channels_last,
    converts,
    options,
    put,
    require,
)

WINDOWS = (
    "Keras drops the mask here: windows include padding, and all outputs count as real. Here "
    "windows read real steps only, and the mask is kept"
)


def strided(size: int, stride: int, padding: str) -> None:
    """Refuse XLA's SAME where its windows move with the padded length of the array."""
    moves = max(size - 1, 0) // 2 != max(size - stride, 0) // 2
    require(
        padding != "same" or not moves,
        f'its `padding="same"` with a stride of {stride} places the windows by the padded length '
        "of the array, so the same row has other results in a longer batch; jaxmask places them by "
        'the kernel only. Train again with `"valid"` or `"causal"`, or put a layer of `jm.nn` '
        "with the same weights in its place where a shift by a step does not matter.",
    )


def _windows(layer: Any, at: KerasContext) -> dict[str, Any]:
    built(layer)
    channels_last(layer)
    (size,), (stride,), (dilation,) = layer.kernel_size, layer.strides, layer.dilation_rate
    strided((size - 1) * dilation + 1, stride, layer.padding)
    at.differs_under_mask(WINDOWS)
    return {"padding": layer.padding, "strides": stride, "dilation": dilation}


def _bias(module: Any, layer: Any) -> Any:
    if layer.use_bias:
        put(module.bias, layer.bias)
    return module


def _convolution(
    kind: Any, sizes: tuple[int, ...], given: dict[str, Any], kernel: Any, at: KerasContext, of: Any
) -> Part:
    def make() -> Any:
        conv = kind(*sizes, use_bias=of.use_bias, kernel_init=ZEROS, **given, **options(of))
        put(conv.kernel, kernel)
        return _bias(conv, of)

    return followed(f"jm.nn.{kind.__name__}", make, of, at)


@converts("Conv1D")
def _conv(layer: Any, at: KerasContext) -> Part:
    given = {"groups": layer.groups, **_windows(layer, at)}
    size, features, filters = layer.kernel.shape
    sizes = features * layer.groups, filters, size
    return _convolution(nn.Conv1D, sizes, given, layer.kernel, at, layer)


@converts("DepthwiseConv1D")
def _depthwise(layer: Any, at: KerasContext) -> Part:
    given = _windows(layer, at)
    size, features, multiplier = layer.kernel.shape
    sizes = features, size, multiplier
    return _convolution(nn.DepthwiseConv1D, sizes, given, layer.kernel, at, layer)


@converts("SeparableConv1D")
def _separable(layer: Any, at: KerasContext) -> Part:
    windows = _windows(layer, at)
    size, features, multiplier = layer.depthwise_kernel.shape
    _, inside, filters = layer.pointwise_kernel.shape
    after = activated(layer, at)

    def make() -> tuple[Any, ...]:
        given = {"use_bias": False, "kernel_init": ZEROS, **windows, **options(layer)}
        depthwise = nn.DepthwiseConv1D(features, size, multiplier, **given)
        put(depthwise.kernel, layer.depthwise_kernel)
        point = {"use_bias": layer.use_bias, "kernel_init": ZEROS, **options(layer)}
        pointwise = nnx.Linear(inside, filters, **point)
        put(pointwise.kernel, array(layer.pointwise_kernel)[0])
        return (depthwise, _bias(pointwise, layer), *after.make())

    return Part("jm.nn.DepthwiseConv1D, nnx.Linear", make)


@converts("Conv1DTranspose")
def _transposed(layer: Any, at: KerasContext) -> Part:
    built(layer)
    channels_last(layer)
    require(layer.dilation_rate == (1,), "its `dilation_rate` is not 1.")
    require(layer.output_padding is None, "its `output_padding` is not None.")
    at.differs_under_mask(WINDOWS)
    size, filters, features = layer.kernel.shape
    given = {"strides": layer.strides[0], "padding": layer.padding}
    kernel = np.swapaxes(array(layer.kernel), 1, 2)
    return _convolution(nn.ConvTranspose1D, (features, filters, size), given, kernel, at, layer)


@converts("MaxPooling1D", "AveragePooling1D")
def _window_pool(layer: Any, at: KerasContext) -> Part:
    channels_last(layer)
    (size,), (stride,) = _one(layer.pool_size), _one(layer.strides)
    strided(size, stride, layer.padding)
    at.differs_under_mask(WINDOWS)
    kind = nn.MaxPool1D if type(layer).__name__ == "MaxPooling1D" else nn.AvgPool1D
    made = kind(size, strides=stride, padding=layer.padding)
    return Part(f"jm.nn.{kind.__name__}", lambda: (made,))


def _one(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


@converts("GlobalMaxPooling1D", "GlobalAveragePooling1D")
def _pool(layer: Any, at: KerasContext) -> Part:
    channels_last(layer)
    if type(layer).__name__ == "GlobalMaxPooling1D":
        at.differs_under_mask(
            "Keras ignores the mask here, so padding can be the largest; here it cannot"
        )
        kind = nn.GlobalMaxPool
    else:
        at.notes.append("a row without a real step gives 0, where Keras gives nan")
        kind = nn.GlobalMeanPool
    at.to_rows()
    again = (nn.Repeat(1),) if layer.keepdims else ()
    return Part(f"jm.nn.{kind.__name__}", lambda: (kind(), *again))


@converts("Flatten")
def _flatten(layer: Any, at: KerasContext) -> Part:
    channels_last(layer)
    at.differs_under_mask(
        "Keras puts the values in the padding into the features of the row; here they are 0"
    )
    at.to_rows()
    return Part("FlattenRows", lambda: (modules.FlattenRows(),))


@converts("Reshape")
def _reshape(layer: Any, at: KerasContext) -> Part:
    at.differs_under_mask(DROPS)
    target = tuple(layer.target_shape)
    if at.mask == "rows" and len(target) > 1:
        at.mask_out = "steps"
    return Part("Reshape", lambda: (modules.Reshape(target),))


@converts("Permute")
def _permute(layer: Any, at: KerasContext) -> Part:
    dims = tuple(layer.dims)
    if at.mask == "steps" and dims[0] != 1:
        raise Refused(
            f"its `dims` {dims} move time, and the mask cannot follow. Put "
            "`jm.nn.DropMask()` before it if the steps are to become features."
        )
    at.differs_under_mask(DROPS)
    return Part("jm.nn.Permute", lambda: (nn.Permute((0, *dims)),))


@converts("RepeatVector")
def _repeat(layer: Any, at: KerasContext) -> Part:
    if at.mask == "rows":
        at.mask_out = "steps"
    return Part("jm.nn.Repeat", lambda: (nn.Repeat(layer.n),))


@converts("Cropping1D", "ZeroPadding1D")
def _ends(layer: Any, at: KerasContext) -> Part:
    at.differs_under_mask(
        "Keras counts the padding as steps and drops the mask; here the ends are those of each row"
    )
    if type(layer).__name__ == "Cropping1D":
        return Part("jm.nn.Crop", lambda: (nn.Crop(tuple(layer.cropping)),))
    channels_last(layer)
    return Part("ZeroPadding", lambda: (modules.ZeroPadding(tuple(layer.padding)),))


@converts("UpSampling1D")
def _upsample(layer: Any, at: KerasContext) -> Part:
    at.differs_under_mask(DROPS)
    return Part("jm.nn.Upsample", lambda: (nn.Upsample(int(layer.size)),))
