"""Assign chunks of rows to slots and rounds.

    rows of chunks of real steps           slots, each a queue of rows      rounds ->
    a  | 0 | 1 | 2 | 3 |                   slot 0  | a0 | a1 | a2 | a3 |
    b  | 0 | 1 | 2 |                       slot 1  | b0 | b1 | b2 | d0 |
    c  | 0 | 1 |                           slot 2  | c0 | c1 | e0 |
    d  | 0 |     e  | 0 |

A round takes one chunk in every slot, so the matrix that each step multiplies has as many rows as
there are slots, however ragged the batch is. The lengths decide how many slots are best: few where
the longest row decides how many rounds there are, many where there is work for all. So the program
chooses among a few static numbers of slots when it runs.

A **unit** is a slot in a round and holds one chunk. Units are numbered round by round, so a round
is one block of any buffer, whatever the number of slots. What it computes stays in its own units
until one gather at the end brings it to the rows. The first unit never has a step.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxmask import _mask_ops
from jaxmask._types import Array, StepMask
from jaxmask.recurrent._choice import Choice
from jaxmask.recurrent._engine.buffers import Layout, lookup, read_block, write_block
from jaxmask.recurrent._engine.kinds import zeros

ROUND = 3  # slots that cost as much as starting the operations of a round
_NEVER = jnp.iinfo(jnp.int32).max // 2


class Units(NamedTuple):
    """What each unit does: of one member, of each, or of all members concatenated."""

    row: Int[Array, "*member unit"]
    is_first: Bool[Array, "*member unit"]  # whether it holds the first chunk of its row
    left: Int[Array, "*member unit"]  # real steps of the row from here on, 0 where a slot is idle
    source: Int[Array, "*member unit step"]  # flat index of the step it reads, over all rows
    starts: Bool[Array, "*member unit step"] | None  # whether the state is reset before it


class Schedule(NamedTuple):
    """The order in which each member's real steps are run."""

    lengths: Int[Array, "member row"]
    positions: Int[Array, "member row time"]  # of each step in the units, see `_positions`
    last: Int[Array, "member row"]  # the position of the last real step
    which: Int[Array, "member"]  # index of the number of slots in `Choice.slots`
    rounds: Int[Array, "member"]  # how many hold a real step
    first: Int[Array, "member row"]  # the unit of a row's first chunk; 0 for an empty row
    units: Units
    ends_reset: Bool[Array, "member row"] | None  # an episode begins after the last real step


class Rounds(NamedTuple):
    """The units of all members, and the rounds of each number of slots."""

    units: Units
    begins: tuple[Int[Array, "round"], ...]  # first units of rounds, those with a real step first
    counts: tuple[Int[Array, ""], ...]  # how many rounds have a real step
    zero: Int[Array, ""]  # XLA cannot know that it is 0
    used: Int[Array, "member"]  # how many units these rounds have, plus the first unit
    first: Int[Array, "member row"]  # see `Schedule`


class Round(NamedTuple):
    """A chunk in every slot."""

    begin: Int[Array, ""]  # its first unit
    row: Int[Array, "slot"]
    is_first: Bool[Array, "slot"]
    goes_on: Bool[Array, "slot"]  # the row has another chunk
    source: Int[Array, "slot steps"]
    real: Bool[Array, "slot steps"]
    ends: Bool[Array, "slot steps"]  # the last step of its row
    starts: Bool[Array, "slot steps"] | None


# Traced once for both forwards, with and without a backward; so is `all_rounds`.
@functools.partial(jax.jit, static_argnums=0, static_argnames="reverse", inline=True)
def schedule(
    choice: Choice, real: StepMask, starts: StepMask | None = None, *, reverse: bool = False
) -> Schedule:
    """Count real steps `[member, batch, time]`, assign rows to slots, and describe each unit."""
    return each(functools.partial(_schedule, choice, reverse), real, starts)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def all_rounds(choice: Choice, plan: Schedule) -> Rounds:
    """The rounds of all members, concatenated."""
    batch, time = plan.positions.shape[1:]
    members, units = plan.units.row.shape

    def rounds(index: int, slots: int) -> tuple[Array, Array]:
        number = jnp.arange((units - 1) // slots, dtype=jnp.int32)[None]
        runs = (number < plan.rounds[:, None]) & (plan.which == index)[:, None]
        begin = flat_index(jnp.broadcast_to(1 + number * slots, runs.shape), units)
        if members > 1:
            begin = begin[jnp.argsort(~runs.reshape(-1), stable=True)]
        return begin, jnp.sum(runs, dtype=jnp.int32)

    begins, counts = zip(*(rounds(*one) for one in enumerate(choice.slots)), strict=True)
    row, source = flat_index(plan.units.row, batch), flat_index(plan.units.source, batch * time)
    own = jax.tree.map(flat, plan.units)._replace(row=row, source=source)
    used = 1 + plan.rounds * _slots(plan.which, choice)
    zero = jnp.where(counts[0] >= 0, 0, 1).astype(jnp.uint32)
    return Rounds(own, begins, counts, zero, used.astype(jnp.uint32), plan.first)


def round_at(rounds: Rounds, layout: Layout, index: int, number: Array) -> Round:
    """A round of the loop with `layout.slots[index]` slots."""
    begin = read_block(rounds.begins[index], number, 1)[0]
    units = jax.tree.map(lambda a: read_block(a, begin, layout.slots[index]), rounds.units)
    left = units.left[:, None] - jnp.arange(layout.steps, dtype=jnp.int32)[None]
    goes_on = units.left > layout.steps
    real, ends = left > 0, left == 1
    return Round(begin, units.row, units.is_first, goes_on, units.source, real, ends, units.starts)


def scratch_for(x: Array, layout: Layout, index: int) -> Array:
    """What `gather` writes to."""
    return zeros(x, (2, layout.slots[index], layout.steps, x.shape[-1]), x.dtype)


def gather(
    rounds: Rounds, now: Round, x: Float[Array, "row time feature"], scratch: Array
) -> tuple[Float[Array, "slot steps feature"], Array]:
    """What the steps of a round read of `x`, and 0 past the end of a row; and the new scratch.

    XLA:CPU splits what reads a large array among threads, however little of it is read, and waking
    them takes ten times as long as the reading. It does not split what writes a part of a buffer.
    """
    read = jnp.where(now.real[..., None], lookup(x.reshape(-1, x.shape[-1]), now.source), 0)
    scratch = write_block(scratch, read[None], rounds.zero)
    return scratch[0], scratch


def each(f: Callable, *rest: Any) -> Any:
    """`f` of each member; a single one without `vmap`, which would add an axis to products."""
    if len(jax.tree.leaves(rest)[0]) > 1:
        return jax.vmap(f)(*rest)
    return jax.tree.map(lambda a: a[None], f(*jax.tree.map(lambda a: a[0], rest)))


def flat_index(index: Int[Array, "member *n"], size: int) -> Array:
    """Indices into arrays of `size` per member, as indices into all of them concatenated."""
    member = jnp.arange(len(index), dtype=jnp.int32)
    return flat(index + size * _mask_ops.expand(member, index.ndim)).astype(jnp.uint32)


def flat(a: Array) -> Array:
    """Members concatenated along their leading axis."""
    return a.reshape(-1, *a.shape[2:])


def units_for(choice: Choice, batch: int, time: int) -> int:
    """How many units hold the steps of all rows, plus the first.

    If every row may have its own slot, full rows need no more units than that takes. Otherwise no
    slot gets more than `ceil(batch / slots)` full rows: when a row is assigned, some slot has at
    most `batch // slots` earlier ones, and the slot with the least work has no more.
    """
    rows = batch if batch in choice.slots else max(s * -(-batch // s) for s in choice.slots)
    return 1 + rows * -(-time // choice.steps)


def _schedule(choice: Choice, reverse: bool, real: Array, starts: Array | None) -> Schedule:
    batch, time = real.shape
    lengths, ranks = _count(real, reverse)
    assigned, units = _assign(lengths, choice, time), units_for(choice, batch, time)
    positions, last = (
        _positions(assigned, choice, lengths, step) for step in (ranks, jnp.maximum(lengths - 1, 0))
    )
    begins, ends_reset = None, None
    if starts is not None:
        begins, ends_reset = _episodes(starts, real, reverse)
    index = jnp.where(real, jnp.arange(real.size, dtype=jnp.int32).reshape(real.shape), -1)
    source = jnp.full_like(lengths, -1, shape=(units * choice.steps,))
    source = source.at[positions.astype(jnp.uint32)].set(index, mode="promise_in_bounds")
    own = _units(source.reshape(units, choice.steps), ranks, lengths, begins)
    return Schedule(lengths, positions, last, *assigned, own, ends_reset)


def _count(real: Array, reverse: bool) -> tuple[Array, Array]:
    """The length of each row, and each step's rank in the order run; padding ranks last."""
    lengths = jnp.sum(real, axis=1, dtype=jnp.int32)
    until = jnp.cumsum(real, axis=1, dtype=jnp.int32)
    rank = lengths[:, None] - until if reverse else until - 1
    return lengths, jnp.where(real, rank, lengths[:, None])


def _units(source: Array, ranks: Array, lengths: Array, starts: Array | None) -> Units:
    first = jnp.maximum(source[:, 0], 0)
    row, rank = first // ranks.shape[1], lookup(ranks.reshape(-1), first)
    left = jnp.where(source[:, 0] < 0, 0, lookup(lengths, row) - rank)
    some = jnp.maximum(source, 0)
    starts = None if starts is None else lookup(starts.reshape(-1), some) & (source >= 0)
    return Units(row, rank == 0, left, some, starts)


def _episodes(starts: Array, real: Array, reverse: bool) -> tuple[Array, Array]:
    """At which real steps a new episode begins, and whether one begins after the last.

    A start counts at a masked step too: the next real step begins a new episode. Going backward, a
    start comes after its own step. At padding the first result is meaningless.
    """
    # Episode numbers grow with time, so the maximum over the earlier real steps (going backward,
    # the minimum over the later ones) is the number of the nearest.
    episode = jnp.cumsum(starts, axis=1, dtype=jnp.int32)
    none, total = jnp.zeros_like(episode[:, :1]), episode[:, -1:]
    if reverse:
        seen = jax.lax.cummin(jnp.where(real, episode, total), axis=1, reverse=True)
        before = jnp.concatenate([seen[:, 1:], total], axis=1)
        return episode != before, (seen[:, :1] != none)[:, 0]
    seen = jax.lax.cummax(jnp.where(real, episode, none), axis=1)
    before = jnp.concatenate([none, seen[:, :-1]], axis=1)
    return episode != before, (seen[:, -1:] != total)[:, 0]


def _assign(lengths: Array, choice: Choice, time: int) -> tuple[Array, Array, Array]:
    """Assign rows to slots, the longest first, each to the slot with the least to do.

    (Largest processing time first: Graham, 1969, doi:10.1137/0117039.)

    Returns `which`, `rounds` and `first` of `Schedule`, for one member.
    """
    counts, batch = -(-lengths // choice.steps), len(lengths)
    all_at_once = jnp.where(counts > 0, jnp.arange(1, batch + 1, dtype=jnp.int32), 0)
    alone = jnp.full_like(counts[0], len(choice.slots) - 1), jnp.max(counts), all_at_once
    if choice.slots == (batch,):
        return alone
    which = cheapest(counts, choice.slots)
    slots = jnp.asarray(choice.slots, jnp.int32)[which]
    assigned = which, *_longest_first(counts, slots, max(choice.slots))
    if batch not in choice.slots:
        return assigned
    fits = assigned[1] * slots < units_for(choice, batch, time)
    return jax.tree.map(lambda a, b: jnp.where(fits, a, b), assigned, alone)


def cheapest(counts: Int[Array, "row"], slots: tuple[int, ...]) -> Int[Array, ""]:
    """The index of the number of slots that takes the least time, for rows of `counts` chunks.

    The longest row and the sum of all bound the number of rounds, and a round costs its slots plus
    `ROUND`.
    """
    choices = jnp.asarray(slots, counts.dtype)
    rounds = jnp.maximum(jnp.max(counts), -(-jnp.sum(counts) // choices))
    return jnp.argmin(rounds * (choices + ROUND)).astype(jnp.int32)


def _longest_first(counts: Array, slots: Array, most: int) -> tuple[Array, Array]:
    """How many rounds there are, and the unit of each row's first chunk."""
    slot = jnp.arange(1, most + 1, dtype=jnp.int32)

    def assign(free: Array, count: Array) -> tuple[Array, Array]:
        first = jnp.min(free)
        return jnp.where(free == first, free + count * slots, free), jnp.where(count > 0, first, 0)

    order = jnp.argsort(-counts, stable=True)
    # A slot's first free unit encodes both how much work it has and which slot it is.
    free, firsts = jax.lax.scan(assign, jnp.where(slot <= slots, slot, _NEVER), counts[order])
    rounds = jnp.max(jnp.where(slot <= slots, free - 1, 0)) // slots
    return rounds, jnp.zeros_like(firsts).at[order].set(firsts, unique_indices=True)


def _slots(which: Array, choice: Choice) -> Array:
    """How many slots were chosen."""
    return jnp.asarray(choice.slots, jnp.int32)[which]


def _positions(
    assigned: tuple[Array, Array, Array], choice: Choice, lengths: Array, step: Array
) -> Array:
    """The flat index, over all units' steps, of the step with a given rank in each row.

    For padding it is an index in the first unit, which never has a step.
    """
    which, _, first = assigned
    slots = _slots(which, choice)
    first, lengths = (_mask_ops.expand(a, step.ndim) for a in (first, lengths))
    unit = jnp.where(step < lengths, first + step // choice.steps * slots, 0)
    return unit * choice.steps + step % choice.steps
