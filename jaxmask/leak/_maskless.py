"""A module that takes no mask: it is called without, and its results get theirs from the input."""

from collections.abc import Callable
from typing import Any

import jax

from jaxmask._types import PyTree, Segments
from jaxmask.leak._outputs import is_pair

Call = Callable[..., tuple[PyTree, PyTree]]


def with_masks(call: Call, where: str) -> Call:
    """`call(params, x)` as `(params, x, mask) -> (pairs, statistics)`.

    A result with the time axis of `x` has the mask of the input, and one of rows that of rows with
    real steps. What is no array of the batch has none, and a pair of the module's own stays.
    """

    def paired(params: PyTree, x: PyTree, mask: Any) -> tuple[PyTree, PyTree]:
        if not hasattr(mask, "shape"):
            raise TypeError(
                f"{where}: the module takes no mask, so it is not known which of several masks its "
                "results have. Put it into a function `fn(x, masks)` that returns pairs."
            )
        output, statistics = call(params, x)
        arrays, tree = _flat(output)
        longer = _at_twice_the_length(call, params, x, mask, tree) or [None] * len(arrays)
        pairs = [_pair(a, b, mask, where) for a, b in zip(arrays, longer, strict=True)]
        return jax.tree.unflatten(tree, pairs), statistics

    return paired


def _flat(output: PyTree) -> tuple[list[Any], Any]:
    return jax.tree.flatten(output, is_leaf=is_pair)


def _at_twice_the_length(
    call: Call, params: PyTree, x: PyTree, mask: Any, tree: Any
) -> list[Any] | None:
    """The results for rows twice as long, by shape; None if they cannot be told."""
    if mask.ndim == 1:
        return None

    def longer(leaf: Any) -> Any:
        batch, time, *rest = leaf.shape
        return jax.ShapeDtypeStruct((batch, 2 * time, *rest), leaf.dtype)

    weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    try:
        found = jax.eval_shape(lambda *args: call(*args)[0], weights, jax.tree.map(longer, x))
    except Exception:  # a table of positions ends
        return None
    arrays, same = _flat(found)
    return arrays if same == tree else None


def _pair(array: Any, longer: Any, mask: Any, where: str) -> Any:
    shape = getattr(array, "shape", None)
    if shape is None or is_pair(array):
        return array
    is_in_time = shape[: mask.ndim] == mask.shape
    if longer is not None:
        grows = shape != longer.shape
        is_in_time = is_in_time and shape[1] != longer.shape[1]
        if grows and not is_in_time:
            raise ValueError(
                f"{where}: the module takes no mask, and its result of shape {list(shape)} has a "
                f"time axis other than that of the mask, {list(mask.shape)}. Put it into a "
                "function `fn(x, mask)` that returns the result with its mask."
            )
    if is_in_time:
        return array, mask
    marks = mask.ids > 0 if isinstance(mask, Segments) else mask
    rows = marks if mask.ndim == 1 else marks.any(axis=1)
    return (array, rows) if shape[:1] == rows.shape else array
