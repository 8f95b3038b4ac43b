"""Bare operations in functional models, such as the `+` of a residual connection."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import nn
from jaxmask.interop import _keras_joints as joints
from jaxmask.interop._keras_parts import Call, KerasContext, Part, Refused, require

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": jnp.add,
    "Subtract": jnp.subtract,
    "Multiply": jnp.multiply,
    "Divide": jnp.divide,
    "TrueDivide": jnp.true_divide,
    "Maximum": jnp.maximum,
    "Minimum": jnp.minimum,
    "Power": jnp.power,
    "Negative": jnp.negative,
    "Absolute": jnp.abs,
    "Exp": jnp.exp,
    "Log": jnp.log,
    "Log1p": jnp.log1p,
    "Sqrt": jnp.sqrt,
    "Square": jnp.square,
    "Tanh": jnp.tanh,
    "Sin": jnp.sin,
    "Cos": jnp.cos,
    "Relu": jax.nn.relu,
    "Sigmoid": jax.nn.sigmoid,
    "Silu": jax.nn.silu,
    "Softplus": jax.nn.softplus,
}
_OF_TWO = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
_INSTEAD = {
    "GetItem": "`jm.nn.LastStep()` or `jm.nn.FirstStep()` for one step of each row",
    "Mean": "`jm.nn.GlobalMeanPool()` for a mean over time",
    "Max": "`jm.nn.GlobalMaxPool()` for the largest over time",
    "Sum": "`jm.nn.GlobalSumPool()` for a sum over time",
    "Flip": "`jm.nn.Flip()` for time reversed",
}
DROPPED = "Keras silently drops the mask at bare operations; here it is kept"


def is_symbolic(value: Any) -> bool:
    return hasattr(value, "_keras_history")


def inputs_of(call: Call) -> list[Any]:
    """The tensors of a call, in order."""
    flat: list[Any] = []
    for value in (*call.args, *call.kwargs.values()):
        flat += value if isinstance(value, list | tuple) else [value]
    return [value for value in flat if is_symbolic(value)]


def plan_operation(operation: Any, at: KerasContext) -> Part:
    """What an operation that is not a layer becomes."""
    assert at.call is not None
    name, given = type(operation).__name__, inputs_of(at.call)
    at.differs_under_mask(DROPPED)
    if name == "Concatenate":
        axis = operation.axis
        ranks = {len(x.shape) for x in given}
        require(all(axis in (-1, 1, r - 1) for r in ranks), f"its `axis` is {axis}.")
        return Part("jm.merge.concatenate", lambda: (joints.Merge(name, axis),))
    if len(given) == 2 and name in _OF_TWO:
        return Part(f"jm.merge.{name.lower()}", lambda: (joints.Merge(name),))
    constants = tuple(None if is_symbolic(value) else value for value in at.call.args)
    are_numbers = all(value is None or np.ndim(value) == 0 for value in constants)
    if len(given) == 1 and name in _FUNCTIONS and are_numbers and not at.call.kwargs:
        function = functools.partial(_with_constants, _FUNCTIONS[name], constants)
        return Part(f"jm.nn.Passthrough({name.lower()})", lambda: (nn.Passthrough(function),))
    hint = f", such as {_INSTEAD[name]}" if name in _INSTEAD else ""
    raise Refused(
        "it is an operation, not a layer, so how it treats masks is unknown. Replace it with a "
        f"masked layer{hint}."
    )


def _with_constants(function: Callable[..., Any], constants: tuple[Any, ...], x: Any) -> Any:
    """The function of `x` where a constant is None, and of the constants."""
    return function(*(x if value is None else value for value in constants))
