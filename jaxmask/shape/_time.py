"""The time axis itself: flattened into, cut, made, extended and concatenated."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops, masks
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled, to_left
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, common_dtype
from jaxmask.shape._sampling import repeat_steps


@refusing_pairs
def flatten(x: ArrayLike, mask: Mask) -> Pair:
    """Flatten the features of each step into the time axis.

        y[b, t * feature + f] = x[b, t, f],   mask'[b, t * feature + f] = mask[b, t]

    Mask class: any.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments`, or None.

    Returns:
      The pair `(y, mask)`, both `[batch, time * feature]`: a step's bit is repeated for each of its
      features.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[1, 2], [3, 4]]])
      >>> y, mask = jm.shape.flatten(x, jnp.array([[True, False]]))
      >>> y.tolist(), mask.tolist()
      ([[1, 2, 0, 0]], [[True, True, False, False]])
    """
    x, mask = _check.pair(x, mask, "flatten", over_time=True)
    features = math.prod(x.shape[2:])
    y = filled(x, mask).reshape(x.shape[0], x.shape[1] * features)
    return y, repeat_steps(mask, features)


@refusing_pairs
def split(
    x: ArrayLike, mask: Mask, indices_or_sections: int | Sequence[int], *, axis: int = 1
) -> list[Pair]:
    """Cut an array along one axis, and its mask with it where the axis has one.

    Along time all rows are cut at the same positions, counted from the first real step of each row:
    a row is first moved to the left. Mask class: contiguous. Holes are physical: a missing step
    keeps its place. Packed rows are cut without being moved. `split_at` counts real steps.

    Args:
      x: `[batch, time, feature...]`, also `[batch, time]` ids; or `[batch, feature...]` with a row
        mask.
      mask: boolean, or `Segments`, or None.
      indices_or_sections: positions of the cuts, in order and within the axis, or a number of
        equal sections, as in `numpy.split`.
      axis: 1 cuts time, 2 and above (or a negative axis that means one of them) features.

    Returns:
      A list of pairs `(x, mask)`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, True, True, False]])
      >>> pairs = jm.shape.split(jnp.array([[1, 2, 3, 0]]), mask, 2)
      >>> [(x.tolist(), mask.tolist()) for x, mask in pairs]
      [([[1, 2]], [[True, True]]), ([[3, 0]], [[True, False]])]
    """
    x, mask = _check.pair(x, mask, "split")
    axis = _check.axis(axis, x.ndim, "split", first=1)
    if isinstance(indices_or_sections, np.integer):
        indices_or_sections = int(indices_or_sections)
    if not isinstance(indices_or_sections, int):
        if not isinstance(indices_or_sections, Sequence | np.ndarray):
            raise TypeError(
                "split: `indices_or_sections` must be an int, or a sequence of cuts, got "
                f"{_check.kind_of(indices_or_sections)}."
            )
        cuts = [0, *indices_or_sections, x.shape[axis]]
        if cuts != sorted(cuts):
            raise ValueError(
                f"split: cuts must be in order and lie within 0..{x.shape[axis]} (the size of axis "
                f"{axis}), got {list(indices_or_sections)}."
            )
    elif indices_or_sections < 1 or x.shape[axis] % indices_or_sections:
        raise ValueError(
            f"split: axis {axis} of size {x.shape[axis]} has no {indices_or_sections} equal "
            "sections. Pass the positions of the cuts, or pad first with `jm.shape.pad`."
        )
    y = filled(x, mask)
    if axis == 1 and mask is not None and mask.ndim == 2 and not isinstance(mask, Segments):
        y, mask = to_left(y, mask)
    pieces = jnp.split(y, indices_or_sections, axis=axis)
    if mask is None or axis >= mask.ndim:
        return [(piece, mask) for piece in pieces]
    if isinstance(mask, Segments):
        ids = jnp.split(mask.ids, indices_or_sections, axis=axis)
        return [(a, Segments(b, mask.max_segments)) for a, b in zip(pieces, ids, strict=True)]
    return list(zip(pieces, jnp.split(mask, indices_or_sections, axis=axis), strict=True))


@refusing_pairs
def repeat(x: ArrayLike, mask: Mask, time: int) -> Pair:
    """Repeat each row as `time` equal steps (Keras's `RepeatVector`).

    Args:
      x: `[batch, feature...]`, any dtype.
      mask: row mask `[batch]`, boolean, or None.
      time: static number of steps.

    Returns:
      The pair `(y, mask)`: `y [batch, time, feature...]`, mask `[batch, time]`: all steps of a real
      row are real.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.shape.repeat(jnp.array([[7], [8]]), jnp.array([True, False]), 2)
      >>> y.tolist(), mask.tolist()
      ([[[7], [7]], [[0], [0]]], [[True, True], [False, False]])
    """
    time = _check.count(time, "repeat", "time")
    x, mask = _check.pair(x, mask, "repeat")
    if mask is not None and mask.ndim != 1:
        raise _check.MaskError(
            f"repeat: `mask` must be a row mask [batch], got shape {mask.shape}. To repeat each "
            "step, use `jm.shape.upsample`."
        )
    y = filled(x, mask)
    steps = None if mask is None else jnp.repeat(masks.as_bool(mask)[:, None], time, axis=1)
    return jnp.repeat(y[:, None], time, axis=1), steps


def concatenate(*pairs: Pair) -> Pair:
    """Concatenate sequences along time; every step keeps its mask bit.

    The padding of all but the last becomes a hole: `jm.ops.compact` closes holes where a layer
    needs right padding. Mask class: any.

    Args:
      *pairs: `(x [batch, time_i, feature...], mask)`, one tuple each, of equal batch, features and
        dtype; masks all boolean, or all `Segments` (kept apart by renumbering), or None.

    Returns:
      The pair `(y, mask)`, `y [batch, sum of time_i, feature...]`; the mask is None only if
      every mask is.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> head, tail = jnp.array([[1, 9]]), jnp.array([[2]])
      >>> y, mask = jm.shape.concatenate((head, jnp.array([[True, False]])), (tail, None))
      >>> y.tolist(), mask.tolist()
      ([[1, 0, 2]], [[True, False, True]])
    """
    _check.pairs(pairs, "concatenate")
    checked = [_check.pair(x, mask, "concatenate", over_time=True) for x, mask in pairs]
    first = checked[0][0]
    for x, _ in checked:
        if x.dtype != first.dtype:
            raise TypeError(f"concatenate: dtypes differ, {first.dtype} and {x.dtype}.")
        if x.shape[:1] + x.shape[2:] != first.shape[:1] + first.shape[2:]:
            raise ValueError(
                f"concatenate: only time may differ, got shapes {first.shape} and {x.shape}."
            )
    y = jnp.concatenate([filled(x, mask) for x, mask in checked], axis=1)
    return y, _concatenate_masks(checked)


def _concatenate_masks(pairs: list[tuple[Array, Mask]]) -> Mask:
    if all(mask is None for _, mask in pairs):
        return None
    packed = _check.packed([mask for _, mask in pairs], "concatenate")
    if not packed:
        real = [_mask_ops.real_steps(m, x.shape[:2]) for x, m in pairs]
        return jnp.concatenate(real, axis=1)
    ids, offset = [], 0
    for segments in packed:
        # Renumbered wide: a narrow dtype that holds the ids of each may not hold those of all.
        wide = segments.ids.astype(common_dtype(segments.ids.dtype, jnp.int32))
        ids.append(jnp.where(wide > 0, wide + offset, 0))
        offset += segments.max_segments
    return Segments(jnp.concatenate(ids, axis=1), offset)


@refusing_pairs
def pad(x: ArrayLike, mask: Mask, width: tuple[int, int]) -> Pair:
    """Add padding steps at the ends of the array; they are not real.

    Mask class: any. The result always has a mask.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      width: static `(left, right)` numbers of steps.

    Returns:
      The pair `(y, mask)`, `y [batch, left + time + right, feature...]`, 0 in the padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.shape.pad(jnp.array([[7]]), None, (1, 1))
      >>> y.tolist(), mask.tolist()
      ([[0, 7, 0]], [[False, True, False]])
    """
    left, right = _check.two_counts(width, "pad", "width", "left, right")
    x, mask = _check.pair(x, mask, "pad", over_time=True)
    ends = ((0, 0), (left, right))
    y = jnp.pad(filled(x, mask), (*ends, *((0, 0),) * (x.ndim - 2)))
    if isinstance(mask, Segments):
        return y, Segments(jnp.pad(mask.ids, ends), mask.max_segments)
    real = jnp.ones(x.shape[:2], bool) if mask is None else mask
    return y, jnp.pad(real, ends)
