"""Bring any mask to rows that are right-padded and sorted by length, and results back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int

from jaxmask import masks
from jaxmask._types import Array, Lengths, StepMask, Steps


class Places(NamedTuple):
    """Where each row and each step goes, and where each place is filled from."""

    rows: Int[Array, "batch"]  # the row that comes to each place, the longest first
    row_places: Int[Array, "batch"]
    steps: Int[Array, "batch time"] | None  # None: every row's steps stay in their order
    step_places: Int[Array, "batch time"] | None


def arrange(real: StepMask, *, reverse: bool) -> tuple[Places, Lengths]:
    """The places of real steps in front, in order or reversed, of rows from long to short.

    Returns:
      The places, and the lengths of the rows as they come to stand.

    Example:
      >>> import jax.numpy as jnp
      >>> real = jnp.array([[False, True, False], [True, False, True]])
      >>> places, lengths = arrange(real, reverse=False)
      >>> places.rows.tolist(), places.steps[1].tolist(), lengths.tolist()
      ([1, 0], [0, 2, 1], [2, 1])
    """
    lengths = masks.lengths(real)[:, None]
    rank = jnp.cumsum(real, axis=1, dtype=jnp.int32) - 1
    if reverse:
        rank = lengths - 1 - rank
    behind = lengths + jnp.cumsum(~real, axis=1, dtype=jnp.int32) - 1
    step_places = jnp.where(real, rank, behind)
    rows = jnp.argsort(-lengths[:, 0], stable=True)
    steps = jnp.argsort(step_places, axis=1)
    return Places(rows, jnp.argsort(rows), steps, step_places), lengths[rows, 0]


@jax.custom_vjp
def there(x: Steps, places: Places) -> Steps:
    """`x` with its rows and steps in their places.

    Example:
      >>> import jax.numpy as jnp
      >>> places, _ = arrange(jnp.array([[False, True], [True, True]]), reverse=False)
      >>> there(jnp.array([[7, 8], [5, 6]]), places).tolist()
      [[5, 6], [8, 7]]
    """
    return _gather(x, places.rows, places.steps)


@jax.custom_vjp
def back(y: Steps, places: Places) -> Steps:
    """The inverse of `there`.

    Example:
      >>> import jax.numpy as jnp
      >>> places, _ = arrange(jnp.array([[False, True], [True, True]]), reverse=False)
      >>> back(there(jnp.array([[7, 8], [5, 6]]), places), places).tolist()
      [[7, 8], [5, 6]]
    """
    steps = None if places.step_places is None else places.step_places[places.rows]
    moved = _gather_steps(y, steps)
    return moved[places.row_places]


def _gather(x: Array, rows: Array, steps: Array | None) -> Array:
    return x[rows] if steps is None else x[rows[:, None], steps[rows]]


def _gather_steps(y: Array, steps: Array | None) -> Array:
    return y if steps is None else y[jnp.arange(len(y))[:, None], steps]


# A permutation's transpose is its inverse: another gather, where JAX would scatter.
there.defvjp(lambda x, places: (there(x, places), places), lambda p, d: (back(d, p), None))
back.defvjp(lambda y, places: (back(y, places), places), lambda p, d: (there(d, p), None))
