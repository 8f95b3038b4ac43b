"""Rows continued at both ends, so that frames are centred."""

import functools

import jax
import jax.numpy as jnp

from jaxmask import _mask_ops
from jaxmask._steps import filled, gather, to_left
from jaxmask._types import Array, Mask, Segments, StepMask
from jaxmask._windows import CONTINUATIONS, edges, of_each, scatter, spread

CENTRES = (None, "reflect", "constant")


def continued(x: Array, mask: Mask, half: int, center: str) -> tuple[Array, Mask]:
    """`half` samples more at both ends of each row: its reflection, or 0.

    A row shorter than that is reflected again and again, as NumPy does; an empty row stays empty.
    """
    if not x.shape[1]:
        return x, mask
    if isinstance(mask, Segments):
        return _continued_apart(x, mask, half, center)
    x, real = (x, jnp.ones(x.shape[:2], bool)) if mask is None else to_left(x, mask)
    index, is_read, inside = _places(real, half, center)
    return filled(gather(x, index), is_read), None if mask is None else inside


def _continued_apart(x: Array, segments: Segments, half: int, center: str) -> tuple[Array, Mask]:
    count = segments.max_segments
    target, time = spread(segments.ids, max(count, 1), 2 * half)
    apart = Segments(scatter(segments.ids, target, time), count)
    places = functools.partial(_places, half=half, center=center)
    index, is_read, _ = jax.vmap(places, in_axes=1)(_mask_ops.of_each_segment(apart))
    index = jnp.sum(jnp.where(is_read, index, 0), axis=0)
    y = gather(scatter(filled(x, segments), target, time), index)
    ids = of_each(lambda mask: places(mask)[2], apart)
    return filled(y, jnp.any(is_read, axis=0)), Segments(ids, count)


def _places(real: StepMask, half: int, center: str) -> tuple[Array, StepMask, StepMask]:
    """Which sample each of `half + time + half` reads, if it reads a real one, and if it is real.

    Before the first one and after the last they go on; holes stay holes.
    """
    first, end = (edge[:, None] for edge in edges(real))
    place = jnp.arange(real.shape[1] + 2 * half, dtype=jnp.int32)[None] - half
    inside = (first < end) & (place >= first - half) & (place < end + half)
    if center == "constant":
        own = (place >= first) & (place < end)
        index = jnp.clip(jnp.broadcast_to(place, inside.shape), 0, real.shape[1] - 1)
        is_read = own & gather(real, index)
        return index, is_read, inside & (is_read | ~own)
    index = first + CONTINUATIONS[center](place - first, jnp.maximum(end - first, 1))
    is_read = inside & gather(real, index)
    return index, is_read, is_read


def shortened(x: Array, real: StepMask, half: int) -> tuple[Array, StepMask]:
    """What `continued` added taken away again: `half` samples at both ends of each row."""
    time = jax.core.max_dim(x.shape[1] - 2 * half, 0)
    x, own = x[:, half : half + time], real[:, half : half + time]
    own = own & (jnp.arange(time)[None] < edges(real)[1][:, None] - 2 * half)
    return filled(x, own), own
