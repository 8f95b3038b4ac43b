"""More and fewer steps: each one repeated, or every `factor`-th kept."""

import jax.numpy as jnp

from jaxmask import _check
from jaxmask import _windows as windows
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments
from jaxmask._windows import slide


@refusing_pairs
def upsample(x: ArrayLike, mask: Mask, factor: int) -> Pair:
    """Repeat each step.

        y[b, factor * t + k] = x[b, t],   mask'[b, factor * t + k] = mask[b, t]

    Mask class: any.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      factor: static, at least 1.

    Returns:
      The pair `(y, mask)`, `y [batch, time * factor, feature...]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.shape.upsample(jnp.array([[1, 2]]), jnp.array([[True, False]]), 2)
      >>> y.tolist(), mask.tolist()
      ([[1, 1, 0, 0]], [[True, True, False, False]])
    """
    factor = _check.count(factor, "upsample", "factor", least=1)
    x, mask = _check.pair(x, mask, "upsample", over_time=True)
    return jnp.repeat(filled(x, mask), factor, axis=1), repeat_steps(mask, factor)


def repeat_steps(mask: Mask, times: int) -> Mask:
    """A mask with each step's bit or id repeated."""
    if mask is None:
        return None
    if isinstance(mask, Segments):
        return Segments(jnp.repeat(mask.ids, times, axis=1), mask.max_segments)
    return jnp.repeat(mask, times, axis=1)


@refusing_pairs
def downsample(x: ArrayLike, mask: Mask, factor: int) -> Pair:
    """Keep every `factor`-th step, the first one included.

        y[b, i] = x[b, i * factor],   mask'[b, i] = mask[b, i * factor]

    Each row is first moved to the left, so that t counts from its first real step. A row of n real
    steps without holes keeps ceil(n / factor). Mask class: contiguous. Holes are physical: a
    missing step keeps its place, and is a hole of the result if it is kept.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments` (steps count from the first of each sequence,
        and sequences close up to the left), or None.
      factor: static, at least 1.

    Returns:
      The pair `(y, mask)`, `y [batch, ceil(time / factor), feature...]`; with `Segments`
      longer, by as much as the lengths of the sequences may be rounded up.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[1, 2, 3, 9, 9]]), jnp.array([[True, True, True, False, False]])
      >>> y, mask = jm.shape.downsample(x, mask, 2)
      >>> y.tolist(), mask.tolist()
      ([[1, 3, 0]], [[True, True, False]])
    """
    where = "downsample"
    x, mask = _check.pair(x, mask, where, over_time=True)
    window = windows.window(1, factor, "causal", None, where, names=("window", "factor"))

    def compute(x: Array, mask: Mask) -> Array:
        return window.each(filled(x, mask), window.steps_out(x.shape[1]))

    return slide(compute, x, mask, window)
