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
      dense: with a backward, cut nothing, see `dense.py`.
    """

    kind: Kind
    tiles: Tiles
    reverse: bool
    dense: bool = False


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

    kept: tuple[Float[Array, "member round slot step hidden"], ...]
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


def _line_up(batch: Batch, arranged: Arranged) -> tuple[Rows, Schedule]:
    places, lengths, dealt, starts, _ = arranged
    return _flat(Rows(batch.x, lengths, places.steps, starts)), schedule(dealt)


def _place(plan: Plan, line: Schedule, rows: Rows, step: Array) -> tuple[Array, Array, Array]:
    """Where a step `[row, ...]` of each row, counted as it comes, is kept.

    For padding a place in the last round, which never comes, so that zeros stand there.
    """
    first, slots, lengths = (
        masks.expand(a, step.ndim)
        for a in (line.queues.first_round_of, line.queues.slot_of, rows.lengths)
    )
    chunk = (step // plan.tiles.steps).astype(first.dtype)
    rounds = jnp.where(step < lengths, first + chunk, len(line.queues.row) - 1)
    return rounds, slots, step % plan.tiles.steps


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
    plan = Plan(setting.kind, setting.tiles, len(batch.real))
    arranged = _arrange(setting, batch)
    rows, line = _line_up(batch, arranged)
    first = _flat(carry)
    kept = forward(plan, line, rows, weights, first)
    last = _place(plan, line, rows, jnp.maximum(rows.lengths - 1, 0))
    some = rows.lengths[:, None] > 0
    ends = tuple(jnp.where(some, at(k, *last), f) for k, f in zip(kept, first, strict=True))
    ends = _apart(ends, plan.members)
    ends = _anew(arranged, ends)
    h = _apart(at(kept[0], *_place(plan, line, rows, _flat(arranged.places.ranks))), plan.members)
    return (ends, h.astype(batch.x.dtype)), Saved(_apart(kept, plan.members), arranged)


def back_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State, saved: Saved, given: Any
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
      >>> back_members(setting, weights, batch, carry, saved, result)[0].tolist()
      [[[[5.0], [4.0]]]]
    """
    plan = Plan(setting.kind, setting.tiles, len(batch.real))
    rows, line = _line_up(batch, saved.arranged)
    d_ends, d_h = given
    flat = _flat((carry, saved.kept, _anew(saved.arranged, d_ends), d_h))
    d_x, d_weights, d_states = backward(plan, line, rows, weights, *flat)
    ranks = _flat(saved.arranged.places.ranks)
    d_x = _apart(at(d_x, *_place(plan, line, rows, ranks)), plan.members)
    first, some = (line.queues.first_round_of, line.queues.slot_of), rows.lengths[:, None] > 0
    d_carry = tuple(
        jnp.where(some, at(d, *first), end) for d, end in zip(d_states, flat[2], strict=True)
    )
    return d_x, d_weights, _apart(d_carry, plan.members)


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
