"""Random numbers: what comes of a key is as clean as the key."""

import numpy as np

from jaxmask.leak._proof.domain import Value, union
from jaxmask.leak._proof.interpret import Step, rule_for


@rule_for("random_bits", "random_split", "random_unwrap", "random_clone")
def of_keys(step: Step) -> list[Value]:
    """Each key gives an array."""
    (keys,) = step.ins
    taint = keys.taint
    if taint is not None:
        taint = taint.reshape(keys.shape + (1,) * (len(step.shape) - len(keys.shape)))
    return [Value(step.shape, taint=None if taint is None else np.broadcast_to(taint, step.shape))]


@rule_for("random_seed", "random_fold_in")
def key_of_numbers(step: Step) -> list[Value]:
    """A key of each number."""
    return [Value(step.shape, taint=union(step.shape, (value.taint for value in step.ins)))]


@rule_for("random_wrap")
def wrap(step: Step) -> list[Value]:
    """A key of the words along the last axes."""
    (words,) = step.ins
    axes = tuple(range(len(step.shape), len(words.shape)))
    return [Value(step.shape, taint=step.over(words.taint, axes))]


@rule_for("random_gamma")
def gamma(step: Step) -> list[Value]:
    keys, shapes = step.ins
    return [Value(step.shape, taint=union(step.shape, (keys.taint, shapes.taint)))]


@rule_for("rng_bit_generator")
def generator(step: Step) -> list[Value]:
    """The new state and the bits depend on all of the state."""
    (state,) = step.ins
    axes = tuple(range(len(state.shape)))
    taint = step.over(state.taint, axes)
    return [
        Value(shape, taint=None if taint is None else np.broadcast_to(taint, shape))
        for shape in (out.aval.shape for out in step.equation.outvars)
    ]
