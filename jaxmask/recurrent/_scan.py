"""Any cell over padded rows, by a plain `lax.scan`: the readable reference."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxmask import _check, _mask_ops, masks
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled_with_copies
from jaxmask._types import (
    Array,
    ArrayLike,
    Ids,
    Mask,
    PyTree,
    Segments,
    StepMask,
    Steps,
    common_dtype,
)

Carry = TypeVar("Carry")
Cell = Callable[[Carry, Array], tuple[Carry, PyTree]]


@refusing_pairs
def scan(
    cell: Cell[Carry],
    x: ArrayLike,
    mask: Mask,
    carry: Carry,
    *,
    reverse: bool = False,
    segments: Segments | ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reset_carry: Carry | None = None,
) -> tuple[Carry, tuple[PyTree, Mask]]:
    """Run a cell over the real steps of each row.

        carry, y[:, t] = cell(carry, x[:, t])     where mask[:, t]
        carry, y[:, t] = carry, 0                 elsewhere

    Any mask works (mask class: any): a masked step keeps the carry and emits 0, so the final carry
    is the one after the last real step, wherever the padding lies. The cell never sees padding:
    there it gets a copy of a real step, and its result is discarded.

    Args:
      cell: `(carry, x_t [batch, feature...]) -> (carry, y_t)`, as Flax's recurrent cells are; `y_t`
        is a pytree of arrays `[batch, ...]`.
      x: `[batch, time, feature...]`.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      carry: pytree of arrays `[batch, ...]`.
      reverse: from the last real step of each row to the first; outputs stay at their own steps.
      segments: ids `[batch, time]` or `Segments`, shorthand for `Segments` in the mask's place.
        In each row the first segment to run starts from `carry`.
      resets: `[batch, time]`, boolean: where a new episode begins. The carry is reset before that
        step, and, in reverse, after it. A reset at a masked step counts too, since it belongs to
        the structure of the row: the next real step begins an episode.
      reset_carry: what every later segment and every episode starts from; zeros where None. A None
        in place of an array keeps that part of the carry.

    Returns:
      `(carry, (y, mask))`; `y` holds arrays `[batch, time, ...]`, 0 in the padding.

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
    _check.function(cell, "scan", "cell")
    reverse = _check.flag(reverse, "scan", "reverse")
    x, mask, starts = with_starts(x, mask, segments, resets, "scan")
    safe = filled_with_copies(x, mask)
    return run(cell, safe, mask, starts, carry, reverse=reverse, reset_carry=reset_carry)


def with_starts(
    x: ArrayLike,
    mask: Mask,
    segments: Segments | ArrayLike | None,
    resets: ArrayLike | None,
    where: str,
) -> tuple[Steps, Mask, StepMask | None]:
    """Check the pair, fold `segments=` into the mask, and find where sequences begin.

    The last result is True at steps that the state must not enter from the step before; it is None
    without segments and resets.
    """
    x, mask, ids = _with_ids(x, mask, segments, where)
    starts = None if ids is None else _later_segments(ids)
    if resets is None:
        return x, mask, starts
    resets = _check.boolean(resets, where, "resets")
    _check.shape(resets, x.shape[:2], "[batch, time]", where, "resets")
    return x, mask, resets if starts is None else starts | resets


def _with_ids(
    x: ArrayLike, mask: Mask, segments: Segments | ArrayLike | None, where: str
) -> tuple[Steps, Mask, Ids | None]:
    x, mask = _check.pair(x, mask, where, over_time=True)
    if segments is None:
        return x, mask, mask.ids if isinstance(mask, Segments) else None
    if isinstance(mask, Segments):
        raise _check.MaskError(
            f"{where}: `Segments` came twice, in the mask's place and as `segments=`. Pass one."
        )
    given = segments if isinstance(segments, Segments) else Segments(jnp.asarray(segments), 0)
    _check.pair(x, given, where)
    ids = given.ids if mask is None else jnp.where(masks.as_bool(mask), given.ids, 0)
    if isinstance(segments, Segments):
        return x, Segments(ids, segments.max_segments), ids
    return x, ids > 0, ids


def _later_segments(ids: Ids) -> StepMask:
    """True at the first real step of every segment of a row except the first segment."""
    step = jnp.where(ids > 0, jnp.arange(ids.shape[1]), -1)
    last_real = jax.lax.cummax(step, axis=1)
    before = jnp.pad(last_real, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    seen = jnp.take_along_axis(ids, jnp.maximum(before, 0), axis=1)
    return (ids > 0) & (before >= 0) & (seen != ids)


def run(
    cell: Cell[Carry],
    x: Steps,
    mask: Mask,
    starts: StepMask | None,
    carry: Carry,
    *,
    reverse: bool,
    reset_carry: Carry | None = None,
) -> tuple[Carry, tuple[PyTree, Mask]]:
    """`scan` without its checks, for an `x` whose padding is safe for the cell."""
    _check_carry(carry, x.shape[0])
    if reset_carry is not None:
        _check_reset_carry(reset_carry, carry)
    fresh = jax.tree.map(jnp.zeros_like, carry) if reset_carry is None else reset_carry

    def step(
        held: Carry, inputs: tuple[Array, StepMask | None, StepMask | None]
    ) -> tuple[Carry, PyTree]:
        x_t, real_t, starts_t = inputs
        if starts_t is not None and not reverse:
            held = _restarted(starts_t, fresh, held)
        # The padding holds a copy of a step, perhaps of another sequence, and nan * 0 is nan: the
        # cell's result there must send no gradient into the state.
        own = held if real_t is None else _select(real_t, held, jax.lax.stop_gradient(held))
        new, y_t = cell(own, x_t)
        new = jax.tree.map(_no_narrower, new, held)
        if real_t is not None:
            new = _select(real_t, new, held)
            y_t = _select(real_t, y_t, jax.tree.map(jnp.zeros_like, y_t))
        # The boundary lies before the step, so going backward it comes after.
        if starts_t is not None and reverse:
            new = _restarted(starts_t, fresh, new)
        return new, y_t

    real = None if mask is None else masks.as_bool(mask)
    inputs = jax.tree.map(time_first, (x, real, starts))
    carry, y = jax.lax.scan(step, _varying(step, carry, inputs), inputs, reverse=reverse)
    return carry, (jax.tree.map(time_first, y), mask)


def _varying(step: Callable, carry: Carry, inputs: PyTree) -> Carry:
    """Let the carry vary over every axis of a `shard_map` that a step's result varies over.

    `lax.scan` requires the carry to keep its type, and zeros made inside vary over no axis.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return carry

    one = jax.tree.map(lambda a: jnp.zeros_like(a, shape=a.shape[1:]), inputs)
    # A False made with `zeros_like` varies as its array does, and so does whatever it selects.
    false = jnp.zeros((), bool)
    for leaf in jax.tree.leaves(step(carry, one)[0]):
        false |= jnp.zeros_like(leaf, shape=(), dtype=bool)
    return jax.tree.map(lambda a: jnp.where(false, jnp.zeros_like(a), a), carry)


def time_first(x: Array) -> Array:
    return jnp.swapaxes(x, 0, 1)


def _restarted(starts: StepMask, fresh: PyTree, carry: Carry) -> Carry:
    """The carry of `fresh` where a sequence starts; a None in `fresh` keeps that part."""

    def restart(new: Array | None, old: Any) -> Any:
        return old if new is None else _select(starts, new, old)

    return jax.tree.map(restart, fresh, carry, is_leaf=_is_none)


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _select(condition: Array, on_true: Carry, on_false: Carry) -> Carry:
    """A select row by row over two pytrees."""

    def select(a: Array, b: Array) -> Array:
        return jnp.where(_mask_ops.expand(condition, a.ndim), a, b)

    return jax.tree.map(select, on_true, on_false)


def _no_narrower(new: Array, held: Array) -> Array:
    """The state of a half-precision cell, cast to the dtype of the carry."""
    wide, narrow = jnp.result_type(held), jnp.result_type(new)
    is_narrower = wide != narrow and all(jnp.issubdtype(d, jnp.floating) for d in (wide, narrow))
    return new.astype(wide) if is_narrower and common_dtype(wide, narrow) == wide else new


def _check_reset_carry(reset_carry: PyTree, carry: PyTree) -> None:
    """Its arrays must have the structure and shapes of the carry: nothing is broadcast."""
    with contextlib.suppress(ValueError, TypeError):  # else the trees differ, as the error says
        reset_carry = jax.tree.map(
            lambda new, old: old if new is None else new, reset_carry, carry, is_leaf=_is_none
        )
    given, expected = (
        (jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (reset_carry, carry)
    )
    if given != expected:
        raise ValueError(
            f"scan: `reset_carry` must be a tree of arrays like `carry`, {expected[0]} with shapes "
            f"{expected[1]}, got {given[0]} with shapes {given[1]}."
        )


def _check_carry(carry: PyTree, batch: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        if jnp.ndim(leaf) < 1 or jnp.shape(leaf)[0] != batch:
            raise ValueError(
                f"scan: `carry{jax.tree_util.keystr(path)}` must be [batch, ...] with batch = "
                f"{batch}, got shape {jnp.shape(leaf)}."
            )
