"""Any cell over padded rows, by a plain `lax.scan`: the readable reference."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxmask import _check, masks, ops
from jaxmask._types import Array, ArrayLike, Ids, Mask, PyTree, Segments, StepMask, Steps

Carry = TypeVar("Carry")
Cell = Callable[[Carry, Array], tuple[Carry, PyTree]]


def scan(
    cell: Cell[Carry],
    x: ArrayLike,
    mask: Mask,
    carry: Carry,
    *,
    reverse: bool = False,
    segments: Segments | ArrayLike | None = None,
    reset_carry: Carry | None = None,
) -> tuple[Carry, tuple[PyTree, Mask]]:
    """Run a cell over the real steps of each row.

        carry, y[:, t] = cell(carry, x[:, t])     where mask[:, t]
        carry, y[:, t] = carry, 0                 elsewhere

    Any mask works (mask class: any): a masked step holds the carry and emits 0, so the final carry
    is the one after the last real step, wherever the padding lies. The cell never sees padding:
    there it gets a copy of a real step, and what it computes is thrown away.

    Args:
      cell: `(carry, x_t [batch, feature...]) -> (carry, y_t)`, as Flax's recurrent cells are; `y_t`
        is a pytree of arrays `[batch, ...]`.
      x: `[batch, time, feature...]`.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      carry: pytree of arrays `[batch, ...]`.
      reverse: from the last real step of each row to the first; outputs stay at their own steps.
      segments: ids `[batch, time]` or `Segments`, shorthand for `Segments` in the mask's place.
        The first segment that a row meets goes on from `carry`.
      reset_carry: what every later segment starts from; zeros where None.

    Returns:
      `(carry, (y, mask))`; `y` holds arrays `[batch, time, ...]`, 0 in the padding.

    Raises:
      TypeError: if `mask` is not boolean.
      ValueError, MaskError: if `mask`, `segments` or `carry` does not belong to `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> def add(total, x):
      ...     return total + x, total + x
      >>> x = jnp.array([[1.0, 2.0, jnp.nan]])
      >>> mask = jnp.array([[True, True, False]])
      >>> total, (y, mask) = jm.recurrent.scan(add, x, mask, jnp.zeros(1))
      >>> total.tolist(), y.tolist()
      ([3.0], [[1.0, 3.0, 0.0]])
    """
    x, mask, ids = with_segments(x, mask, segments, "scan")
    safe, _ = ops.fill_real(x, mask)
    return run(cell, safe, mask, ids, carry, reverse=reverse, reset_carry=reset_carry)


def with_segments(
    x: ArrayLike, mask: Mask, segments: Segments | ArrayLike | None, where: str
) -> tuple[Steps, Mask, Ids | None]:
    """Check the pair, fold `segments=` into the mask, and give the ids, if there are any.

    Example:
      >>> import jax.numpy as jnp
      >>> mask = jnp.array([[True, True, False]])
      >>> _, mask, ids = with_segments(jnp.zeros((1, 3, 2)), mask, jnp.array([[1, 2, 2]]), "scan")
      >>> mask.tolist(), ids.tolist()
      ([[True, True, False]], [[1, 2, 0]])
    """
    x, mask = _check.pair(x, mask, where, over_time=True)
    if segments is None:
        return x, mask, mask.ids if isinstance(mask, Segments) else None
    if isinstance(mask, Segments):
        raise _check.MaskError(
            f"{where}: `Segments` came twice, in the mask's place and as `segments=`. Pass one."
        )
    given = segments if isinstance(segments, Segments) else Segments(jnp.asarray(segments), 0)
    _check.pair(x, given, where)
    ids = given.ids if mask is None else jnp.where(masks.steps(mask), given.ids, 0)
    if isinstance(segments, Segments):
        return x, Segments(ids, segments.max_segments), ids
    return x, ids > 0, ids


def run(
    cell: Cell[Carry],
    x: Steps,
    mask: Mask,
    ids: Ids | None,
    carry: Carry,
    *,
    reverse: bool,
    reset_carry: Carry | None = None,
) -> tuple[Carry, tuple[PyTree, Mask]]:
    """`scan` after its checks, for `x` whose padding the cell can stand.

    Example:
      >>> import jax.numpy as jnp
      >>> def add(total, x):
      ...     return total + x, total + x
      >>> run(add, jnp.ones((1, 3)), None, None, jnp.zeros(1), reverse=True)[1][0].tolist()
      [[3.0, 2.0, 1.0]]
    """
    _check_carry(carry, x.shape[0])
    real = None if mask is None else time_first(masks.steps(mask))
    ids = None if ids is None else time_first(ids)
    fresh = jax.tree.map(jnp.zeros_like, carry) if reset_carry is None else reset_carry

    def step(
        state: tuple[Carry, Array | None], inputs: tuple[Array, StepMask | None, Ids | None]
    ) -> tuple[tuple[Carry, Array | None], PyTree]:
        (held, seen), (x_t, real_t, ids_t) = state, inputs
        if seen is not None and real_t is not None and ids_t is not None:
            is_new = real_t & (ids_t != seen) & (seen > 0)
            held = _select(is_new, fresh, held)
            seen = jnp.where(real_t, ids_t, seen)
        new, y_t = cell(held, x_t)
        if real_t is not None:
            new = _select(real_t, new, held)
            y_t = _select(real_t, y_t, jax.tree.map(jnp.zeros_like, y_t))
        return (new, seen), y_t

    seen = None if ids is None else jnp.zeros(x.shape[0], ids.dtype)
    (carry, _), y = jax.lax.scan(step, (carry, seen), (time_first(x), real, ids), reverse=reverse)
    return carry, (jax.tree.map(time_first, y), mask)


def time_first(x: Array) -> Array:
    """Swap batch and time.

    Example:
      >>> import jax.numpy as jnp
      >>> time_first(jnp.zeros((2, 5, 3))).shape
      (5, 2, 3)
    """
    return jnp.swapaxes(x, 0, 1)


def _select(condition: Array, on_true: Carry, on_false: Carry) -> Carry:
    """A select row by row over two pytrees."""

    def select(a: Array, b: Array) -> Array:
        return jnp.where(masks.expand(condition, a.ndim), a, b)

    return jax.tree.map(select, on_true, on_false)


def _check_carry(carry: PyTree, batch: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        if jnp.ndim(leaf) < 1 or jnp.shape(leaf)[0] != batch:
            raise ValueError(
                f"scan: `carry{jax.tree_util.keystr(path)}` must be [batch, ...] with batch = "
                f"{batch}, got shape {jnp.shape(leaf)}."
            )
