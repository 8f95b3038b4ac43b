"""Reading and writing at computed indices: `gather` and the `scatter` family."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import GatherScatterMode

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims, known
from jaxmask.ragged._interpreter.context import along, gather_along, ragged_axes
from jaxmask.ragged._interpreter.interpret import Step, rule_for
from jaxmask.ragged._interpreter.known import Known
from jaxmask.ragged._rules.slicing import window


@rule_for("gather")
def gather(step: Step, value: Array, indices: Array) -> Any:
    """Read windows; an index is out of bounds if it is outside the row."""
    regular = _regular(step, value)
    if regular is not None:
        return regular
    if not _reads_whole_axes(step):
        return _one_window(step, value, indices)
    params, context, indices = step.params, step.context, _wide(indices)
    spec, shape = params["dimension_numbers"], step.inputs[0]
    last = _last_starts(step, spec.start_index_map, shape, params["slice_sizes"])
    last = jnp.broadcast_to(last.astype(indices.dtype), indices.shape)
    mode = GatherScatterMode.from_any(params["mode"])
    clipped = jnp.clip(indices, 0, jnp.maximum(last, 0))
    result = jax.lax.gather(
        value,
        clipped,
        spec,
        context.shape(params["slice_sizes"]),
        mode=GatherScatterMode.PROMISE_IN_BOUNDS,
    )
    if mode == GatherScatterMode.FILL_OR_DROP:
        inside = jnp.all((indices >= 0) & (indices <= last), axis=-1)
        rank = len(step.outputs[0])
        batch = [k for k in range(rank) if k not in spec.offset_dims]
        inside = jax.lax.broadcast_in_dim(inside, result.shape, batch)
        result = jnp.where(inside, result, _fill_value(params["fill_value"], result.dtype))
    return result


def _wide(indices: Array) -> Array:
    """Indices in a dtype that holds every index; int8 is too small for a row of 200 steps."""
    return indices.astype(jnp.int32) if indices.dtype.itemsize < 4 else indices


def _fill_value(given: Any, dtype: Any) -> Array:
    """The fill value, by default the one that JAX chooses."""
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


def _last_starts(step: Step, axes: Any, shape: Any, sizes: Any) -> Array:
    """The last index at which a window may start, along each indexed axis."""
    count = step.context.count
    last = [jnp.asarray(count(shape[a]) - count(sizes[a]), jnp.int32) for a in axes]
    return jnp.stack(last) if last else jnp.zeros(0, jnp.int32)


def _reads_whole_axes(step: Step) -> bool:
    """Whether each ragged axis of the windows is a whole axis of the operand, read from 0."""
    sizes, shape = step.params["slice_sizes"], step.inputs[0]
    return all(str(sizes[axis]) == str(shape[axis]) for axis in ragged_axes(sizes))


def _one_window(step: Step, value: Array, indices: Array) -> Array:
    """A single window whose size is a length: slice axis by axis."""
    params, context = step.params, step.context
    spec, sizes = params["dimension_numbers"], params["slice_sizes"]
    if len(step.inputs[1]) != 1 or spec.operand_batching_dims:
        raise step.refuse("It reads many windows whose size is a length.")
    if GatherScatterMode.from_any(params["mode"]) == GatherScatterMode.FILL_OR_DROP:
        raise step.refuse("It reads a window whose size is a length, in the mode 'fill'.")
    last = jnp.maximum(_last_starts(step, spec.start_index_map, step.inputs[0], sizes), 0)
    for component, axis in enumerate(spec.start_index_map):
        start = jnp.clip(indices[component].astype(jnp.int32), 0, last[component])
        value, _ = window(context, value, axis, step.inputs[0][axis], start, sizes[axis])
    return jnp.squeeze(value, spec.collapsed_slice_dims)


def _regular(step: Step, value: Array) -> Array | None:
    """A slice, if the indices are known to be regular and inside the row; else None."""
    spec, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    fact, shape = step.known[1], step.inputs[0]
    if fact is None or len(spec.start_index_map) != 1 or spec.operand_batching_dims:
        return None
    axis = spec.start_index_map[0]
    others = [k for k in range(len(shape)) if k != axis]
    if any(str(sizes[k]) != str(shape[k]) for k in others):
        return None
    moving = [k for k, stride in enumerate(fact.strides) if stride != 0]
    batch = step.inputs[1][:-1]
    if not batch:
        return _constant_window(step, value, axis, fact)
    if len(batch) != 1 or moving not in ([0], []) or sizes[axis] != 1:
        return None
    if axis not in spec.collapsed_slice_dims or len(spec.collapsed_slice_dims) != 1:
        return None
    stride = fact.strides[0]
    if stride == 0 or not _inside(step, axis, fact.offset, batch[0], stride):
        return None
    piece, unfilled = window(step.context, value, axis, shape[axis], fact.offset, batch[0], stride)
    (out_axis,) = [k for k in range(len(step.outputs[0])) if k not in spec.offset_dims]
    return step.unfilled(jnp.moveaxis(piece, axis, out_axis), [out_axis] * unfilled)


def _constant_window(step: Step, value: Array, axis: int, fact: Known) -> Array | None:
    spec, size = step.params["dimension_numbers"], step.params["slice_sizes"][axis]
    if not _inside(step, axis, fact.offset, size, 1):
        return None
    piece, unfilled = window(step.context, value, axis, step.inputs[0][axis], fact.offset, size)
    out_axis = axis - sum(k < axis for k in spec.collapsed_slice_dims)
    piece = jnp.squeeze(piece, spec.collapsed_slice_dims)
    return step.unfilled(piece, [out_axis] * unfilled)


def _inside(step: Step, axis: int, start: Any, size: Any, stride: int) -> bool:
    """Whether the whole window lies inside the row, for every length."""
    last, total = start + (size - 1) * stride, step.inputs[0][axis]
    if step.params["mode"] == GatherScatterMode.PROMISE_IN_BOUNDS:
        return True
    ends = (lambda: start >= 0, lambda: last >= 0, lambda: start < total, lambda: last < total)
    return all(known.decide(end) is True for end in ends)


# ---------------------------------------------------------------------------- scatter


@rule_for(*(f"scatter{kind}" for kind in ("", "_add", "_mul", "_min", "_max", "-add", "-mul")))
@rule_for("scatter-min", "scatter-max", "scatter_sub", "scatter-sub")
def scatter(step: Step, value: Array, indices: Array, updates: Array) -> Any:
    """Write windows; those of padding and those outside the row are dropped."""
    spec, context = step.params["dimension_numbers"], step.context
    indices = _wide(indices)
    axes, shape = spec.scatter_dims_to_operand_dims, step.inputs[0]
    sizes = _window_sizes(step)
    if any(
        dims.is_symbolic(sizes[a]) and str(sizes[a]) != str(shape[a]) for a in range(len(shape))
    ):
        return _write_window(step, value, indices, updates, sizes)
    last = _last_starts(step, axes, shape, sizes).astype(indices.dtype)
    last = jnp.broadcast_to(last, indices.shape)
    mode = GatherScatterMode.from_any(step.params["mode"])
    drop = None
    if mode == GatherScatterMode.CLIP:
        indices = jnp.clip(indices, 0, jnp.maximum(last, 0))
    else:
        drop = jnp.any((indices < 0) | (indices > last), axis=-1)
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
    return step.unfilled(result)


def _window_sizes(step: Step) -> list[Any]:
    """The size of a window along each axis of the operand."""
    spec, updates = step.params["dimension_numbers"], step.inputs[2]
    inserted = {*spec.inserted_window_dims, *spec.operand_batching_dims}
    windows = iter(updates[k] for k in spec.update_window_dims)
    return [1 if k in inserted else next(windows) for k in range(len(step.inputs[0]))]


def _write_window(
    step: Step, value: Array, indices: Array, updates: Array, sizes: list[Any]
) -> Array:
    """A single window whose size is a length: shift it to where it is written, and select."""
    spec, context, shape = step.params["dimension_numbers"], step.context, step.inputs[0]
    kind = step.primitive.name.removeprefix("scatter")[1:]
    if len(step.inputs[1]) != 1 or spec.operand_batching_dims or kind not in _COMBINE:
        raise step.refuse("It writes many windows whose size is a length.")
    axes = spec.scatter_dims_to_operand_dims
    updates = jnp.expand_dims(updates, spec.inserted_window_dims)
    last = _last_starts(step, axes, shape, sizes).astype(indices.dtype)
    inside: Any = True
    if GatherScatterMode.from_any(step.params["mode"]) == GatherScatterMode.CLIP:
        indices = jnp.clip(indices, 0, jnp.maximum(last, 0))
    else:
        inside = jnp.all((indices >= 0) & (indices <= last))
    for axis in range(len(shape)):
        where = [k for k, a in enumerate(axes) if a == axis]
        fact = step.known[1] if len(axes) == 1 else None
        start: Any = 0 if not where else indices[where[0]].astype(jnp.int32)
        if where and fact is not None and not any(fact.strides) and isinstance(fact.offset, int):
            start = fact.offset
        updates = _shifted(updates, axis, start, value.shape[axis])
        index = context.positions(value.shape[axis]) - start
        written = (index >= 0) & (index < context.count(sizes[axis]))
        inside = inside & along(written, axis, value.shape)
    return step.unfilled(_COMBINE[kind](value, updates, inside))


def _shifted(updates: Array, axis: int, start: Any, size: int) -> Array:
    """Shift an axis to where it is written; what is shifted in is not read."""
    if isinstance(start, int):
        config = [
            (start, size - start - updates.shape[axis], 0) if k == axis else (0, 0, 0)
            for k in range(updates.ndim)
        ]
        return jax.lax.pad(updates, jnp.zeros((), updates.dtype), config)
    return gather_along(updates, jnp.arange(size, dtype=jnp.int32) - start, axis)


_COMBINE: dict[str, Any] = {
    "": lambda old, new, inside: jnp.where(inside, new, old),
    "add": lambda old, new, inside: old + jnp.where(inside, new, jnp.zeros((), new.dtype)),
    "mul": lambda old, new, inside: old * jnp.where(inside, new, jnp.ones((), new.dtype)),
    "min": lambda old, new, inside: jnp.where(inside, jnp.minimum(old, new), old),
    "max": lambda old, new, inside: jnp.where(inside, jnp.maximum(old, new), old),
}
