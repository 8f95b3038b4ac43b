"""Convolution modules over time and further axes; the arithmetic is `jaxmask.conv`."""

from collections.abc import Mapping
from typing import Any, Unpack

from jaxmask import _check, _windows, conv
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask._windows import Padding
from jaxmask.nn._conv import NAMES, Conv, ConvOptions, check_features


class Conv2D(Conv):
    """Convolution over time and frequency; the arithmetic is `jaxmask.conv.conv2d`.

    Shapes: `x [batch, time, frequency, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, frequency_out, out_features]` and mask `[batch, time_out]`.

    Args:
      in_features: channels, the last axis of `x`.
      out_features: channels, the last axis of `y`.
      kernel_size: steps and frequency bins of a window.
      padding: over time; a word or numbers, as in `Conv1D`.
      frequency_padding: over frequency, likewise.
      padding_mode: as in `Conv1D`, on both axes.
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
        padding: Padding = "same",
        frequency_padding: Padding = "same",
        padding_mode: str = "zeros",
        strides: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        mask_rule: str | None = None,
        **options: Unpack[ConvOptions],
    ):
        check_features("Conv2D", groups, in_features, out_features)
        sizes = {"kernel_size": kernel_size, "strides": strides, "dilation": dilation}
        paddings = (padding, frequency_padding)
        _check_axes("Conv2D", "time, frequency", paddings, mask_rule, padding_mode, sizes)
        shape = (*kernel_size, in_features // groups, out_features)
        self._make_weights(shape, out_features, **options)
        self.padding = padding
        self.frequency_padding = frequency_padding
        self.padding_mode = padding_mode
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
            padding_mode=self.padding_mode,
            strides=self.strides,
            dilation=self.dilation,
            groups=self.groups,
            mask_rule=self.mask_rule,
        )


class Conv3D(Conv):
    """Convolution over time and two axes of space; the arithmetic is `jaxmask.conv.conv3d`.

    Shapes: `x [batch, time, height, width, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, height_out, width_out, out_features]` and mask `[batch, time_out]`.

    Args:
      in_features: channels, the last axis of `x`.
      out_features: channels, the last axis of `y`.
      kernel_size: steps, height and width of a window.
      padding: over time; a word or numbers, as in `Conv1D`.
      space_padding: over height and over width, likewise.
      padding_mode: as in `Conv1D`, on all axes.
      strides: over time, height and width.
      dilation: over time, height and width.
      groups: divides `in_features` and `out_features`.
      mask_rule: see `jaxmask.conv.conv1d`.
      **options: as in `Conv1D`; the kernel is
        `[*kernel_size, in_features // groups, out_features]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.Conv3D(1, 4, (3, 3, 3), strides=(1, 2, 2), rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 6, 8, 8, 1)), jnp.ones((2, 6), bool))[0].shape
      (2, 6, 4, 4, 4)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: tuple[int, int, int],
        *,
        padding: Padding = "same",
        space_padding: Padding = "same",
        padding_mode: str = "zeros",
        strides: tuple[int, int, int] = (1, 1, 1),
        dilation: tuple[int, int, int] = (1, 1, 1),
        groups: int = 1,
        mask_rule: str | None = None,
        **options: Unpack[ConvOptions],
    ):
        check_features("Conv3D", groups, in_features, out_features)
        sizes = {"kernel_size": kernel_size, "strides": strides, "dilation": dilation}
        paddings = (padding, space_padding, space_padding)
        _check_axes("Conv3D", "time, height, width", paddings, mask_rule, padding_mode, sizes)
        shape = (*kernel_size, in_features // groups, out_features)
        self._make_weights(shape, out_features, **options)
        self.padding = padding
        self.space_padding = space_padding
        self.padding_mode = padding_mode
        self.strides = strides
        self.dilation = dilation
        self.groups = groups
        self.mask_rule = mask_rule

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        x, kernel, bias = self._cast(x, self.kernel, self.bias)
        return conv.conv3d(
            *(x, mask, kernel, bias),
            padding=self.padding,
            space_padding=self.space_padding,
            padding_mode=self.padding_mode,
            strides=self.strides,
            dilation=self.dilation,
            groups=self.groups,
            mask_rule=self.mask_rule,
        )


def _check_axes(
    where: str,
    axes: str,
    paddings: tuple[Padding, ...],
    mask_rule: str | None,
    padding_mode: str,
    options: Mapping[str, Any],
) -> None:
    """One value of each option for each axis, `kernel_size`, `strides` and `dilation`."""
    _check.choice(padding_mode, _windows.PADDING_MODES, where, "padding_mode")
    for name, value in options.items():
        if not isinstance(value, tuple | list) or len(value) != len(paddings):
            raise TypeError(
                f"{where}: `{name}` must be {len(paddings)} ints ({axes}), got {value!r}."
            )
    rules = (mask_rule, *[None] * (len(paddings) - 1))
    for size, stride, gap, padding, rule in zip(*options.values(), paddings, rules, strict=True):
        _windows.window(size, stride, padding, rule, where, dilation=gap, names=NAMES)
