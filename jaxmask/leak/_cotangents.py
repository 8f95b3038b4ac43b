"""Fixed random cotangents that follow each real step to wherever a layout puts it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _mask_ops
from jaxmask._types import Array
from jaxmask.leak._layouts import Layout
from jaxmask.leak._outputs import Slot


class Rows(NamedTuple):
    """What the cotangents of a run depend on.

    Attributes:
      names: `[batch]`, which given row stands at each place.
      weights: `[batch]`, 0 for rows that are not compared.
      shared: 0 if what all rows have a share in is not compared.
      timed: 0 if what has a time axis and no mask is not compared.
      focus: the one segment that is compared; 0: all.
    """

    names: Any
    weights: Any
    shared: Any
    timed: Any
    focus: Any

    @classmethod
    def of(cls, layout: Layout) -> "Rows":
        """Those of a layout."""
        places = np.arange(len(layout.marks))
        names = places if layout.order is None else np.asarray(layout.order)
        weights = (~np.isin(places, layout.dropped)).astype(np.int32)
        counts = (not layout.dropped, layout.timed, layout.focus)
        shared, timed, focus = (np.asarray(count, np.int32) for count in counts)
        return cls(names.astype(np.int32), weights, shared, timed, focus)


def groups_of(size: int, batch: int) -> int:
    """How many rows of the input a leading axis splits into: all of them, or it cannot be told."""
    return batch if size and size % batch == 0 else 1


# Odd multipliers of a hash, one for each axis.
_PRIMES = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1, 0xD3A2646D, 0xFD7046C5)


def cotangent(
    slot: Slot, real: Array | None, rows: Rows, number: int, *, shares_rows: bool, in_time: bool
) -> Array:
    """A random number for the k-th real entry of a row, the same wherever the entry lies.

    It is a hash of the row, of k and of the feature, so that it needs no look-up.

    Args:
      slot: an array of the output.
      real: its entries that count, None for all.
      rows: what counts in this run.
      number: of the slot.
      shares_rows: whether an unmasked array has a row for each row of the input.
      in_time: whether an unmasked array has a time axis.
    """
    y, leading = slot.array, 0
    seeds, weight = jnp.uint32(0), jnp.where(rows.focus == 0, rows.shared, 0)
    if real is None and shares_rows:
        real = jnp.broadcast_to(rows.focus == 0, y.shape[:1])
    if real is not None:
        seeds, weight = _seeds(real, rows)
        leading = real.ndim
    if in_time:
        weight = weight * rows.timed
    seeds = _mask_ops.expand(seeds, y.ndim) + jnp.uint32(number * 0x2545F491 & 0xFFFFFFFF)
    for axis in range(leading, y.ndim):
        step = jnp.uint32(_PRIMES[(axis - leading + 2) % len(_PRIMES)])
        seeds = seeds + step * jax.lax.broadcasted_iota(jnp.uint32, y.shape, axis)
    drawn = _uniform(seeds)
    return jnp.where(_mask_ops.expand(weight, y.ndim) > 0, drawn, 0).astype(y.dtype)


def _seeds(real: Array, rows: Rows) -> tuple[Array, Array]:
    """For each entry a number of its row and rank, and whether it counts."""
    groups = groups_of(real.shape[0], rows.names.shape[0])
    listed = real.reshape(groups, -1)
    rank = jnp.cumsum(listed, axis=1) if listed.shape[1] > 1 else listed
    known = groups == rows.names.shape[0]
    names, weights = (rows.names[:, None], rows.weights[:, None]) if known else (0, rows.shared)
    row_step, step = (jnp.uint32(prime) for prime in _PRIMES[:2])
    seeds = row_step * jnp.asarray(names).astype(jnp.uint32) + step * rank.astype(jnp.uint32)
    return seeds.reshape(real.shape), jnp.where(listed, weights, 0).reshape(real.shape)


def _uniform(seeds: Array) -> Array:
    """Numbers in [-1, 1), the low bits of a seed stirred into all others."""
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        seeds = (seeds ^ (seeds >> shift)) * jnp.uint32(multiplier)
    return (seeds >> 8).astype(jnp.float32) * 2.0**-23 - 1
