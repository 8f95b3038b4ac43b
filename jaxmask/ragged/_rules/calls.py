"""Primitives that call a program: `jit`, `checkpoint`, custom derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array
from jaxmask.ragged._interpreter.context import Context
from jaxmask.ragged._interpreter.interpret import Step, rule_for, run, run_known


@rule_for("jit", "pjit", "closed_call", "core_call", "core_closed_call", "eval_jaxpr")
def call(step: Step, *values: Array) -> Any:
    """Run the program inside by the rules."""
    inside = step.params.get("jaxpr", step.params.get("call_jaxpr"))
    results, step.known_out, step.unfilled_out = run_known(
        step.context, closed(inside), values, step.known, step.unfilled_in
    )
    return results


@rule_for("checkpoint", "remat2", "remat")
def checkpoint(step: Step, *values: Array) -> Any:
    """Run the program inside by the rules, and again in the backward pass."""
    inside, context = closed(step.params["jaxpr"]), step.context
    policy, prevent_cse = step.params.get("policy"), step.params.get("prevent_cse", True)

    def body(*values: Array) -> list[Array]:
        return run(context.inside(), inside, values)

    return jax.checkpoint(body, policy=policy, prevent_cse=prevent_cse)(*values)


class _Closed:
    """A jaxpr as a closed one."""

    def __init__(self, jaxpr: Any, consts: Sequence[Any] = ()):
        self.jaxpr, self.consts = jaxpr, list(consts)


def closed(jaxpr: Any, consts: Sequence[Any] = ()) -> Any:
    """A jaxpr with its constants, from either of the forms in which equations hold one."""
    return jaxpr if hasattr(jaxpr, "consts") else _Closed(jaxpr, consts)


# ------------------------------------------------------------------------- custom derivatives


@rule_for("custom_jvp_call")
def custom_jvp_call(step: Step, *values: Array) -> Any:
    """Keep the user's derivative: both programs run by the rules."""
    restore, inside = _restoring(step.context), step.params["call_jaxpr"]
    derivative = step.params["jvp_jaxpr_fun"]

    @jax.custom_jvp
    def f(state: Any, *values: Array) -> list[Array]:
        return run(restore(state), closed(inside), values)

    def jvp(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list, list]:
        state, *inputs = primals
        # JAX asks which values have no tangent; those have a tangent of dtype float0.
        zeros = [not jnp.issubdtype(jnp.result_type(v), jnp.inexact) for v in inputs]
        jaxpr, consts, zero_out = derivative.call_wrapped(*zeros)
        given = [t for t, zero in zip(tangents[1:], zeros, strict=True) if not zero]
        context = restore(state)
        context.linear = True
        results = run(context, closed(jaxpr, consts), [*inputs, *given])
        outputs = results[: len(zero_out)]
        rest = iter(results[len(zero_out) :])
        return outputs, [
            _no_tangent(y) if zero else next(rest)
            for y, zero in zip(outputs, zero_out, strict=True)
        ]

    f.defjvp(jvp)
    return f(_state(step.context), *values)


def _no_tangent(value: Array) -> Any:
    if jnp.issubdtype(value.dtype, jnp.inexact):
        return jnp.zeros_like(value)
    return np.zeros(value.shape, jax.dtypes.float0)


def _restoring(context: Context) -> Callable[[Any], Context]:
    """A function from `_state` of a context back to a context.

    A backward pass runs after the transformation around it has ended. If it closed over a context,
    JAX would report its tracers as leaked; so the row is passed as an explicit argument, `state`.
    """
    sizes = context.sizes  # holds no tracer
    return lambda state: Context(sizes, *state)


def _state(context: Context) -> Any:
    return dict(context.lengths), context.reached, context.valid


@rule_for("custom_vjp_call", "custom_vjp_call_jaxpr")
def custom_vjp_call(step: Step, *values: Array) -> Any:
    """Keep the user's backward pass: all three programs run by the rules."""
    if step.params.get("symbolic_zeros"):
        raise step.refuse("Its derivative uses symbolic zeros.")
    params, restore = step.params, _restoring(step.context)
    inside = params.get("call_jaxpr", params.get("fun_jaxpr"))
    avals = [v.aval for v in step.equation.invars]
    out_avals = [v.aval for v in step.equation.outvars]
    inputs, outputs = step.inputs, step.outputs

    @jax.custom_vjp
    def f(state: Any, *values: Array) -> list[Array]:
        return run(restore(state), closed(inside), values)

    def forward(state: Any, *values: Array) -> tuple[list[Array], Any]:
        jaxpr, consts = params["fwd_jaxpr_thunk"].call_wrapped(*[False] * len(values))
        results = run(restore(state), closed(jaxpr, consts), values)
        first_output = len(results) - len(outputs)
        return results[first_output:], (state, results[:first_output], values)

    def backward(residuals: Any, cotangents: Sequence[Array]) -> tuple[Any, ...]:
        state, saved, values = residuals
        jaxpr, _ = params["fwd_jaxpr_thunk"].call_wrapped(*[False] * len(values))
        saved_avals = [v.aval for v in jaxpr.outvars[: len(saved)]]
        kept, kept_avals = _residuals(params, saved, saved_avals, values, avals)
        given, has_value = _traced_backward(params["bwd"], kept_avals, out_avals)
        context = restore(state)
        # The user's program needs cotangents that keep the invariant, like all values; every other
        # rule relies on those of padding being 0.
        pairs = zip(cotangents, outputs, strict=True)
        filled = [context.repeat_first(g, shape) for g, shape in pairs]
        results = iter(run(context, given, [*kept, *filled]))
        found = [next(results) if has else None for has in has_value]
        return None, *[
            _no_tangent(jnp.asarray(v)) if g is None else context.fill(g, s, range(len(s)), 0)
            for g, v, s in zip(found, values, inputs, strict=True)
        ]

    f.defvjp(forward, backward)
    return f(_state(step.context), *values)


def _residuals(
    params: Any, saved: Sequence[Any], saved_avals: Sequence[Any], values: Any, avals: Any
) -> tuple[list[Any], list[Any]]:
    """What the forward pass saves, including operands, which JAX does not return again."""
    _, tree, *more = params["out_trees"]()
    forwarded = more[0] if more else [None] * tree.num_leaves
    rest, rest_avals, kept, kept_avals = iter(saved), iter(saved_avals), [], []
    for index in forwarded:
        kept.append(next(rest) if index is None else values[index])
        kept_avals.append(next(rest_avals) if index is None else avals[index])
    return kept, kept_avals


def _traced_backward(bwd: Any, residuals: Sequence[Any], outputs: Sequence[Any]) -> tuple[Any, Any]:
    """The program of the backward pass, and which operands get a cotangent from it."""
    has_value: list[bool] = []

    def flat(*operands: Any) -> list[Any]:
        found = bwd.call_wrapped(*operands)
        if isinstance(found, tuple):  # since jax 0.12 a log comes with the cotangents
            found, _ = found
        has_value[:] = [bool(jax.tree.leaves(g)) for g in found]
        return [g for g, has in zip(found, has_value, strict=True) if has]

    specs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (*residuals, *outputs)]
    return jax.make_jaxpr(flat)(*specs), has_value
