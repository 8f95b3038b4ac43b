"""Queries of a mask: its rows, lengths, positions, and whether it is right-padded."""

import jax.numpy as jnp

from jaxmask import _check
from jaxmask._mask_ops import checked_bool, of_each_segment
from jaxmask._types import Ids, Lengths, Mask, RowMask, Segments, StepMask


def rows(mask: Mask) -> RowMask | None:
    """The row mask: True where a row (or a segment) has at least one real step.

    Args:
      mask: `[batch, time]`, boolean, or `Segments`, or None.

    Returns:
      `[batch]`, or `[batch * max_segments]` for `Segments`; None for None.

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
    real = checked_bool(mask, where)
    _check.of_steps(real, where)
    return real
