"""The text of a report on its scope: what was checked, and how the output was read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxmask.leak._outputs import Slot
from jaxmask.leak._padding import paddings
from jaxmask.leak._program import Program


@dataclass(frozen=True)
class Scope:
    """What was tried.

    Attributes:
      layouts: names of the layouts that were compared with the given one.
      poisoned: names of those in whose padding all contents were tried.
      repeats: whether two runs give the same.
      whole: whether the program was also compiled whole.
      by_operation_at: the shape of the mask at which it ran operation by operation.
    """

    layouts: tuple[str, ...]
    poisoned: tuple[str, ...]
    repeats: bool
    whole: bool
    by_operation_at: tuple[int, ...] | None


def scope(program: Program, tried: Scope) -> Iterator[str]:
    """The inputs, how the output was read, and what was tried."""
    subject = program.subject
    marks, inputs = subject.marks, subject.x
    shapes = [
        f"{name} {leaf.dtype} {list(leaf.shape)}"
        for name, leaf in zip(inputs.names, inputs.arrays, strict=True)
    ]
    unit = "rows" if marks.ndim == 1 else "steps"
    real = f"{int((marks > 0).sum())} of {marks.size} {unit} real"
    yield f"input: {'; '.join(shapes)}; mask {list(marks.shape)}, {real}"
    values = [slot.describe() for slot in program.slots if slot.what != "mask"]
    yield f"output: {'; '.join(values)}"
    if tried.poisoned:
        names = [padding.name for padding in paddings(inputs.arrays, marks > 0, as_given=True)]
        yield f"tried: {'; '.join(names)}; in: {'; '.join(tried.poisoned)}"
    if tried.layouts:
        yield f"compared with the given layout: {'; '.join(tried.layouts)}"
    gradients = [] if program.why_no_gradients else ["gradients in x"]
    gradients += ["gradients in params"] if gradients and subject.params.arrays else []
    yield f"compared: {', '.join(['values', 'masks', *gradients])}"
    if tried.whole:
        yield "compiled whole, as XLA optimises it"
    if tried.by_operation_at:
        at = f" under a mask {list(tried.by_operation_at)}" if tried.whole else ""
        yield f"run operation by operation{at}"
    measured = "4 times as far as an entry moves when operations round at random, and 4 ε of it"
    if not tried.by_operation_at:
        measured = "an estimate of rounding, which could not be measured"
    exact = "bit for bit at one shape" if tried.repeats else "never bit for bit: runs differ"
    yield f"tolerance: {exact}; between shapes {measured}"


def misshapen(given: list[Slot], now: list[Slot]) -> str:
    """How an output differs in structure from the one at the given shape; "" if it does not."""
    if [_signature(slot) for slot in given] != [_signature(slot) for slot in now]:
        return (
            "its structure changes with the shape of the input, from "
            f"{[slot.describe() for slot in given]} to {[slot.describe() for slot in now]}"
        )
    for old, new in zip(given, now, strict=True):
        first = 0 if old.mask is None else old.mask.ndim
        if old.what != "mask" and any(
            b < a for a, b in zip(old.array.shape[first:], new.array.shape[first:], strict=True)
        ):
            return f"{old.where} shrinks from {old.array.shape} to {new.array.shape}"
    return ""


def _signature(slot: Slot) -> tuple[Any, ...]:
    rank = None if slot.mask is None else slot.mask.ndim
    return slot.what, slot.where, slot.array.ndim, slot.array.dtype, rank
