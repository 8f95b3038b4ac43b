"""The text of a report on its scope: what was checked, and how the output was read."""

from collections.abc import Iterator
from typing import Any

from jaxmask.leak._outputs import Slot
from jaxmask.leak._padding import paddings
from jaxmask.leak._program import Program


def scope(
    program: Program,
    layouts: tuple[str, ...],
    *,
    repeats: bool,
    barriers_at: tuple[int, ...] | None,
) -> Iterator[str]:
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
    names = [padding.name for padding in paddings(inputs.arrays, marks > 0, as_given=True)]
    yield f"tried: {'; '.join(names)}"
    if layouts:
        yield f"each of these also with: {'; '.join(layouts)}"
    gradients = [] if program.why_no_gradients else ["gradients in x"]
    gradients += ["gradients in params"] if gradients and subject.params.arrays else []
    yield f"compared: {', '.join(['values', 'masks', *gradients])}"
    yield "compiled whole, as XLA optimises it"
    if barriers_at:
        at = f"under a mask {list(barriers_at)}, for each of these contents of the padding"
        yield f"compiled again with a barrier behind each operation: {at}"
    measured = "4 times as far as an entry moves when operations round at random, and 4 ε of it"
    if not barriers_at:
        measured = "an estimate of rounding, which could not be measured"
    exact = "bit for bit at one shape" if repeats else "never bit for bit, as repeated runs differ"
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
