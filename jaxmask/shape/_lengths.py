"""Lengths that are data: each step as often as it is asked for."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops
from jaxmask._errors import refusing_pairs
from jaxmask._meshes import over_explicit_axes
from jaxmask._steps import filled, gather
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask


@over_explicit_axes
@refusing_pairs
def repeat_each(x: ArrayLike, mask: Mask, repeats: ArrayLike, time: int) -> Pair:
    """Repeat each real step of each row by its own count, which is data: a length regulator.

        y[b] = x[b, 0], ..., x[b, 0], x[b, 1], ..., x[b, 1], ...   with repeats[b, t] copies of each

    Durations of phonemes become frames this way. Mask class: any; counts in the padding are not
    read. `upsample` repeats all steps alike, and `repeat` makes steps of rows.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments` (each copy belongs to the sequence of its step),
        or None.
      repeats: `[batch, time]`, integer, at least 0.
      time: static number of steps of the result.

    Returns:
      The pair `(y, mask)`: `y [batch, time, feature...]`, padded on the right, and its mask, or
      `Segments`. Rows are never cut in silence: where the counts are traced, so that no error is
      possible, a row that needs more than `time` steps, or has a count below 0, is nan, or the
      least value of an integer dtype.

    Raises:
      TypeError, ValueError: if `repeats` are not integers `[batch, time]`; if they are known, and
        one is negative or a row needs more than `time` steps.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[7, 8, 9]]), jnp.array([[True, True, False]])
      >>> y, mask = jm.shape.repeat_each(x, mask, jnp.array([[1, 2, 5]]), 4)
      >>> y.tolist(), mask.tolist()
      ([[7, 8, 8, 0]], [[True, True, True, False]])

    Agrees with `numpy.repeat` of the unpadded row. Source: Ren et al., 2019, FastSpeech,
    arxiv.org/abs/1905.09263.
    """
    where = "repeat_each"
    x, mask = _check.pair(x, mask, where, over_time=True)
    counts = _check.array(repeats, "repeats", where)
    if not jnp.issubdtype(counts.dtype, jnp.integer):
        raise TypeError(f"{where}: `repeats` must be integers, got dtype {counts.dtype}.")
    _check.shape(counts, x.shape[:2], "[batch, time]", where, "repeats")
    time = _check.count(time, where, "time")
    counts = filled(counts.astype(jnp.int32), mask)
    ends = jnp.cumsum(counts, axis=1)
    total = jnp.max(ends, axis=1, initial=0)[:, None]
    _refuse(counts, time, where)
    target = jnp.arange(time)
    bad = (total > time) | jnp.any(counts < 0, axis=1, keepdims=True)
    real = jnp.broadcast_to(target, (x.shape[0], time)) < jnp.where(bad, time, total)
    if not x.shape[1]:
        return jnp.zeros((x.shape[0], time, *x.shape[2:]), x.dtype), _of(real, mask, None)
    if isinstance(x.shape[1], int):
        index = jax.vmap(lambda end: jnp.searchsorted(end, target, side="right"))(ends)
    else:  # a search needs the size when it is traced
        index = jnp.sum(ends[:, None] <= target[None, :, None], axis=2, dtype=jnp.int32)
    new = _of(real, mask, index)
    y = gather(filled(x, mask), index)
    if _check.known(counts) is None:
        y = jnp.where(_mask_ops.expand(bad, y.ndim), _alarm(x.dtype), y)
    return filled(y, new), new


def _of(real: StepMask, mask: Mask, index: Array | None) -> Mask:
    """The mask of the result, or to which sequence each of its steps belongs."""
    if not isinstance(mask, Segments):
        return real
    ids = 0 if index is None else gather(mask.ids, index)
    return Segments(jnp.where(real, ids, 0).astype(mask.ids.dtype), mask.max_segments)


def _refuse(counts: Array, time: int, where: str) -> None:
    known = _check.known(counts)
    if known is None or not known.size:
        return
    if known.min() < 0:
        row, step = np.argwhere(known < 0)[0]
        raise ValueError(
            f"{where}: `repeats[{row}, {step}]` is {known[row, step]}, and a count is at least 0."
        )
    totals = known.sum(axis=1)
    if totals.max() > time:
        row = int(np.argmax(totals))
        raise ValueError(
            f"{where}: row {row} needs {totals[row]} steps, more than `time`, {time}. Nothing is "
            "cut off in silence: raise `time`, or lower the counts."
        )


def _alarm(dtype: jnp.dtype) -> Array:
    if jnp.issubdtype(dtype, jnp.inexact):
        return jnp.asarray(jnp.nan, dtype)
    return jnp.asarray(False if dtype == jnp.bool_ else jnp.iinfo(dtype).min, dtype)
