"""Members, each a batch of padded rows with weights of its own or of all, in one loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxmask._types import Array, PyTree, StepMask, Steps
from jaxmask.recurrent.tiled.arrange import Places, arrange, back, there
from jaxmask.recurrent.tiled.backward import backward
from jaxmask.recurrent.tiled.episodes import begins, episodes
from jaxmask.recurrent.tiled.forward import Plan, Weights, forward
from jaxmask.recurrent.tiled.kinds import Kind, State
from jaxmask.recurrent.tiled.schedule import Rows, Tiles


class Setting(NamedTuple):
    """What is static."""

    kind: Kind
    tiles: Tiles
    reverse: bool


class Batch(NamedTuple):
    """Padded rows: where the real steps are, and at which of them the state starts from zeros."""

    x: Steps
    real: StepMask
    starts: StepMask | None


class _Arranged(NamedTuple):
    places: Places
    lengths: Array  # of rows as they are sorted
    starts: Array | None
    ends_anew: Array | None  # rows whose last state is zeros: an episode begins after their end


class Saved(NamedTuple):
    """What the backward needs, each `[member, ...]`."""

    arranged: _Arranged
    carry: State
    kept: State


# ------------------------------------------------------------- from padded rows to tiles and back


def _arrange(setting: Setting, batch: Batch) -> _Arranged:
    places, lengths = arrange(batch.real, reverse=setting.reverse)
    if batch.starts is None:
        return _Arranged(places, lengths, None, None)
    number, first, ends_anew = episodes(batch.starts, batch.real, reverse=setting.reverse)
    starts = begins(there(number, places), _rows_there(first, places))
    real = jnp.arange(starts.shape[2]) < lengths[..., None]
    return _Arranged(places, lengths, starts & real, ends_anew)


def _rows(setting: Setting, batch: Batch, arranged: _Arranged) -> Rows:
    """All members' rows one after another, in whole tiles and chunks."""
    (members, number, *_), (rows, steps) = batch.x.shape, setting.tiles[:2]
    offset = number * jnp.arange(members, dtype=jnp.int32)[:, None]
    places = arranged.places
    source_steps = jnp.take_along_axis(places.steps, places.rows[..., None], axis=1)
    return Rows(
        _flat(batch.x),
        _flat(_whole(arranged.lengths, rows)),
        _flat(_whole(places.rows.astype(jnp.int32) + offset, rows)),
        _flat(_whole(source_steps, rows, steps)),
        None if arranged.starts is None else _flat(_whole(arranged.starts, rows, steps)),
    )


def _whole(a: Array, *sizes: int) -> Array:
    """Whole tiles of rows and, where there is a second size, whole chunks of time."""
    ends = [-length % size for length, size in zip(a.shape[1:], sizes, strict=False)]
    rest = a.ndim - 1 - len(ends)
    return jnp.pad(a, [(0, 0), *((0, end) for end in ends), *[(0, 0)] * rest])


def _rows_there(a: Array, places: Places) -> Array:
    return a[jnp.arange(len(a))[:, None], places.rows]


def _rows_back(a: Array, places: Places) -> Array:
    return a[jnp.arange(len(a))[:, None], places.row_places]


def forward_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State
) -> tuple[tuple[State, Steps], Saved]:
    """The last states and `h` after each step, each `[member, batch, ...]`, and what is saved.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.kinds import SIMPLE
      >>> setting = Setting(SIMPLE["relu"], Tiles(rows=1, steps=2, lanes=1), reverse=False)
      >>> batch = Batch(jnp.ones((2, 1, 2, 1)), jnp.ones((2, 1, 2), bool), None)
      >>> matrix = jnp.array([[[1.0]], [[2.0]]])
      >>> weights = Weights(matrix, matrix, jnp.zeros((2, 1)), None)
      >>> carry = (jnp.zeros((2, 1, 1)),)
      >>> (_, h), _ = forward_members(setting, weights, batch, carry)
      >>> h[..., 0].tolist()
      [[[1.0, 2.0]], [[2.0, 6.0]]]
    """
    members, number, time = batch.real.shape
    arranged = _arrange(setting, batch)
    first = tuple(_whole(_rows_there(a, arranged.places), setting.tiles.rows) for a in carry)
    plan = _plan(setting, members, number)
    rows = _rows(setting, batch, arranged)
    kept = _apart(forward(plan, rows, weights, _flat(first)), members)
    ends = tuple(
        _rows_back(_at_end(arranged.lengths, k[:, :number], f[:, :number]), arranged.places)
        for k, f in zip(kept, first, strict=True)
    )
    h = back(
        kept[0][:, :number, :time],
        arranged.places,
        lambda h: jnp.where(batch.real[..., None], h, 0).astype(batch.x.dtype),
    )
    if arranged.ends_anew is not None:
        ends = tuple(jnp.where(arranged.ends_anew[..., None], 0, a) for a in ends)
    return (ends, h), Saved(arranged, first, kept)


def back_members(
    setting: Setting, weights: Weights, batch: Batch, saved: Saved, given: Any
) -> tuple[Array, Weights, State]:
    """Cotangents of `x`, of each member's weights and of the carry.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.kinds import SIMPLE
      >>> setting = Setting(SIMPLE["relu"], Tiles(rows=1, steps=2, lanes=1), reverse=False)
      >>> batch = Batch(jnp.ones((1, 1, 2, 1)), jnp.ones((1, 1, 2), bool), None)
      >>> weights = Weights(*[jnp.ones((1, 1, 1))] * 2, jnp.zeros((1, 1)), None)
      >>> carry = (jnp.zeros((1, 1, 1)),)
      >>> result, saved = forward_members(setting, weights, batch, carry)
      >>> back_members(setting, weights, batch, saved, result)[0].tolist()
      [[[[5.0], [4.0]]]]
    """
    (places, lengths, _, ends_anew), (d_ends, d_h) = saved.arranged, given
    members, number, time = batch.real.shape
    if ends_anew is not None:
        d_ends = tuple(jnp.where(ends_anew[..., None], 0, a) for a in d_ends)
    d_ends = tuple(_rows_there(a, places) for a in d_ends)
    plan = _plan(setting, members, number)
    rows = _rows(setting, batch, saved.arranged)
    whole = tuple(_whole(a, setting.tiles.rows) for a in d_ends)
    flat = _flat((saved.carry, saved.kept, whole, d_h))
    d_x, d_weights, d_carry = backward(plan, rows, weights, *flat)
    d_x, d_carry = _apart((d_x, d_carry), members)
    d_x = back(d_x[:, :number, :time], places, lambda d: d)
    some = lengths[..., None] > 0
    d_carry = tuple(jnp.where(some, a[:, :number], d) for a, d in zip(d_carry, d_ends, strict=True))
    return d_x, d_weights, tuple(_rows_back(a, places) for a in d_carry)


def _at_end(lengths: Array, after: Array, first: Array) -> Array:
    """The state after the last step of each row."""
    last = jnp.maximum(lengths - 1, 0)[..., None, None]
    end = jnp.take_along_axis(after, last, axis=2)[:, :, 0]
    return jnp.where(lengths[..., None] > 0, end, first)


def _plan(setting: Setting, members: int, number: int) -> Plan:
    """No more lanes than there are tiles."""
    tiles = setting.tiles
    most = members * -(-number // tiles.rows)
    return Plan(setting.kind, tiles._replace(lanes=min(tiles.lanes, most)), members)


def _flat(tree: PyTree) -> PyTree:
    """Members' rows one after another."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tree)


def _apart(tree: PyTree, members: int) -> PyTree:
    return jax.tree.map(lambda a: a.reshape(members, -1, *a.shape[1:]), tree)


# ----------------------------------------------------------------------------- maps over the engine


def over_members(f: Callable) -> Callable:
    """Call `f(weights, *rest)` with a leading axis of members, one here, which `vmap` multiplies.

    Example:
      >>> import jax.numpy as jnp
      >>> sizes = over_members(lambda weights, x: jnp.full(x.shape[:1], x.shape[0]))
      >>> jax.vmap(sizes, (None, 0))(jnp.ones((1, 3)), jnp.zeros(5)).tolist()
      [5, 5, 5, 5, 5]

    A loop with a trip count of its own for every mapped index would select among whole buffers at
    every turn; one loop over the pairs of all members does not.
    """

    @custom_vmap
    def members(weights: Weights, *rest: PyTree) -> PyTree:
        return f(weights, *rest)

    @members.def_vmap
    def rule(size: int, mapped: Any, weights: Weights, *rest: PyTree) -> Any:
        def fold(a: Array, is_mapped: bool) -> Array:
            a = a if is_mapped else jnp.broadcast_to(a, (size, *a.shape))
            return a.reshape(-1, *a.shape[2:])

        if any(jax.tree.leaves(mapped[0])) or jax.tree.leaves(weights)[0].shape[0] > 1:
            weights = jax.tree.map(fold, weights, mapped[0])
        rest = jax.tree.map(fold, rest, tuple(mapped[1:]))
        out = members(weights, *rest)
        out = jax.tree.map(lambda a: a.reshape(size, a.shape[0] // size, *a.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    def single(weights: Weights, *rest: PyTree) -> PyTree:
        out = members(weights, *jax.tree.map(lambda a: a[None], rest))
        return jax.tree.map(lambda a: a[0], out)

    return single
