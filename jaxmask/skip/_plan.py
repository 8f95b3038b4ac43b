"""How a batch is cut: the static lengths, and the groups of rows or of packed rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxmask import _check
from jaxmask._meshes import spreads_rows
from jaxmask._types import Segments

WHERE = "skip_padding"
LENGTHS, LEAST_LENGTH = 3, 16  # every length is one more program to compile
GROUPS, LEAST_ROWS = 8, 4  # a product of fewer rows leaves a CPU idle
GROUPS_ACCELERATOR = 4  # a branch, or a turn of a loop, waits for the host there
SEQUENCES = 8  # in a packed row; pools and convolutions have a place for each
STEPS = 512  # of packed rows that run at once: more of them round up further


@dataclass(frozen=True)
class Plan:
    """How `skip_padding` runs a batch; `skip_padding(f).explain(x, mask)` returns it.

    Attributes:
      lengths: the static lengths that groups of rows run at; the last is the time axis itself.
        Empty where `f` runs on the batch as it is.
      groups: number of groups that the sorted rows are cut into.
      rows: rows of a group; the last places of the shortest group are filled with empty rows. Of
        packed rows, how many run at once.
      reason: why.
      sequences: the most rows that are packed into one; 0 where rows are not packed.
      packed_rows: how many packed rows the real steps fill, `rows` of which run at once: the time
        is about this share of the batch. None where rows are not packed or the mask is traced.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.zeros((32, 256, 1)), jnp.ones((32, 256), bool)
      >>> plan = jm.skip_padding(jm.nn.Passthrough(jnp.sin)).explain(x, mask)
      >>> plan.lengths, plan.groups, plan.rows
      ((64, 128, 256), 8, 4)
    """

    lengths: tuple[int, ...]
    groups: int
    rows: int
    reason: str
    sequences: int = 0
    packed_rows: int | None = None


def as_it_is(reason: str) -> Plan:
    """`f` runs on the whole batch."""
    return Plan((), 1, 0, reason)


def make(mask: Any, lengths: Any, groups: int | None, pack: bool | int = False) -> Plan:
    """The plan for a batch with this mask, `[batch, time]`, or None."""
    if mask is None:
        return as_it_is("without a mask there is nothing to skip")
    _check.of_steps(mask, WHERE)
    batch, time = mask.shape
    if not (isinstance(batch, int) and isinstance(time, int)):
        return as_it_is("a dimension is symbolic, so no length is known")
    if pack and isinstance(mask, Segments):
        raise _check.MaskError(
            f"{WHERE}: `pack` is for rows with a boolean mask; these are packed already, by "
            "`Segments`. Leave it False."
        )
    if pack and (batch < 2 or not time):
        return as_it_is("there is nothing to pack")
    sizes = (time,) if pack else static_lengths(lengths, time) if batch and time else ()
    if len(sizes) < 2 and not pack:
        return as_it_is("there is no shorter length to run at")
    if spreads_rows(mask.ids if isinstance(mask, Segments) else mask):
        return as_it_is("sorting rows under a mesh outside `shard_map` would gather the batch")
    if pack:
        return _packed(batch, time, pack)
    if groups is None:
        groups = min(_most_groups(), -(-batch // LEAST_ROWS))
    rows = -(-batch // min(groups, batch))
    return Plan(sizes, -(-batch // rows), rows, "groups run at the shortest length that holds them")


def _most_groups() -> int:
    return GROUPS if jax.default_backend() == "cpu" else GROUPS_ACCELERATOR


def _packed(batch: int, time: int, pack: bool | int) -> Plan:
    enough = -(-STEPS // time)
    if jax.default_backend() != "cpu":
        enough = max(enough, -(-batch // _most_groups()))
    rows = min(enough if pack is True else pack, batch)
    reason = "rows are packed into fewer, and these run as long as there are some"
    return Plan((time,), -(-batch // rows), rows, reason, min(SEQUENCES, batch))


def static_lengths(lengths: Any, time: int) -> tuple[int, ...]:
    """The lengths up to `time`: those asked for, or powers of one half of `time`."""
    if not isinstance(lengths, int):
        too_long = [length for length in lengths if length > time]
        if too_long:
            raise ValueError(
                f"{WHERE}: `lengths` must lie within the time axis, of {time} steps, got "
                f"{too_long[0]}."
            )
        return tuple(sorted({*lengths, time}))
    # Multiples of 8, since vector units leave nothing over at them.
    halves = {-(-(time >> k) // 8) * 8 for k in range(1, lengths)}
    return tuple(sorted({n for n in halves if LEAST_LENGTH <= n < time} | {time}))


def checked_lengths(lengths: Any) -> int | tuple[int, ...]:
    """`lengths` as a count of lengths, or as lengths of at least 1 step."""
    if isinstance(lengths, Sequence) and not isinstance(lengths, str):
        if not lengths:
            raise ValueError(f"{WHERE}: `lengths` must name at least one length, got none.")
        return tuple(_check.count(length, WHERE, "lengths", least=1) for length in lengths)
    return _check.count(lengths, WHERE, "lengths", least=1)
