"""Rows continued at both ends, so that frames are centred."""

import jax.numpy as jnp
from jaxtyping import Int

from jaxmask import _check
from jaxmask._steps import filled, gather, to_left
from jaxmask._types import Array, Mask, Segments, StepMask
from jaxmask._windows import CONTINUATIONS

CENTRES = (None, "reflect", "constant")


def continued(
    x: Array, mask: Mask, half: int, center: str, where: str
) -> tuple[Array, StepMask | None]:
    """`half` samples more at both ends of each row: its reflection, or 0.

    A row shorter than that is reflected again and again, as NumPy does; an empty row stays empty.
    """
    if isinstance(mask, Segments):
        _check.refuse_segments(where)
    time = x.shape[1]
    if not time:
        return x, mask
    whole = mask is None
    x, real = (x, jnp.ones(x.shape[:2], bool)) if mask is None else to_left(x, mask)
    ends = ends_of(real)
    place = jnp.arange(time + 2 * half)[None] - half
    inside = (ends > 0) & (place < ends + half)
    if center == "constant":
        own = (place >= 0) & (place < ends)
        index = jnp.clip(jnp.broadcast_to(place, inside.shape), 0, time - 1)
        inside &= gather(real, index) | ~own
        y = filled(gather(x, index), own)
    else:
        index = CONTINUATIONS[center](place, jnp.maximum(ends, 1))
        inside &= gather(real, index)
        y = gather(x, index)
    return filled(y, inside), None if whole else inside


def shortened(x: Array, real: StepMask, half: int) -> tuple[Array, StepMask]:
    """What `continued` added taken away again: `half` samples at both ends of each row."""
    time = max(0, x.shape[1] - 2 * half)
    x, own = x[:, half : half + time], real[:, half : half + time]
    own = own & (jnp.arange(time)[None] < ends_of(real) - 2 * half)
    return filled(x, own), own


def ends_of(real: StepMask) -> Int[Array, "batch 1"]:
    """One more than the last real sample: a hole keeps its place."""
    steps = jnp.where(real, jnp.arange(1, real.shape[1] + 1), 0)
    return jnp.max(steps, axis=1, initial=0, keepdims=True)
