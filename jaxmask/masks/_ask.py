"""What a mask says: which steps, which rows, how many, at which positions."""

import jax.numpy as jnp
from jaxtyping import Bool

from jaxmask import _check
from jaxmask._types import Array, Ids, Lengths, Mask, RowMask, Segments, StepMask


def as_bool(mask: Mask) -> StepMask:
    """The boolean mask of a mask or of `Segments`.

    Args:
      mask: boolean, or `Segments`.

    Returns:
      Boolean, True where the step is real.

    Raises:
      TypeError: if `mask` is neither.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.as_bool(jm.Segments(np.array([[1, 2, 0]]), max_segments=2)).tolist()
      [[True, True, False]]
    """
    if isinstance(mask, Segments):
        return _check.unfolded(mask.ids, jnp.asarray(mask.ids)) > 0
    return _check.boolean(mask, "masks")


def rows(mask: Mask) -> RowMask | None:
    """The row mask: True where a row (or a segment) has at least one real step.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`, or None.

    Returns:
      `[batch]`, or `[batch * max_segments]` for `Segments`; None for None.

    Raises:
      TypeError, MaskError: if `mask` is not boolean, or not of rank 2.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.rows(np.array([[True, False], [False, False]])).tolist()
      [True, False]
    """
    if mask is None:
        return None
    if isinstance(mask, Segments):
        return jnp.any(of_each_segment(mask), axis=2).reshape(-1)
    return jnp.any(_of_rows(mask, "rows"), axis=1)


def lengths(mask: Mask) -> Lengths:
    """Count the real steps of each row.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`.

    Returns:
      `[batch]`, int32.

    Raises:
      TypeError, MaskError: if `mask` is not boolean, or not of rank 2.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.lengths(np.array([[True, True, False], [False, True, False]])).tolist()
      [2, 1]
    """
    return jnp.sum(_of_rows(mask, "lengths"), axis=1, dtype=jnp.int32)


def is_right_padded(mask: Mask) -> RowMask:
    """True for each row whose real steps come first, without a hole.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`.

    Returns:
      `[batch]`, boolean. Full and empty rows are right-padded.

    Raises:
      TypeError, MaskError: if `mask` is not boolean, or not of rank 2.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.is_right_padded(np.array([[True, False], [False, True]])).tolist()
      [True, False]
    """
    real = _of_rows(mask, "is_right_padded")
    return jnp.all(real[:, :-1] | ~real[:, 1:], axis=1)


def positions(mask: Mask) -> Ids:
    """Rank of each real step among the real steps of its row, or of its segment.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`.

    Returns:
      `[batch, time]`, int32: 0, 1, 2, ... at real steps, 0 at padding. Left padding and holes
      do not count, so a left-padded row has the positions of a right-padded one.

    Raises:
      TypeError, MaskError: if `mask` is not boolean, or not of rank 2.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.positions(np.array([[False, True, True]])).tolist()
      [[0, 0, 1]]
      >>> jm.masks.positions(jm.Segments(np.array([[1, 1, 2, 0]]), max_segments=2)).tolist()
      [[0, 1, 0, 0]]
    """
    if isinstance(mask, Segments):
        each = of_each_segment(mask)
        return jnp.sum(jnp.where(each, jnp.cumsum(each, axis=2, dtype=jnp.int32) - 1, 0), axis=1)
    real = _of_rows(mask, "positions")
    return jnp.where(real, jnp.cumsum(real, axis=1, dtype=jnp.int32) - 1, 0)


def _of_rows(mask: Mask, where: str) -> StepMask:
    real = as_bool(mask)
    _check.of_steps(real, where)
    return real


def of_each_segment(segments: Segments) -> Bool[Array, "batch segment time"]:
    """One boolean mask for each segment of each row.

    Args:
      segments: ids `[batch, time]`.

    Returns:
      `[batch, max_segments, time]`, boolean.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.of_each_segment(jm.Segments(np.array([[1, 2, 0]]), max_segments=2)).tolist()
      [[[True, False, False], [False, True, False]]]
    """
    numbers = jnp.arange(1, segments.max_segments + 1)
    ids = _check.unfolded(segments.ids, jnp.asarray(segments.ids))
    return ids[:, None, :] == numbers[None, :, None]


def expand(mask: Bool[Array, "*leading"], ndim: int) -> Bool[Array, "*leading_and_ones"]:
    """Give a mask trailing axes of 1, so that it selects in an array of rank `ndim`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.masks.expand(jnp.ones((2, 3), bool), 4).shape
      (2, 3, 1, 1)
    """
    return jnp.expand_dims(mask, tuple(range(mask.ndim, ndim)))


def intersect(mask: Mask, real: Bool[Array, "*leading"], where: str = "intersect") -> Mask:
    """Keep of a mask what `real` allows too.

    Args:
      mask: boolean, or `Segments` (a step that `real` refuses becomes padding), or None.
      real: boolean, of the shape of `mask`.
      where: the function that asks, for the error text.

    Returns:
      `mask & real`, in the form of `mask`; `real` for None.

    Raises:
      MaskError: if the shapes differ.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.intersect(np.array([[True, True]]), np.array([[True, False]])).tolist()
      [[True, False]]
    """
    if mask is None:
        return jnp.asarray(real)
    if mask.shape != real.shape:
        raise _check.MaskError(
            f"{where}: the `mask` that came in has shape {mask.shape} and the one made here "
            f"{real.shape}; nothing is broadcast."
        )
    if isinstance(mask, Segments):
        return Segments(jnp.where(real, jnp.asarray(mask.ids), 0), mask.max_segments)
    return as_bool(mask) & real


def select_in(x: Array, mask: Mask) -> Bool[Array, "batch time *ones"]:
    """The boolean mask in a shape that selects in `x`; all True for None.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> jm.masks.select_in(jnp.zeros((2, 3, 4)), None).shape
      (2, 3, 1)
    """
    real = jnp.ones(x.shape[:2], bool) if mask is None else as_bool(mask)
    return expand(real, x.ndim)
