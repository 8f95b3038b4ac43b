"""What masked functions do with a mask: read it, spread it over features, narrow it."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Bool, Shaped

from jaxmask import _check
from jaxmask._types import Array, ArrayLike, Mask, Segments, StepMask


def as_bool(mask: Mask) -> StepMask:
    """The boolean mask of a mask or of `Segments`.

    Args:
      mask: boolean, or `Segments`.

    Returns:
      Boolean, True where the step is real.

    Example:
      >>> import numpy as np, jaxmask as jm
      >>> jm.masks.as_bool(jm.Segments(np.array([[1, 2, 0]]), max_segments=2)).tolist()
      [[True, True, False]]
    """
    return checked_bool(mask, "as_bool")


def checked_bool(mask: Mask, where: str, name: str = "mask") -> StepMask:
    """`as_bool` for the function `where`, which calls the mask `name`."""
    if isinstance(mask, Segments):
        return _check.unfolded(mask.ids, jnp.asarray(mask.ids)) > 0
    return _check.boolean(mask, where, name)


def real_steps(mask: Mask, shape: Sequence[int]) -> Bool[Array, "*leading"]:
    """`as_bool(mask)`; all True, of `shape`, for None."""
    return jnp.ones(shape, bool) if mask is None else as_bool(mask)


def expand(mask: Shaped[Array, "*leading"], ndim: int) -> Shaped[Array, "*leading_and_ones"]:
    """Append axes of size 1 up to rank `ndim`, so that a mask selects whole steps of `x`."""
    return jnp.expand_dims(mask, tuple(range(mask.ndim, ndim)))


def entries(
    mask: Mask, present: ArrayLike | None, shape: tuple[int, ...], where: str
) -> Bool[Array, "batch *shape"]:
    """The values of real steps, less those that are missing, as a boolean of `shape`.

    `present` is what functions call `where`: boolean, of `shape`, or None.
    """
    real = jnp.broadcast_to(expand(real_steps(mask, shape[:1]), len(shape)), shape)
    if present is None:
        return real
    present = _check.boolean(present, where, "where")
    _check.shape(present, shape, "one bool for each value", where, "where")
    return real & present


def select_in(x: Array, mask: Mask) -> Bool[Array, "batch time *ones"]:
    """The real steps of `x`, expanded to its rank."""
    return expand(real_steps(mask, x.shape[:2]), x.ndim)


def intersect(mask: Mask, real: Bool[Array, "*leading"], where: str) -> Mask:
    """`mask & real` in the form of `mask`; `real` for None."""
    if mask is None:
        return jnp.asarray(real)
    if mask.shape != real.shape:
        raise _check.MaskError(
            f"{where}: the `mask` that came in has shape {mask.shape} and the one made here "
            f"{real.shape}; nothing is broadcast."
        )
    if isinstance(mask, Segments):
        return mask & real
    return as_bool(mask) & real


def of_each_segment(segments: Segments) -> Bool[Array, "batch segment time"]:
    """One boolean mask for each segment: `ids[b, t] == s + 1` at `[b, s, t]`."""
    segment_ids = jnp.arange(1, segments.max_segments + 1)
    ids = _check.unfolded(segments.ids, jnp.asarray(segments.ids))
    return ids[:, None, :] == segment_ids[None, :, None]


def differs_from(x: Shaped[Array, "*shape"], value: complex) -> Bool[Array, "*shape"]:
    """Elementwise `x != value`, with nan equal to nan."""
    if value != value:  # nan
        return ~jnp.isnan(x)
    return x != value
