"""The inputs of `mask_flow`: which are masks, and do they fit?"""

import inspect
from typing import Any

import jax
import numpy as np

from jaxmask import _check, _nnx
from jaxmask._types import Segments
from jaxmask.report._calls import described

WHERE = "mask_flow"


def split_inputs(model: Any, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
    """The inputs that the model takes, and the mask that it does not take."""
    if not (_nnx.is_module(model) and callable(model)):
        raise TypeError(
            f"{WHERE}: `model` must be an `nnx.Module` with a `__call__`, got "
            f"{_check.kind_of(model)}. Put a function into a module that calls it."
        )
    masks = [value for value in inputs if is_mask(value)]
    for mask in masks:
        if not np.asarray(ids_of(mask)).any():
            raise _check.MaskError(
                f"{WHERE}: the mask of shape {mask.shape} marks no step as real, so there is "
                "nothing to show. True marks a real step."
            )
    signature = inspect.signature(type(model).__call__)
    for taken, outside in ((inputs, None), (inputs[:-1], inputs[-1] if inputs else None)):
        is_last = bool(taken) and is_mask(taken[-1])
        if not _nnx.takes(model, len(taken), with_mask=is_last):
            continue
        if outside is not None:
            _check_outside(outside, taken, type(model).__name__)
        return taken, outside
    raise TypeError(
        f"{WHERE}: `{type(model).__name__}` is called as "
        f"({', '.join(list(signature.parameters)[1:])}), and does not take {len(inputs)} inputs: "
        f"({', '.join(map(described, inputs))})."
    )


def _check_outside(mask: Any, inputs: tuple[Any, ...], name: str) -> None:
    shapes = [a.shape for a in jax.tree.leaves(inputs) if hasattr(a, "shape")]
    if not is_mask(mask):
        raise TypeError(
            f"{WHERE}: `{name}` takes {len(inputs)} inputs, and the one after them must be a "
            f"boolean mask or `Segments`, got {described(mask)}."
        )
    if not any(shape[: mask.ndim] == mask.shape for shape in shapes):
        raise _check.MaskError(
            f"{WHERE}: the mask has shape {mask.shape}, which are the leading axes of no input; "
            f"got inputs of shapes {shapes}."
        )


def is_mask(value: Any) -> bool:
    """Whether a value is a boolean array with axes, or `Segments`."""
    if isinstance(value, Segments):
        return True
    return getattr(value, "dtype", None) == np.bool_ and value.ndim > 0


def ids_of(mask: Any) -> Any:
    """The array of a mask."""
    return mask.ids if isinstance(mask, Segments) else mask
