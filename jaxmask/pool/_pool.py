"""From the steps of a row to one value."""

import functools

import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks, ops
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled, segments_apart
from jaxmask._sums import accumulator, divide, mean_dtype
from jaxmask._types import Array, ArrayLike, Mask, Pair, StepMask
from jaxmask.pool._extreme import extreme

_by_segment = functools.partial(segments_apart, pooled=True)


def _steps(x: ArrayLike, mask: Mask, where: str) -> tuple[Array, StepMask, Mask]:
    """The values, the mask expanded to their rank, and the row mask."""
    x, mask = _check.pair(x, mask, where, over_time=True)
    return x, _mask_ops.select_in(x, mask), masks.rows(mask)


@_by_segment
def sum(x: ArrayLike, mask: Mask) -> Pair:
    """Add up the real steps of each row.

        y[b] = sum_t mask[b, t] x[b, t]

    Args:
      x: `[batch, time, feature...]`; 16-bit floats are summed in float32.
      mask: `[batch, time]`, boolean, or `Segments`, or None.

    Returns:
      The pair `(y, row_mask)`: `y [batch, feature...]` in the dtype of `x` (of `jnp.sum` for
      integers and booleans: at least int32), and `row_mask [batch]`, True where the row has a
      real step.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[2.0], [4.0], [jnp.nan]]])
      >>> jm.pool.sum(x, jnp.array([[True, True, False]]))[0].tolist()
      [[6.0]]
    """
    x, real, row_mask = _steps(x, mask, "sum")
    return jnp.sum(jnp.where(real, x, 0), axis=1), row_mask


@_by_segment
def mean(x: ArrayLike, mask: Mask) -> Pair:
    """Average the real steps of each row.

        y[b] = sum_t mask[b, t] x[b, t] / max(1, sum_t mask[b, t])

    Args:
      x: `[batch, time, feature...]`; 16-bit floats are summed in float32.
      mask: `[batch, time]`, boolean, or `Segments`, or None.

    Returns:
      The pair `(y, row_mask)`: `y [batch, feature...]` in the dtype of `x` (of `jnp.mean` for
      integers and booleans: float32), and `row_mask [batch]`, True where the row has a real step.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[2.0], [4.0], [jnp.nan]], [[9.0], [9.0], [9.0]]])
      >>> mask = jnp.array([[True, True, False], [False, False, False]])
      >>> y, row_mask = jm.pool.mean(x, mask)
      >>> y.tolist(), row_mask.tolist()
      ([[3.0], [0.0]], [True, False])
    """
    x, real, row_mask = _steps(x, mask, "mean")
    dtype = mean_dtype(x.dtype)
    total = jnp.sum(jnp.where(real, x, 0), axis=1, dtype=accumulator(dtype))
    return divide(total, jnp.sum(real, axis=1, dtype=jnp.int32)).astype(dtype), row_mask


@_by_segment
def max(x: ArrayLike, mask: Mask) -> Pair:
    """Largest value of the real steps of each row.

    Among ties, the first value gets the gradient. It is chosen by index, so it survives `jax.jit`.
    The gradient of `jnp.max` goes where `x == max(x)`. In a compiled program XLA may compute `x`
    twice, with different rounding; then no value is equal and the gradient is lost. On a CPU, this
    prints two different gradients:

        import jax, jax.numpy as jnp
        x, w = jax.random.normal(jax.random.key(0), (5, 8, 5)), jnp.ones((2, 5)) / 3
        def f(w, x):
            return jnp.square(jnp.max(w[0] * jax.nn.standardize(x) + w[1], axis=1)).sum()
        print(jax.grad(f)(w, x), jax.jit(jax.grad(f))(w, x))

    Args:
      x: `[batch, time, feature...]`, real numbers or booleans.
      mask: `[batch, time]`, boolean, or `Segments`, or None.

    Returns:
      The pair `(y, row_mask)`: `y [batch, feature...]` in the dtype of `x`, and
      `row_mask [batch]`, True where the row has a real step.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[-2.0], [-4.0], [jnp.inf]]])
      >>> jm.pool.max(x, jnp.array([[True, True, False]]))[0].tolist()
      [[-2.0]]
    """
    x, real, row_mask = _steps(x, mask, "max")
    _check.ordered(x, "max")
    return extreme(x, real, highest=True), row_mask


@_by_segment
def min(x: ArrayLike, mask: Mask) -> Pair:
    """Smallest value of the real steps of each row.

    Among ties, the first value gets the gradient, chosen by index as in `max`.

    Arguments and result are those of `max`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[2.0], [4.0], [-jnp.inf]]])
      >>> jm.pool.min(x, jnp.array([[True, True, False]]))[0].tolist()
      [[2.0]]
    """
    x, real, row_mask = _steps(x, mask, "min")
    _check.ordered(x, "min")
    return extreme(x, real, highest=False), row_mask


@_by_segment
def first(x: ArrayLike, mask: Mask) -> Pair:
    """First real step of each row.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments`, or None.

    Returns:
      The pair `(y, row_mask)`: `y [batch, feature...]` in the dtype of `x`, and
      `row_mask [batch]`, True where the row has a real step.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.pool.first(jnp.array([[0, 7, 8]]), jnp.array([[False, True, True]]))[0].tolist()
      [7]
    """
    x, real, row_mask = _steps(x, mask, "first")
    return _outermost(x, real, last=False), row_mask


@_by_segment
def last(x: ArrayLike, mask: Mask) -> Pair:
    """Last real step of each row.

    Arguments and result are those of `first`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.pool.last(jnp.array([[7, 8, 0]]), jnp.array([[True, True, False]]))[0].tolist()
      [8]
    """
    x, real, row_mask = _steps(x, mask, "last")
    return _outermost(x, real, last=True), row_mask


def _outermost(x: Array, real: StepMask, *, last: bool) -> Array:
    if not x.shape[1]:
        return jnp.zeros((x.shape[0], *x.shape[2:]), x.dtype)
    index = jnp.argmax(jnp.flip(real, axis=1) if last else real, axis=1, keepdims=True)
    # Filled first, since an empty row points at padding.
    safe = jnp.where(real, x, jnp.zeros((), x.dtype))
    index = x.shape[1] - 1 - index if last else index
    return jnp.squeeze(jnp.take_along_axis(safe, index, axis=1, mode="clip"), axis=1)


@refusing_pairs
def attend(x: ArrayLike, mask: Mask, scores: ArrayLike) -> Pair:
    """Average the real steps of each row by softmax weights.

        y[b] = sum_t softmax(scores[b])[t] x[b, t]   over the real steps

    Args:
      x: `[batch, time, feature...]`, floating.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      scores: `[batch, time]`, floating: the logits of the softmax.

    Returns:
      The pair `(y, row_mask)`: `y [batch, feature...]` in the dtype of `x`, and
      `row_mask [batch]`, True where the row has a real step.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[2.0], [4.0], [9.0]]])
      >>> mask = jnp.array([[True, True, False]])
      >>> jm.pool.attend(x, mask, jnp.zeros((1, 3)))[0].tolist()
      [[3.0]]

    Source: Yang et al., 2016, Hierarchical attention networks, doi:10.18653/v1/N16-1174.
    """
    x, mask = _check.pair(x, mask, "attend", over_time=True)
    scores = _check.array(scores, "scores", "attend")
    _check.floating(x, "attend")
    _check.shape(scores, x.shape[:2], "[batch, time]", "attend", "scores")
    _check.floating(scores, "attend", "scores")
    weights, _ = ops.softmax(scores, mask)
    wide = accumulator(x.dtype)
    weighted = _mask_ops.expand(weights.astype(wide), x.ndim) * filled(x, mask).astype(wide)
    y, row_mask = sum(weighted, mask)
    return y.astype(x.dtype), row_mask
