"""Run a traced program one operation at a time.

No operation can then be rewritten together with its neighbours, as XLA does. What only moves
elements, or rounds as IEEE 754 says, is left to NumPy; the rest is compiled, once in a process for
all programs that hold it, so that deep models and second calls cost little. Of branches the one
that is taken runs, and loops run turn by turn; long ones are compiled, with barriers inside.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask.leak import _barriers as barriers
from jaxmask.leak._barriers import Factors
from jaxmask.leak._numpy import NUMPY, Operation

MOST = 8192  # compiled operations that are kept
MOST_OPERATIONS = 4000  # of a loop that runs turn by turn


class Stepwise:
    """A closed program, to be run on arrays."""

    def __init__(self, closed: Any):
        self.closed = closed
        self._own = _Own({}, {}, {})

    def __call__(self, factors: Factors, *args: Any) -> list[Any]:
        """The results, rounded as `factors` say."""
        with np.errstate(all="ignore"):
            return _Runner(factors, self._own).closed(self.closed, *map(on_host, args))

    def operation(self, equation: Any, values: list[Any]) -> list[Any]:
        with np.errstate(all="ignore"):
            runner = _Runner(barriers.factors(0), self._own)
            return runner.operation(equation, [(on_host(value), False) for value in values])


class _Own(NamedTuple):
    """What is kept of a program: by the `id` of an equation or a jaxpr, all of which live in it."""

    compiled: dict[int, Callable[..., list[Any]]]
    long: dict[int, bool]
    plans: dict[int, "_Plan"]


class _Runner(barriers.Run):
    def __init__(self, factors: Factors, own: _Own):
        super().__init__(factors)
        self._own = own

    def closed(self, program: Any, *args: Any) -> list[Any]:
        return super().closed(program, *args) if self._factors else self._exactly(program, args)

    def _exactly(self, program: Any, args: Sequence[Any]) -> list[Any]:
        """The results as they are rounded: much faster, since nothing is asked of each value."""
        jaxpr = getattr(program, "jaxpr", program)
        plan = self._own.plans.get(id(jaxpr))
        if plan is None:
            plan = self._own.plans[id(jaxpr)] = _Plan.of(jaxpr)
        held = plan.literals.copy()
        held.extend(map(on_host, getattr(program, "consts", ())))
        held.extend(args)
        for equation, inside, operation, places in plan.steps:
            values = [held[place] for place in places]
            if operation is not None:
                results = _in_numpy(operation, equation, values)
                held.extend(self._compiled(equation, values) if results is None else results)
            elif inside is not None:
                held.extend(self._exactly(inside, values))
            elif equation.primitive.name in barriers.CONTROL:
                held.extend(self._control(equation, values))
            else:
                held.extend(self._compiled(equation, values))
        return [held[place] for place in plan.results]

    def _control(self, equation: Any, values: list[Any]) -> list[Any]:
        """A branch, or a loop turn by turn, unless its first run took many operations."""
        name, params = equation.primitive.name, equation.params
        if name == "cond":
            branches = params["branches"]
            taken = min(max(int(values[0]), 0), len(branches) - 1)
            return self.closed(branches[taken], *values[1:])
        if not self._own.long.get(id(equation), False):
            turns = self._scan if name == "scan" else self._while
            results = turns(params, values, decided=id(equation) in self._own.long)
            # Decided once, so that all runs round alike.
            self._own.long[id(equation)] = results is None
            if results is not None:
                return results
        number = np.uint32(16 * next(self._operations))  # some roundings for each
        with equation.ctx.manager:
            compiled = self._compiled_alone(equation, _with_barriers)
            return list(map(on_host, compiled(self._factors, number, *values)))

    def _scan(self, params: dict[str, Any], values: list[Any], *, decided: bool) -> Any:
        body, length, carries = params["jaxpr"], params["length"], params["num_carry"]
        if not decided and (not length or length * _size(body) > MOST_OPERATIONS):
            return None
        consts, carry, xs = barriers.split(values, params["num_consts"], carries)
        rows: list[Any] = [None] * length
        for k in reversed(range(length)) if params["reverse"] else range(length):
            results = self.closed(body, *consts, *carry, *(x[k] for x in xs))
            carry, rows[k] = results[:carries], results[carries:]
        stack = [np.stack if isinstance(y, np.ndarray) else jnp.stack for y in rows[0]]
        return [*carry, *(s(list(y)) for s, y in zip(stack, zip(*rows, strict=True), strict=True))]

    def _while(self, params: dict[str, Any], values: list[Any], *, decided: bool) -> Any:
        test, body = params["cond_jaxpr"], params["body_jaxpr"]
        parts = params["cond_nconsts"], params["body_nconsts"]
        conditions, consts, carry = barriers.split(values, *parts)
        size, turns = _size(test) + _size(body), 0
        while self.closed(test, *conditions, *carry)[0]:
            turns += 1
            if not decided and turns * size > MOST_OPERATIONS:
                return None
            carry = self.closed(body, *consts, *carry)
        return carry

    def _bind(self, equation: Any, values: list[Any]) -> list[Any]:
        operation = _operation(equation)
        results = None if operation is None else _in_numpy(operation, equation, values)
        return self._compiled(equation, values) if results is None else results

    def _compiled(self, equation: Any, values: list[Any]) -> list[Any]:
        with equation.ctx.manager:
            return list(map(on_host, self._compiled_alone(equation, _compiled)(*values)))

    def _compiled_alone(self, equation: Any, how: Callable[..., Any]) -> Callable[..., list[Any]]:
        if id(equation) not in self._own.compiled:
            self._own.compiled[id(equation)] = how(equation)
        return self._own.compiled[id(equation)]


def _operation(equation: Any) -> Operation | None:
    """What does an equation in NumPy; None for random keys, which are no arrays there."""
    operation = NUMPY.get(equation.primitive.name)
    if operation is None or any(map(_is_key, (*equation.invars, *equation.outvars))):
        return None
    return operation


def _is_key(atom: Any) -> bool:
    return not isinstance(atom.aval.dtype, np.dtype)


def _in_numpy(operation: Operation, equation: Any, values: list[Any]) -> list[Any] | None:
    result = operation(equation.params, *values)
    if result is None:
        return None
    outs = equation.outvars
    if len(outs) == 1 and not isinstance(result, list):
        return [np.asarray(result, outs[0].aval.dtype)]
    return [np.asarray(value, var.aval.dtype) for value, var in zip(result, outs, strict=True)]


class _Plan(NamedTuple):
    """A jaxpr with numbers in the place of variables.

    Literals come first, then constants, arguments and the results of each equation.
    """

    literals: list[Any]
    steps: list[tuple[Any, Any, Operation | None, list[int]]]  # equation, program inside
    results: list[int]

    @classmethod
    def of(cls, jaxpr: Any) -> "_Plan":
        read = [*itertools.chain.from_iterable(e.invars for e in jaxpr.eqns), *jaxpr.outvars]
        literals = [atom for atom in read if hasattr(atom, "val")]
        made = itertools.chain.from_iterable(e.outvars for e in jaxpr.eqns)
        held = (*map(id, literals), *jaxpr.constvars, *jaxpr.invars, *made)
        number = {atom: place for place, atom in enumerate(held)}

        def places(atoms: Any) -> list[int]:
            return [number[id(atom) if hasattr(atom, "val") else atom] for atom in atoms]

        steps = []
        for equation in jaxpr.eqns:
            is_call = equation.primitive.name in barriers.CALLS
            inside = barriers.inside(equation.params) if is_call else None
            steps.append((equation, inside, _operation(equation), places(equation.invars)))
        values = [on_host(np.asarray(atom.val, atom.aval.dtype)) for atom in literals]
        return cls(values, steps, places(jaxpr.outvars))


def _size(program: Any) -> int:
    """How many operations a program has, with those of a branch or of one turn of a loop."""
    jaxpr = getattr(program, "jaxpr", program)
    return sum(_size_of(equation) for equation in jaxpr.eqns)


def _size_of(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name in barriers.CALLS:
        return _size(barriers.inside(params))
    if name == "cond":
        return max(map(_size, params["branches"]))
    if name == "scan":
        return int(params["length"]) * _size(params["jaxpr"])
    return _size(params["body_jaxpr"]) if name == "while" else 1


def on_host(x: Any) -> Any:
    """An array of NumPy, but for keys of random numbers."""
    if not hasattr(x, "dtype") or isinstance(x, np.ndarray | np.generic):
        return np.asarray(x)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return np.asarray(x)


class _Equation:
    """An equation, equal to others with the same operation."""

    def __init__(self, equation: Any):
        self.equation = equation
        params = tuple(sorted(equation.params.items()))
        self.key = equation.primitive, params, str(params)  # 1, 1.0 and True are equal
        self.hash = hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Equation) and self.key == other.key

    def __hash__(self) -> int:
        return self.hash


def _compiled(equation: Any) -> Callable[..., list[Any]]:
    try:
        return _shared(_Equation(equation))
    except TypeError:  # parameters that cannot be hashed
        return _plainly(equation)


@functools.lru_cache(MOST)
def _shared(equation: _Equation) -> Callable[..., list[Any]]:
    return _plainly(equation.equation)


def _plainly(equation: Any) -> Callable[..., list[Any]]:
    return jax.jit(
        lambda *values: barriers.bind(equation, list(values)),
        compiler_options=barriers.compiler_options(),
    )


def _with_barriers(equation: Any) -> Callable[..., list[Any]]:
    def run(factors: Factors, number: Any, *values: Any) -> list[Any]:
        inside = barriers.Run(factors, number)
        return inside.operation(equation, [(value, False) for value in values])

    return jax.jit(run, compiler_options=barriers.compiler_options())
