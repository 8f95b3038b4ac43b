"""Run a traced program on one padded row, equation by equation.

`run` evaluates a jaxpr that was traced at symbolic lengths by calling, for each equation, the rule
of its primitive. Rules are keyed by name: names are stable across releases of JAX, and primitive
objects are not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core

from jaxmask._registry import registering
from jaxmask._types import Array
from jaxmask.ragged import _errors as errors
from jaxmask.ragged._interpreter import dims, padding
from jaxmask.ragged._interpreter.context import Context, Shape, ragged_axes
from jaxmask.ragged._interpreter.known import Known

Rule = Callable[..., Any]
Axes = tuple[int, ...]
RULES: dict[str, Rule] = {}
rule_for = registering(RULES)
REFUSED: dict[str, str] = {}


def register(primitive: Any, rule: Rule | None = None) -> Any:
    """Teach `ragged_vmap` a primitive.

    A rule is `rule(step, *values)`, with a `Step` and the operands in their physical shapes; it
    returns the result, or a list of results. On every ragged axis of an operand, padding holds
    copies of position 0, and so must that of a result: `step.repeat_first(result)` puts them there.
    For primitives that act on each element alone, the rule is `jm.ragged.elementwise`.

    Args:
      primitive: a JAX primitive, or its name.
      rule: the rule; None to use `register(primitive)` as a decorator.

    Returns:
      The rule, or a decorator.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> from jax.extend.core import Primitive
      >>> double = Primitive("double")
      >>> _ = double.def_abstract_eval(lambda x: x)
      >>> _ = jm.ragged.register(double, lambda step, x: x + x)
      >>> g = jm.ragged_vmap(lambda row: double.bind(row).sum())
      >>> y, _ = g(*jm.pad_sequences([[1, 2], [3]]))
      >>> y.tolist()
      [6, 6]
    """
    name = primitive if isinstance(primitive, str) else primitive.name
    if rule is None:
        return lambda function: register(name, function)
    RULES[name] = rule
    return rule


@dataclass
class Step:
    """One equation while it runs, as a rule sees it.

    Attributes:
      context: the row: `size`, `count`, `real`, `mask`, `fill`, `repeat_first`.
      primitive: of the equation.
      params: its parameters; sizes in them may be symbolic.
      inputs: the logical shape of each operand.
      outputs: the logical shape of each result.
      known: for each operand, its values as an expression of lengths, or None.
      unfilled_in: for each operand, the axes whose padding holds anything other than copies of
        position 0; only calls and linear functions get such operands.

    Example:
      >>> import jaxmask as jm
      >>> @jm.ragged.register("my_sum_over_time")
      ... def rule(step, x):
      ...     return step.bind(step.fill(0, x, [0], 0))  # operand 0, axis 0, the identity 0
    """

    context: Context
    equation: Any
    known: list[Known | None] = field(default_factory=list)
    unfilled_in: list[Axes] = field(default_factory=list)
    known_out: list[Known | None] | None = None
    unfilled_out: list[Axes] | None = None

    @property
    def primitive(self) -> Any:
        return self.equation.primitive

    @property
    def params(self) -> dict[str, Any]:
        return self.equation.params

    @property
    def inputs(self) -> list[Shape]:
        """The logical shape of each operand."""
        return [_shape(v) for v in self.equation.invars]

    @property
    def outputs(self) -> list[Shape]:
        """The logical shape of each result."""
        return [_shape(v) for v in self.equation.outvars]

    def bind(self, *values: Array, **params: Any) -> Any:
        """Run the primitive on physical values, with some parameters replaced."""
        bound = self.primitive.get_bind_params({**self.params, **params})
        functions, bound = bound if isinstance(bound, tuple) else ((), bound)
        return self.primitive.bind(*functions, *values, **bound)

    def fill(self, operand: int, value: Array, axes: Sequence[int], constant: Any) -> Array:
        """An operand whose padding along some axes is filled with a constant."""
        return self.context.fill(value, self.inputs[operand], axes, constant)

    def repeat_first(self, value: Array, axes: Sequence[int] | None = None) -> Array:
        """A result whose padding is filled with copies of position 0."""
        return self.context.repeat_first(value, self.outputs[0], axes)

    def unfilled(self, value: Array, axes: Sequence[int] | None = None) -> Array:
        """Return a rule's only result without filling its padding along `axes`.

        It is filled later, if something reads it: not linear functions, nor the program's caller.
        """
        self.unfilled_out = [tuple(ragged_axes(self.outputs[0], axes))]
        return value

    def refuse(self, why: str) -> errors.UnsupportedPrimitiveError:
        """The error to raise if the rule cannot be exact."""
        return errors.unsupported(self.equation, why, self.context.callers)


def _shape(variable: Any) -> Shape:
    return tuple(getattr(variable.aval, "shape", ()))


# ---------------------------------------------------------------------------- the loop


def run(context: Context, closed: Any, values: Sequence[Array]) -> list[Array]:
    """The results of a traced program on one padded row."""
    results, _, unfilled = run_known(context, closed, values)
    shapes = [_shape(v) for v in getattr(closed, "jaxpr", closed).outvars]
    trio = zip(results, shapes, unfilled, strict=True)
    return [context.repeat_first(v, shape, axes) if axes else v for v, shape, axes in trio]


def run_known(
    context: Context,
    closed: Any,
    values: Sequence[Array],
    known: Sequence[Known | None] | None = None,
    unfilled: Sequence[Axes] | None = None,
) -> tuple[list[Array], list[Known | None], list[Axes]]:
    """`run` that also passes on known index arrays and axes whose padding is not filled yet."""
    jaxpr = getattr(closed, "jaxpr", closed)
    environment = _Environment(context)
    environment.write(jaxpr.constvars, closed.consts)
    environment.write(jaxpr.invars, values, known, unfilled)
    check = padding.Check(context)
    check.add(_caller(context), values, [_shape(v) for v in jaxpr.invars], unfilled)
    for equation in jaxpr.eqns:
        lenient = equation.primitive.name in LENIENT
        operands = [environment.read(atom, lenient) for atom in equation.invars]
        step = Step(context, equation, [k for _, k, _ in operands], [a for _, _, a in operands])
        context.callers.append(equation)
        results = _apply(step, [value for value, _, _ in operands])
        _check_shapes(step, results)
        context.callers.pop()
        environment.write(equation.outvars, results, step.known_out, step.unfilled_out)
        check.add(equation.primitive.name, results, step.outputs, step.unfilled_out)
    check.report()
    outputs = [environment.read(atom, True) for atom in jaxpr.outvars]
    return [v for v, _, _ in outputs], [k for _, k, _ in outputs], [axes for _, _, axes in outputs]


def _caller(context: Context) -> str:
    return f"operand of {context.callers[-1].primitive.name}" if context.callers else "input"


class _Environment:
    """For each variable its value, what is known of it, and its axes with unfilled padding."""

    def __init__(self, context: Context):
        self.context = context
        self.held: dict[Any, tuple[Any, Known | None, Axes]] = {}

    def write(
        self, variables: Any, values: Any, known: Any = None, unfilled: Sequence[Axes] | None = None
    ) -> None:
        count = len(variables)
        parts = values, known or [None] * count, unfilled or [()] * count
        for variable, *held in zip(variables, *parts, strict=True):
            self.held[variable] = tuple(held)

    def read(self, atom: Any, lenient: bool) -> tuple[Any, Known | None, Axes]:
        """Read a value; unless `lenient`, its padding is filled with copies of position 0 first."""
        if isinstance(atom, core.Literal):
            return atom.val, Known.of_literal(atom.val), ()
        value, fact, unfilled = self.held[atom]
        if unfilled and not lenient:
            value = self.context.repeat_first(value, _shape(atom), unfilled)
            self.held[atom] = value, fact, ()
        return self.held[atom]


def _apply(step: Step, values: list[Any]) -> list[Any]:
    name = step.primitive.name
    if step.equation.effects and name not in CALLS:
        raise step.refuse("It has an effect, which would see padded values.")
    plain = not touches_ragged(step.equation) and step.context.reached is None
    if plain and not any(step.known):  # a rule passes on what is known
        result = step.bind(*values)
    elif name in RULES:
        result = RULES[name](step, *values)
    elif plain:
        result = step.bind(*values)
    else:
        raise step.refuse(REFUSED.get(name, "It has no rule."))
    return list(result) if isinstance(result, list | tuple) else [result]


# These run a program by the rules, each of which fills the padding that it reads.
TRANSPARENT = {"jit", "pjit", "closed_call", "core_call", "core_closed_call"}

# The derivative of these does not depend on their operands, so whatever the padding of an operand
# holds stays there: nothing uses it, and its zero cotangent is never multiplied by nan.
LINEAR = {"add", "sub", "neg", "add_any", "copy", "copy_p", "convert_element_type"}
LENIENT = TRANSPARENT | LINEAR

# Their effects are those of the equations inside, which are checked in turn.
CALLS = {"jit", "pjit", "closed_call", "core_call", "scan", "while", "cond", "checkpoint", "remat2"}


def _check_shapes(step: Step, results: list[Any]) -> None:
    """Every result must have the physical form of its logical shape: a safety net for all rules."""
    for value, shape in zip(results, step.outputs, strict=True):
        expected = step.context.shape(shape)
        if getattr(value, "shape", ()) != expected:
            raise AssertionError(
                f"ragged_vmap: the rule of `{step.primitive.name}` returned the shape "
                f"{value.shape} where {expected} is the physical shape of {shape}."
            )


def touches_ragged(equation: Any) -> bool:
    """Whether any size in an equation is symbolic."""
    atoms = [*equation.invars, *equation.outvars]
    if any(dims.is_symbolic(dim) for atom in atoms for dim in _shape(atom)):
        return True
    if equation.primitive.name in ("custom_jvp_call", "custom_vjp_call"):
        return any(
            touches_ragged(inner)
            for jaxpr in _jaxprs(equation.params.get("call_jaxpr"))
            for inner in jaxpr.eqns
        )
    return any(_is_ragged(value) for value in equation.params.values())


def _is_ragged(param: Any) -> bool:
    if dims.is_symbolic(param):
        return True
    if isinstance(param, tuple | list):
        return any(_is_ragged(item) for item in param)
    return any(touches_ragged(inner) for jaxpr in _jaxprs(param) for inner in jaxpr.eqns)


def _jaxprs(param: Any) -> Iterator[Any]:
    if isinstance(param, tuple | list):
        for item in param:
            yield from _jaxprs(item)
    elif hasattr(param, "eqns") or hasattr(param, "jaxpr"):
        yield getattr(param, "jaxpr", param)
