"""Keep the sequences of a packed row to themselves."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks
from jaxmask._types import ArrayLike, Mask, Pair, Segments


def segments_apart(function: Callable[..., Pair], *, pooled: bool = False) -> Callable[..., Pair]:
    """Let a function of a boolean mask take `Segments`: it runs once for each segment.

    `function(x, mask, ...)` returns zeros in its padding, so the segments of a row add up to the
    result for the row; a pooled result becomes one row a segment.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> total = segments_apart(jm.pool.sum, pooled=True)
      >>> segments = jm.Segments(jnp.array([[1, 2, 2]]), max_segments=2)
      >>> total(jnp.array([[1.0, 2.0, 3.0]]), segments)[0].tolist()
      [1.0, 5.0]
    """

    @functools.wraps(function)
    def wrapper(x: ArrayLike, mask: Mask, *args: object, **kwargs: object) -> Pair:
        if not isinstance(mask, Segments):
            return function(x, mask, *args, **kwargs)
        x, mask = _check.pair(x, mask, function.__name__, over_time=True)
        assert isinstance(mask, Segments)
        each = _mask_ops.of_each_segment(mask)
        axis = 1 if pooled else 0
        y, _ = jax.vmap(lambda m: function(x, m, *args, **kwargs), in_axes=1, out_axes=axis)(each)
        if pooled:
            return y.reshape(-1, *y.shape[2:]), masks.rows(mask)
        return jnp.sum(y, axis=0, dtype=y.dtype), mask

    return wrapper
