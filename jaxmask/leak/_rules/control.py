"""Loops and branches."""

from typing import Any

import numpy as np

from jaxmask.leak._barriers import split
from jaxmask.leak._proof.domain import Value, fingerprint, join, same, same_bits, union
from jaxmask.leak._proof.interpret import Step, rule_for
from jaxmask.leak._rules.shapes import side_by_side

MOST_STEPS = 2048  # of a loop that is followed step by step


@rule_for("cond")
def cond(step: Step) -> list[Value]:
    """The branch that is known to be taken, or what all branches share."""
    index, *operands = step.ins
    branches = step.params["branches"]
    if index.value is not None and index.all_known:
        taken = int(np.clip(int(index.value), 0, len(branches) - 1))
        return step.machine.closed(branches[taken], operands)
    results = [step.machine.closed(branch, operands) for branch in branches]
    return [_decided(list(values), index) for values in zip(*results, strict=True)]


def _decided(values: list[Value], predicate: Value) -> Value:
    """One of several; which, the predicate says."""
    joined = join(values)
    if predicate.taint is None or all(value is values[0] for value in values):
        return joined
    bits = union(joined.shape, (predicate.taint.reshape((1,) * len(joined.shape)),))
    assert bits is not None
    bits = np.where(joined.where_known, np.uint64(0), bits)
    return joined.with_taint(bits)


@rule_for("while")
def while_(step: Step) -> list[Value]:
    """Turn by turn while the predicate is known, and then whatever holds of every turn."""
    params, machine = step.params, step.machine
    counts = params["cond_nconsts"], params["body_nconsts"]
    of_cond, of_body, carry = split(step.ins, *counts)
    for _ in range(MOST_STEPS):
        (going,) = machine.closed(params["cond_jaxpr"], [*of_cond, *carry])
        if going.value is None or not going.all_known:
            break
        if not bool(going.value):
            return list(carry)
        carry = _crossed(step, machine.closed(params["body_jaxpr"], [*of_body, *carry]))
    start = carry
    while True:
        body = _crossed(step, machine.closed(params["body_jaxpr"], [*of_body, *carry]))
        (going,) = machine.closed(params["cond_jaxpr"], [*of_cond, *carry])
        after = [_decided([a, b], going) for a, b in zip(carry, body, strict=True)]
        after = _kept(params["body_jaxpr"], len(of_body), after, start)
        if all(same(a, b) for a, b in zip(carry, after, strict=True)):
            return after
        carry = after


def _kept(program: Any, consts: int, carry: list[Value], start: list[Value]) -> list[Value]:
    """What the body passes on as it came does not depend on the number of turns."""
    jaxpr = program.jaxpr
    results = zip(jaxpr.invars[consts:], jaxpr.outvars, carry, start, strict=True)
    return [first if a is b else value for a, b, value, first in results]


def _crossed(step: Step, carry: list[Value]) -> list[Value]:
    """Padding in the carry has crossed from one step of the loop to the next."""
    if step.machine.causes is None:
        return carry
    crossed = []
    for value in carry:
        if value.taint is not None:
            taint = step.mixed(value.taint, np.broadcast_to(True, value.shape))
            moved = Value(value.shape, value.value, value.known, taint)
            moved.node, value = value.node, moved
        crossed.append(value)
    return crossed


@rule_for("scan")
def scan(step: Step) -> list[Value]:
    """Step by step; steps of which the same is known are interpreted once."""
    params = step.params
    second, length = params["num_carry"], params["length"]
    consts, carry, xs = split(step.ins, params["num_consts"], second)
    if length > MOST_STEPS:
        return _every_step(step, consts, carry, xs)
    seen: dict[Any, list[Value]] = {}
    outputs: list[list[Value]] = []
    for index in reversed(range(length)) if params["reverse"] else range(length):
        inputs = [*carry, *(_at(x, index) for x in xs)]
        key = tuple(fingerprint(value) for value in inputs)
        if key not in seen:
            seen[key] = step.machine.closed(params["jaxpr"], [*consts, *inputs])
        results = seen[key]
        carry = _crossed(step, results[:second])
        outputs.append(results[second:])
    if params["reverse"]:
        outputs.reverse()
    shapes = [out.aval for out in step.equation.outvars[second:]]
    stacked = [_stacked([each[k] for each in outputs], aval) for k, aval in enumerate(shapes)]
    return [*carry, *stacked]


def _at(x: Value, index: int) -> Value:
    return x.moved(lambda a: np.asarray(a[index]), x.shape[1:])


def _stacked(values: list[Value], aval: Any) -> Value:
    if not values:
        return Value(aval.shape)
    shape = (1, *aval.shape[1:])
    if all(value is values[0] for value in values):
        return values[0].moved(lambda a: np.broadcast_to(a, aval.shape), aval.shape)
    parts = [value.moved(lambda a: np.asarray(a)[None], shape) for value in values]
    return side_by_side(parts, 0, aval.dtype)


def _every_step(
    step: Step, consts: list[Value], carry: list[Value], xs: list[Value]
) -> list[Value]:
    """Whatever holds of every step of a loop that is too long to follow."""
    body, second = step.params["jaxpr"], step.params["num_carry"]
    anywhere = [_any_of(step, x) for x in xs]
    while True:
        results = step.machine.closed(body, [*consts, *carry, *anywhere])
        crossed = _crossed(step, results[:second])
        after = [join([a, b]) for a, b in zip(carry, crossed, strict=True)]
        if all(same(a, b) for a, b in zip(carry, after, strict=True)):
            break
        carry = after
    avals = [out.aval for out in step.equation.outvars[second:]]
    outputs = [
        _stacked([y] * aval.shape[0], aval) for y, aval in zip(results[second:], avals, strict=True)
    ]
    return [*after, *outputs]


def _any_of(step: Step, x: Value) -> Value:
    """What holds of every step of an array."""
    taint = step.over(x.taint, (0,))
    if x.value is None or x.known is None:
        return Value(x.shape[1:], taint=taint)
    equal = np.asarray(same_bits(x.value, x.value[:1]).all(0) & x.known.all(0))
    return Value(x.shape[1:], x.value[0], equal, taint)
