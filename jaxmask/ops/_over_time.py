"""Softmax and sums over the real steps of each row."""

import functools

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks
from jaxmask._steps import filled, segments_apart
from jaxmask._sums import accumulator, sum_dtype
from jaxmask._types import Array, ArrayLike, Mask, Pair, StepMask


def _steps(x: ArrayLike, mask: Mask, where: str) -> tuple[Array, StepMask, Mask]:
    x, mask = _check.pair(x, mask, where, over_time=True)
    return x, _mask_ops.select_in(x, mask), mask


def _exponentials(x: Array, real: StepMask) -> tuple[Array, Array, Array, Array]:
    """`x - top`, its exponentials, their total over time (1 in an empty row), and `top`."""
    # The lowest finite number, not -inf: -inf makes inf - inf in an empty row.
    lowest = jnp.asarray(jnp.finfo(x.dtype).min, x.dtype)
    has_step = jnp.any(real, axis=1, keepdims=True)
    top = jnp.max(jnp.where(real, x, lowest), axis=1, keepdims=True, initial=lowest)
    # Nor +inf, from a real step: inf - inf there would hide that the sum is inf.
    top = jax.lax.stop_gradient(jnp.where(has_step & (top < jnp.inf), top, 0))
    # Select before `exp` and after it: after it alone, nan in the padding reaches the gradient.
    shifted = jnp.where(real, x, top) - top
    weights = jnp.where(real, jnp.exp(shifted), 0)
    total = jnp.where(has_step, jnp.sum(weights, axis=1, keepdims=True), 1)
    return shifted, weights, total, top


@segments_apart
def softmax(x: ArrayLike, mask: Mask) -> Pair:
    """Softmax over the real steps of each row.

        y[b, t] = exp(x[b, t]) / sum_s mask[b, s] exp(x[b, s])   where mask[b, t], else 0

    Args:
      x: `[batch, time, feature...]`, floating; each feature has its own softmax. Over features, use
        `jax.nn.softmax` inside `ops.each_step`: there no step is padding to another.
      mask: `[batch, time]`, boolean, or `Segments`, or None. A row without a real step gives 0.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[1.0, 1.0, jnp.nan]])
      >>> jm.ops.softmax(x, jnp.array([[True, True, False]]))[0].tolist()
      [[0.5, 0.5, 0.0]]

    Agrees with `scipy.special.softmax` of the unpadded row.
    """
    x, real, mask = _steps(x, mask, "softmax")
    _check.floating(x, "softmax")
    _, weights, total, _ = _exponentials(x, real)
    # A nan at a real step makes the total nan, and 0 / nan would spread it into the padding.
    return jnp.where(real, weights / total, 0), mask


@segments_apart
def log_softmax(x: ArrayLike, mask: Mask) -> Pair:
    """Logarithm of `softmax` over the real steps of each row.

        y[b, t] = x[b, t] - log sum_s mask[b, s] exp(x[b, s])   where mask[b, t], else 0

    Args:
      x, mask: as in `softmax`.

    Returns:
      The pair `(y, mask)`, `y` like `x`. The padding holds 0, which is no log probability
      there: use the mask.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[3.0, 9.0]])
      >>> jm.ops.log_softmax(x, jnp.array([[True, False]]))[0].tolist()
      [[0.0, 0.0]]

    Agrees with `scipy.special.log_softmax` of the unpadded row.
    """
    x, real, mask = _steps(x, mask, "log_softmax")
    _check.floating(x, "log_softmax")
    shifted, _, total, _ = _exponentials(x, real)
    return jnp.where(real, shifted - jnp.log(total), 0), mask


@functools.partial(segments_apart, pooled=True)
def logsumexp(x: ArrayLike, mask: Mask) -> Pair:
    """Logarithm of the sum of exponentials over the real steps of each row.

        y[b] = log sum_t mask[b, t] exp(x[b, t])

    Args:
      x, mask: as in `softmax`.

    Returns:
      The pair `(y, row_mask)`: `y [batch, feature...]`, and `row_mask [batch]`, True where the row
      has a real step. A row without one gives 0 (not -inf) and False.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[3.0, 9.0]])
      >>> jm.ops.logsumexp(x, jnp.array([[True, False]]))[0].tolist()
      [3.0]

    Agrees with `scipy.special.logsumexp` of the unpadded row.
    """
    x, real, mask = _steps(x, mask, "logsumexp")
    _check.floating(x, "logsumexp")
    _, _, total, top = _exponentials(x, real)
    return jnp.squeeze(top + jnp.log(total), axis=1), masks.rows(mask)


@segments_apart
def cumsum(x: ArrayLike, mask: Mask) -> Pair:
    """Running sum over the real steps of each row.

        y[b, t] = sum_{s <= t} mask[b, s] x[b, s]   where mask[b, t], else 0

    Args:
      x: `[batch, time, feature...]`; 16-bit floats are summed in float32.
      mask: `[batch, time]`, boolean, or `Segments` (the sum restarts in each), or None.

    Returns:
      The pair `(y, mask)`, `y` like `x`; of booleans and integers in the dtype of `jnp.sum`: at
      least int32, or uint32.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[1.0, jnp.inf, 2.0]])
      >>> jm.ops.cumsum(x, jnp.array([[True, False, True]]))[0].tolist()
      [[1.0, 0.0, 3.0]]

    Agrees with `numpy.cumsum` of the unpadded row.
    """
    x, real, mask = _steps(x, mask, "cumsum")
    dtype = sum_dtype(x.dtype)
    total = jnp.cumsum(filled(x, mask), axis=1, dtype=accumulator(dtype))
    return jnp.where(real, total, 0).astype(dtype), mask
