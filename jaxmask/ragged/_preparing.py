"""Prepare the arrays of a program: real steps first, and every row one that can run."""

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _mask_ops, masks
from jaxmask._types import Array
from jaxmask.ragged._arguments import Arguments
from jaxmask.ragged._interpreter.context import stop_gradient
from jaxmask.ragged._tracing import RowProgram

MAX_PACKED = 46_000  # the longest row of which two positions fit in one int32


def prepare(
    call: Arguments, given: Sequence[Array], program: RowProgram, min_length: int, multiple: int
) -> tuple[list[Array], dict[str, Array], Array]:
    """Arrays, lengths in units of the program's symbols, and which rows are valid.

    In the arrays, the real steps of each row come first, followed by copies of the first one. A row
    that is too short to run gets the values of another row, without gradient, and its results are
    dropped. Zeros would not do: at 0 the gradient of a norm or a logarithm is nan, which would
    reach the parameters.
    """
    lengths = {name: _lengths(mask) for name, mask in call.masks.items()}
    conditions = [length >= min_length for length in lengths.values()]
    if multiple > 1:
        conditions += [length % multiple == 0 for length in lengths.values()]
    valid = functools.reduce(operator.and_, conditions)
    known = isinstance(valid, np.ndarray)
    too_short = any(program.physical(n) > mask.shape[1] for n, mask in call.masks.items())
    if too_short or call.batch == 0 or (known and not np.any(valid)):
        return _no_valid_row(call, given, program)
    if known and np.all(valid) and all(map(np.all, call.masks.values())):
        arrays = [_cut(a, n, program) for a, n in zip(given, call.names, strict=True)]
        return arrays, _units(lengths, multiple), valid
    rows = _donors(valid)
    lengths = {name: _of_rows(length, rows) for name, length in lengths.items()}
    if not known:
        # A batch without a valid row runs at the full length: over 0 steps, a softmax is nan.
        some = jnp.any(valid)
        lengths = {n: jnp.where(some, k, program.physical(n)) for n, k in lengths.items()}
    sources = {
        name: _sources(mask, lengths[name], valid, rows, program.physical(name))
        for name, mask in call.masks.items()
    }
    arrays = []
    for array, name in zip(given, call.names, strict=True):
        moved = _timeless(array, valid, rows) if name is None else _compact(array, sources[name])
        arrays.append(moved if known else _or_safe(moved, some))
    return arrays, _units(lengths, multiple), jnp.asarray(valid)


def _lengths(mask: Any) -> Any:
    if isinstance(mask, np.ndarray):
        return mask.sum(1, dtype=np.int32)
    return masks.lengths(mask)


def _units(lengths: dict[str, Any], multiple: int) -> dict[str, Any]:
    return {n: length // multiple if multiple > 1 else length for n, length in lengths.items()}


def _donors(valid: Any) -> Any:
    """The row whose values each row gets: itself if valid, else the first valid row."""
    if isinstance(valid, np.ndarray):
        return np.where(valid, np.arange(len(valid)), np.argmax(valid)).astype(np.int32)
    first = jax.lax.argmax(valid, 0, jnp.int32)
    return jnp.where(valid, jax.lax.broadcasted_iota(jnp.int32, valid.shape, 0), first)


class _Sources(NamedTuple):
    """Where each position of a compacted batch is read from.

    Attributes:
      indices: `[batch, physical, 2]`, row and step.
      order: `[batch, time]`, the steps of each row, real ones first.
      inverse: of `order`, if the mask is known.
      own: `[batch, physical]`, True at real steps of the row itself.
    """

    indices: Any
    order: Any
    inverse: Any
    own: Any


def _sources(mask: Any, lengths: Any, valid: Any, rows: Any, physical: int) -> _Sources:
    known = isinstance(valid, np.ndarray)
    xp: Any = np if known else jnp
    order = np.argsort(~mask, 1, kind="stable").astype(np.int32) if known else _order(mask)
    inverse = np.argsort(order, 1).astype(np.int32) if known else None
    inside = np.arange(physical, dtype=np.int32)[None] < lengths[:, None]
    steps = _of_rows(order, rows)
    steps = xp.where(inside, steps[:, :physical], steps[:, :1])
    indices = xp.stack([xp.broadcast_to(rows[:, None], steps.shape), steps], -1)
    return _Sources(indices, order, inverse, inside & valid[:, None])


def _order(mask: Any) -> Array:
    # Right-padded masks are sorted too: sorting integers costs less than a branch.
    time, mask = mask.shape[1], jnp.asarray(mask)
    position = jax.lax.broadcasted_iota(jnp.int32, mask.shape, 1)
    keys = jax.lax.sort(jnp.where(mask, position, position + time), dimension=1, is_stable=False)
    return jnp.where(keys < time, keys, keys - time)


def _inverse(order: Array) -> Array:
    time, position = order.shape[1], jax.lax.broadcasted_iota(jnp.int32, order.shape, 1)
    if time > MAX_PACKED:
        return jax.lax.sort((order, position), dimension=1, num_keys=1)[1]
    packed = jax.lax.sort(order * time + position, dimension=1, is_stable=False)
    return jax.lax.rem(packed, jnp.int32(time))


def _compact(array: Array, sources: _Sources) -> Array:
    """One gather; the gradient goes to each real step from its own position only."""
    if not array.size or not jnp.issubdtype(array.dtype, jnp.inexact):
        return _gather(array, sources.indices)
    return _moved(array, sources)


@jax.custom_jvp
def _moved(array: Array, sources: _Sources) -> Array:
    return _gather(array, sources.indices)


@_moved.defjvp
def _moved_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    array, sources = primals
    tangent = _permute(tangents[0], sources)[:, : sources.own.shape[1]]
    own = _mask_ops.expand(sources.own, array.ndim)
    return _moved(array, sources), jnp.where(own, tangent, jnp.zeros((), array.dtype))


def _permute(array: Array, sources: _Sources) -> Array:
    """Permute the steps of each row; the gradient is the inverse permutation, not a scatter."""

    def forth(x: Array) -> Array:
        return _of_steps(x, sources.order)

    def back(x: Array) -> Array:
        known = sources.inverse is not None
        return _of_steps(x, sources.inverse if known else _inverse(sources.order))

    # The only public way to give a linear function its own transpose under all transformations.
    # "Symmetric", since otherwise JAX would derive the transpose instead of using the one given.
    return jax.lax.custom_linear_solve(
        back, array, lambda _, x: forth(x), lambda _, x: back(x), symmetric=True
    )


def _of_steps(array: Array, steps: Array) -> Array:
    rows = jax.lax.broadcasted_iota(jnp.int32, steps.shape, 0)
    return _gather(array, jnp.stack([rows, steps], -1))


def _of_rows(array: Any, rows: Any) -> Any:
    if isinstance(rows, np.ndarray):
        return array[rows]
    return _gather(jnp.asarray(array), rows[:, None])


def _gather(array: Array, indices: Any) -> Array:
    """`array[indices[..., 0], indices[..., 1], ...]`, all of them in bounds."""
    batch, depth = len(indices.shape) - 1, indices.shape[-1]
    dimensions = jax.lax.GatherDimensionNumbers(
        offset_dims=tuple(range(batch, batch + array.ndim - depth)),
        collapsed_slice_dims=tuple(range(depth)),
        start_index_map=tuple(range(depth)),
    )
    sizes = (1,) * depth + array.shape[depth:]
    return jax.lax.gather(array, jnp.asarray(indices), dimensions, sizes, mode="promise_in_bounds")


def _timeless(array: Array, valid: Any, rows: Any) -> Array:
    """An array without a time axis, with its invalid rows replaced."""
    other = stop_gradient(_gather(array, jnp.asarray(rows)[:, None]))
    return jnp.where(_mask_ops.expand(jnp.asarray(valid), array.ndim), array, other)


def _or_safe(array: Array, some: Array) -> Array:
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return array
    return jnp.where(some, array, _safe_values(array.shape[1:], array.dtype))


def _safe_values(shape: Sequence[int], dtype: Any) -> Array:
    """Distinct positive values, where few functions are singular, for a batch with no valid row."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.zeros(shape, dtype)
    time, rest = (shape or (1,))[0], int(np.prod(shape[1:]))
    steps, features = np.arange(time) * 0.618034, np.arange(rest) * 0.414214
    return jnp.asarray(np.outer(0.5 + steps % 1, 0.5 + features % 1), dtype).reshape(shape)


def _cut(array: Array, name: str | None, program: RowProgram) -> Array:
    """Cut the time axis to the longest row that the function takes."""
    return array if name is None else array[:, : program.physical(name)]


def _no_valid_row(
    call: Arguments, given: Sequence[Array], program: RowProgram
) -> tuple[list[Array], dict[str, Array], Array]:
    """A batch that is known to have no valid row."""
    arrays = []
    for array, name in zip(given, call.names, strict=True):
        rest = array.shape[1:] if name is None else (program.physical(name), *array.shape[2:])
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            row = jnp.broadcast_to(jax.random.key(0, impl=jax.random.key_impl(array)), rest)
        else:
            row = _safe_values(rest, array.dtype)
        arrays.append(jnp.broadcast_to(row, (call.batch, *rest)))
    full = {name: program.physical(name) // program.multiple for name in call.masks}
    units = {name: jnp.full(call.batch, unit, jnp.int32) for name, unit in full.items()}
    return arrays, units, jnp.zeros(call.batch, bool)
