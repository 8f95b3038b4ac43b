"""Loops and branches."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims, known
from jaxmask.ragged._interpreter.context import Context, along, select, stop_gradient
from jaxmask.ragged._interpreter.interpret import Step, rule_for, run
from jaxmask.ragged._rules.calls import closed


@rule_for("scan")
def scan(step: Step, *values: Array) -> Any:
    """Run as many steps as the longest row has; steps beyond the row keep the carry."""
    params, body = step.params, closed(step.params["jaxpr"])
    consts, init, xs = _parts(params, values)
    length, reverse = params["length"], params["reverse"]
    options = {"reverse": reverse, "unroll": params.get("unroll", 1)}
    if not dims.is_symbolic(length):
        return _plain_scan(step, body, consts, init, xs, options)
    if reverse:
        xs = [_repeat_last(step.context, x, length) for x in xs]
    carry, ys = _held_scan(step.context, body, (consts, init, xs), length, options)
    shapes = step.outputs[len(carry) :]
    pairs = zip(ys, shapes, strict=True)
    return [*carry, *[step.context.repeat_first(y, shape, [0]) for y, shape in pairs]]


def _parts(params: Any, values: Sequence[Array]) -> tuple[list, list, list]:
    """Constants, initial carry and inputs of a scan."""
    if "num_consts" in params:
        counts = params["num_consts"], params["num_carry"]
    else:
        consts, carry, _ = (len(list(part)) for part in params["ft_in"].unpack())
        counts = consts, carry
    carry, xs = counts[0], counts[0] + counts[1]
    return list(values[:carry]), list(values[carry:xs]), list(values[xs:])


def _plain_scan(
    step: Step, body: Any, consts: list, init: list, xs: list, options: dict[str, Any]
) -> list[Array]:
    context, count = step.context, len(init)

    def one(carry: list[Array], x: list[Array]) -> tuple[list[Array], list[Array]]:
        results = run(context.inside(), body, [*consts, *carry, *x])
        return results[:count], results[count:]

    carry, ys = jax.lax.scan(one, init, xs, length=step.params["length"], **options)
    return [*carry, *ys]


def _held_scan(
    context: Context, body: Any, parts: tuple[list, list, list], length: Any, options: dict
) -> tuple[list[Array], list[Array]]:
    """A scan over all physical steps, in which steps beyond the row keep the carry.

    There the body runs on the initial carry and the inputs of step 0, as it does on the row alone:
    at the carry that is kept, it might be singular.
    """
    consts, init, xs = parts
    init = [jnp.asarray(value) for value in init]
    steps, count = context.count(length), len(init)
    reached = steps > 0 if context.may_be_empty(length) else None

    def one(carry: list[Array], inputs: Any) -> tuple[list[Array], list[Array]]:
        position, x = inputs
        real = position < steps
        # In reverse, steps beyond the row come first, while the carry is still the initial one.
        safe = carry if options["reverse"] else _select(real, carry, init)
        results = run(context.inside(reached), body, [*consts, *safe, *x])
        return _select(real, results[:count], carry), results[count:]

    positions = jnp.arange(context.size(length), dtype=jnp.int32)
    return jax.lax.scan(one, init, (positions, xs), **options)


def _select(real: Array, then: Sequence[Array], other: Sequence[Array]) -> list[Array]:
    return [jnp.where(real, a, b) for a, b in zip(then, other, strict=True)]


def _repeat_last(context: Context, x: Array, length: Any) -> Array:
    """Fill the padding with the last step of the row, with which a reverse loop starts."""
    if not x.shape[0]:
        return x
    last = jax.lax.dynamic_slice_in_dim(x, jnp.maximum(context.count(length) - 1, 0), 1)
    return select(along(context.real(length), 0, x.shape), x, stop_gradient(last))


# -------------------------------------------------------------------------- loops


@rule_for("while")
def while_loop(step: Step, *values: Array) -> Any:
    """Loop; a loop that counts up to a length becomes a scan, which has a gradient."""
    context, params = step.context, step.params
    body_at = params["cond_nconsts"]
    carry_at = body_at + params["body_nconsts"]
    cond_consts, body_consts = values[:body_at], values[body_at:carry_at]
    init = [jnp.asarray(value) for value in values[carry_at:]]
    condition, body = closed(params["cond_jaxpr"]), closed(params["body_jaxpr"])
    trips = _trip_count(step, condition, body, carry_at)
    if trips is not None:
        return _counted_loop(context, body, (list(body_consts), init), trips)

    def goes_on(carry: Sequence[Array]) -> Array:
        (more,) = run(context.inside(), condition, [*cond_consts, *carry])
        # A row or a branch that does not run must not keep the others looping.
        for runs in (context.reached, context.valid):
            more = more if runs is None else more & runs
        return more

    def one(carry: Sequence[Array]) -> list[Array]:
        return run(context.inside(), body, [*body_consts, *carry])

    return jax.lax.while_loop(goes_on, one, init)


def _trip_count(step: Step, condition: Any, body: Any, carry_at: int) -> Any:
    """The trip count of a `fori_loop(a, b, ...)`, as a size; None for any other loop.

    Under a symbolic length such a loop runs while `i < b`, adds 1 to `i`, and keeps `b`.
    """
    outer, inner = condition.jaxpr, body.jaxpr
    if step.params["cond_nconsts"] or len(outer.eqns) != 1 or outer.eqns[0].primitive.name != "lt":
        return None
    test = outer.eqns[0]
    if outer.outvars[0] is not test.outvars[0] or any(
        v not in outer.invars for v in _variables(test)
    ):
        return None
    counter, limit = (outer.invars.index(v) for v in test.invars)
    consts = step.params["body_nconsts"]
    if inner.outvars[limit] is not inner.invars[consts + limit]:
        return None
    if not _adds_one(inner, inner.invars[consts + counter], inner.outvars[counter]):
        return None
    trips = known.add(step.known[carry_at + limit], step.known[carry_at + counter], -1)
    if trips is None or known.decide(lambda: trips.offset >= 0) is not True:
        return None
    return trips.offset


def _variables(equation: Any) -> list[Any]:
    return [None if hasattr(v, "val") else v for v in equation.invars]


def _adds_one(jaxpr: Any, counter: Any, following: Any) -> bool:
    for equation in jaxpr.eqns:
        if equation.outvars[0] is following and equation.primitive.name == "add":
            ones = [v for v in equation.invars if hasattr(v, "val") and v.val == 1]
            return bool(ones) and any(v is counter for v in equation.invars)
    return False


def _counted_loop(context: Context, body: Any, parts: tuple[list, list], trips: Any) -> list[Array]:
    consts, init = parts
    if dims.is_symbolic(trips):
        return _held_scan(context, body, (consts, init, []), trips, {"reverse": False})[0]

    def one(carry: list[Array], _: None) -> tuple[list[Array], None]:
        return run(context.inside(), body, [*consts, *carry]), None

    return jax.lax.scan(one, init, None, length=trips)[0]


# ------------------------------------------------------------------------ branches


@rule_for("cond")
def cond(step: Step, index: Array, *values: Array) -> Any:
    """Branch. Under `vmap` all branches run and one is kept.

    The others run on safe values: on the row's own values, for which it skips them, their gradient
    may be nan.
    """
    index = jnp.asarray(index, jnp.int32)

    def branch(k: int, program: Any) -> Any:
        def body(index: Array, *values: Array) -> list[Array]:
            inside = step.context.inside(index == k)
            return [jnp.asarray(v) for v in run(inside, closed(program), values)]

        return body

    branches = [branch(k, program) for k, program in enumerate(step.params["branches"])]
    return jax.lax.switch(index, branches, index, *values)
