"""Padding replaced: by a constant, or for foreign functions by copies of real steps."""

from collections.abc import Callable

import jax
import numpy as np

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled, filled_with_copies
from jaxmask._types import Array, ArrayLike, Mask, Pair


@refusing_pairs
def fill(x: ArrayLike, mask: Mask, value: ArrayLike | complex = 0) -> Pair:
    """Replace the padding by a constant.

        y[b, t] = x[b, t] if mask[b, t] else value

    Padding gets exactly zero cotangent; nan and inf in it are gone.

    Args:
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; any dtype.
      mask: boolean, or `Segments`, or None: nothing to fill.
      value: a number, or an array by row `[batch]`, by step `[batch, time]` or of the shape of `x`;
        cast to the dtype of `x`.

    Returns:
      The pair `(y, mask)`: `y` of the shape and dtype of `x`, and the mask as it came.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, _ = jm.ops.fill(jnp.array([[1.0, jnp.nan]]), jnp.array([[True, False]]))
      >>> y.tolist()
      [[1.0, 0.0]]
    """
    x, mask = _check.pair(x, mask, "fill")
    value = _check.by_row_or_step(value, x, "fill", "value", dtype=x.dtype)
    return filled(x, mask, value), mask


@refusing_pairs
def each_step(
    f: Callable[[Array], Array],
    x: ArrayLike,
    mask: Mask,
    *,
    fill: ArrayLike | complex | None = None,
) -> Pair:
    """Run a function that acts on each step alone, without letting it see padding.

        y[b, t] = f(x)[b, t]   where mask[b, t], else 0

    In place of padding, `f` sees copies of real steps of the same row, which carry no gradient: any
    constant would be unsafe for some function (0 for sqrt, log and norms). An empty row sees a step
    of another row. Mask class: any, if `f` acts on each step alone; `jm.leak.check` tells.

    Args:
      f: `f(x) -> y`, which keeps the axes that the mask has.
      x: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; any dtype.
      mask: boolean, or `Segments`, or None: `f` runs on `x` as it is.
      fill: what `f` sees where no row has a real step: a number, or an array as in
        `jm.ops.fill`. Where None, 1, or 0 for integers and booleans (a valid id in any table).

    Returns:
      The pair `(y, mask)`: `y` of the shape and dtype that `f` gives, 0 in padding.

    Raises:
      MaskError: if `mask` does not belong to `x`, or `f` changes the axes that it has.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[4.0, -1.0]]), jnp.array([[True, False]])
      >>> jm.ops.each_step(jnp.sqrt, x, mask)[0].tolist()
      [[2.0, 0.0]]
    """
    _check.function(f, "each_step", "f")
    x, mask = _check.pair(x, mask, "each_step")
    if fill is not None:
        fill = _check.by_row_or_step(fill, x, "each_step", "fill", dtype=x.dtype)
    y = f(filled_with_copies(x, mask, fill))
    if mask is None:
        return y, None
    if not isinstance(y, jax.Array | np.ndarray) or y.shape[: mask.ndim] != mask.shape:
        raise _check.MaskError(
            f"each_step: {_check.name_of(f)} must keep the axes of the mask, {mask.shape}, but "
            f"gave {_check.kind_of(y)}. A function that changes time must take the mask: "
            "`f(x, mask) -> (y, mask)`, or `jm.nn.Consume(f)` where the mask ends."
        )
    return filled(y, mask), mask
