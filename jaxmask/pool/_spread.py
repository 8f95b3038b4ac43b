"""Variances and standard deviations over time."""

import functools

import jax.numpy as jnp

from jaxmask import _check, _mask_ops
from jaxmask._steps import filled, segments_apart
from jaxmask._sums import accumulator, divide, mean_dtype
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.masks import rows

_by_segment = functools.partial(segments_apart, pooled=True)


@_by_segment
def var(x: ArrayLike, mask: Mask, *, ddof: int = 0) -> Pair:
    """Variance of the real steps of each row.

        y[b] = sum_t mask[b, t] (x[b, t] - mean[b]) ** 2 / (n[b] - ddof),   n[b] = sum_t mask[b, t]

    A row of at most `ddof` real steps gives 0.

    Args:
      x: `[batch, time, feature...]`, real; computed in at least float32.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      ddof: static; 0 divides by the number of steps, as NumPy and Keras do, and 1 by one less, as
        `torch.var` does by default.

    Returns:
      The pair `(y, row_mask)`: `y [batch, feature...]` in the dtype of `x` (of `jnp.mean` for
      integers and booleans: float32), and `row_mask [batch]`, True where the row has a real step.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[[2.0], [4.0], [jnp.nan]]]), jnp.array([[True, True, False]])
      >>> jm.pool.var(x, mask)[0].tolist(), jm.pool.var(x, mask, ddof=1)[0].tolist()
      ([[1.0]], [[2.0]])

    Agrees with `numpy.var` of the unpadded row.
    """
    x, _, y, mask = _moments(x, mask, ddof, "var")
    return y.astype(mean_dtype(x.dtype)), rows(mask)


@_by_segment
def std(x: ArrayLike, mask: Mask, *, ddof: int = 0) -> Pair:
    """Standard deviation of the real steps of each row: the root of `var`.

    Steps that are all equal give 0, without a gradient (`jnp.std` has nan there).

    Arguments and result are those of `var`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[[2.0], [4.0], [jnp.nan]]]), jnp.array([[True, True, False]])
      >>> jm.pool.std(x, mask)[0].tolist()
      [[1.0]]

    Agrees with `numpy.std` of the unpadded row.
    """
    x, _, y, mask = _moments(x, mask, ddof, "std")
    return _root(y).astype(mean_dtype(x.dtype)), rows(mask)


@_by_segment
def statistics(x: ArrayLike, mask: Mask, *, ddof: int = 0) -> Pair:
    """Mean and standard deviation of the real steps of each row, side by side.

        y[b] = [mean(x[b]), std(x[b])]

    The statistics pooling of speaker recognition (x-vectors).

    Args:
      x: `[batch, time, ..., feature]`, real; computed in at least float32.
      mask, ddof: as in `var`. Kaldi divides by the number of steps (0), NeMo and SpeechBrain by one
        less (1).

    Returns:
      The pair `(y, row_mask)`: `y [batch, ..., 2 * feature]`, and `row_mask [batch]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[[2.0], [4.0], [jnp.nan]]]), jnp.array([[True, True, False]])
      >>> jm.pool.statistics(x, mask)[0].tolist()
      [[3.0, 1.0]]

    Source: Snyder et al., 2018, X-vectors, doi:10.1109/ICASSP.2018.8461375.
    """
    x, mean, y, mask = _moments(x, mask, ddof, "statistics")
    _check.features(x, mask, "statistics", axes=2)
    both = jnp.concatenate([mean, _root(y)], axis=-1)
    return both.astype(mean_dtype(x.dtype)), rows(mask)


def _moments(x: ArrayLike, mask: Mask, ddof: int, where: str) -> tuple[Array, Array, Array, Mask]:
    """The values, their means and variances in the dtype of sums, and the mask."""
    x, mask = _check.pair(x, mask, where, over_time=True)
    _check.ordered(x, where)
    ddof = _check.count(ddof, where, "ddof")
    real = _mask_ops.select_in(x, mask)
    wide = filled(x, mask).astype(accumulator(mean_dtype(x.dtype)))
    count = jnp.sum(real, axis=1, dtype=jnp.int32)
    mean = divide(jnp.sum(wide, axis=1), count)
    squares = jnp.where(real, jnp.square(wide - mean[:, None]), 0)
    return x, mean, divide(jnp.sum(squares, axis=1), jnp.maximum(count - ddof, 0)), mask


def _root(y: Array) -> Array:
    # The root of 0 has no finite slope: select a safe value before it, and 0 after it.
    above = ~(y <= 0)  # nan is passed on
    return jnp.where(above, jnp.sqrt(jnp.where(above, y, 1)), 0)
