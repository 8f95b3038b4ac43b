"""Pooling modules over windows of time; the arithmetic is `jaxmask.conv`."""

import dataclasses
from typing import Any

from jaxmask import _check, _windows, conv
from jaxmask._types import Array
from jaxmask._windows import Padding
from jaxmask.nn._base import Configured, checked, configured
from jaxmask.nn._causal import Causal


@configured
class _WindowPool(Configured, Causal):
    _of_call = ("in_features",)
    window: int
    _: dataclasses.KW_ONLY
    strides: int = None  # type: ignore[assignment]
    padding: Padding = "valid"
    dilation: int = 1
    ceil_mode: bool = False
    mask_rule: str | None = None
    in_features: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.strides = self.window if self.strides is None else self.strides
        windows = self.window, self.strides, self.padding, self.mask_rule
        options: dict[str, Any] = {"dilation": self.dilation, "ceil": self.ceil_mode}
        _windows.window(*windows, type(self).__name__, **options)

    def _reach(self) -> int:
        return (self.window - 1) * self.dilation

    def _past_features(self) -> tuple[int, ...]:
        return () if self.in_features is None else (self.in_features,)

    def _over_chunk(self, x: Array, real: Array) -> Array:
        return self._run(x, real)[0][:, self._reach() :]


class MaxPool1D(_WindowPool):
    """Largest value of the real steps of each window: `jaxmask.conv.max_pool1d`.

    With `padding="causal"` and `strides=1` it runs chunk by chunk.

    Shapes: `x [batch, time, feature...]` and mask `[batch, time]` to `y [batch, time_out,
    feature...]` and mask `[batch, time_out]`.

    Args:
      window, strides, padding, dilation, ceil_mode, mask_rule: as in `jaxmask.conv.max_pool1d`.
      in_features: size of the last axis of `x`, for a carry that has its final shape from the start
        (as `lax.scan` over chunks needs it); where None, the first chunk determines it.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[1.0, 3.0, 2.0, 9.0]]), jnp.array([[True, True, True, False]])
      >>> jm.nn.MaxPool1D(2)(x, mask)[0].tolist()
      [[3.0, 0.0]]
    """

    _function = staticmethod(conv.max_pool1d)


class MinPool1D(_WindowPool):
    """Smallest value of the real steps of each window: `jaxmask.conv.min_pool1d`.

    Shapes, arguments, errors and streaming are those of `MaxPool1D`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.MinPool1D(2)(jnp.array([[1.0, 3.0, 2.0]]))[0].tolist()
      [[1.0]]
    """

    _function = staticmethod(conv.min_pool1d)


class AvgPool1D(_WindowPool):
    """Average of the real steps of each window: `jaxmask.conv.avg_pool1d`.

    Shapes, arguments, errors and streaming are those of `MaxPool1D`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> layer = jm.nn.AvgPool1D(2, padding="causal")
      >>> layer(jnp.array([[1.0, 3.0, 2.0]]))[0].tolist()
      [[1.0, 2.5]]
    """

    _function = staticmethod(conv.avg_pool1d)


@configured
class LpPool1D(_WindowPool):
    """The p-norm of the real steps of each window: `jaxmask.conv.lp_pool1d`.

    Shapes, arguments, errors and streaming are those of `MaxPool1D`, and

    Args:
      p: of the norm, at least 1.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.nn.LpPool1D(2, p=2)(jnp.array([[3.0, 4.0]]))[0].tolist()
      [[5.0]]
    """

    _function = staticmethod(conv.lp_pool1d)
    p: float = checked(_check.static_number, default=2, kw_only=True)
