"""Members, each a batch of padded rows with weights of its own or of all, in one loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Bool, Float, Int

from jaxmask import masks
from jaxmask._types import Array, PyTree, StepMask, Steps
from jaxmask.recurrent.tiled.arrange import Places, arrange
from jaxmask.recurrent.tiled.backward import backward
from jaxmask.recurrent.tiled.episodes import begins, episodes
from jaxmask.recurrent.tiled.forward import Plan, Weights, forward
from jaxmask.recurrent.tiled.kinds import Kind, State
from jaxmask.recurrent.tiled.schedule import Dealt, Rows, Schedule, Tiles, at, deal, schedule


class Setting(NamedTuple):
    """What is static.

    Attributes:
      kind: the recurrence.
      tiles: the sizes to cut with.
      reverse: from the last real step of each row to the first.
      way: `"tiled"`; or `"dense"`, which cuts nothing where a backward comes; or `"pallas"`, the
        same with its forward on the chip, see `dense.py`.
      keeps: whether a backward comes.
    """

    kind: Kind
    tiles: Tiles
    reverse: bool
    way: str = "tiled"
    keeps: bool = True


class Batch(NamedTuple):
    """Padded rows: where the real steps are, and at which of them the state starts from zeros."""

    x: Steps
    real: StepMask
    starts: StepMask | None


class Arranged(NamedTuple):
    """The order in which each member's real steps are run."""

    places: Places
    lengths: Int[Array, "member row"]
    dealt: Dealt
    starts: Bool[Array, "member row time"] | None  # before which of the steps in order
    ends_anew: Bool[Array, "member row"] | None  # the last state is zeros: an episode begins then


class Saved(NamedTuple):
    """What the backward needs beside the arguments: the states after each step, and the order."""

    kept: tuple[Float[Array, "member unit step hidden"], ...]
    arranged: Arranged


# ------------------------------------------------------------- from padded rows to rounds and back


def _arrange(setting: Setting, batch: Batch) -> Arranged:
    tiles, reverse = setting.tiles, setting.reverse
    places, lengths = arrange(batch.real, reverse=reverse)
    starts, ends_anew = None, None
    if batch.starts is not None:
        number, first, ends_anew = episodes(batch.starts, batch.real, reverse=reverse)
        starts = begins(jnp.take_along_axis(number, places.steps, axis=2), first)
        starts &= jnp.arange(starts.shape[2]) < lengths[..., None]
    end = -places.steps.shape[2] % tiles.steps
    whole = (places.steps, starts)
    steps, starts = jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (0, 0), (0, end))), whole)
    dealt = deal(lengths, tiles, steps.shape[2] // tiles.steps)
    return Arranged(places._replace(steps=steps), lengths, dealt, starts, ends_anew)


def _line_up(tiles: Tiles, batch: Batch, arranged: Arranged) -> tuple[Rows, Schedule]:
    places, lengths, dealt, starts, _ = arranged
    rows = _flat(Rows(batch.x, lengths, places.steps, starts))
    return rows, schedule(dealt, tiles, rows)


def _kept_at(tiles: Tiles, arranged: Arranged, step: Int[Array, "member row *n"]) -> Array:
    """Where a step of each row, counted as it comes, is kept: all members' steps in one line.

    For padding a place in the member's last unit, which never has a step: zeros stand there.
    """
    dealt = arranged.dealt
    members, units = dealt.row.shape
    slots = jnp.asarray(tiles.slots, jnp.int32)[dealt.which]
    first, slots, lengths, member = (
        masks.expand(a, step.ndim)
        for a in (dealt.first, slots, arranged.lengths, jnp.arange(members, dtype=jnp.int32))
    )
    unit = jnp.where(step < lengths, first + step // tiles.steps * slots, units - 1)
    return (member * units + unit) * tiles.steps + step % tiles.steps


def forward_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State
) -> tuple[tuple[State, Steps], Saved]:
    """The last states and `h` after each step, each `[member, batch, ...]`, and what is saved.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.kinds import SIMPLE
      >>> setting = Setting(SIMPLE["relu"], Tiles((1,), 2), reverse=False)
      >>> batch = Batch(jnp.ones((2, 1, 2, 1)), jnp.ones((2, 1, 2), bool), None)
      >>> matrix = jnp.array([[[1.0]], [[2.0]]])
      >>> weights = Weights(matrix, matrix, jnp.zeros((2, 1)), None)
      >>> carry = (jnp.zeros((2, 1, 1)),)
      >>> (_, h), _ = forward_members(setting, weights, batch, carry)
      >>> h[..., 0].tolist()
      [[[1.0, 2.0]], [[2.0, 6.0]]]
    """
    tiles, members = setting.tiles, len(batch.real)
    plan = Plan(setting.kind, tiles, members)
    arranged = _arrange(setting, batch)
    rows, line = _line_up(tiles, batch, arranged)
    kept = forward(plan, line, rows.x, weights, _flat(carry))
    last = _kept_at(tiles, arranged, jnp.maximum(arranged.lengths - 1, 0))
    some = arranged.lengths[..., None] > 0
    ends = tuple(jnp.where(some, at(_flat(k), last), c) for k, c in zip(kept, carry, strict=True))
    h = at(_flat(kept[0]), _kept_at(tiles, arranged, arranged.places.ranks))
    saved = Saved(_apart(kept, members), arranged)
    return (_anew(arranged, ends), h.astype(batch.x.dtype)), saved


def back_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State, saved: Saved, given: Any
) -> tuple[Array, Weights, State]:
    """Cotangents of `x`, of each member's weights and of the carry.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmask.recurrent.tiled.kinds import SIMPLE
      >>> setting = Setting(SIMPLE["relu"], Tiles((1,), 2), reverse=False)
      >>> batch = Batch(jnp.ones((1, 1, 2, 1)), jnp.ones((1, 1, 2), bool), None)
      >>> weights = Weights(*[jnp.ones((1, 1, 1))] * 2, jnp.zeros((1, 1)), None)
      >>> carry = (jnp.zeros((1, 1, 1)),)
      >>> result, saved = forward_members(setting, weights, batch, carry)
      >>> back_members(setting, weights, batch, carry, saved, result)[0].tolist()
      [[[[5.0], [4.0]]]]
    """
    tiles, members, arranged = setting.tiles, len(batch.real), saved.arranged
    plan = Plan(setting.kind, tiles, members)
    rows, line = _line_up(tiles, batch, arranged)
    d_ends, d_h = given
    d_ends = _anew(arranged, d_ends)
    flat = _flat((carry, saved.kept, d_ends, d_h))
    d_x, d_weights, d_firsts = backward(plan, line, rows.x, weights, *flat)
    d_x = at(_flat(d_x), _kept_at(tiles, arranged, arranged.places.ranks))
    units, some = arranged.dealt.row.shape[1], arranged.lengths[..., None] > 0
    first = arranged.dealt.first + units * jnp.arange(members, dtype=jnp.int32)[:, None]
    d_carry = tuple(
        jnp.where(some, at(d, first), end) for d, end in zip(d_firsts, d_ends, strict=True)
    )
    return d_x, d_weights, d_carry


def _anew(arranged: Arranged, ends: State) -> State:
    if arranged.ends_anew is None:
        return ends
    return tuple(jnp.where(arranged.ends_anew[..., None], 0, a) for a in ends)


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
