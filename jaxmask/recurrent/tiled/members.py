"""Members, each a batch of padded rows with weights of its own or of all, in one loop."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxmask import masks
from jaxmask._types import Array, PyTree, StepMask, Steps
from jaxmask.recurrent.tiled.arrange import Places, arrange, back, there
from jaxmask.recurrent.tiled.backward import backward
from jaxmask.recurrent.tiled.episodes import begins, episodes
from jaxmask.recurrent.tiled.forward import Plan, Rows, Weights, forward, zeros
from jaxmask.recurrent.tiled.kinds import Kind, State
from jaxmask.recurrent.tiled.schedule import Tiles


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
    rows: Rows
    places: Places
    ends_anew: Array | None  # rows whose last state is zeros: an episode begins after their end


class Saved(NamedTuple):
    """What the backward needs, each `[member, ...]`."""

    arranged: _Arranged
    carry: State
    kept: State


# ------------------------------------------------------------- from padded rows to tiles and back


def _arrange(setting: Setting, batch: Batch) -> _Arranged:
    places, lengths = arrange(batch.real, reverse=setting.reverse)
    starts, ends_anew = None, None
    if batch.starts is not None:
        number, first, ends_anew = episodes(batch.starts, batch.real, reverse=setting.reverse)
        starts = begins(there(number, places, lambda a: a), _rows_there(first, places))
        starts = _to_end(lengths)(starts)
    rows = Rows(there(batch.x, places, _to_end(lengths)), lengths, starts)
    rows = jax.tree.map(functools.partial(_in_tiles, setting), rows)
    return _Arranged(rows, places, ends_anew)


def _in_tiles(setting: Setting, a: Array) -> Array:
    """Whole tiles of rows and, where there is an axis of time, whole chunks of it."""
    sizes = (setting.tiles.rows, setting.tiles.steps)[: min(a.ndim - 1, 2)]
    return _whole(a, *sizes)


def _whole(a: Array, *sizes: int) -> Array:
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
    flat = _flat((arranged.rows, first))
    plan = _plan(setting, members, number)
    kept = _apart(forward(plan, flat[0], weights, flat[1]), members)
    ends = tuple(map(functools.partial(_at_end, arranged.rows.lengths), kept, first))
    ends = tuple(_rows_back(a[:, :number], arranged.places) for a in ends)
    h = back(
        kept[0][:, :number, :time],
        arranged.places,
        lambda h: jnp.where(batch.real[..., None], h, 0).astype(batch.x.dtype),
    )
    if arranged.ends_anew is not None:
        ends = tuple(jnp.where(arranged.ends_anew[..., None], 0, a) for a in ends)
    return (ends, h), Saved(arranged, first, kept)


def back_members(
    setting: Setting, weights: Weights, saved: Saved, given: Any
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
      >>> back_members(setting, weights, saved, result)[0].tolist()
      [[[[5.0], [4.0]]]]
    """
    (rows, places, ends_anew), (d_ends, d_h) = saved.arranged, given
    members, number, time = places.steps.shape
    if ends_anew is not None:
        d_ends = tuple(jnp.where(ends_anew[..., None], 0, a) for a in d_ends)
    d_ends = tuple(_whole(_rows_there(a, places), setting.tiles.rows) for a in d_ends)
    d_h = there(d_h, places, _with_end(rows.lengths, d_ends[0], number))
    d_h = _in_tiles(setting, d_h)
    plan = _plan(setting, members, number)
    flat = _flat((rows, saved.carry, saved.kept, d_ends[1:], d_h))
    d_x, d_weights, d_carry = backward(plan, flat[0], weights, *flat[1:])
    d_x, d_carry = _apart((d_x, d_carry), members)
    d_x = back(d_x[:, :number, :time], places, lambda d: d)
    some = rows.lengths[..., None] > 0
    d_carry = tuple(jnp.where(some, a, d) for a, d in zip(d_carry, d_ends, strict=True))
    return d_x, d_weights, tuple(_rows_back(a[:, :number], places) for a in d_carry)


def _at_end(lengths: Array, after: Array, first: Array) -> Array:
    """The state after the last step of each row."""
    last = jnp.maximum(lengths - 1, 0)[..., None, None]
    end = jnp.take_along_axis(after, last, axis=2)[:, :, 0]
    return jnp.where(lengths[..., None] > 0, end, first)


def _to_end(lengths: Array) -> Callable[[Steps], Steps]:
    """Zeros past the end of each row."""

    def fill(x: Steps) -> Steps:
        real = jnp.arange(x.shape[2]) < lengths[..., None]
        # In a `shard_map` a zero that varies as `x` does, for one type in both branches of `cond`.
        return jnp.where(masks.expand(real, x.ndim), x, zeros(x, (), x.dtype))

    return fill


def _with_end(lengths: Array, d_end: Array, number: int) -> Callable[[Steps], Steps]:
    """Zeros past the end of each row, and at its last step the cotangent of the last `h` too."""
    lengths, d_end = lengths[:, :number], d_end[:, :number]

    def fill(d_h: Steps) -> Steps:
        last = (jnp.arange(d_h.shape[2]) == lengths[..., None] - 1)[..., None]
        d_h = _to_end(lengths)(d_h).astype(d_end.dtype)
        return d_h + jnp.where(last, d_end[:, :, None], 0)

    return fill


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
