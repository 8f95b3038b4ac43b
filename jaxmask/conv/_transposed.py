"""Transposed convolution: more steps out than in."""

import jax.numpy as jnp

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled, gather
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask
from jaxmask._windows import (
    Compute,
    Spreading,
    Window,
    close_up,
    edges,
    of_each,
    scatter,
    spread,
    spreading,
)
from jaxmask.conv._convolve import (
    OVER_TIME,
    OVER_TIME_AND_FREQUENCY,
    checked_weights,
    convolved,
)


@refusing_pairs
def conv1d_transpose(
    x: ArrayLike,
    mask: Mask,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    strides: int = 1,
    padding: str | int = "same",
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Pair:
    """Spread each step over the next steps of a longer row: the adjoint of `conv1d` in `x`.

        y[b, o] = bias + sum_(t, k) x[b, t] @ kernel[k]   over t * strides + k * dilation = o + cut

    with `span = (window - 1) * dilation + 1`, and

        padding   cut                            outputs of n real steps, where there is one
        "valid"   0                              n * strides + max(span - strides, 0)
        "same"    max((span - strides) // 2, 0)  n * strides
        "causal"  0                              n * strides
        a number  the number                     (n - 1) * strides + span - 2 cut + output_padding

    An output is real if the row alone would have it. Mask class: contiguous. Holes are physical: a
    missing step keeps its place and contributes nothing, and its outputs are holes, except those
    that an earlier step reaches where padding is "valid" or a number.

    Args:
      mask: `[batch, time]`, boolean, or `Segments` (where the number of steps changes other than by
        `strides`, sequences close up to the left), or None.
      kernel: `[window, feature // groups, features_out]`, floating. Keras has the last two axes
        swapped, PyTorch has `[feature, features_out // groups, window]`.
      strides: static, at least 1: outputs per step.
      padding: see above. A number is PyTorch's, which cuts off outputs at both ends.
      output_padding: static, below `strides` or `dilation`: further outputs at the end; only with a
        number.
      x, bias, dilation, groups: as in `conv1d`.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, features_out]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[[1.0], [5.0], [9.0]]]), jnp.array([[True, True, False]])
      >>> y, mask = jm.conv.conv1d_transpose(x, mask, jnp.ones((2, 1, 1)), strides=2)
      >>> y[..., 0].tolist(), mask.tolist()
      ([[1.0, 1.0, 5.0, 5.0, 0.0, 0.0]], [[True, True, True, True, False, False]])

    Agrees with `keras.layers.Conv1DTranspose`, and with `torch.nn.ConvTranspose1d` where padding is
    a number (PyTorch's default is 0, which "valid" is too where `span >= strides`).
    """
    where = "conv1d_transpose"
    x, mask = _check.pair(x, mask, where, over_time=True)
    kernel, bias = checked_weights(x, kernel, bias, groups, where, OVER_TIME)
    axis = spreading(kernel.shape[0], strides, padding, output_padding, dilation, where)
    return _transposed(x, mask, kernel, bias, (axis,), groups, where)


@refusing_pairs
def conv2d_transpose(
    x: ArrayLike,
    mask: Mask,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str | int = "same",
    frequency_padding: str | int = "same",
    output_padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Pair:
    """Spread each step and frequency bin over a longer row with more bins; the mask is over time.

    Over time, padding, masks and mask class are those of `conv1d_transpose`.

    Args:
      frequency_padding: over frequency, with the same options as `padding`.
      output_padding: static, over time and over frequency.
      mask, padding: as in `conv1d_transpose`.
      x, kernel, bias, strides, dilation, groups: as in `conv2d`.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, frequency_out, channels_out]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 2, 3, 1)), jnp.array([[True, False]])
      >>> y, mask = jm.conv.conv2d_transpose(x, mask, jnp.ones((2, 2, 1, 4)), strides=(2, 2))
      >>> y.shape, mask.tolist()
      ((1, 4, 6, 4), [[True, True, False, False]])

    Agrees with `keras.layers.Conv2DTranspose`, and with `torch.nn.ConvTranspose2d` where padding is
    a number.
    """
    where = "conv2d_transpose"
    x, mask = _check.pair(x, mask, where, over_time=True)
    kernel, bias = checked_weights(x, kernel, bias, groups, where, OVER_TIME_AND_FREQUENCY)
    options = zip(
        kernel.shape[:2],
        _check.two_counts(strides, where, "strides", "time, frequency"),
        (padding, frequency_padding),
        _check.two_counts(output_padding, where, "output_padding", "time, frequency"),
        _check.two_counts(dilation, where, "dilation", "time, frequency"),
        strict=True,
    )
    names = "padding", "frequency_padding"
    axes = tuple(
        spreading(*each, where, padding_name=name)
        for each, name in zip(options, names, strict=True)
    )
    return _transposed(x, mask, kernel, bias, axes, groups, where)


def _transposed(
    x: Array,
    mask: Mask,
    kernel: Array,
    bias: Array | None,
    axes: tuple[Spreading, ...],
    groups: int,
    where: str,
) -> Pair:
    def compute(x: Array, mask: Mask) -> Array:
        y = _transpose(filled(x, mask), kernel, axes, groups)
        return (y if bias is None else y + bias).astype(x.dtype)

    if isinstance(mask, Segments):
        return _apart(compute, x, mask, axes[0])
    new = None if mask is None else _real_outputs(mask, axes[0])
    return filled(compute(x, mask), new), new


def _real_outputs(mask: StepMask, axis: Spreading) -> StepMask:
    real = jnp.repeat(mask, axis.stride, axis=1)
    if axis.tail >= 0:  # each step reaches so much further
        return Window(axis.tail + 1, padding="full").total(real) > 0 if axis.tail else real
    _, end = edges(mask)
    real = real[:, : axis.steps_out(mask.shape[1])]
    index = jnp.arange(real.shape[1], dtype=jnp.int32)[None]
    return real & (index < end[:, None] * axis.stride + axis.tail)


def _apart(compute: Compute, x: Array, segments: Segments, axis: Spreading) -> Pair:
    strides, tail = axis.stride, axis.tail
    reach = -(-max(axis.span - strides, tail + axis.cut, 0) // strides)
    ids, max_segments = segments.ids, segments.max_segments
    target, time = spread(ids, max(max_segments, 1), reach)
    apart = Segments(scatter(ids, target, time), max_segments)
    y = compute(scatter(filled(x, segments), target, time), apart)
    if tail:
        new = Segments(of_each(lambda mask: _real_outputs(mask, axis), apart), max_segments)
        time = x.shape[1]
        most = time * strides + max_segments * tail if tail > 0 else axis.steps_out(time)
        return close_up(y, new, most)
    # Outputs of a step stay together, so they move back as one.
    shape = (y.shape[0], x.shape[1] * strides, *y.shape[2:])
    y = gather(y.reshape(y.shape[0], time, strides, *y.shape[2:]), target).reshape(shape)
    new = Segments(jnp.repeat(ids, strides, axis=1), max_segments)
    return filled(y, new), new


def _transpose(x: Array, kernel: Array, axes: tuple[Spreading, ...], groups: int) -> Array:
    return convolved(
        *(x, jnp.flip(kernel, axis=tuple(range(len(axes)))), axes, groups),
        window_strides=(1,) * len(axes),
        padding=tuple(map(Spreading.pads, axes, x.shape[1:-1])),
        lhs_dilation=tuple(axis.stride for axis in axes),
        rhs_dilation=tuple(axis.dilation for axis in axes),
    )
