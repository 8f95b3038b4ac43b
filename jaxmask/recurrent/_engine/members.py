"""Members, each a batch of padded rows with weights of its own or of all, in one loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Float, Int

from jaxmask._types import Array, PyTree, StepMask, Steps
from jaxmask.recurrent._choice import Choice
from jaxmask.recurrent._engine.arrange import Arranged, arrange, line_up
from jaxmask.recurrent._engine.backward import backward
from jaxmask.recurrent._engine.forward import Plan, Weights, forward
from jaxmask.recurrent._engine.kinds import Kind, State
from jaxmask.recurrent._engine.room import room_for
from jaxmask.recurrent._engine.schedule import at, flat, in_line, units_for


class Setting(NamedTuple):
    """What is static.

    Attributes:
      kind: the recurrence.
      choice: the method, and its sizes.
      reverse: from the last real step of each row to the first.
      keeps: whether a backward comes.
    """

    kind: Kind
    choice: Choice
    reverse: bool
    keeps: bool = True


class Batch(NamedTuple):
    """Padded rows: where the real steps are, and at which of them the state starts from zeros."""

    x: Steps
    real: StepMask
    starts: StepMask | None


class Saved(NamedTuple):
    """What the backward needs beside the arguments: see `Room`, and the order."""

    kept: tuple[Float[Array, "member unit step states"], ...]
    arranged: Arranged


def forward_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State
) -> tuple[tuple[State, Steps], Saved]:
    """The last states and `h` after each step, each `[member, batch, ...]`, and what is saved."""
    choice, members, plan = setting.choice, len(batch.real), _plan(setting, batch, carry)
    arranged = arrange(choice, batch.real, batch.starts, reverse=setting.reverse)
    kept = forward(plan, line_up(choice, arranged), flat(batch.x), weights, _flat(carry))
    some = arranged.lengths[..., None] > 0
    ends = tuple(
        jnp.where(some, _look_up(kept, arranged.last, i, c.shape[2]), c)
        for i, c in enumerate(carry)
    )
    h = _look_up(kept, arranged.places, 0, carry[0].shape[2])
    saved = Saved(jax.tree.map(lambda a: a.reshape(members, -1, *a.shape[1:]), kept), arranged)
    return (_anew(arranged, ends), h.astype(batch.x.dtype)), saved


def back_members(
    setting: Setting, weights: Weights, batch: Batch, carry: State, saved: Saved, given: Any
) -> tuple[Array, Weights, State]:
    """Cotangents of `x`, of each member's weights and of the carry."""
    choice, arranged = setting.choice, saved.arranged
    plan = _plan(setting, batch, carry)
    d_ends = _anew(arranged, given[0])
    read = batch.x, carry, saved.kept, d_ends, given[1]
    x, *rest = _flat(read)
    d_x, d_weights, d_carry = backward(plan, line_up(choice, arranged), x, weights, *rest)
    d_carry = tuple(d.reshape(c.shape) for d, c in zip(d_carry, carry, strict=True))
    d_x = _look_up((d_x,), arranged.places, 0, x.shape[2])
    return d_x, d_weights, d_carry


def _plan(setting: Setting, batch: Batch, carry: State) -> Plan:
    kind, choice, (members, *sizes) = setting.kind, setting.choice, batch.real.shape
    gates = kind.gates if setting.keeps else 0
    room = room_for(choice, units_for(choice, *sizes), len(carry), gates)
    return Plan(kind, choice, room, members)


def _look_up(
    units: tuple[Float[Array, "unit step features"], ...],
    place: Int[Array, "member *n"],
    which: int,
    feature: int,
) -> Array:
    """One of the arrays in all members' units, at places in those of each member.

    Each has an array of units for itself, or all stand side by side in one.
    """
    held = units[which if len(units) > 1 else 0]
    size, n = held.shape[0] * held.shape[1] // len(place), held.shape[2] // feature
    # Not a slice of all that is kept, which would be copied.
    found = at(held.reshape(-1, feature), in_line(place, size) * n + which % n)
    return found.reshape(*place.shape, feature)


def _anew(arranged: Arranged, ends: State) -> State:
    if arranged.ends_anew is None:
        return ends
    return tuple(jnp.where(arranged.ends_anew[..., None], 0, a) for a in ends)


def _flat(tree: PyTree) -> PyTree:
    return jax.tree.map(flat, tree)


# ----------------------------------------------------------------------------- maps over the engine


def over_members(f: Callable) -> Callable:
    """Call `f(weights, *rest)` with a leading axis of members, one here, which `vmap` multiplies.

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
