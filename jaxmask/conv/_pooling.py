"""Pooling over windows: the largest, smallest, average value or norm of their real steps."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops, masks
from jaxmask import _windows as windows
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled
from jaxmask._sums import accumulator, divide
from jaxmask._types import Array, ArrayLike, Mask, Pair, StepMask
from jaxmask._windows import Padding, Window, slide

Axes = tuple[Window, ...]


class Reduction(NamedTuple):
    """What is done with the real steps of each window, and to which values."""

    reduce: Callable[[Array, StepMask | None, Axes], Array]
    check: Callable[[Array, str], None]


@refusing_pairs
def max_pool1d(
    x: ArrayLike,
    mask: Mask,
    window: int,
    *,
    strides: int | None = None,
    padding: Padding = "valid",
    dilation: int = 1,
    ceil_mode: bool = False,
    mask_rule: str | None = None,
) -> Pair:
    """Largest value of the real steps of each window.

    Padding, masks and mask class are those of `conv1d`; steps outside the row do not count. A
    window that reads no real step gives 0 (PyTorch: -inf).

    Args:
      x: `[batch, time, feature...]`, real numbers.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      window: static number of steps, at least 1.
      strides: static; `window` where None.
      padding: as in `conv1d`; in numbers, below the span of a window.
      dilation: static, at least 1: steps from one that a window reads to the next.
      ceil_mode: static; with padding `"valid"` or in numbers, a last window that begins in the row
        may reach past its end.
      mask_rule: as in `conv1d`.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, feature...]` in the dtype of `x`. Among ties, the
      first step gets the gradient.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[-1.0, -2.0, -3.0, 9.0]]), jnp.array([[True, True, True, False]])
      >>> y, mask = jm.conv.max_pool1d(x, mask, 2)
      >>> y.tolist(), mask.tolist()
      ([[-1.0, 0.0]], [[True, False]])

    Agrees with `keras.layers.MaxPooling1D` (strided "same" apart) and `torch.nn.MaxPool1d`, also
    its `padding`, `dilation` and `ceil_mode`.
    """
    options = (strides, padding, dilation, ceil_mode, mask_rule)
    return _pool1d(x, mask, window, *options, "max_pool1d", _MAX)


@refusing_pairs
def min_pool1d(
    x: ArrayLike,
    mask: Mask,
    window: int,
    *,
    strides: int | None = None,
    padding: Padding = "valid",
    dilation: int = 1,
    ceil_mode: bool = False,
    mask_rule: str | None = None,
) -> Pair:
    """Smallest value of the real steps of each window.

    Padding, masks and mask class are those of `conv1d`; steps outside the row do not count.

    Arguments and result are those of `max_pool1d`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[1.0, 2.0, 3.0, -9.0]]), jnp.array([[True, True, True, False]])
      >>> jm.conv.min_pool1d(x, mask, 2, padding="reverse_causal")[0].tolist()
      [[1.0, 3.0]]
    """
    options = (strides, padding, dilation, ceil_mode, mask_rule)
    return _pool1d(x, mask, window, *options, "min_pool1d", _MIN)


@refusing_pairs
def avg_pool1d(
    x: ArrayLike,
    mask: Mask,
    window: int,
    *,
    strides: int | None = None,
    padding: Padding = "valid",
    dilation: int = 1,
    ceil_mode: bool = False,
    mask_rule: str | None = None,
) -> Pair:
    """Average of the real steps of each window.

        y[b, i] = sum_t mask[b, t] x[b, t] / max(1, sum_t mask[b, t])   over the window of i

    Padding, masks and mask class are those of `conv1d`; steps outside the row do not count.

    Arguments and result are those of `max_pool1d`, for a floating or complex `x`; 16-bit floats are
    summed in float32.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[1.0, 3.0, 5.0, 9.0]]), jnp.array([[True, True, True, False]])
      >>> jm.conv.avg_pool1d(x, mask, 2, padding="reverse_causal")[0].tolist()
      [[2.0, 5.0]]

    Agrees with `keras.layers.AveragePooling1D` (strided "same" apart), and with
    `torch.nn.AvgPool1d(count_include_pad=False)`; by default PyTorch counts its padding.
    """
    options = (strides, padding, dilation, ceil_mode, mask_rule)
    return _pool1d(x, mask, window, *options, "avg_pool1d", _AVERAGE)


@refusing_pairs
def lp_pool1d(
    x: ArrayLike,
    mask: Mask,
    window: int,
    *,
    p: float = 2,
    strides: int | None = None,
    padding: Padding = "valid",
    dilation: int = 1,
    ceil_mode: bool = False,
    mask_rule: str | None = None,
) -> Pair:
    """The p-norm of the real steps of each window.

        y[b, i] = (sum_t mask[b, t] |x[b, t]| ** p) ** (1 / p)   over the window of i

    Padding, masks and mask class are those of `conv1d`. A window of zeros gets zero
    gradient, since the root has no finite one there.

    Args:
      x: `[batch, time, feature...]`, floating; 16-bit floats are summed in float32.
      p: static, finite, at least 1.
      mask, window, strides, padding, dilation, ceil_mode, mask_rule: as in `max_pool1d`.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, feature...]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[3.0, 4.0, 9.0]]), jnp.array([[True, True, False]])
      >>> jm.conv.lp_pool1d(x, mask, 2, padding="causal", strides=1)[0].tolist()
      [[3.0, 5.0, 0.0]]

    Agrees with `torch.nn.LPPool1d` where `x` is positive.
    """
    if not (isinstance(p, int | float) and 1 <= p < math.inf):
        raise ValueError(
            f"lp_pool1d: `p` must be a finite number of at least 1, got {p!r}. Its limit, the "
            "largest size, is `max_pool1d` of `abs(x)`."
        )
    norm = Reduction(functools.partial(_norm, p=p), _check.floating)
    options = (strides, padding, dilation, ceil_mode, mask_rule)
    return _pool1d(x, mask, window, *options, "lp_pool1d", norm)


@refusing_pairs
def max_pool2d(
    x: ArrayLike,
    mask: Mask,
    window: tuple[int, int],
    *,
    strides: tuple[int, int] | None = None,
    padding: Padding = "valid",
    frequency_padding: Padding = "valid",
    dilation: tuple[int, int] = (1, 1),
    ceil_mode: bool = False,
    mask_rule: str | None = None,
) -> Pair:
    """Largest value of the real steps of each window of time and frequency.

    Over time, padding, masks and mask class are those of `conv1d`; the mask is over time.

    Args:
      x: `[batch, time, frequency, feature...]`, real numbers.
      window: static, over time and over frequency.
      strides: static, over time and over frequency; `window` where None.
      frequency_padding: over frequency, with the same options.
      dilation: static, over time and over frequency.
      mask, padding, ceil_mode, mask_rule: as in `max_pool1d`; `ceil_mode` is for both axes.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, frequency_out, feature...]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.conv.max_pool2d(jnp.ones((2, 6, 8, 3)), jnp.ones((2, 6), bool), (2, 4))[0].shape
      (2, 3, 2, 3)

    Agrees with `keras.layers.MaxPooling2D` of the unpadded row.
    """
    options = (strides, padding, frequency_padding, dilation, ceil_mode, mask_rule)
    return _pool2d(x, mask, window, *options, "max_pool2d", _MAX)


@refusing_pairs
def avg_pool2d(
    x: ArrayLike,
    mask: Mask,
    window: tuple[int, int],
    *,
    strides: tuple[int, int] | None = None,
    padding: Padding = "valid",
    frequency_padding: Padding = "valid",
    dilation: tuple[int, int] = (1, 1),
    ceil_mode: bool = False,
    mask_rule: str | None = None,
) -> Pair:
    """Average of the real steps of each window of time and frequency.

    Over time, padding, masks and mask class are those of `conv1d`; the mask is over time. The sum
    is divided by the number of real values.

    Arguments and result are those of `max_pool2d`, for a floating or complex `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.conv.avg_pool2d(jnp.ones((2, 6, 8, 3)), jnp.ones((2, 6), bool), (2, 4))[0].shape
      (2, 3, 2, 3)

    Agrees with `keras.layers.AveragePooling2D` of the unpadded row.
    """
    options = (strides, padding, frequency_padding, dilation, ceil_mode, mask_rule)
    return _pool2d(x, mask, window, *options, "avg_pool2d", _AVERAGE)


def _pool1d(
    x: ArrayLike,
    mask: Mask,
    size: int,
    strides: int | None,
    padding: Padding,
    dilation: int,
    ceil_mode: bool,
    mask_rule: str | None,
    where: str,
    reduction: Reduction,
) -> Pair:
    x, mask = _check.pair(x, mask, where, over_time=True)
    stride = size if strides is None else strides
    options: dict[str, Any] = {"dilation": dilation, "ceil": ceil_mode}
    axes = (windows.window(size, stride, padding, mask_rule, where, **options),)
    return _pool(x, mask, axes, where, reduction)


def _pool2d(
    x: ArrayLike,
    mask: Mask,
    sizes: tuple[int, int],
    strides: tuple[int, int] | None,
    padding: Padding,
    frequency_padding: Padding,
    dilation: tuple[int, int],
    ceil_mode: bool,
    mask_rule: str | None,
    where: str,
    reduction: Reduction,
) -> Pair:
    x, mask = _check.pair(x, mask, where, over_time=True)
    if x.ndim < 3:
        raise ValueError(f"{where}: `x` must be [batch, time, frequency, ...], got {x.shape}.")
    sizes = _check.two_counts(sizes, where, "window", "time, frequency")
    strides = _check.two_counts(
        sizes if strides is None else strides, where, "strides", "time, frequency"
    )
    dilation = _check.two_counts(dilation, where, "dilation", "time, frequency")
    frequency_padding = windows.checked_padding(frequency_padding, where, "frequency_padding")
    rules = (padding, mask_rule), (frequency_padding, None)
    axes = tuple(
        windows.window(size, stride, *rule, where, dilation=gap, ceil=ceil_mode)
        for size, stride, rule, gap in zip(sizes, strides, rules, dilation, strict=True)
    )
    return _pool(x, mask, axes, where, reduction)


def _pool(x: Array, mask: Mask, axes: Axes, where: str, reduction: Reduction) -> Pair:
    reduction.check(x, where)
    for axis in axes:
        if max(axis.left, axis.right) >= axis.span and axis.is_numeric:
            raise ValueError(
                f"{where}: padding in numbers must be below the span of a window, {axis.span}, so "
                f"that each window meets the row, got {axis.padding}."
            )

    def compute(x: Array, mask: Mask) -> Array:
        real = None if mask is None else masks.as_bool(mask)
        return reduction.reduce(x, real, axes).astype(x.dtype)

    return slide(compute, x, mask, axes[0])


def _check_numbers(x: Array, where: str) -> None:
    if jnp.issubdtype(x.dtype, jnp.complexfloating) or x.dtype == jnp.bool_:
        raise TypeError(f"{where}: `x` must hold real numbers, got dtype {x.dtype}.")


def _reduce_window(x: Array, start: Any, join: Callable, axes: Axes) -> Array:
    """`join` over each window, from its identity `start`."""
    sizes = x.shape[1 : 1 + len(axes)]
    rest = x.shape[1 + len(axes) :]
    shape = (x.shape[0], *map(Window.steps_out, axes, sizes), *rest)
    if 0 in shape:
        return jnp.zeros(shape, x.dtype)
    start = np.asarray(start, x.dtype)
    if any(axis.dilation > 1 for axis in axes):
        for position, axis in enumerate(axes, start=1):
            x = _reduce_dilated(x.swapaxes(1, position), start, join, axis).swapaxes(1, position)
        return x
    ones = (1,) * len(rest)
    y = jax.lax.reduce_window(
        *(x, start, join),
        (1, *(axis.size for axis in axes), *ones),
        (1, *(axis.stride for axis in axes), *ones),
        [(0, 0), *(axis.pads for axis in axes), *((0, 0) for _ in rest)],
    )
    if not any(axis.ceil for axis in axes):
        return y
    return jax.lax.slice(y, (0,) * y.ndim, shape)  # a window that begins after the end


def _reduce_dilated(x: Array, start: Any, join: Callable, axis: Window) -> Array:
    """Over axis 1, as windows without gaps over each of `dilation` phases.

    JAX does not differentiate extremes over windows with gaps.
    """
    batch, time, *rest = x.shape
    (left, right), gap = axis.pads, axis.dilation
    count = (left + time + right + gap - 1) // gap
    right = gap * count - time - left
    edges = ((0, 0), (left, right), *((0, 0) for _ in rest))
    padded = jnp.pad(x, edges, constant_values=start)
    phases = padded.reshape(batch, count, gap, *rest)
    ones = (1,) * (len(rest) + 1)
    y = jax.lax.reduce_window(
        phases, start, join, (1, axis.size, *ones), (1, 1, *ones), [(0, 0)] * phases.ndim
    )
    y = y.reshape(batch, (count - axis.size + 1) * gap, *rest)
    return axis.each(y, axis.steps_out(time))


def _extreme(x: Array, real: StepMask | None, axes: Axes, *, highest: bool) -> Array:
    # JAX differentiates the reduction only if it starts from the exact identity.
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    limits = jnp.finfo(x.dtype) if is_float else jnp.iinfo(x.dtype)
    limit = limits.min if highest else limits.max
    infinity = -jnp.inf if highest else jnp.inf
    join = jax.lax.max if highest else jax.lax.min
    start = infinity if is_float else limit
    has_gaps = any(axis.dilation > 1 for axis in axes)
    if real is None and not has_gaps:  # each window meets the array
        return _reduce_window(x, start, join, axes)
    has_step = _counts(real, axes, x.shape) > 0
    if real is None:
        return jnp.where(has_step, _reduce_window(x, start, join, axes), 0)
    real = _mask_ops.expand(real, x.ndim)
    # A finite identity in the padding, since an infinite one trips `jax_debug_infs`; a window whose
    # real steps are all infinite is corrected afterwards.
    y = _reduce_window(jnp.where(real, x, jnp.asarray(limit, x.dtype)), start, join, axes)
    y = jnp.where(has_step, y, 0)
    if not is_float:
        return y
    infinite = jnp.where(real, x == infinity, True).astype(jnp.int8)
    all_infinite = _reduce_window(infinite, 1, jax.lax.min, axes) == 1
    return jnp.where(has_step & all_infinite, infinity, y)


def _counts(real: StepMask | None, axes: Axes, shape: tuple[int, ...]) -> Array:
    """Real values of each window, in a shape that broadcasts against its sum."""
    steps = jnp.ones((1, shape[1]), bool) if real is None else real
    count = _mask_ops.expand(axes[0].taps(steps), len(shape))
    for position, axis in enumerate(axes[1:], start=2):
        inside = axis.taps(jnp.ones((1, shape[position]), bool))
        count = count * inside.reshape([-1 if i == position else 1 for i in range(len(shape))])
    return count


def _average(x: Array, real: StepMask | None, axes: Axes) -> Array:
    wide = filled(x, real).astype(accumulator(x.dtype))
    return divide(_reduce_window(wide, 0, jax.lax.add, axes), _counts(real, axes, x.shape))


def _norm(x: Array, real: StepMask | None, axes: Axes, *, p: float) -> Array:
    safe = filled(x, real)
    size = jnp.abs(safe.astype(accumulator(x.dtype)))
    # At 0 a power below 2 has no second derivative and the root not even a first one: select a
    # safe base before the power, and 0 after it.
    above = size != 0  # not `> 0`, which would hide a nan
    powers = jnp.where(above, jnp.where(above, size, 1) ** p, 0)
    total = _reduce_window(powers, 0, jax.lax.add, axes)
    above = total != 0
    return jnp.where(above, jnp.where(above, total, 1) ** (1 / p), 0)


_MAX = Reduction(functools.partial(_extreme, highest=True), _check_numbers)
_MIN = Reduction(functools.partial(_extreme, highest=False), _check_numbers)
_AVERAGE = Reduction(_average, windows.inexact)
