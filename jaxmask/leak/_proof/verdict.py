"""Interpret the programs of a function, and read what they prove."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import jaxmask.leak._rules  # noqa: F401  they register themselves
from jaxmask.leak._outputs import is_inexact
from jaxmask.leak._proof.causes import Causes
from jaxmask.leak._proof.domain import BITS, NONE, Value, concrete
from jaxmask.leak._proof.inputs import Inputs
from jaxmask.leak._proof.interpret import Machine, Observer
from jaxmask.leak._proof.questions import OF_COTANGENTS, OF_X, Question
from jaxmask.leak._proof.tracing import Traced

PER_RUN = 64
AT_PADDING = "gradient in x at padding"


@dataclass
class Claim:
    """One result, and what was found of it.

    Attributes:
      what: "value", "mask", "statistics", "gradient in x", "gradient in x at padding" or
        "gradient in params".
      where: the path of the array.
      proved: whether it was.
      bits: the bits that are forbidden, at the entries that have some; None where proved.
      labels: what these bits stand for.
      result: what is known of the array.
      place: its number among the results of its program.
      nan: whether some entry is nan whatever the inputs are.
    """

    what: str
    where: str
    proved: bool
    bits: np.ndarray | None
    labels: list[Any]
    result: Value
    place: int
    nan: bool = False

    @property
    def of_gradient(self) -> bool:
        return self.what.startswith("gradient")


@dataclass(frozen=True)
class Run:
    """How to interpret: one question, in strict or finite mode, following causes or not, and with
    fills such as -1e9 as they are or infinite.
    """

    inputs: Inputs
    question: Question
    finite: bool = False
    causes: Causes | None = None
    observer: Observer | None = None
    infinite_fills: bool = False

    def machine(self) -> Machine:
        return Machine(
            finite=self.finite,
            causes=self.causes,
            observer=self.observer,
            infinite_fills=self.infinite_fills,
        )

    def forbidden(self, bits: np.ndarray | None) -> np.ndarray | None:
        """All bits in place of those of a label, if bits stand for causes."""
        if bits is None or self.causes is None:
            return bits
        return np.where(bits != NONE, ~NONE, NONE)


def of_values(run: Run, traced: Traced, labels: list[Any]) -> tuple[list[Claim], Machine]:
    """The claims about values and masks."""
    machine = run.machine()
    results = machine.closed(traced.closed, _arguments(run, labels))
    masks = iter(results[len(traced.slots) :])
    traced.masks = [next(masks) if masked else None for masked in traced.masked]
    claims = []
    for place, (slot, mask) in enumerate(zip(traced.slots, traced.masks, strict=True)):
        if slot.what == "statistics" and run.question.of != "padding":
            continue
        forbidden = run.forbidden(run.question.forbidden(slot, mask, labels))
        if forbidden is not None:
            claims.append(_claim(slot.what, slot.where, results[place], forbidden, labels, place))
    return claims, machine


def of_gradients(run: Run, traced: Traced, labels: list[Any]) -> tuple[list[Claim], Machine]:
    """The claims about gradients, in parameters and in `x`."""
    inputs, machine = run.inputs, run.machine()
    sent = _cotangents(run, traced, labels)
    results = machine.closed(traced.closed, [*_arguments(run, labels), *sent])
    claims, place = [], 0
    for leaf, name in zip(inputs.params.arrays, inputs.params.names, strict=True):
        if is_inexact(leaf):
            if run.question.of_params:
                everywhere = np.asarray(~NONE)
                what = "gradient in params"
                claims.append(_claim(what, name, results[place], everywhere, labels, place))
            place += 1
    for index, (leaf, name) in enumerate(zip(inputs.x.arrays, inputs.x.names, strict=True)):
        if is_inexact(leaf):
            claims += _of_input(run, index, name, results[place], labels, place)
            place += 1
    return claims, machine


def _of_input(
    run: Run, index: int, name: str, result: Value, labels: list[Any], place: int
) -> Iterator[Claim]:
    forbidden = run.forbidden(run.question.forbidden_in_gradient(index, labels))
    if forbidden is not None:
        yield _claim("gradient in x", name, result, forbidden, labels, place)
    marks = run.inputs.marks_of_leaf(index)
    if run.question.of == "padding" and marks is not None and not (marks > 0).all():
        at_padding = expanded(marks <= 0, len(result.shape))
        wrong = at_padding & ~result.is_known(0)
        bits = np.where(wrong, result.bits | OF_X, NONE)
        proved = not wrong.any()
        yield Claim(AT_PADDING, name, proved, None if proved else bits, labels, result, place)


def _claim(
    what: str, where: str, result: Value, forbidden: np.ndarray, labels: list[Any], place: int
) -> Claim:
    nan = result.value is not None and result.value.dtype.kind not in "biu"
    nan = nan and bool((result.where_known & np.isnan(result.value)).any())  # type: ignore[arg-type]
    if result.taint is None:
        return Claim(what, where, True, None, labels, result, place, nan)
    bits = result.taint & expanded(forbidden, len(result.shape))
    proved = not bits.any()
    return Claim(what, where, proved, None if proved else bits, labels, result, place, nan)


def expanded(bits: np.ndarray, rank: int) -> np.ndarray:
    """An array with as many axes, the last of them of size 1."""
    return bits.reshape(bits.shape + (1,) * (rank - bits.ndim))


def _arguments(run: Run, labels: list[Any]) -> list[Value]:
    """What is known of parameters, inputs and masks."""
    inputs = run.inputs
    values = [Value(np.shape(leaf)) for leaf in inputs.params.arrays]
    for index, leaf in enumerate(inputs.x.arrays):
        bits = run.question.source(index, labels)
        if bits is not None and run.causes is not None:
            bits = np.where(bits != NONE, OF_X, NONE)
        values.append(_marked(leaf.shape, bits))
    return [*values, *(concrete(marks) for marks in inputs.masks.marks)]


def _cotangents(run: Run, traced: Traced, labels: list[Any]) -> list[Value]:
    """Those at real entries, and those at padding, which are arbitrary where it is known to be."""
    found: tuple[list[Value], list[Value]] = [], []
    for slot, mask in zip(traced.slots, traced.masks, strict=True):
        if slot.differentiable:
            for values, bits in zip(found, run.question.cotangent(slot, mask, labels), strict=True):
                if run.question.of == "padding" and mask is not None:
                    bits = np.where(expanded(mask.is_known(0), len(slot.array.shape)), bits, NONE)
                if run.causes is not None:
                    bits = np.where(bits != NONE, OF_COTANGENTS, NONE)
                values.append(_marked(slot.array.shape, np.asarray(bits, BITS)))
    return [*found[0], *found[1]]


def _marked(shape: tuple[int, ...], bits: np.ndarray | None) -> Value:
    if bits is None:
        return Value(shape)
    return Value(shape, taint=np.broadcast_to(expanded(bits, len(shape)), shape))
