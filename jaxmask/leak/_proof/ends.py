"""Which operations move padding along its axis, and which of them take one end of all rows."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmask.leak._proof.domain import Value

_RESIZING = frozenset({"slice", "dynamic_slice", "split", "pad", "concatenate"})


def moves_padding(equation: Any, raw: np.ndarray) -> bool:
    """Whether an operation moves elements along an axis of which only a part is padding."""
    return any(_varies(raw, axis) for axis in _moved_axes(equation) if axis < raw.ndim)


class Taken(NamedTuple):
    """One step of all rows.

    Attributes:
      step: its index.
      end: "last" or "first" where some rows end or begin elsewhere; else "".
      neighbour: the index of the step beside that end.
    """

    step: int
    end: str = ""
    neighbour: int = -1


def step_taken(equation: Any, ins: Sequence[Value], raw: np.ndarray, batch: int) -> Taken | None:
    """The step of all rows that an operation takes, and no other."""
    for axis, index in _single(equation, ins):
        of_rows = axis == 0 and raw.shape[0] == batch
        if of_rows or not _varies(raw, axis):
            continue
        steps = np.moveaxis(raw, axis, 0)
        if index == len(steps) - 1 and (steps[:-1] <= steps[1:]).all():
            return Taken(index, "last", index - 1)
        if index == 0 and (steps[:-1] >= steps[1:]).all():
            return Taken(index, "first", 1)
        return Taken(index)
    return None


def _varies(raw: np.ndarray, axis: int) -> bool:
    return bool((raw != raw.take([0], axis)).any()) if raw.size else False


def _moved_axes(equation: Any) -> Sequence[int]:
    name, params = equation.primitive.name, equation.params
    if name == "rev":
        return params["dimensions"]
    if name == "gather":
        return params["dimension_numbers"].start_index_map
    if name not in _RESIZING:
        return ()
    sizes = zip(equation.invars[0].aval.shape, equation.outvars[0].aval.shape, strict=True)
    return [axis for axis, (old, new) in enumerate(sizes) if old != new]


def _single(equation: Any, ins: Sequence[Value]) -> Iterator[tuple[int, int]]:
    """The axes along which one index is taken, the same for all elements, with that index."""
    name, params = equation.primitive.name, equation.params
    if name == "slice":
        starts, limits = params["start_indices"], params["limit_indices"]
        for axis, (start, limit) in enumerate(zip(starts, limits, strict=True)):
            if limit - start == 1:
                yield axis, start
    elif name == "dynamic_slice":
        for axis, (size, start) in enumerate(zip(params["slice_sizes"], ins[1:], strict=True)):
            if size == 1 and start.value is not None:
                yield axis, int(np.clip(start.value, 0, ins[0].shape[axis] - 1))
    elif name == "gather" and ins[1].all_known and ins[1].size:
        for k, axis in enumerate(params["dimension_numbers"].start_index_map):
            index = np.asarray(ins[1].value)[..., k]
            if params["slice_sizes"][axis] == 1 and (index == index.flat[0]).all():
                yield axis, int(index.flat[0])
