"""Transposed convolution modules; the arithmetic is `jaxmask.conv`."""

import dataclasses

from jaxmask import _check, _windows, conv
from jaxmask.nn._base import configured
from jaxmask.nn._conv import GroupedConv


@configured
class ConvTranspose1D(GroupedConv):
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

    _function = staticmethod(conv.conv1d_transpose)
    kernel_size: int
    _: dataclasses.KW_ONLY
    strides: int = 1
    padding: str | int = "same"
    output_padding: int = 0
    dilation: int = 1

    def _check(self) -> None:
        super()._check()
        axis = self.kernel_size, self.strides, self.padding, self.output_padding, self.dilation
        _windows.spreading(*axis, "ConvTranspose1D", name="kernel_size")


@configured
class ConvTranspose2D(GroupedConv):
    """Transposed convolution over time and frequency: `jaxmask.conv.conv2d_transpose`.

    Shapes: `x [batch, time, frequency, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, frequency_out, out_features]` and mask `[batch, time_out]`.

    Args:
      kernel_size: steps and frequency bins to which a step contributes.
      padding: over time; `"same"`, `"valid"`, `"causal"` or a number.
      frequency_padding: over frequency, by the same words.
      output_padding: over time and over frequency, only with numbers.
      in_features, out_features, strides, dilation, groups: as in `Conv2D`.
      **options: as in `Conv1D`; the kernel is
        `[*kernel_size, in_features // groups, out_features]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.ConvTranspose2D(3, 4, (3, 3), strides=(2, 2), rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 6, 8, 3)), jnp.ones((2, 6), bool))[0].shape
      (2, 12, 16, 4)
    """

    _function = staticmethod(conv.conv2d_transpose)
    kernel_size: tuple[int, int]
    _: dataclasses.KW_ONLY
    strides: tuple[int, int] = (1, 1)
    padding: str | int = "same"
    frequency_padding: str | int = "same"
    output_padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def _check(self) -> None:
        super()._check()
        for name in ("kernel_size", "strides", "output_padding", "dilation"):
            value = getattr(self, name)
            _check.two_counts(value, "ConvTranspose2D", name, "time, frequency")
            setattr(self, name, tuple(value))
        paddings = self.padding, self.frequency_padding
        pairs = self.kernel_size, self.strides, paddings, self.output_padding, self.dilation
        for axis in zip(*pairs, strict=True):
            _windows.spreading(*axis, "ConvTranspose2D", name="kernel_size")
