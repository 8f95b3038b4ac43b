"""Prove that more padding on the right changes nothing, at the amounts that are tried.

The program is traced once for each length, and interpreted over numbers that stand for expressions.
Parameters, real steps and the cotangents of real entries have the same random number in each, a
step of padding another in every place. Where results have equal numbers, they are the same sums and
products of the same parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import jaxmask.leak._proof.number_rules  # noqa: F401  they register themselves
from jaxmask.leak._outputs import is_inexact
from jaxmask.leak._proof import field
from jaxmask.leak._proof.domain import Value, concrete
from jaxmask.leak._proof.inputs import Inputs
from jaxmask.leak._proof.numbering import Numbering, Pair, UndecidedError
from jaxmask.leak._proof.proof import ClaimReport, Proof
from jaxmask.leak._proof.tracing import Traced, trace_gradients, trace_values
from jaxmask.leak._proof.verdict import expanded
from jaxmask.leak._subject import first_line

Key = tuple[str, str]


@dataclass
class Result:
    """What a claim is about: the numbers of the entries that count, and where they stand.

    Attributes:
      numbers: of the entries, in order; None if they cannot be told.
      rows: how many there are in each row.
    """

    numbers: np.ndarray | None
    rows: tuple[int, ...] = ()

    def equals(self, other: "Result") -> bool:
        """Whether both are the same expressions."""
        if self.numbers is None or other.numbers is None or self.rows != other.rows:
            return False
        return self.numbers.shape == other.numbers.shape and bool(
            (self.numbers == other.numbers).all()
        )


def prove_amount(inputs: Inputs) -> Proof:
    """The proof for 1 step more, 2 more, and twice the length."""
    time = max(marks.shape[1] for marks in inputs.masks.marks)
    first, notes = _results(inputs)
    verdicts = dict.fromkeys(first, "proved")
    for extra in sorted({1, 2, time}):
        try:
            other, _ = _results(appended(inputs, extra))
        except Exception as error:
            notes[f"{extra} steps more: the function failed with {first_line(error)}"] = None
            other = {}
        for key in _that_differ(first, other):
            verdicts[key] = "undecided"
    claims = tuple(ClaimReport(*key, verdict, "finite") for key, verdict in verdicts.items())
    return Proof(inputs.name, "amount", claims, "finite", notes=tuple(notes))


def _that_differ(first: dict[Key, Result], other: dict[Key, Result]) -> set[Key]:
    """Gradients too, where cotangents are not those of the same entries."""
    found = {
        key for key, result in first.items() if key not in other or not result.equals(other[key])
    }
    if any(what == "mask" for what, _ in found):
        found |= {key for key in first if key[0].startswith("gradient")}
    return found


def appended(inputs: Inputs, extra: int) -> Inputs:
    """The arguments with more padding on the right."""
    marks = [_longer(array, extra) for array in inputs.masks.marks]
    leaves = zip(inputs.x.arrays, inputs.masks.of_leaf, strict=True)
    x = [leaf if number is None else _longer(leaf, extra) for leaf, number in leaves]
    masks = replace(inputs.masks, marks=marks)
    return replace(inputs, x=replace(inputs.x, arrays=x), masks=masks)


def _longer(array: np.ndarray, extra: int) -> np.ndarray:
    return np.pad(array, [(0, 0), (0, extra), *[(0, 0)] * (array.ndim - 2)])


def _results(inputs: Inputs) -> tuple[dict[Key, Result], dict[str, None]]:
    values = trace_values(inputs)
    notes: dict[str, None] = {}
    operands = _operands(inputs)
    found: dict[Key, Result] = {}
    results = _run(values, operands, notes)
    masks = None
    if results is not None:
        behind = iter(results[len(values.slots) :])
        masks = [next(behind) if masked else None for masked in values.masked]
    for place, slot in enumerate(values.slots):
        mask = None if masks is None else masks[place]
        found[slot.what, slot.where] = (
            Result(None) if results is None else _result(slot.what, results[place], mask)
        )
    gradients = trace_gradients(inputs, values)
    if isinstance(gradients, str):
        notes[f"gradients: {gradients}"] = None
        return found, notes
    sent = None if masks is None else _cotangents(values, masks)
    results = None if sent is None else _run(gradients, [*operands, *sent], notes)
    for place, (what, where, marks) in enumerate(_gradients(inputs)):
        whole = Result(None)
        if results is not None:
            known = None if marks is None else concrete(marks)
            whole = _result("value", results[place], None if known is None else (known, marks))
        found[what, where] = whole
    return found, notes


def _run(traced: Traced, operands: list[Pair], notes: dict[str, None]) -> list[Pair] | None:
    try:
        return Numbering().closed(traced.closed, operands)
    except UndecidedError as error:
        notes[f"not followed: {error}"] = None
        return None


def _gradients(inputs: Inputs) -> Iterator[tuple[str, str, Any]]:
    for leaf, name in zip(inputs.params.arrays, inputs.params.names, strict=True):
        if is_inexact(leaf):
            yield "gradient in params", name, None
    for index, (leaf, name) in enumerate(zip(inputs.x.arrays, inputs.x.names, strict=True)):
        if is_inexact(leaf):
            yield "gradient in x", name, inputs.marks_of_leaf(index)


def _result(what: str, pair: Pair, mask: Pair | None) -> Result:
    value, numbers = pair
    if what == "mask":
        return _of_mask(value)
    if mask is None:
        return Result(numbers.ravel(), numbers.shape)
    known = mask[0]
    if known.value is None or not known.all_known:
        return Result(None)
    real = np.broadcast_to(known.value, known.shape) > 0
    return Result(numbers[real].ravel(), _by_row(real))


def _of_mask(value: Value) -> Result:
    """The real entries of each row, wherever they stand, with their ids."""
    if value.value is None or not value.all_known:
        return Result(None)
    marks = np.broadcast_to(value.value, value.shape)
    return Result(marks[marks > 0].astype(np.uint64), _by_row(marks > 0))


def _by_row(real: np.ndarray) -> tuple[int, ...]:
    return tuple(real.reshape(len(real), -1).sum(1).tolist()) if real.size else ()


# ------------------------------------------------------------------------------ operands


def _operands(inputs: Inputs) -> list[Pair]:
    found = [
        (Value(np.shape(leaf)), _numbered(f"params {k}", np.shape(leaf)))
        for k, leaf in enumerate(inputs.params.arrays)
    ]
    for k, leaf in enumerate(inputs.x.arrays):
        marks = inputs.marks_of_leaf(k)
        numbers = _by_rank(f"x {k}", leaf.shape, None if marks is None else marks > 0)
        found.append((Value(leaf.shape), numbers))
    return [*found, *(Numbering.constant(marks) for marks in inputs.masks.marks)]


def _cotangents(values: Traced, masks: list[Pair | None]) -> list[Pair] | None:
    """At real entries and at padding; None if it is not known which is which."""
    real, padded = [], []
    for k, (slot, mask) in enumerate(zip(values.slots, masks, strict=True)):
        if slot.differentiable:
            shape, there = slot.array.shape, None
            if mask is not None:
                if mask[0].value is None or not mask[0].all_known:
                    return None
                there = np.broadcast_to(mask[0].value, mask[0].shape) > 0
            real.append((Value(shape), _by_rank(f"sent {k}", shape, there)))
            padded.append((Value(shape), _numbered(f"to padding {k} {shape}", shape)))
    return [*real, *padded]


def _numbered(name: str, shape: tuple[int, ...]) -> np.ndarray:
    places = np.arange(int(np.prod(shape, dtype=int)), dtype=np.uint64)
    return field.mixed(name, places).reshape(shape)


def _by_rank(name: str, shape: tuple[int, ...], real: np.ndarray | None) -> np.ndarray:
    """Numbers by row, rank of the real step, and feature; at padding others in each shape."""
    if real is None:
        return _numbered(name, shape)
    flat = real.reshape(len(real), -1)
    rank = np.cumsum(flat, 1).reshape(real.shape).astype(np.uint64)
    rows = np.arange(len(real), dtype=np.uint64).reshape((-1,) + (1,) * (real.ndim - 1))
    inner = shape[real.ndim :]
    features = np.arange(int(np.prod(inner, dtype=int)), dtype=np.uint64).reshape(inner)
    own = field.mixed(
        name,
        expanded(np.broadcast_to(rows, real.shape), len(shape)),
        expanded(rank, len(shape)),
        features,
    )
    return np.where(expanded(real, len(shape)), own, _numbered(f"padding {name} {shape}", shape))
