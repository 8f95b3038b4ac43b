"""Transposed convolution modules; the arithmetic is `jaxmask.conv`."""

from typing import Unpack

from jaxmask import _check, _windows, conv
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask.nn._conv import Conv, ConvOptions, check_features


class ConvTranspose1D(Conv):
    """Transposed convolution over time; the arithmetic is `jaxmask.conv.conv1d_transpose`.

    Shapes: `x [batch, time, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, out_features]` and mask `[batch, time_out]`.

    Args:
      in_features: size of the last axis of `x`.
      out_features: size of the last axis of `y`.
      kernel_size: outputs to which a step contributes.
      strides: outputs per step.
      padding: `"same"`, `"valid"`, `"causal"` or a number, see `jaxmask.conv.conv1d_transpose`.
      output_padding: further outputs at the end; only with a number.
      dilation: outputs from one tap of a window to the next.
      groups: divides `in_features` and `out_features`.
      **options: as in `Conv1D`; the kernel is
        `[kernel_size, in_features // groups, out_features]`.

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
        padding: str | int = "same",
        output_padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        **options: Unpack[ConvOptions],
    ):
        check_features("ConvTranspose1D", groups, in_features, out_features)
        axis = (kernel_size, strides, padding, output_padding, dilation)
        _windows.spreading(*axis, "ConvTranspose1D", name="kernel_size")
        self.strides = strides
        self.padding = padding
        self.output_padding = output_padding
        self.dilation = dilation
        self.groups = groups
        shape = (kernel_size, in_features // groups, out_features)
        self._make_weights(shape, out_features, **options)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        x, kernel, bias = self._cast(x, self.kernel, self.bias)
        return conv.conv1d_transpose(
            *(x, mask, kernel, bias),
            strides=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose2D(Conv):
    """Transposed convolution over time and frequency: `jaxmask.conv.conv2d_transpose`.

    Shapes: `x [batch, time, frequency, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, frequency_out, out_features]` and mask `[batch, time_out]`.

    Args:
      in_features: channels, the last axis of `x`.
      out_features: channels, the last axis of `y`.
      kernel_size: steps and frequency bins to which a step contributes.
      strides: over time and over frequency.
      padding: over time; `"same"`, `"valid"`, `"causal"` or a number.
      frequency_padding: over frequency, by the same words.
      output_padding: over time and over frequency, only with numbers.
      dilation: over time and over frequency.
      groups: divides `in_features` and `out_features`.
      **options: as in `Conv1D`; the kernel is
        `[*kernel_size, in_features // groups, out_features]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.ConvTranspose2D(3, 4, (3, 3), strides=(2, 2), rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 6, 8, 3)), jnp.ones((2, 6), bool))[0].shape
      (2, 12, 16, 4)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: tuple[int, int],
        *,
        strides: tuple[int, int] = (1, 1),
        padding: str | int = "same",
        frequency_padding: str | int = "same",
        output_padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        **options: Unpack[ConvOptions],
    ):
        check_features("ConvTranspose2D", groups, in_features, out_features)
        pairs = {"kernel_size": kernel_size, "strides": strides, "output_padding": output_padding}
        for name, value in (pairs | {"dilation": dilation}).items():
            _check.two_counts(value, "ConvTranspose2D", name, "time, frequency")
        paddings = (padding, frequency_padding)
        for axis in zip(kernel_size, strides, paddings, output_padding, dilation, strict=True):
            _windows.spreading(*axis, "ConvTranspose2D", name="kernel_size")
        self.strides = strides
        self.padding = padding
        self.frequency_padding = frequency_padding
        self.output_padding = output_padding
        self.dilation = dilation
        self.groups = groups
        shape = (*kernel_size, in_features // groups, out_features)
        self._make_weights(shape, out_features, **options)

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Convolve and return `(y, mask)`."""
        x, kernel, bias = self._cast(x, self.kernel, self.bias)
        return conv.conv2d_transpose(
            *(x, mask, kernel, bias),
            strides=self.strides,
            padding=self.padding,
            frequency_padding=self.frequency_padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )
