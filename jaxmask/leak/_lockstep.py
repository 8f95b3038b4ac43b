"""Find the operations at which padding comes in, and how far each alone moves the results.

Two runs go through the program side by side, one operation after another: one with harmless
padding, and one with other padding or with more of it. Where a real element differs after an
operation, that operation let the padding in: it is noted, and the second run continues with the
element of the first, as if the operation were repaired. So none is blamed for another, and one is
hidden only where a later one takes padding in the place of what it changed. For each there is a
third run in which only it is left unrepaired.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask.leak._barriers import CALLS, inside
from jaxmask.leak._outputs import is_inexact
from jaxmask.leak._proof.causes import Causes, Place
from jaxmask.leak._proof.domain import Value, concrete, tainted
from jaxmask.leak._proof.inputs import Inputs
from jaxmask.leak._proof.interpret import Machine
from jaxmask.leak._proof.questions import OF_X
from jaxmask.leak._proof.tracing import Traced
from jaxmask.leak._proof.verdict import expanded
from jaxmask.leak._reading import distance, wide
from jaxmask.leak._stepwise import Stepwise, on_host

Grown = tuple[slice, ...]


class UnalignedError(Exception):
    """The two programs cannot be compared operation by operation."""


@dataclass
class Culprit:
    """Operations on one line that let padding in.

    Attributes:
      place: the line.
      primitives: their names.
      primitives_on_line: the names of all operations on the line.
      of_batch: whether some of them run over the axis of the batch too.
      moved: by how much they alone move each result, by its number.
    """

    place: Place | None
    primitives: list[str] = field(default_factory=list)
    primitives_on_line: set[str] = field(default_factory=set)
    of_batch: bool = False
    moved: dict[int, float] = field(default_factory=dict)


@dataclass
class Side:
    """A function with the contents of its arguments, and its program."""

    inputs: Inputs
    traced: Traced


@dataclass
class _Pair:
    """An array in both runs, which of its elements hold padding, and the runs with one mistake.

    Attributes:
      a: in the first run.
      b: in the second, repaired.
      padding: where `a` and `b` hold padding.
      alone: by culprit, the array when only that culprit is left unrepaired: its real elements in
        the shape of `a`, and the whole array in that of `b`.
    """

    a: Any
    b: Any
    padding: tuple[Value, Value]
    alone: dict[int, tuple[Any, Any]] = field(default_factory=dict)


class Lockstep:
    """Runs two programs side by side.

    Attributes:
      culprits: what was found, in the order of the program.
      outside: the first line that looks up padding outside of an array, where the result is nan.
    """

    def __init__(self, first: Side, second: Side, *, known_mask: bool):
        self.sides = first, second
        self.known_mask = known_mask
        self.batch = first.inputs.batch
        self.culprits: list[Culprit] = []
        self.outside: Place | None = None
        self._lines: dict[Place | None, set[str]] = {}
        of_steps = first.inputs.marks.ndim == 2
        self._causes = tuple(Causes(self.batch if of_steps else None) for _ in self.sides)
        self._machines = tuple(Machine(causes=causes) for causes in self._causes)
        self._stepwise = tuple(Stepwise(side.traced.closed) for side in self.sides)

    def run(self) -> list[Culprit]:
        """The culprits that move a result; raises `UnalignedError`."""
        one, other = (side.traced.closed for side in self.sides)
        results = self._closed(one, other, self._arguments())
        slots = self.sides[0].traced.slots
        masks = iter(results[len(slots) :])
        for index, (slot, pair) in enumerate(zip(slots, results, strict=False)):
            real = np.asarray(True) if slot.mask is None else np.asarray(next(masks).a) > 0
            self._measure(index, pair, expanded(real, pair.a.ndim))
        return [culprit for culprit in self.culprits if culprit.moved]

    def _measure(self, index: int, pair: _Pair, real: np.ndarray) -> None:
        a = pair.a
        for number, (alone, _) in pair.alone.items():
            moved = np.where(real, _distance(a, alone), 0.0)
            if moved.size and (worst := float(moved.max())) > 0:
                self.culprits[number].moved[index] = worst

    def _arguments(self) -> list[_Pair]:
        first, second = (list(self._of_side(side)) for side in self.sides)
        return [_Pair(a, b, (p, q)) for (a, p), (b, q) in zip(first, second, strict=True)]

    def _of_side(self, side: Side) -> Iterator[tuple[Any, Value]]:
        inputs = side.inputs
        for leaf in inputs.params.arrays:
            yield np.asarray(leaf), Value(np.shape(leaf))
        for index, leaf in enumerate(inputs.x.arrays):
            marks = inputs.marks_of_leaf(index)
            there = None if marks is None else _at_padding(marks, leaf.shape)
            yield np.asarray(leaf), Value(leaf.shape, taint=there)
        for marks in inputs.masks.marks:
            known = concrete(marks) if self.known_mask else Value(marks.shape)
            yield np.asarray(marks), known

    # --------------------------------------------------------------------- the program

    def _closed(self, first: Any, second: Any, args: list[_Pair]) -> list[_Pair]:
        consts = [_pair_of(a, b) for a, b in zip(_consts(first), _consts(second), strict=True)]
        jaxprs = getattr(first, "jaxpr", first), getattr(second, "jaxpr", second)
        known: tuple[dict[Any, _Pair], ...] = ({}, {})
        for jaxpr, pairs in zip(jaxprs, known, strict=True):
            pairs.update(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
        if len(jaxprs[0].eqns) != len(jaxprs[1].eqns):
            raise UnalignedError
        for one, other in zip(jaxprs[0].eqns, jaxprs[1].eqns, strict=True):
            operands = _operands(one.invars, other.invars, known)
            results = self._equation(one, other, operands)
            for pairs, equation in zip(known, (one, other), strict=True):
                pairs.update(zip(equation.outvars, results, strict=True))
        return _operands(jaxprs[0].outvars, jaxprs[1].outvars, known)

    def _equation(self, one: Any, other: Any, operands: list[_Pair]) -> list[_Pair]:
        name = one.primitive.name
        if name != other.primitive.name:
            raise UnalignedError
        for causes, equation in zip(self._causes, (one, other), strict=True):
            causes.calls.append(equation)
        try:
            if name in CALLS:
                return self._closed(inside(one.params), inside(other.params), operands)
            return self._operation(one, other, operands)
        finally:
            for causes in self._causes:
                causes.calls.pop()

    def _operation(self, one: Any, other: Any, operands: list[_Pair]) -> list[_Pair]:
        padding = [
            machine.equation(equation, [pair.padding[k] for pair in operands])
            for k, (machine, equation) in enumerate(zip(self._machines, (one, other), strict=True))
        ]
        # Where indices no longer match, treat every element as padding, so none is compared.
        if not _is_aligned(one, other):
            padding = [[tainted(value.shape, OF_X) for value in side] for side in padding]
        first = self._stepwise[0].operation(one, [pair.a for pair in operands])
        second = self._stepwise[1].operation(other, [pair.b for pair in operands])
        if one.primitive.name == "gather" and _has_nan(second[0]) and not _has_nan(operands[0].b):
            self.outside = self.outside or self._causes[0].place()
        results, real = [], []
        guilty = False
        for a, b, p, q in zip(first, second, *padding, strict=True):
            grown = _grown(a, b)
            compared = ~self._padded(0, p) & ~self._padded(1, q)[grown]
            guilty |= bool((compared & _differs(a, b[grown], same=a.shape == b.shape)).any())
            real.append(compared)
            results.append(_Pair(a, _put(b, grown, compared, a), (p, q)))
        mine = self._culprit((one, other), operands, guilty)
        active = {number for pair in operands for number in pair.alone}
        if guilty and mine is not None:
            active.add(mine)
        for number in active:
            self._follow(number, number == mine, (one, other), operands, results, real)
        return results

    def _follow(
        self,
        number: int,
        mine: bool,
        equations: tuple[Any, Any],
        operands: list[_Pair],
        results: list[_Pair],
        real: list[np.ndarray],
    ) -> None:
        """The results when only one culprit is left unrepaired."""
        alone = [pair.alone.get(number, (pair.a, pair.b)) for pair in operands]
        seconds = self._stepwise[1].operation(equations[1], [b for _, b in alone])
        firsts = seconds
        if not mine:
            firsts = self._stepwise[0].operation(equations[0], [a for a, _ in alone])
        for pair, compared, a, b in zip(results, real, firsts, seconds, strict=True):
            grown = _grown(pair.a, pair.b)
            a = a[grown] if mine else a
            a = _where(compared, a, pair.a)
            b = _put(b, grown, compared, a)
            if not (_same(a, pair.a) and _same(b, pair.b)):
                pair.alone[number] = a, b

    def _padded(self, side: int, value: Value) -> np.ndarray:
        return self._causes[side].raw_in(value.bits)

    def _culprit(
        self, equations: tuple[Any, Any], operands: list[_Pair], guilty: bool
    ) -> int | None:
        """The number of the culprit that an equation belongs to."""
        equation = equations[0]
        place, name = self._causes[0].place(), equation.primitive.name
        on_line = self._lines.setdefault(place, set())
        on_line.add(name)
        number = self._softmax(name, operands)
        if number is None:
            number = next((k for k, c in enumerate(self.culprits) if c.place == place), None)
        if number is None and guilty:
            self.culprits.append(Culprit(place, primitives_on_line=on_line))
            number = len(self.culprits) - 1
        if number is not None and guilty:
            culprit = self.culprits[number]
            culprit.primitives.append(self._name(equations, operands))
            axes = equation.params.get("axes", ())
            shape = operands[0].a.shape if operands else ()
            over = isinstance(axes, tuple) and 0 in axes and 1 < len(axes) < len(shape)
            culprit.of_batch |= over and shape[:1] == (self.batch,)
        return number

    def _name(self, equations: tuple[Any, Any], operands: list[_Pair]) -> str:
        """The primitive, with the end of rows that it takes in either run."""
        names = [
            causes.name(equation, [pair.padding[k] for pair in operands])
            for k, (causes, equation) in enumerate(zip(self._causes, equations, strict=True))
        ]
        return max(names, key=len)

    def _softmax(self, name: str, operands: list[_Pair]) -> int | None:
        """A product of values with weights is part of the softmax that the weights come from."""
        if name != "dot_general":
            return None
        if not all(self._padded(1, pair.padding[1]).any() for pair in operands):
            return None
        for number, culprit in enumerate(self.culprits):
            if "exp" in culprit.primitives_on_line and any(number in p.alone for p in operands):
                return number
        return None


def _at_padding(marks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    bits = np.where(marks > 0, np.uint64(0), OF_X)
    return np.broadcast_to(expanded(bits, len(shape)), shape)


def _consts(program: Any) -> list[Any]:
    return list(getattr(program, "consts", ()))


def _pair_of(a: Any, b: Any) -> _Pair:
    return _Pair(on_host(a), on_host(b), (concrete(a), concrete(b)))


def _operands(ones: Any, others: Any, known: tuple[dict[Any, _Pair], ...]) -> list[_Pair]:
    """What the atoms of two programs stand for."""
    found = []
    for one, other in zip(ones, others, strict=True):
        literal = hasattr(one, "val")
        if literal != hasattr(other, "val"):
            raise UnalignedError
        if literal:
            found.append(_pair_of(*(np.asarray(x.val, x.aval.dtype) for x in (one, other))))
            continue
        if known[0][one] is not known[1][other]:
            raise UnalignedError
        found.append(known[0][one])
    return found


def _is_aligned(one: Any, other: Any) -> bool:
    """Whether real elements keep their index: not where what stands before them grows."""
    name, shapes = one.primitive.name, [_shapes(equation.invars) for equation in (one, other)]
    if name == "concatenate":
        axis = one.params["dimension"]
        grown = [a[axis] != b[axis] for a, b in zip(*shapes, strict=True)]
        return not any(grown[:-1])
    if name == "reshape" and shapes[0] != shapes[1]:
        before = _grown_axis(shapes[0][0], shapes[1][0])
        after = _grown_axis(one.outvars[0].aval.shape, other.outvars[0].aval.shape)
        return before is not None and before == after
    return True


def _shapes(atoms: Any) -> list[tuple[int, ...]]:
    return [atom.aval.shape for atom in atoms]


def _grown_axis(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, int] | None:
    """Its size, and that of all axes before it; None unless exactly one has grown."""
    if len(a) != len(b):
        return None
    grown = [k for k, (m, n) in enumerate(zip(a, b, strict=True)) if m != n]
    return (a[grown[0]], math.prod(a[: grown[0]])) if len(grown) == 1 else None


def _grown(a: Any, b: Any) -> Grown:
    if a.ndim != b.ndim or any(m > n for m, n in zip(a.shape, b.shape, strict=True)):
        raise UnalignedError
    return tuple(slice(n) for n in a.shape)


def _put(b: Any, grown: Grown, where: np.ndarray, a: Any) -> Any:
    if b.shape == a.shape:
        return _where(where, a, b)
    b = b.copy()
    b[grown] = np.where(where, a, b[grown])
    return b


def _where(where: np.ndarray, a: Any, b: Any) -> Any:
    xp = np if isinstance(a, np.ndarray) else jnp  # keys of random numbers
    return xp.where(where, a, b)


def _has_nan(a: Any) -> bool:
    return is_inexact(a) and bool(np.isnan(wide(np.asarray(a))).any())


def _same(a: Any, b: Any) -> bool:
    return not bool((_distance(a, b) > 0).any())


# Tolerance in machine epsilons of the largest value: XLA sums other shapes in another order.
ROUNDING = 256


def _differs(a: Any, b: Any, *, same: bool) -> np.ndarray:
    allowed = 0.0
    if is_inexact(a) and not same and a.size:
        values = wide(np.asarray(a))
        size = np.abs(np.where(np.isfinite(values), values, 0)).max()
        allowed = ROUNDING * float(jnp.finfo(a.dtype).eps) * float(size)
    return _distance(a, b) > allowed


def _distance(a: Any, b: Any) -> np.ndarray:
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = (jax.random.key_data(key).sum(-1) for key in (a, b))
    return distance(wide(np.asarray(a)), wide(np.asarray(b)))
