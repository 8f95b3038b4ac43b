"""Slide a window over rows, or over packed rows whose sequences are moved out of its reach."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmask import _mask_ops, ops
from jaxmask._steps import to_left
from jaxmask._types import Array, Ids, Mask, Pair, Segments, StepMask
from jaxmask._windows import Window

Compute = Callable[[Array, StepMask | None], Array]


def slide(compute: Compute, x: Array, mask: Mask, window: Window) -> Pair:
    """Run `compute(x, real) -> y [batch, window, ...]`, and give the result its mask.

    `compute` must not let padding, where `real` is False, into a window; a gap of `span - 1` steps
    of padding keeps the sequences of a packed row apart.

    Example:
      >>> x, mask = jnp.array([[1, 2, 9]]), jnp.array([[True, True, False]])
      >>> pair = slide(lambda x, real: x[:, ::2], x, mask, Window(1, stride=2))
      >>> pair[0].tolist(), pair[1].tolist()
      ([[1, 0]], [[True, False]])
    """
    if isinstance(mask, Segments):
        return _slide_apart(compute, x, mask, window)
    if mask is not None and window.stride > 1:  # strides count from the first step of the row
        x, mask = to_left(x, mask)
    y, new = compute(x, mask), window.mask_out(mask, x.shape)
    return ops.fill(y, new)


def _slide_apart(compute: Compute, x: Array, segments: Segments, window: Window) -> Pair:
    """One pass over a longer row: dear by `span - 1` steps a sequence, whatever `compute` is."""
    ids, most = segments.ids, max(segments.max_segments, 1)
    to, time = spread_positions(ids, most, window.span - 1, window.stride)
    far_x, far_ids = put(ops.fill(x, segments)[0], to, time), put(ids, to, time)
    y, real = compute(far_x, far_ids > 0), window.real(far_ids > 0)
    if window.keeps_time:
        y, real = take(y, to), take(real, to)
        return ops.fill(y, Segments(jnp.where(real, ids, 0), segments.max_segments))
    # A window meets one sequence only, so the mean of the ids that it meets is the id.
    owner = window.total(far_ids) // jnp.maximum(window.total(far_ids > 0), 1)
    new = Segments(jnp.where(real, owner, 0).astype(ids.dtype), segments.max_segments)
    extra = window.span - 1 if window.padding == "full" else 0
    enough = (x.shape[1] + most * (extra + window.stride - 1)) // window.stride
    return shortened(y, new, window.steps_out(x.shape[1]) if most == 1 else enough)


def shortened(y: Array, segments: Segments, time: int) -> Pair:
    """Close the gaps between sequences, and keep the first `time` steps.

    Example:
      >>> pair = shortened(jnp.array([[7, 0, 8]]), Segments(jnp.array([[1, 0, 2]]), 2), 2)
      >>> pair[0].tolist(), pair[1].ids.tolist()
      ([[7, 8]], [[1, 2]])
    """
    y, new = ops.compact(y, segments)
    assert isinstance(new, Segments)
    return y[:, :time], Segments(new.ids[:, :time], new.max_segments)


def spread_positions(ids: Ids, most: int, gap: int, stride: int = 1) -> tuple[Ids, int]:
    """Where each step goes so that sequences lie `gap` apart and start at multiples of `stride`.

    Example:
      >>> to, time = spread_positions(jnp.array([[1, 1, 2, 0]]), 2, gap=2)
      >>> to.tolist(), time
      ([[0, 1, 4, 5]], 6)
    """
    time = ids.shape[1]
    gap = gap + stride - 1  # what rounding up to a multiple of the stride may eat
    step = jnp.arange(time, dtype=jnp.int32)[None]
    # A hole inside a sequence does not begin another: compare with the last real step before.
    latest = jax.lax.cummax(jnp.where(ids > 0, step + 1, 0), axis=1)
    before = jnp.take_along_axis(jnp.pad(ids, ((0, 0), (1, 0))), latest, axis=1, mode="clip")
    starts = (ids > 0) & (ids != jnp.pad(before, ((0, 0), (1, 0)))[:, :time])
    run = jnp.maximum(jnp.cumsum(starts, axis=1, dtype=jnp.int32) - 1, 0)
    start = jax.lax.cummax(jnp.where(starts, step, 0), axis=1)
    to = -(-(start + run * gap) // stride) * stride + step - start
    return to, time + (most - 1) * gap + stride - 1


def put(x: Array, to: Ids, time: int) -> Array:
    """`x` with step t moved to `to[t]` of `time` steps, 0 elsewhere.

    Example:
      >>> put(jnp.array([[7, 8]]), jnp.array([[0, 2]]), 3).tolist()
      [[7, 0, 8]]
    """
    row = jnp.arange(x.shape[0])[:, None]
    longer = jnp.zeros((x.shape[0], time, *x.shape[2:]), x.dtype)
    return longer.at[row, to].set(x, mode="drop", unique_indices=True)


def take(x: Array, to: Ids) -> Array:
    """The inverse of `put`.

    Example:
      >>> take(jnp.array([[7, 0, 8]]), jnp.array([[0, 2]])).tolist()
      [[7, 8]]
    """
    return jnp.take_along_axis(x, _mask_ops.expand(to, x.ndim), axis=1, mode="clip")
