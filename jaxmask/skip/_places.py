"""Where rows go when several are packed into one, and the way there and back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._mask_ops import expand
from jaxmask._types import Array, StepMask
from jaxmask.skip._plan import Plan


class Places(NamedTuple):
    """Where each row lies among the packed rows.

    Attributes:
      number: `[batch]`: which packed row, counted over all chunks, times `most` + its place there.
      at: `[batch, time]`: the packed step of each step; out of range beyond the end of the row.
      source: `[packed rows, time]`: the step that lies there; out of range where there is none.
      row: `[packed rows, most]`: the row that each sequence is; out of range where there is none.
      ids: `[packed rows, time]`: 1, 2, ... at the real steps of the sequences of a packed row.
      chunks: how many chunks of packed rows hold a row that must run.
    """

    number: Array
    at: Array
    source: Array
    row: Array
    ids: Array
    chunks: Array


def place(plan: Plan, real: StepMask, only_filled: bool) -> Places:
    """Pack rows from their first step to their last real one.

    Args:
      plan: how many packed rows there are, and how many sequences one may hold.
      real: `[batch, time]`.
      only_filled: whether rows without a real step need not run.
    """
    batch, time = real.shape
    packed, most = plan.groups * plan.rows, plan.sequences
    lengths = jnp.max(jnp.where(real, jnp.arange(1, time + 1), 0), axis=1)
    packed_row, start, count = _first_fit(lengths, time, most)
    number = packed_row * most + count
    steps, nowhere = jnp.arange(time), packed * time
    at = jnp.where(steps < lengths[:, None], (packed_row * time + start)[:, None] + steps, nowhere)
    every = jnp.arange(batch * time, dtype=at.dtype)
    source = jnp.full(packed * time, batch * time, at.dtype).at[at.reshape(-1)].set(every)
    row = jnp.full(packed * most, batch, number.dtype).at[number].set(jnp.arange(batch))
    ids = jnp.where(real, count[:, None].astype(jnp.int32) + 1, 0)
    must_run = lengths > 0 if only_filled else jnp.ones_like(lengths, bool)
    used = jnp.max(jnp.where(must_run, packed_row + 1, 0), initial=0)
    return Places(
        number,
        at,
        source.reshape(packed, time),
        row.reshape(packed, most),
        taken(ids.reshape(-1), source).reshape(packed, time),
        -(-used // plan.rows),
    )


def _first_fit(lengths: Array, time: int, most: int) -> tuple[Array, Array, Array]:
    """The packed row of each row, where it begins, and how many lie before it there.

    The longest rows come first, each in the first packed row with room for it. There are as many
    packed rows as rows, so each finds one.
    """

    def put(state: tuple[Array, Array], row: Array) -> tuple[Any, tuple[Array, ...]]:
        filled, count = state
        has_room = (filled + lengths[row] <= time) & (count < most)
        into = jnp.argmax(has_room)
        state = filled.at[into].add(lengths[row]), count.at[into].add(1)
        return state, (into, filled[into], count[into])

    order = jnp.argsort(lengths, descending=True)
    empty = jnp.zeros_like(lengths)
    found: tuple[Array, ...]
    _, found = jax.lax.scan(put, (empty, empty), order)
    inverse = jnp.argsort(order)
    packed_row, start, count = (value[inverse] for value in found)
    return packed_row.astype(lengths.dtype), start, count


def rows_filled(real: np.ndarray, most: int) -> int:
    """How many packed rows `place` fills with the rows that have a real step, by the host."""
    batch, time = real.shape
    lengths = np.max(np.where(real, np.arange(1, time + 1), 0), axis=1)
    filled, count = np.zeros(batch, int), np.zeros(batch, int)
    for length in np.sort(lengths[lengths > 0])[::-1]:
        into = np.argmax((filled + length <= time) & (count < most))
        filled[into] += length
        count[into] += 1
    return int(np.count_nonzero(count))


def taken(flat: Array, index: Array) -> Array:
    """`flat[index]` along the first axis, 0 where the index is out of range."""
    inside = expand(index < flat.shape[0], index.ndim + flat.ndim - 1)
    values = flat.at[index].get(mode="clip")
    if jnp.issubdtype(flat.dtype, jax.dtypes.extended):  # random keys have no zero
        return values
    return jnp.where(inside, values, jnp.zeros((), flat.dtype))
