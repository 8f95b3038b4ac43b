"""Interpret a program over numbers that stand for expressions: equal numbers, equal expressions.

Sums, products and quotients are done in a finite field, so that their order does not matter and
known zeros drop out; any other operation is a random function of the numbers of its operands. What
is known of masks, indices and predicates comes from the interpreter of `leak.prove`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxmask._registry import registering
from jaxmask.leak._barriers import CALLS, inside, split
from jaxmask.leak._numpy import NUMPY
from jaxmask.leak._proof import field
from jaxmask.leak._proof.domain import Value, concrete
from jaxmask.leak._proof.interpret import RULES, Machine
from jaxmask.leak._rules.control import MOST_STEPS

Pair = tuple[Value, np.ndarray]  # what is known, and the number of each element
Rule = Callable[["Equation"], list[np.ndarray] | None]
NUMBERS: dict[str, Rule] = {}
rule = registering(NUMBERS)


class UndecidedError(Exception):
    """The program has what cannot be followed."""


class Equation:
    """One equation, as a rule sees it."""

    def __init__(self, equation: Any, ins: list[Pair], outs: list[Value]):
        self.name, self.params = equation.primitive.name, equation.params
        self.known, self.numbers = [a for a, _ in ins], [b for _, b in ins]
        self.outs, self.equation = outs, equation

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first result."""
        return self.outs[0].shape

    def constant(self, place: int) -> np.ndarray | None:
        """An operand, if all of it is known."""
        value = self.known[place]
        return value.value if value.all_known and value.value is not None else None

    def in_numpy(self, *operands: np.ndarray) -> Any:
        """What NumPy makes of other operands."""
        return NUMPY[self.name](self.params, *operands)


class Numbering:
    """An interpreter. Nothing that is unknown is taken to be infinite or nan."""

    def __init__(self) -> None:
        self.machine = Machine(finite=True)

    def closed(self, program: Any, args: Sequence[Pair]) -> list[Pair]:
        jaxpr = getattr(program, "jaxpr", program)
        consts = [self.constant(const) for const in getattr(program, "consts", ())]
        known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

        def read(atom: Any) -> Pair:
            if hasattr(atom, "val"):
                return self.constant(np.asarray(atom.val, atom.aval.dtype))
            return known[atom]

        for equation in jaxpr.eqns:
            results = self.equation(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    @staticmethod
    def constant(array: Any) -> Pair:
        value = concrete(array)
        if value.value is None:
            raise UndecidedError("keys of random numbers")
        return value, field.of_numbers(value.value)

    def equation(self, equation: Any, ins: list[Pair]) -> list[Pair]:
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self.closed(inside(params), ins)
        if name in LOOPS:
            return LOOPS[name](self, params, ins)
        outs = self.machine.equation(equation, [value for value, _ in ins])
        step = Equation(equation, ins, outs)
        with np.errstate(all="ignore"):
            numbers = NUMBERS[name](step) if name in NUMBERS else None
            if numbers is None:
                numbers = _elementwise(step) if _is_elementwise(name) else _any(step)
        return [_settled(value, number) for value, number in zip(outs, numbers, strict=True)]


def _settled(value: Value, number: np.ndarray) -> Pair:
    """What is known has the number of its value."""
    number = np.broadcast_to(number, value.shape)
    if value.value is not None and value.where_known.any():
        exact = field.of_numbers(np.broadcast_to(value.value, value.shape))
        number = np.where(value.where_known, exact, number)
    return value, number


def _is_elementwise(name: str) -> bool:
    return name in RULES and RULES[name].__module__.endswith(".elementwise")


def _elementwise(step: Equation) -> list[np.ndarray]:
    return [field.mixed(f"{step.name} {without_places(step.params)}", *step.numbers)]


def without_places(params: dict[str, Any]) -> str:
    return str({k: v for k, v in params.items() if k not in ("sharding", "out_sharding")})


def _any(step: Equation) -> list[np.ndarray]:
    """Each element may be any function of all operands, and of its place."""
    every = [field.of_all(str(k), numbers) for k, numbers in enumerate(step.numbers)]
    found = []
    for k, value in enumerate(step.outs):
        places = np.arange(value.size, dtype=np.uint64).reshape(value.shape)
        name = f"{step.name} {k} {value.shape} {without_places(step.params)}"
        found.append(field.mixed(name, places, *every))
    return found


# ------------------------------------------------------------------------------ loops


def _scan(self: Numbering, params: dict[str, Any], ins: list[Pair]) -> list[Pair]:
    second, length = params["num_carry"], params["length"]
    consts, carry, xs = split(ins, params["num_consts"], second)
    if not 0 < length <= MOST_STEPS:
        raise UndecidedError("a long loop")
    rows: list[Any] = [None] * length
    for k in reversed(range(length)) if params["reverse"] else range(length):
        here = [(_turn(value, k), numbers[k]) for value, numbers in xs]
        results = self.closed(params["jaxpr"], [*consts, *carry, *here])
        carry, rows[k] = results[:second], results[second:]
    return [*carry, *(_stacked(list(each)) for each in zip(*rows, strict=True))]


def _turn(value: Value, k: int) -> Value:
    return value.moved(lambda array: np.asarray(array[k]), value.shape[1:])


def _stacked(pairs: list[Pair]) -> Pair:
    values, numbers = [v for v, _ in pairs], np.stack([n for _, n in pairs])
    shape = (len(pairs), *values[0].shape)
    if any(value.value is None for value in values):
        return Value(shape), numbers
    value = np.stack([np.broadcast_to(np.asarray(v.value), v.shape) for v in values])
    return Value(shape, value, np.stack([v.where_known for v in values])), numbers


def _while(self: Numbering, params: dict[str, Any], ins: list[Pair]) -> list[Pair]:
    of_cond, of_body, carry = split(ins, params["cond_nconsts"], params["body_nconsts"])
    for _ in range(MOST_STEPS):
        ((going, _),) = self.closed(params["cond_jaxpr"], [*of_cond, *carry])
        if going.value is None or not going.all_known:
            raise UndecidedError("a loop whose turns the data decide")
        if not bool(going.value):
            return list(carry)
        carry = self.closed(params["body_jaxpr"], [*of_body, *carry])
    raise UndecidedError("a long loop")


def _cond(self: Numbering, params: dict[str, Any], ins: list[Pair]) -> list[Pair]:
    (index, number), *operands = ins
    branches = params["branches"]
    if index.value is not None and index.all_known:
        taken = int(np.clip(int(index.value), 0, len(branches) - 1))
        return self.closed(branches[taken], operands)
    every = [self.closed(branch, operands) for branch in branches]
    found = []
    for results in zip(*every, strict=True):
        numbers = [n for _, n in results]
        found.append((Value(results[0][0].shape), field.mixed("cond", number, *numbers)))
    return found


LOOPS = {"scan": _scan, "while": _while, "cond": _cond}
