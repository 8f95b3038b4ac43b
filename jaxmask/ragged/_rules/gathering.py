"""Reading and writing at computed places: `gather` and the `scatter` family."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import GatherScatterMode

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims, known
from jaxmask.ragged._interpreter.context import along, ragged_axes, take
from jaxmask.ragged._interpreter.interpret import Step, rule_for
from jaxmask.ragged._interpreter.known import Known
from jaxmask.ragged._rules.slicing import window


@rule_for("gather")
def gather(step: Step, value: Array, indices: Array) -> Any:
    """Read windows; what is outside the row is outside, whatever the physical size."""
    regular = _regular(step, value)
    if regular is not None:
        return regular
    whole = _whole_axes(step)
    if whole is None:
        return _one_window(step, value, indices)
    params, context, indices = step.params, step.context, _wide(indices)
    numbers, shape = params["dimension_numbers"], step.inputs[0]
    rooms = _rooms(step, numbers.start_index_map, shape, params["slice_sizes"])
    rooms = jnp.broadcast_to(rooms.astype(indices.dtype), indices.shape)
    mode = GatherScatterMode.from_any(params["mode"])
    clipped = jnp.clip(indices, 0, jnp.maximum(rooms, 0))
    result = jax.lax.gather(
        value,
        clipped,
        numbers,
        context.shape(params["slice_sizes"]),
        mode=GatherScatterMode.PROMISE_IN_BOUNDS,
    )
    if mode == GatherScatterMode.FILL_OR_DROP:
        inside = jnp.all((indices >= 0) & (indices <= rooms), axis=-1)
        rank = len(step.outputs[0])
        batch = [k for k in range(rank) if k not in numbers.offset_dims]
        inside = jax.lax.broadcast_in_dim(inside, result.shape, batch)
        result = jnp.where(inside, result, _fill_value(params["fill_value"], result.dtype))
    return result


def _wide(indices: Array) -> Array:
    """In a type that holds every place: that of a row of 200 steps is no int8."""
    return indices.astype(jnp.int32) if indices.dtype.itemsize < 4 else indices


def _fill_value(given: Any, dtype: Any) -> Array:
    """JAX's own choice where none is given."""
    if given is None:
        if jnp.issubdtype(dtype, jnp.inexact):
            given = np.nan
        elif dtype == jnp.bool_:
            given = True
        elif jnp.issubdtype(dtype, jnp.unsignedinteger):
            given = jnp.iinfo(dtype).max
        else:
            given = jnp.iinfo(dtype).min
    return jnp.asarray(given, dtype)


def _rooms(step: Step, axes: Any, shape: Any, sizes: Any) -> Array:
    """The last place at which a window may start, along each axis that is indexed."""
    rooms = [step.context.count(shape[a]) - step.context.count(sizes[a]) for a in axes]
    return jnp.stack([jnp.asarray(room, jnp.int32) for room in rooms] or [jnp.int32(0)])[
        : len(rooms)
    ]


def _whole_axes(step: Step) -> list[int] | None:
    """The ragged axes of the windows, if each is a whole axis of the operand; else None."""
    numbers, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    ragged = ragged_axes(sizes)
    for axis in ragged:
        if str(sizes[axis]) != str(step.inputs[0][axis]):
            return None
    # A whole axis can only start at 0: its window has no room to move.
    del numbers
    return ragged


def _one_window(step: Step, value: Array, indices: Array) -> Array:
    """One window whose size is a length: slice axis by axis."""
    params, context = step.params, step.context
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    if len(step.inputs[1]) != 1 or numbers.operand_batching_dims:
        raise step.refuse("It reads many windows whose size is a length.")
    if GatherScatterMode.from_any(params["mode"]) == GatherScatterMode.FILL_OR_DROP:
        raise step.refuse("It reads a window whose size is a length, in the mode 'fill'.")
    rooms = _rooms(step, numbers.start_index_map, step.inputs[0], sizes)
    for component, axis in enumerate(numbers.start_index_map):
        start = jnp.clip(indices[component].astype(jnp.int32), 0, jnp.maximum(rooms[component], 0))
        value, _ = window(context, value, axis, step.inputs[0][axis], start, sizes[axis])
    return jnp.squeeze(value, numbers.collapsed_slice_dims)


def _regular(step: Step, value: Array) -> Array | None:
    """A slice, where the indices are known to be constants or regular and inside the row."""
    numbers, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    fact, shape = step.known[1], step.inputs[0]
    if fact is None or len(numbers.start_index_map) != 1 or numbers.operand_batching_dims:
        return None
    axis = numbers.start_index_map[0]
    others = [k for k in range(len(shape)) if k != axis]
    if any(str(sizes[k]) != str(shape[k]) for k in others):
        return None
    moving = [k for k, stride in enumerate(fact.strides) if stride != 0]
    batch = step.inputs[1][:-1]
    if not batch:
        return _constant_window(step, value, axis, fact)
    if len(batch) != 1 or moving not in ([0], []) or sizes[axis] != 1:
        return None
    if axis not in numbers.collapsed_slice_dims or len(numbers.collapsed_slice_dims) != 1:
        return None
    stride = fact.strides[0]
    if stride == 0 or not _inside(step, axis, fact.offset, batch[0], stride):
        return None
    piece, loose = window(step.context, value, axis, shape[axis], fact.offset, batch[0], stride)
    (place,) = [k for k in range(len(step.outputs[0])) if k not in numbers.offset_dims]
    return step.loose(jnp.moveaxis(piece, axis, place), [place] * loose)


def _constant_window(step: Step, value: Array, axis: int, fact: Known) -> Array | None:
    numbers, size = step.params["dimension_numbers"], step.params["slice_sizes"][axis]
    if not _inside(step, axis, fact.offset, size, 1):
        return None
    piece, loose = window(step.context, value, axis, step.inputs[0][axis], fact.offset, size)
    place = axis - sum(k < axis for k in numbers.collapsed_slice_dims)
    piece = jnp.squeeze(piece, numbers.collapsed_slice_dims)
    return step.loose(piece, [place] * loose)


def _inside(step: Step, axis: int, start: Any, size: Any, stride: int) -> bool:
    """Whether all of a window lies in the row, for every length."""
    last, total = start + (size - 1) * stride, step.inputs[0][axis]
    if step.params["mode"] == GatherScatterMode.PROMISE_IN_BOUNDS:
        return True
    ends = (lambda: start >= 0, lambda: last >= 0, lambda: start < total, lambda: last < total)
    return all(known.decide(end) is True for end in ends)


# ---------------------------------------------------------------------------- scatter


@rule_for(*(f"scatter{kind}" for kind in ("", "_add", "_mul", "_min", "_max", "-add", "-mul")))
@rule_for("scatter-min", "scatter-max", "scatter_sub", "scatter-sub")
def scatter(step: Step, value: Array, indices: Array, updates: Array) -> Any:
    """Write windows; those of padding, and those outside the row, are dropped."""
    numbers, context = step.params["dimension_numbers"], step.context
    indices = _wide(indices)
    axes, shape = numbers.scatter_dims_to_operand_dims, step.inputs[0]
    sizes = _window_sizes(step)
    if any(
        dims.is_symbolic(sizes[a]) and str(sizes[a]) != str(shape[a]) for a in range(len(shape))
    ):
        return _write_window(step, value, indices, updates, sizes)
    rooms = _rooms(step, axes, shape, sizes).astype(indices.dtype)
    rooms = jnp.broadcast_to(rooms, indices.shape)
    mode = GatherScatterMode.from_any(step.params["mode"])
    drop = None
    if mode == GatherScatterMode.CLIP:
        indices = jnp.clip(indices, 0, jnp.maximum(rooms, 0))
    else:
        drop = jnp.any((indices < 0) | (indices > rooms), axis=-1)
    batch = step.inputs[1][:-1]
    real = context.mask((*batch,), range(len(batch)))
    if real is not None:
        padding = jnp.broadcast_to(~real, indices.shape[:-1])
        drop = padding if drop is None else drop | padding
    if drop is not None:
        beyond = np.asarray(max(value.shape, default=0) + 1, indices.dtype)
        indices = jnp.where(drop[..., None], beyond, indices)
    result = step.bind(
        value,
        indices,
        updates,
        mode=GatherScatterMode.FILL_OR_DROP,
        indices_are_sorted=False,
        unique_indices=step.params["unique_indices"] and real is None,
    )
    return step.loose(result)


def _window_sizes(step: Step) -> list[Any]:
    """The size of a window along each axis of the operand."""
    numbers, updates = step.params["dimension_numbers"], step.inputs[2]
    inserted = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    windows = iter(updates[k] for k in numbers.update_window_dims)
    return [1 if k in inserted else next(windows) for k in range(len(step.inputs[0]))]


def _write_window(
    step: Step, value: Array, indices: Array, updates: Array, sizes: list[Any]
) -> Array:
    """One window whose size is a length: move it to its place, and select."""
    numbers, context, shape = step.params["dimension_numbers"], step.context, step.inputs[0]
    kind = step.primitive.name.removeprefix("scatter")[1:]
    if len(step.inputs[1]) != 1 or numbers.operand_batching_dims or kind not in _COMBINE:
        raise step.refuse("It writes many windows whose size is a length.")
    axes = numbers.scatter_dims_to_operand_dims
    updates = jnp.expand_dims(updates, numbers.inserted_window_dims)
    rooms = _rooms(step, axes, shape, sizes).astype(indices.dtype)
    inside: Any = True
    if GatherScatterMode.from_any(step.params["mode"]) == GatherScatterMode.CLIP:
        indices = jnp.clip(indices, 0, jnp.maximum(rooms, 0))
    else:
        inside = jnp.all((indices >= 0) & (indices <= rooms))
    for axis in range(len(shape)):
        where = [k for k, a in enumerate(axes) if a == axis]
        fact = step.known[1] if len(axes) == 1 else None
        start: Any = 0 if not where else indices[where[0]].astype(jnp.int32)
        if where and fact is not None and not any(fact.strides) and isinstance(fact.offset, int):
            start = fact.offset
        updates = _shifted(updates, axis, start, value.shape[axis])
        place = context.positions(value.shape[axis]) - start
        here = (place >= 0) & (place < context.count(sizes[axis]))
        inside = inside & along(here, axis, value.shape)
    return step.loose(_COMBINE[kind](value, updates, inside))


def _shifted(updates: Array, axis: int, start: Any, size: int) -> Array:
    """Move an axis to where it is written; what comes in is not read."""
    if isinstance(start, int):
        config = [
            (start, size - start - updates.shape[axis], 0) if k == axis else (0, 0, 0)
            for k in range(updates.ndim)
        ]
        return jax.lax.pad(updates, jnp.zeros((), updates.dtype), config)
    place = jnp.arange(size, dtype=jnp.int32) - start
    return take(updates, place, axis)


_COMBINE: dict[str, Any] = {
    "": lambda old, new, inside: jnp.where(inside, new, old),
    "add": lambda old, new, inside: old + jnp.where(inside, new, jnp.zeros((), new.dtype)),
    "mul": lambda old, new, inside: old * jnp.where(inside, new, jnp.ones((), new.dtype)),
    "min": lambda old, new, inside: jnp.where(inside, jnp.minimum(old, new), old),
    "max": lambda old, new, inside: jnp.where(inside, jnp.maximum(old, new), old),
}
