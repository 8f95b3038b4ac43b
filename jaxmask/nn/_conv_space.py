"""Convolution modules over time and further axes; the arithmetic is `jaxmask.conv`."""

import dataclasses
from typing import ClassVar

from jaxmask import _check, _windows, conv
from jaxmask._windows import Padding
from jaxmask.nn._base import configured
from jaxmask.nn._conv import NAMES, GroupedConv


@configured
class _SpaceConv(GroupedConv):
    """A convolution whose `kernel_size`, `strides` and `dilation` have a value for each axis."""

    _axes: ClassVar[str]
    _: dataclasses.KW_ONLY
    padding: Padding = "same"
    padding_mode: str = "zeros"
    mask_rule: str | None = None

    def _paddings(self) -> tuple[Padding, ...]:
        raise NotImplementedError

    def _check(self) -> None:
        super()._check()
        where, paddings = type(self).__name__, self._paddings()
        _check.choice(self.padding_mode, _windows.PADDING_MODES, where, "padding_mode")
        options = []
        for name in ("kernel_size", "strides", "dilation"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or len(value) != len(paddings):
                raise TypeError(
                    f"{where}: `{name}` must be {len(paddings)} ints ({self._axes}), got {value!r}."
                )
            setattr(self, name, tuple(value))
            options.append(value)
        rules = (self.mask_rule, *[None] * (len(paddings) - 1))
        for size, stride, gap, padding, rule in zip(*options, paddings, rules, strict=True):
            _windows.window(size, stride, padding, rule, where, dilation=gap, names=NAMES)


@configured
class Conv2D(_SpaceConv):
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

    _function = staticmethod(conv.conv2d)
    _axes = "time, frequency"
    kernel_size: tuple[int, int]
    _: dataclasses.KW_ONLY
    frequency_padding: Padding = "same"
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    def _paddings(self) -> tuple[Padding, ...]:
        return self.padding, self.frequency_padding


@configured
class Conv3D(_SpaceConv):
    """Convolution over time and two axes of space; the arithmetic is `jaxmask.conv.conv3d`.

    Shapes: `x [batch, time, height, width, in_features]` and mask `[batch, time]` to
    `y [batch, time_out, height_out, width_out, out_features]` and mask `[batch, time_out]`.

    Args:
      kernel_size: steps, height and width of a window.
      space_padding: over height and over width, likewise.
      padding_mode: as in `Conv1D`, on all axes.
      strides: over time, height and width.
      dilation: over time, height and width.
      mask_rule: see `jaxmask.conv.conv1d`.
      in_features, out_features, padding, groups: as in `Conv2D`.
      **options: as in `Conv1D`; the kernel is
        `[*kernel_size, in_features // groups, out_features]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.nn.Conv3D(1, 4, (3, 3, 3), strides=(1, 2, 2), rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 6, 8, 8, 1)), jnp.ones((2, 6), bool))[0].shape
      (2, 6, 4, 4, 4)
    """

    _function = staticmethod(conv.conv3d)
    _axes = "time, height, width"
    kernel_size: tuple[int, int, int]
    _: dataclasses.KW_ONLY
    space_padding: Padding = "same"
    strides: tuple[int, int, int] = (1, 1, 1)
    dilation: tuple[int, int, int] = (1, 1, 1)

    def _paddings(self) -> tuple[Padding, ...]:
        return self.padding, self.space_padding, self.space_padding
