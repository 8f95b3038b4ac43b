"""Interpret a program over what is known of its arrays, one rule for each primitive."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxmask._registry import registering
from jaxmask.leak._proof.causes import Causes, Node, fill_of, with_infinite_fills
from jaxmask.leak._proof.domain import NONE, Value, all_bits, concrete, tainted

Rule = Callable[["Step"], list[Value]]
Observer = Callable[[Any, list[Value]], None]
RULES: dict[str, Rule] = {}
rule_for = registering(RULES)


class Step:
    """One equation, as a rule sees it."""

    __slots__ = ("equation", "ins", "machine")

    def __init__(self, machine: "Machine", equation: Any, ins: list[Value]):
        self.machine, self.equation, self.ins = machine, equation, ins

    @property
    def params(self) -> dict[str, Any]:
        return self.equation.params

    @property
    def name(self) -> str:
        return self.equation.primitive.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first result."""
        return self.equation.outvars[0].aval.shape

    @property
    def dtype(self) -> Any:
        """The dtype of the first result."""
        return self.equation.outvars[0].aval.dtype

    @property
    def finite(self) -> bool:
        """Whether nothing unknown is taken to be infinite or nan."""
        return self.machine.finite

    def mixed(self, bits: np.ndarray, partly: np.ndarray | None) -> np.ndarray:
        """The bits of a result that combines elements, some of which hold padding and some not."""
        causes = self.machine.causes
        if causes is None or partly is None:
            return bits
        return causes.named(bits, partly)

    def over(self, taint: np.ndarray | None, axes: tuple[int, ...]) -> np.ndarray | None:
        """The union of taint along some axes, which go."""
        if taint is None or not axes:
            return taint
        bits = np.bitwise_or.reduce(taint, axis=axes)
        return self.mixed(bits, self.partly(taint, axes))

    def partly(self, taint: np.ndarray, axes: tuple[int, ...]) -> np.ndarray | None:
        """Where some elements along the axes hold padding and some do not."""
        if self.machine.causes is None:
            return None
        raw = self.machine.causes.raw_in(taint)
        return np.asarray(raw.any(axis=axes) & ~raw.all(axis=axes))


class Machine:
    """Interprets programs.

    Attributes:
      finite: whether nothing unknown is taken to be infinite or nan.
      causes: follows the operations that let padding in; None: it is not followed.
      infinite_fills: whether -inf takes the place of fills such as -1e9.
      unknown: primitives without a rule that met taint.
      trusted: primitives without a rule that met none.
    """

    def __init__(
        self,
        *,
        finite: bool = False,
        causes: Causes | None = None,
        observer: Observer | None = None,
        infinite_fills: bool = False,
    ):
        self.finite, self.causes, self.observer = finite, causes, observer
        self.infinite_fills = infinite_fills
        self.unknown: dict[str, Any] = {}
        self.trusted: dict[str, None] = {}

    def closed(self, program: Any, args: Sequence[Value]) -> list[Value]:
        """Interpret a closed program, or one without constants."""
        consts = [concrete(const) for const in getattr(program, "consts", ())]
        return self.run(getattr(program, "jaxpr", program), consts, args)

    def run(self, jaxpr: Any, consts: Sequence[Value], args: Sequence[Value]) -> list[Value]:
        """What is known of the results of a program."""
        known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

        def read(atom: Any) -> Value:
            return concrete(atom.val, atom.aval.dtype) if hasattr(atom, "val") else known[atom]

        last = _last_uses(jaxpr)
        for index, equation in enumerate(jaxpr.eqns):
            outs = self.equation(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, outs, strict=True))
            for atom in last.get(index, ()):
                known.pop(atom, None)
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation: Any, ins: list[Value]) -> list[Value]:
        name = equation.primitive.name
        ins = with_infinite_fills(name, ins) if self.infinite_fills else ins
        step = Step(self, equation, ins)
        rule = RULES.get(name)
        if self.causes is not None:
            self.causes.calls.append(equation)
        with np.errstate(all="ignore"):
            outs = rule(step) if rule else self._without_a_rule(step)
        if self.causes is not None:
            self._follow(self.causes, step, outs)
            self.causes.calls.pop()
        if self.observer is not None:
            self.observer(equation, outs)
        return outs

    def _without_a_rule(self, step: Step) -> list[Value]:
        bits = all_bits(step.ins)
        shapes = [var.aval.shape for var in step.equation.outvars]
        if bits == NONE:
            self.trusted[step.name] = None
            return [Value(shape) for shape in shapes]
        self.unknown[step.name] = step.equation
        return [tainted(shape, bits) for shape in shapes]

    def _follow(self, causes: Causes, step: Step, outs: list[Value]) -> None:
        nodes = [value.node for value in step.ins if value.node is not None]
        name, place = causes.name(step.equation, step.ins), causes.place()
        moves = causes.moves(step.equation, step.ins)
        fill = fill_of(step.name, step.ins)
        for value in outs:
            if value.taint is not None and name != step.name:  # an end of rows is no longer padding
                value.taint = causes.named(value.taint, True, name)
            if value.node is None and value.taint is not None:
                bits = int(all_bits([value]))
                value.node = Node(name, place, bits, nodes, moves=moves, fill=fill)


def _last_uses(jaxpr: Any) -> dict[int, list[Any]]:
    """For each equation, the variables that nothing reads after it."""
    last: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        for atom in equation.invars:
            if not hasattr(atom, "val"):
                last[atom] = index
    for atom in jaxpr.outvars:
        if not hasattr(atom, "val"):
            last.pop(atom, None)
    found: dict[int, list[Any]] = {}
    for atom, index in last.items():
        found.setdefault(index, []).append(atom)
    return found
