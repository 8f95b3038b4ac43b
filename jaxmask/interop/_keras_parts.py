"""What the converters of Keras's layers share: their context, and what they return."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxmask import _check
from jaxmask._registry import registering
from jaxmask.interop._plan import Layer

POLICIES = ("float32", "bfloat16", "float64")


class Refused(Exception):
    """Why a layer is not supported."""


class Part(NamedTuple):
    """What becomes of a layer: `make` gives masked layers, to be called one after another."""

    becomes: str
    make: Callable[..., tuple[Any, ...]]
    parts: tuple[Layer, ...] = ()


class Call(NamedTuple):
    """How a functional model calls a layer; the tensors are symbolic."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class KerasContext:
    """The context of a layer in its model, and what its converter reports.

    Attributes:
      path: its place in the model.
      mask: the kind of mask that reaches the layer when only the model's own layers create masks:
        `"steps"`, `"rows"` or None.
      call: how it is called; None for a layer on its own or in a `Sequential`.
      plan: plans a layer inside it; returns the plan and the kind of mask on its result.
      masks_differ: whether its inputs may have different masks.
      mask_out: the kind of mask on the result, as in `mask`; `""`: that of the input.
      notes, differs: as in `Layer`.
    """

    path: str
    mask: str | None
    call: Call | None
    plan: Callable[..., tuple[Layer, str | None]]
    masks_differ: bool = False
    mask_out: str | None = ""
    notes: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)

    def differs_under_mask(self, text: str) -> None:
        """Report where Keras's result is wrong under a mask: a warning if a mask reaches it."""
        if self.mask == "steps":
            self.differs.append(text)
        else:
            self.notes.append(f"under a mask: {text}")

    def to_rows(self) -> None:
        """The layer reduces the steps of a row to one value."""
        self.mask_out = self.mask and "rows"


Converter = Callable[[Any, KerasContext], Part]
CONVERTERS: dict[str, Converter] = {}
converts = registering(CONVERTERS)


def is_of_keras(value: Any, below: str = "layers") -> bool:
    """Whether the class of a value is Keras's own, so that a subclass is not mistaken for it."""
    return type(value).__module__.startswith(f"keras.src.{below}")


def require(condition: Any, text: str) -> None:
    """Refuse a layer unless a condition holds."""
    if not condition:
        raise Refused(text)


def built(layer: Any) -> None:
    """Refuse a layer without weights."""
    require(
        layer.built,
        "its weights are not built. Build it, `layer.build(input_shape)`, or call the model once.",
    )


def options(layer: Any) -> dict[str, Any]:
    """The dtypes of a module with parameters, and a stream for their initial values."""
    dtype = layer.compute_dtype
    given = {"param_dtype": jnp.dtype(layer.variable_dtype), "rngs": streams()}
    return given if dtype == "float32" else {"dtype": jnp.dtype(dtype), **given}


def streams() -> nnx.Rngs:
    """A stream for what a module draws; the user may reseed it."""
    return nnx.Rngs(0)


def array(variable: Any) -> np.ndarray:
    """The values of a weight, whatever Keras's backend."""
    if hasattr(variable, "numpy"):
        variable = sys.modules["keras"].ops.convert_to_numpy(variable.value)
    return np.asarray(variable)


def put(parameter: Any, value: Any) -> None:
    """Set a parameter to a copy of an array of its shape and dtype."""
    value = array(value)
    assert parameter.shape == value.shape, (parameter.shape, value.shape)
    parameter.set_value(jnp.array(value, parameter.dtype))


def check_policy(layer: Any) -> None:
    """Refuse precisions that would be converted approximately."""
    name = layer.dtype_policy.name
    require(
        name in POLICIES,
        f"its dtype policy is `{name}`, and only {', '.join(POLICIES)} are converted. Build the "
        "model again under `keras.config.set_dtype_policy('float32')`, copy the weights, "
        "`new.set_weights(old.get_weights())`, and cast inputs yourself where speed needs it.",
    )
    require(
        jnp.zeros(0, name).dtype == name,
        "its weights are float64, which JAX would round. Turn it on first: "
        '`jax.config.update("jax_enable_x64", True)`.',
    )


def channels_last(layer: Any) -> None:
    """Refuse time as the last axis."""
    require(
        getattr(layer, "data_format", "channels_last") in (None, "channels_last"),
        "its `data_format` is `channels_first`; time must be the axis after the batch.",
    )


def input_shape(layer: Any, at: KerasContext) -> tuple[int | None, ...] | None:
    """The shape of its input, as far as the model says it."""
    if at.call is not None and at.call.args and hasattr(at.call.args[0], "shape"):
        return tuple(at.call.args[0].shape)
    config = layer.get_build_config() if hasattr(layer, "get_build_config") else None
    shape = (config or {}).get("input_shape")
    return tuple(shape) if shape and not isinstance(shape[0], list | tuple) else None


def last_axis(layer: Any, at: KerasContext, axis: Any) -> None:
    """Refuse any axis but the last, the features."""
    axes = list(axis) if isinstance(axis, list | tuple) else [axis]
    shape = input_shape(layer, at)
    rank = None if shape is None else len(shape)
    require(
        len(axes) == 1 and axes[0] in (-1, None if rank is None else rank - 1),
        f"its `axis` is {axis}; only the last axis, the features of a step, is supported.",
    )


def named(value: Any) -> str:
    """A layer or a function, for a text."""
    return _check.name_of(value)
