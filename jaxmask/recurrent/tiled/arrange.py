"""Bring any mask to rows that are right-padded and sorted by length, and results back."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from jaxmask._types import Array, Lengths, StepMask, Steps


class Places(NamedTuple):
    """Where each row and each step goes, and where each place is filled from."""

    rows: Int[Array, "member batch"]  # the row that comes to each place, the longest first
    row_places: Int[Array, "member batch"]
    steps: Int[Array, "member batch time"]  # of the rows as they came
    step_places: Int[Array, "member batch time"]
    in_order: Bool[Array, "member"]  # every step of every row stays where it is


def arrange(real: StepMask, *, reverse: bool) -> tuple[Places, Lengths]:
    """The places of real steps in front, in order or reversed, of rows from long to short.

    Args:
      real: `[member, batch, time]`; rows are sorted within their member.
      reverse: whether the last real step comes first.

    Returns:
      The places, and the lengths of the rows as they come to stand.

    Example:
      >>> import jax.numpy as jnp
      >>> real = jnp.array([[[False, True, False], [True, False, True]]])
      >>> places, lengths = arrange(real, reverse=False)
      >>> places.rows.tolist(), places.steps[0, 1].tolist(), lengths.tolist()
      ([[1, 0]], [0, 2, 1], [[2, 1]])
    """
    lengths = jnp.sum(real, axis=2, dtype=jnp.int32)
    rank = jnp.cumsum(real, axis=2, dtype=jnp.int32) - 1
    if reverse:
        rank = lengths[..., None] - 1 - rank
    behind = lengths[..., None] + jnp.cumsum(~real, axis=2, dtype=jnp.int32) - 1
    step_places = jnp.where(real, rank, behind)
    # Made like an array, it varies over the axes of a `shard_map` that the other places vary over.
    step = jnp.zeros_like(step_places) + jnp.arange(real.shape[2], dtype=jnp.int32)
    in_order = jnp.all(step_places == step, axis=(1, 2))
    steps = jax.lax.cond(jnp.all(in_order), lambda: step, lambda: _inverse(step_places, step))
    rows = jnp.argsort(-lengths, axis=1, stable=True)
    places = Places(rows, jnp.argsort(rows, axis=1), steps, step_places, in_order)
    return places, jnp.take_along_axis(lengths, rows, axis=1)


def _inverse(places: Array, step: Array) -> Array:
    """The step that comes to each place."""
    member, batch = jnp.indices(places.shape[:2], sparse=True)
    return step.at[member[..., None], batch[..., None], places].set(step, unique_indices=True)


def there(x: Steps, places: Places) -> Steps:
    """`x [member, batch, time, ...]` with its rows and steps in their places.

    Example:
      >>> import jax.numpy as jnp
      >>> places, _ = arrange(jnp.array([[[False, True], [True, True]]]), reverse=False)
      >>> there(jnp.array([[[7, 8], [5, 6]]]), places).tolist()
      [[[5, 6], [8, 7]]]
    """
    member = jnp.arange(len(x))[:, None]
    steps = places.steps[member, places.rows]
    return x[member[..., None], places.rows[..., None], steps]


def back(y: Steps, places: Places, fill: Callable[[Steps], Steps]) -> Steps:
    """The inverse of `there`, and its transpose, and then filled.

    Example:
      >>> import jax.numpy as jnp
      >>> places, _ = arrange(jnp.array([[[False, True], [True, True]]]), reverse=False)
      >>> back(jnp.array([[[5, 6], [8, 7]]]), places, lambda y: y).tolist()
      [[[7, 8], [5, 6]]]
    """
    member = jnp.arange(len(y))[:, None]
    row = places.row_places
    # Steps that stay are moved row by row, which is one copy of memory. What fills stands in both
    # branches, since a result of `cond` is written to memory before anything else is done with it.
    return jax.lax.cond(
        jnp.all(places.in_order),
        lambda: fill(y[member, row]),
        lambda: fill(y[member[..., None], row[..., None], places.step_places]),
    )
