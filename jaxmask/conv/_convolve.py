"""Convolution over time, and over time and frequency."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask import _windows as windows
from jaxmask._errors import refusing_pairs
from jaxmask._loops import convolve
from jaxmask._steps import filled
from jaxmask._types import Array, ArrayLike, Mask, Pair, common_dtype
from jaxmask._windows import Padding, Window, slide

KERNEL_NAMES = ("kernel.shape (its window)", "strides")
OVER_TIME = "[batch, time, feature]"
OVER_TIME_AND_FREQUENCY = "[batch, time, frequency, channel]"


@refusing_pairs
def conv1d(
    x: ArrayLike,
    mask: Mask,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    padding: Padding = "same",
    padding_mode: str = "zeros",
    strides: int = 1,
    dilation: int = 1,
    groups: int = 1,
    mask_rule: str | None = None,
) -> Pair:
    """Convolve each row with a kernel over time, as the unpadded row alone would be.

        y[b, i] = bias + sum_k x[b, i * strides + k * dilation - left] @ kernel[k]

    where steps outside the row, and padding, are 0; `span = (window - 1) * dilation + 1`, and

        padding           left              outputs of n real steps              real by default if
        "same"            (span - 1) // 2   ceil(n / strides)                    its anchor is
        "causal"          span - 1          ceil(n / strides)                    its anchor is
        "reverse_causal"  0                 ceil(n / strides)                    its anchor is
        "valid"           0                 (n - span) // strides + 1, or 0      all of it is
        "full"            span - 1          (n + span - 2) // strides + 1, or 0  any of it is
        (left, right)     left              (n + left + right - span) // strides + 1, or 0
                                                                                 always
    The anchor of output i is step `i * strides`. `left` is the same for every length, as in
    PyTorch; XLA's SAME (Keras, Flax) moves with the padded length where `strides > 1`.
    Mask class: contiguous. Holes are physical: a missing step keeps its place and contributes
    nothing; the output anchored at it is a hole too, and a window that must be real throughout is
    not if it holds one. Close holes with `jm.ops.compact` if the steps around them are neighbours.
    With `strides > 1` each row is first moved to the left, with its holes, since strides count from
    its first real step; the result is then padded on the right. Exports with a symbolic time;
    "valid" then needs a constraint of at least the span, such as `time >= 3`.

    Args:
      x: `[batch, time, feature]`, floating or complex.
      mask: `[batch, time]`, boolean, or `Segments` (no window crosses from one sequence to
        another; outputs close up to the left where their number changes), or None.
      kernel: `[window, feature // groups, features_out]`, floating. Inputs multiply in the common
        dtype of `x` and `kernel`.
      bias: `[features_out]`, or None.
      padding: see above; a number is that for both ends. With numbers, a hole is no hole in the
        result.
      padding_mode: what stands beyond the ends of each row, `"zeros"`, or steps of the row itself:
        `"reflect"` (about the first and the last step, which are not repeated), `"replicate"` or
        `"circular"`. Rows that are shorter than their padding go on as in `numpy.pad`; PyTorch
        refuses them.
      strides: static, at least 1.
      dilation: static, at least 1.
      groups: static; divides `feature` and `features_out`.
      mask_rule: which outputs are real: by their `"anchor"`, if `"all"` of the window is real, or
        if `"any"` is (only `"full"`). Numbers as `padding` have one rule, `"row"`: the outputs of
        the row alone. Where None, the default above.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, features_out]` in the dtype of `x`. The mask is
      None for None, unless `mask_rule` makes padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[1.0], [2.0], [jnp.nan]]])
      >>> mask = jnp.array([[True, True, False]])
      >>> jm.conv.conv1d(x, mask, jnp.ones((3, 1, 1)))[0][..., 0].tolist()
      [[3.0, 3.0, 0.0]]

    Agrees with `keras.layers.Conv1D` (strided "same" apart) and `torch.nn.Conv1d`.
    """
    where = "conv1d"
    x, mask = _check.pair(x, mask, where, over_time=True)
    kernel, bias = checked_weights(x, kernel, bias, groups, where, OVER_TIME)
    window = windows.window(
        kernel.shape[0], strides, padding, mask_rule, where, dilation=dilation, names=KERNEL_NAMES
    )
    return _slide(x, mask, kernel, bias, (window,), groups, padding_mode, where)


@refusing_pairs
def depthwise(
    x: ArrayLike,
    mask: Mask,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    padding: Padding = "same",
    padding_mode: str = "zeros",
    strides: int = 1,
    dilation: int = 1,
    mask_rule: str | None = None,
) -> Pair:
    """Convolve each feature with its own kernels over time.

        y[b, i, f * multiplier + m] = bias + sum_k x[b, i * strides + k * dilation - left, f]
                                                   * kernel[k, f, m]

    Padding, masks and mask class are those of `conv1d`.

    Args:
      kernel: `[window, feature, multiplier]`, floating.
      bias: `[feature * multiplier]`, or None.
      x, mask, padding, padding_mode, strides, dilation, mask_rule: as in `conv1d`.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, feature * multiplier]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[1.0, 10.0], [2.0, 20.0]]])
      >>> jm.conv.depthwise(x, None, jnp.ones((2, 2, 1)), padding="causal")[0].tolist()
      [[[1.0, 10.0], [3.0, 30.0]]]

    Agrees with `keras.layers.DepthwiseConv1D` of the unpadded row.
    """
    where = "depthwise"
    x, mask = _check.pair(x, mask, where, over_time=True)
    kernel = _check.array(kernel, "kernel", where)
    features = x.shape[-1]
    if x.ndim != 3 or kernel.ndim != 3 or kernel.shape[1] != features:
        raise ValueError(
            f"{where}: `x` must be [batch, time, feature] and `kernel` [window, feature, "
            f"multiplier] with the same feature, got {x.shape} and {kernel.shape}."
        )
    kernel = kernel.reshape(kernel.shape[0], 1, features * kernel.shape[2])
    kernel, bias = checked_weights(
        x, kernel, bias, max(features, 1), where, "[batch, time, feature]"
    )
    window = windows.window(
        kernel.shape[0], strides, padding, mask_rule, where, dilation=dilation, names=KERNEL_NAMES
    )
    return _slide(x, mask, kernel, bias, (window,), features, padding_mode, where)


@refusing_pairs
def conv2d(
    x: ArrayLike,
    mask: Mask,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    padding: Padding = "same",
    frequency_padding: Padding = "same",
    padding_mode: str = "zeros",
    strides: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    mask_rule: str | None = None,
) -> Pair:
    """Convolve each row over time and frequency; the mask is over time.

    Over time, padding, masks and mask class are those of `conv1d`. The frequency axis has no
    padding to mask: every bin is real.

    Args:
      x: `[batch, time, frequency, channel]`, floating or complex.
      kernel: `[window, bins, channel // groups, channels_out]`, floating.
      bias: `[channels_out]`, or None.
      frequency_padding: over frequency, with the same options.
      padding_mode: as in `conv1d`, on both axes.
      strides: static, over time and over frequency.
      dilation: static, over time and over frequency.
      groups: static; divides `channel` and `channels_out`.
      mask, padding, mask_rule: as in `conv1d`.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, frequency_out, channels_out]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 3, 4, 1)), jnp.array([[True, True, False]])
      >>> y, _ = jm.conv.conv2d(x, mask, jnp.ones((3, 1, 1, 1)))
      >>> y[0, :, 0, 0].tolist()
      [2.0, 2.0, 0.0]

    Agrees with `keras.layers.Conv2D` (strided "same" apart) of the unpadded row.
    """
    where = "conv2d"
    x, mask = _check.pair(x, mask, where, over_time=True)
    kernel, bias = checked_weights(x, kernel, bias, groups, where, OVER_TIME_AND_FREQUENCY)
    over_time, over_bins = _check.two_counts(strides, where, "strides", "time, frequency")
    d_time, d_bins = _check.two_counts(dilation, where, "dilation", "time, frequency")
    window = windows.window(
        kernel.shape[0], over_time, padding, mask_rule, where, dilation=d_time, names=KERNEL_NAMES
    )
    frequency_padding = windows.checked_padding(frequency_padding, where, "frequency_padding")
    bins = windows.window(
        *(kernel.shape[1], over_bins, frequency_padding, None, where),
        dilation=d_bins,
        names=KERNEL_NAMES,
    )
    return _slide(x, mask, kernel, bias, (window, bins), groups, padding_mode, where)


@refusing_pairs
def conv3d(
    x: ArrayLike,
    mask: Mask,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    padding: Padding = "same",
    space_padding: Padding = "same",
    padding_mode: str = "zeros",
    strides: tuple[int, int, int] = (1, 1, 1),
    dilation: tuple[int, int, int] = (1, 1, 1),
    groups: int = 1,
    mask_rule: str | None = None,
) -> Pair:
    """Convolve each row over time and two axes of space, as those of video; the mask is over time.

    Over time, padding, masks and mask class are those of `conv1d`. Space has no padding to mask.

    Args:
      x: `[batch, time, height, width, channel]`, floating or complex.
      kernel: `[window, height, width, channel // groups, channels_out]`, floating.
      bias: `[channels_out]`, or None.
      space_padding: over height and over width, with the same options as `padding`.
      padding_mode: as in `conv1d`, on all axes.
      strides: static, over time, height and width.
      dilation: static, over time, height and width.
      groups: static; divides `channel` and `channels_out`.
      mask, padding, mask_rule: as in `conv1d`.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, height_out, width_out, channels_out]` in the dtype
      of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 3, 2, 2, 1)), jnp.array([[True, True, False]])
      >>> y, _ = jm.conv.conv3d(x, mask, jnp.ones((3, 1, 1, 1, 1)))
      >>> y[0, :, 0, 0, 0].tolist()
      [2.0, 2.0, 0.0]

    Agrees with `torch.nn.Conv3d` of the unpadded row.
    """
    where = "conv3d"
    x, mask = _check.pair(x, mask, where, over_time=True)
    axes_of_x = "[batch, time, height, width, channel]"
    kernel, bias = checked_weights(x, kernel, bias, groups, where, axes_of_x)
    for value, name in ((strides, "strides"), (dilation, "dilation")):
        if not isinstance(value, tuple | list) or len(value) != 3:
            raise TypeError(
                f"{where}: `{name}` must be three ints (time, height, width), got {value!r}."
            )
    space_padding = windows.checked_padding(space_padding, where, "space_padding")
    rules = (padding, mask_rule), (space_padding, None), (space_padding, None)
    axes = tuple(
        windows.window(size, stride, *rule, where, dilation=gap, names=KERNEL_NAMES)
        for size, stride, rule, gap in zip(kernel.shape[:3], strides, rules, dilation, strict=True)
    )
    return _slide(x, mask, kernel, bias, axes, groups, padding_mode, where)


@refusing_pairs
def separable(
    x: ArrayLike,
    mask: Mask,
    depthwise_kernel: ArrayLike,
    pointwise_kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    padding: Padding = "same",
    padding_mode: str = "zeros",
    strides: int = 1,
    dilation: int = 1,
    mask_rule: str | None = None,
) -> Pair:
    """Convolve each feature over time, then mix the features of each step.

        y[b, i] = bias + depthwise(x)[b, i] @ pointwise_kernel

    Padding, masks and mask class are those of `conv1d`.

    Args:
      depthwise_kernel: `[window, feature, multiplier]`, floating.
      pointwise_kernel: `[feature * multiplier, features_out]`, floating. Keras has an axis of 1
        before these.
      bias: `[features_out]`, or None.
      x, mask, padding, padding_mode, strides, dilation, mask_rule: as in `conv1d`.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, features_out]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[1.0, 10.0], [2.0, 20.0]]])
      >>> y, _ = jm.conv.separable(x, None, jnp.ones((2, 2, 1)), jnp.ones((2, 1)), padding="causal")
      >>> y.tolist()
      [[[11.0], [33.0]]]

    Agrees with `keras.layers.SeparableConv1D` (strided "same" apart) of the unpadded row.
    """
    y, mask = depthwise(
        *(x, mask, depthwise_kernel),
        padding=padding,
        padding_mode=padding_mode,
        strides=strides,
        dilation=dilation,
        mask_rule=mask_rule,
    )
    pointwise = _check.array(pointwise_kernel, "pointwise_kernel", "separable")
    if pointwise.ndim != 2:
        raise ValueError(
            "separable: `pointwise_kernel` must be [feature * multiplier, features_out], got shape "
            f"{pointwise.shape}."
        )
    return conv1d(y, mask, pointwise[None], bias)


def checked_weights(
    x: Array, kernel: ArrayLike, bias: ArrayLike | None, groups: int, where: str, axes: str
) -> tuple[Array, Array | None]:
    """A checked kernel `[window..., feature // groups, out]`, and its bias in the rank of `x`."""
    kernel = _check.array(kernel, "kernel", where)
    windows.inexact(x, where)
    _check.floating(kernel, where, "kernel")
    rank = axes.count(",") + 1
    if x.ndim != rank:
        raise ValueError(f"{where}: `x` must be {axes}, got shape {x.shape}.")
    groups = _check.count(groups, where, "groups", least=1)
    if kernel.ndim != rank or kernel.shape[-2] * groups != x.shape[-1]:
        raise ValueError(
            f"{where}: `kernel` must be [window..., in // groups, out] of rank {rank}, where x has "
            f"{x.shape[-1]} features and groups is {groups}, got shape {kernel.shape}."
        )
    if kernel.shape[-1] % groups:
        raise ValueError(
            f"{where}: `groups` must divide the features of `x` ({x.shape[-1]}) and of the result "
            f"({kernel.shape[-1]}), got {groups}."
        )
    if bias is None:
        return kernel, None
    bias = _check.array(bias, "bias", where)
    _check.floating(bias, where, "bias")
    _check.shape(bias, kernel.shape[-1:], "[features_out]", where, "bias")
    return kernel, jax.lax.broadcast_to_rank(bias, rank)


def _slide(
    x: Array,
    mask: Mask,
    kernel: Array,
    bias: Array | None,
    axes: tuple[Window, ...],
    groups: int,
    mode: str,
    where: str,
) -> Pair:
    _check.choice(mode, windows.PADDING_MODES, where, "padding_mode")

    def compute(x: Array, mask: Mask) -> Array:
        y = _convolve(*_continued(filled(x, mask), mask, axes, mode), kernel, groups)
        return (y if bias is None else y + bias).astype(x.dtype)

    with jax.named_scope("jaxmask.conv"):
        return slide(compute, x, mask, axes[0])


def _continued(
    x: Array, mask: Mask, axes: tuple[Window, ...], mode: str
) -> tuple[Array, tuple[Window, ...]]:
    """The array with its own steps beyond the ends of each axis, and windows that need no more."""
    if mode == "zeros" or 0 in x.shape:
        return x, axes
    for position, axis in enumerate(axes, start=1):
        at_end = x.swapaxes(1, position)
        of_rows = mask if position == 1 else None
        at_end = windows.extended(at_end, of_rows, axis.left, axis.right, mode)
        x = at_end.swapaxes(1, position)
    return x, tuple(dataclasses.replace(axis, padding="valid", rule="all") for axis in axes)


def _convolve(x: Array, axes: tuple[Window, ...], kernel: Array, groups: int) -> Array:
    return convolved(
        *(x, kernel, axes, groups),
        window_strides=tuple(axis.stride for axis in axes),
        padding=tuple(axis.pads for axis in axes),
        rhs_dilation=tuple(axis.dilation for axis in axes),
    )


def convolved(x: Array, kernel: Array, axes: tuple[Any, ...], groups: int, **how: Any) -> Array:
    """A convolution over the axes between batch and features, which windows `axes` move along."""
    sizes = x.shape[1:-1]
    steps = (axis.steps_out(size) for axis, size in zip(axes, sizes, strict=True))
    shape = (x.shape[0], *steps, kernel.shape[-1])
    dtype = common_dtype(x.dtype, kernel.dtype)
    if 0 in (*shape, *x.shape, *kernel.shape):  # not every backend convolves nothing
        return jnp.zeros(shape, dtype)
    spatial = "DHW"[-len(sizes) :]
    names = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    how |= {"dimension_numbers": names, "feature_group_count": groups}
    return convolve(x.astype(dtype), kernel.astype(dtype), **how)
