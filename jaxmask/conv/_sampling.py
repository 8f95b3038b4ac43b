"""Fewer steps: every so many-th step of each row."""

from jaxmask import _check
from jaxmask import _windows as windows
from jaxmask._steps import filled
from jaxmask._types import Array, ArrayLike, Mask, Pair, StepMask
from jaxmask._windows import slide


def downsample(x: ArrayLike, mask: Mask, factor: int) -> Pair:
    """Keep every `factor`-th step, the first one included.

        y[b, i] = x[b, i * factor],   mask'[b, i] = mask[b, i * factor]

    where row b begins at t = 0: it is first moved to the left, so that steps count from its first
    real one. A row of n real steps without holes keeps ceil(n / factor). Mask class: contiguous.
    Holes are physical: a missing step keeps its place, and one that is kept is a hole again.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments` (steps count from the first of each sequence,
        and sequences close up to the left), or None.
      factor: static, at least 1.

    Returns:
      The pair `(y, mask)`, `y [batch, ceil(time / factor), feature...]`; with `Segments` as many
      steps more as the lengths of their sequences may be rounded up.

    Raises:
      TypeError, MaskError: if `mask` does not belong to `x`.
      ValueError: if `factor` is below 1.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[1, 2, 3, 9, 9]]), jnp.array([[True, True, True, False, False]])
      >>> y, mask = jm.conv.downsample(x, mask, 2)
      >>> y.tolist(), mask.tolist()
      ([[1, 3, 0]], [[True, True, False]])
    """
    where = "downsample"
    x, mask = _check.pair(x, mask, where, over_time=True)
    window = windows.window(1, factor, "causal", None, where, names=("window", "factor"))

    def compute(x: Array, real: StepMask | None) -> Array:
        return window.each(filled(x, real), window.steps_out(x.shape[1]))

    return slide(compute, x, mask, window)
