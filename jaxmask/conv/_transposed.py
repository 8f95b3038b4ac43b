"""Transposed convolution: more steps out than in."""

import jax.numpy as jnp

from jaxmask import _check
from jaxmask._loops import convolve
from jaxmask._steps import filled, gather
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask, common_dtype
from jaxmask._windows import Compute, Window, close_up, scatter, spread
from jaxmask.conv._convolve import OVER_TIME, checked_weights


def conv1d_transpose(
    x: ArrayLike,
    mask: Mask,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    strides: int = 1,
    padding: str = "same",
) -> Pair:
    """Spread each step over the next steps of a longer row: the adjoint of `conv1d` in `x`.

        y[b, o] = bias + sum_t x[b, t] @ kernel[o + cut - t * strides]   over 0 <= ... < window

        padding    cut                             outputs of n real steps
        "valid"    0                               n * strides + max(window - strides, 0), or 0
        "same"     max((window - strides) // 2, 0)  n * strides
        "causal"   0                               n * strides

    An output is real if the row alone would have it. Mask class: contiguous. Holes are physical: a
    missing step keeps its place and contributes nothing, and its outputs are holes, except those
    that an earlier step reaches where padding is "valid".

    Args:
      x: `[batch, time, feature]`, floating or complex.
      mask: `[batch, time]`, boolean, or `Segments` (with "valid", sequences close up to the left),
        or None.
      kernel: `[window, feature, features_out]`, floating. Keras has the last two axes swapped,
        PyTorch has `[feature, features_out, window]`.
      bias: `[features_out]`, or None.
      strides: static, at least 1: outputs per step.
      padding: see above.

    Returns:
      The pair `(y, mask)`, `y [batch, time_out, features_out]` in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[[1.0], [5.0], [9.0]]]), jnp.array([[True, True, False]])
      >>> y, mask = jm.conv.conv1d_transpose(x, mask, jnp.ones((2, 1, 1)), strides=2)
      >>> y[..., 0].tolist(), mask.tolist()
      ([[1.0, 1.0, 5.0, 5.0, 0.0, 0.0]], [[True, True, True, True, False, False]])

    Agrees with `keras.layers.Conv1DTranspose`; with `torch.nn.ConvTranspose1d` of
    `output_padding = max(strides - window, 0)` where padding is "valid".
    """
    where = "conv1d_transpose"
    x, mask = _check.pair(x, mask, where, over_time=True)
    kernel, bias = checked_weights(x, kernel, bias, 1, where, OVER_TIME)
    size = _check.count(kernel.shape[0], where, "kernel.shape (its window)", least=1)
    strides = _check.count(strides, where, "strides", least=1)
    _check.choice(padding, ("same", "valid", "causal"), where, "padding")
    tail = max(size - strides, 0) if padding == "valid" else 0
    cut = max((size - strides) // 2, 0) if padding == "same" else 0

    def compute(x: Array, mask: StepMask | None) -> Array:
        y = _transpose(filled(x, mask), kernel, strides, cut, tail)
        return (y if bias is None else y + bias).astype(x.dtype)

    if isinstance(mask, Segments):
        return _apart(compute, x, mask, size, strides, tail)
    new = None if mask is None else _longer(mask, strides, tail)
    return filled(compute(x, mask), new), new


def _apart(
    compute: Compute, x: Array, segments: Segments, size: int, strides: int, tail: int
) -> Pair:
    reach = -(-max(size - strides, 0) // strides)
    ids, max_segments = segments.ids, segments.max_segments
    target, time = spread(ids, max(max_segments, 1), reach)
    y = compute(scatter(filled(x, segments), target, time), scatter(ids > 0, target, time))
    if tail:
        ids = _longer(scatter(ids, target, time), strides, tail)
        return close_up(y, Segments(ids, max_segments), x.shape[1] * strides + max_segments * tail)
    # Outputs of a step stay together, so they move back as one.
    grouped = y.reshape(y.shape[0], time, strides * y.shape[2])
    y = gather(grouped, target).reshape(y.shape[0], x.shape[1] * strides, y.shape[2])
    new = Segments(_longer(ids, strides, 0), max_segments)
    return filled(y, new), new


def _longer(values: Array, strides: int, tail: int) -> Array:
    """The ids or bits of the steps, at each output that they reach."""
    repeated = jnp.repeat(values, strides, axis=1)
    if not tail or not values.shape[1]:
        return repeated
    # Sequences lie out of each other's reach, so the mean of the ids in reach is the id.
    window = Window(tail + 1, padding="full")
    total, count = window.total(repeated), window.total(repeated.astype(bool))
    return (total // jnp.maximum(count, 1)).astype(values.dtype)


def _transpose(x: Array, kernel: Array, strides: int, cut: int, tail: int) -> Array:
    batch, time, _ = x.shape
    size, _, features = kernel.shape
    dtype = common_dtype(x.dtype, kernel.dtype)
    steps = time * strides + tail if time else 0
    if 0 in (batch, steps, *kernel.shape):
        return jnp.zeros((batch, steps, features), dtype)
    left = size - 1 - cut
    right = steps - (time - 1) * strides - 1 + size - 1 - left
    return convolve(
        x.astype(dtype),
        jnp.flip(kernel, axis=0).astype(dtype),
        window_strides=(1,),
        padding=((left, right),),
        lhs_dilation=(strides,),
        dimension_numbers=("NHC", "HIO", "NHC"),
    )
