"""Fixed random cotangents that follow each real step to its position in any layout."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _mask_ops
from jaxmask._types import Array
from jaxmask.leak._layouts import Layout
from jaxmask.leak._outputs import Slot


class Compared(NamedTuple):
    """What is compared in a run, on which its cotangents depend.

    Attributes:
      row_ids: `[batch]`, which given row is at each batch index.
      weights: `[batch]`, 0 for rows that are not compared.
      shared: 0 if results that all rows contribute to are not compared.
      timed: 0 if results with a time axis and no mask are not compared.
      focus: the only segment that is compared; 0: all.
    """

    row_ids: Any
    weights: Any
    shared: Any
    timed: Any
    focus: Any

    @classmethod
    def of(cls, layout: Layout) -> "Compared":
        """What is compared on a layout."""
        rows = np.arange(len(layout.marks))
        row_ids = rows if layout.order is None else np.asarray(layout.order)
        weights = (~np.isin(rows, layout.dropped)).astype(np.int32)
        flags = (not layout.dropped, layout.timed, layout.focus)
        shared, timed, focus = (np.asarray(flag, np.int32) for flag in flags)
        return cls(row_ids.astype(np.int32), weights, shared, timed, focus)


def groups_of(size: int, batch: int) -> int:
    """How many rows of the input a leading axis splits into: all of them, or 1 if unknown."""
    return batch if size and size % batch == 0 else 1


# Odd multipliers of a hash, one for each axis.
_PRIMES = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1, 0xD3A2646D, 0xFD7046C5)


def cotangent(
    slot: Slot, real: Array | None, compared: Compared, *, salt: int, by_row: bool, in_time: bool
) -> Array:
    """A random value for the k-th real entry of a row, the same at any position.

    It is a hash of the row, of k, of the feature and of `salt`, so that it needs no look-up. An
    unmasked array may have a row for each row of the input (`by_row`), or a time axis (`in_time`).
    """
    y, leading = slot.array, 0
    seeds, weight = jnp.uint32(0), jnp.where(compared.focus == 0, compared.shared, 0)
    if real is None and by_row:
        real = jnp.broadcast_to(compared.focus == 0, y.shape[:1])
    if real is not None:
        seeds, weight = _seeds(real, compared)
        leading = real.ndim
    if in_time:
        weight = weight * compared.timed
    seeds = _mask_ops.expand(seeds, y.ndim) + jnp.uint32(salt * 0x2545F491 & 0xFFFFFFFF)
    for axis in range(leading, y.ndim):
        step = jnp.uint32(_PRIMES[(axis - leading + 2) % len(_PRIMES)])
        seeds = seeds + step * jax.lax.broadcasted_iota(jnp.uint32, y.shape, axis)
    drawn = _uniform(seeds)
    return jnp.where(_mask_ops.expand(weight, y.ndim) > 0, drawn, 0).astype(y.dtype)


def _seeds(real: Array, compared: Compared) -> tuple[Array, Array]:
    """For each entry a seed from its row and rank, and whether it counts."""
    batch = compared.row_ids.shape[0]
    groups = groups_of(real.shape[0], batch)
    by_group = real.reshape(groups, -1)
    rank = jnp.cumsum(by_group, axis=1) if by_group.shape[1] > 1 else by_group
    row_ids, weights = jnp.zeros((), jnp.int32), compared.shared
    if groups == batch:
        row_ids, weights = compared.row_ids[:, None], compared.weights[:, None]
    of_row, of_rank = (jnp.uint32(prime) for prime in _PRIMES[:2])
    seeds = of_row * row_ids.astype(jnp.uint32) + of_rank * rank.astype(jnp.uint32)
    return seeds.reshape(real.shape), jnp.where(by_group, weights, 0).reshape(real.shape)


def _uniform(seeds: Array) -> Array:
    """Values in [-1, 1), by mixing the low bits of a seed into all others."""
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        seeds = (seeds ^ (seeds >> shift)) * jnp.uint32(multiplier)
    return (seeds >> 8).astype(jnp.float32) * 2.0**-23 - 1
