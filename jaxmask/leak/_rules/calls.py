"""Primitives that call a program."""

from jaxmask.leak._barriers import inside
from jaxmask.leak._proof.domain import Value
from jaxmask.leak._proof.interpret import Step, rule_for


@rule_for(
    "jit", "pjit", "closed_call", "core_call", "core_closed_call", "eval_jaxpr", "remat2",
    "checkpoint", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call",
    "remat", "run_state_call",
)  # fmt: skip
def call(step: Step) -> list[Value]:
    """Interpret the program inside."""
    return step.machine.closed(inside(step.params), step.ins)


@rule_for("custom_linear_solve")
def custom_linear_solve(step: Step) -> list[Value]:
    """Interpret the solver."""
    lengths, programs = step.params["const_lengths"], step.params["jaxprs"]
    first = lengths.matvec + lengths.vecmat
    consts = step.ins[first : first + lengths.solve]
    return step.machine.closed(programs.solve, [*consts, *step.ins[sum(lengths) :]])
