"""Loops over time in a traced program, whose gradients cost less than those of `lax.scan`.

The gradient of a scan multiplies by the transpose of a weight at every step, which XLA:CPU makes
anew there, and adds to a gradient of the size of the weight. Here a weight is turned once before
the loop, and its gradient is one product over all steps after it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxmask._types import Array

Rule = Callable[[Any, list[Array]], Sequence[Array] | None]  # None: the equation as it is


class _Product(NamedTuple):
    """A product by a weight: the place of the weight among the constants of the loop."""

    place: int
    precision: Any


def evaluate(program: core.ClosedJaxpr, *arrays: Array) -> list[Array]:
    """What the program computes, for a reverse-mode derivative."""
    return _interpreted(program, arrays, _scanned)


def _interpreted(program: core.ClosedJaxpr, arrays: Sequence[Array], rule: Rule) -> list[Array]:
    """Evaluate equation by equation, calls included, where `rule` may replace one."""
    jaxpr = program.jaxpr
    variables = [*jaxpr.constvars, *jaxpr.invars]
    values = dict(zip(variables, [*program.consts, *arrays], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        with equation.ctx.manager:
            results = rule(equation, inputs)
            if results is None and equation.primitive.name in ("jit", "pjit"):
                results = _interpreted(equation.params["jaxpr"], inputs, rule)
            elif results is None:
                results = _bound(equation, inputs)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bound(equation: Any, inputs: Sequence[Array]) -> list[Array]:
    """The equation as it is."""
    primitive = equation.primitive
    bound = primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    results = primitive.bind(*functions, *inputs, **params)
    return list(results) if primitive.multiple_results else [results]


def _scanned(equation: Any, inputs: list[Array]) -> Sequence[Array] | None:
    """A scan with products by weights that all steps share, with a gradient of its own."""
    if equation.primitive.name != "scan" or jax.sharding.get_abstract_mesh().manual_axes:
        return None
    consts, carry, xs = _parts(equation, inputs)
    one = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in xs]
    products: list[_Product] = []
    shapes = jax.eval_shape(functools.partial(_note, equation, products), consts, carry, one)
    if not products:
        return None

    @jax.custom_vjp
    def run(*inputs: Array) -> Sequence[Array]:
        return _bound(equation, inputs)

    def forward(*inputs: Array) -> tuple[Sequence[Array], tuple]:
        consts, *_ = _parts(equation, inputs)
        turned = {product.place: consts[product.place].T for product in products}
        # Added to each product, so that they get its cotangents. Nothing reads them.
        size = equation.params["length"]
        added = [jnp.zeros((size, *a.shape), a.dtype) for a in shapes]
        run = functools.partial(_turned_scan, equation, turned)
        results, pull, lefts = jax.vjp(run, list(inputs), added, has_aux=True)
        return results, (pull, lefts)

    def backward(kept: tuple, given: Sequence[Array]) -> tuple[Array, ...]:
        pull, lefts = kept
        d_inputs, d_added = pull(given)
        for (place, precision), left, d in zip(products, lefts, d_added, strict=True):
            rows = tuple(range(d.ndim - 1))
            d_inputs[place] += jnp.tensordot(left, d, (rows, rows), precision=precision)
        return tuple(d_inputs)

    run.defvjp(forward, backward)
    return run(*inputs)


def _parts(equation: Any, inputs: Sequence[Array]) -> tuple[list, list, list]:
    """The constants, the carry and what is scanned over."""
    consts = equation.params["num_consts"]
    last = consts + equation.params["num_carry"]
    return list(inputs[:consts]), list(inputs[consts:last]), list(inputs[last:])


def _note(
    equation: Any,
    products: list[_Product],
    consts: list[Array],
    carry: list[Array],
    xs: list[Array],
) -> list[Array]:
    """The results of a step's products by weights, which it notes."""
    found = []

    def rule(equation: Any, inputs: list[Array]) -> Sequence[Array] | None:
        place = _weight_of(equation, inputs, consts)
        if place is None:
            return None
        results = _bound(equation, inputs)
        products.append(_Product(place, equation.params["precision"]))
        found.extend(results)
        return results

    _interpreted(equation.params["jaxpr"], [*consts, *carry, *xs], rule)
    return found


def _turned_scan(
    equation: Any, turned: dict[int, Array], inputs: list[Array], added: list[Array]
) -> tuple[list[Array], list[Array]]:
    """The results of a scan, and the first operands of its products by weights."""
    consts, carry, xs = _parts(equation, inputs)
    params = equation.params

    def step(carry: list[Array], given: tuple) -> tuple[list[Array], tuple]:
        xs, added = given
        rest, lefts = iter(added), []

        def rule(equation: Any, inputs: list[Array]) -> Sequence[Array] | None:
            place = _weight_of(equation, inputs, consts)
            if place is None:
                return None
            left, weight = inputs
            lefts.append(left)
            weight = jax.lax.stop_gradient(weight)
            return [_product(equation)(left, weight, turned[place], next(rest))]

        results = _interpreted(params["jaxpr"], [*consts, *carry, *xs], rule)
        return results[: len(carry)], (results[len(carry) :], lefts)

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, (ys, lefts) = jax.lax.scan(step, carry, (xs, added), **options)
    return [*carry, *ys], lefts


def _product(equation: Any) -> Callable[[Array, Array, Array, Array], Array]:
    """A product whose cotangent goes to `added`, and through `turned` to the first operand."""

    @jax.custom_vjp
    def product(left: Array, weight: Array, turned: Array, added: Array) -> Array:
        return _bound(equation, [left, weight])[0]

    def forward(left: Array, weight: Array, turned: Array, added: Array) -> tuple[Array, Array]:
        return _bound(equation, [left, weight])[0], turned

    def backward(turned: Array, d: Array) -> tuple:
        return jnp.matmul(d, turned, precision=equation.params["precision"]), None, None, d

    product.defvjp(forward, backward)
    return product


def _weight_of(equation: Any, inputs: list[Array], consts: list[Array]) -> int | None:
    """Which constant a product has as its second operand, if its gradient is better summed late.

    That is where a step has fewer rows than the weight, so that its cotangent is the smaller.
    """
    if equation.primitive.name != "dot_general":
        return None
    left, right = inputs
    place = next((n for n, const in enumerate(consts) if const is right), None)
    plain = ((left.ndim - 1,), (0,)), ((), ())
    of_rows = right.ndim == 2 and equation.params["dimension_numbers"] == plain
    dtypes = {left.dtype, right.dtype, equation.outvars[0].aval.dtype}
    if (
        place is None
        or not of_rows
        or len(dtypes) > 1
        or not jnp.issubdtype(right.dtype, jnp.floating)
    ):
        return None
    return place if math.prod(left.shape[:-1]) < len(right) else None
