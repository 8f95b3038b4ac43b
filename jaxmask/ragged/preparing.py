"""What a program is run on: real steps first, and a row that can run in every place."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import masks
from jaxmask._types import Array
from jaxmask.ragged.arguments import Arguments
from jaxmask.ragged.context import stop_gradient
from jaxmask.ragged.tracing import Program

PACKED = 46_000  # the longest row of which two positions fit in one int32


def prepared(
    call: Arguments, given: Sequence[Array], program: Program, least: int, multiple: int
) -> tuple[list[Array], dict[str, Array], Array]:
    """Arrays, lengths in units of the program's symbols, and which rows are there.

    A row that is too short to run gets the values of another one. Zeros would not do: the gradient
    of a norm or a logarithm there is nan, and would reach the parameters. The copies carry no
    gradient, and the results of the row are dropped.

    Example:
      >>> from jaxmask.ragged.arguments import read
      >>> from jaxmask.ragged.tracing import trace
      >>> call = read((jnp.ones((2, 3)), np.array([[True, True, False], [False] * 3])), 0)
      >>> program = trace(lambda row: row, call, 1, 1)
      >>> _, lengths, valid = prepared(call, call.arrays, program, 1, 1)
      >>> lengths["time"].tolist(), valid.tolist()
      ([2, 2], [True, False])
    """
    lengths = {name: _lengths(mask) for name, mask in call.masks.items()}
    there = [length >= least for length in lengths.values()]
    if multiple > 1:
        there += [length % multiple == 0 for length in lengths.values()]
    valid = functools.reduce(operator.and_, there)
    units = {n: length // multiple if multiple > 1 else length for n, length in lengths.items()}
    if any(program.physical(n) > mask.shape[1] for n, mask in call.masks.items()):
        return _nobody(call, given, program)
    arrays = list(given)
    concrete = not any(isinstance(mask, jax.core.Tracer) for mask in call.masks.values())
    if not call.batch or (concrete and np.all(valid) and all(map(_is_plain, call.masks.values()))):
        return [_cut(a, n, program) for a, n in zip(arrays, call.names, strict=True)], units, valid
    if concrete:
        # Op by op, under `jax_debug_nans`, garbage must not even be moved.
        arrays = [
            a if n is None else _without_garbage(a, call.masks[n])
            for a, n in zip(arrays, call.names, strict=True)
        ]
    source = jax.lax.argmax(jnp.asarray(valid), 0, jnp.int32)
    some = _row(jnp.asarray(valid), source)
    orders = {name: _orders(mask, valid, source) for name, mask in call.masks.items()}
    rows = []
    for array, name in zip(arrays, call.names, strict=True):
        array = _substituted(array, valid, some, source)
        array = array if name is None else _permuted(array, *orders[name])
        rows.append(_cut(array, name, program))
    for name, unit in units.items():
        other = jnp.where(some, _row(unit, source), program.physical(name) // program.multiple)
        units[name] = jnp.where(valid, unit, other)
    return rows, units, jnp.asarray(valid)


def _lengths(mask: Any) -> Any:
    if isinstance(mask, np.ndarray):
        return mask.sum(1, dtype=np.int32)
    return masks.lengths(mask)


def _is_plain(mask: np.ndarray) -> bool:
    """Whether each row has its real steps first."""
    return bool(np.all(mask[:, :-1] | ~mask[:, 1:]))


def _row(array: Any, number: Array) -> Array:
    """One row, which is there."""
    starts, sizes = [number] + [0] * (array.ndim - 1), (1, *array.shape[1:])
    return jax.lax.dynamic_slice(jnp.asarray(array), starts, sizes, allow_negative_indices=False)[0]


def _orders(mask: Any, valid: Any, source: Array) -> tuple[Array, Any]:
    """For each place of the row its position in the array, and the way back.

    It is done whatever the mask: sorting numbers costs less than a branch, which copies the array.
    """
    time = mask.shape[1]
    position = jax.lax.broadcasted_iota(jnp.int32, mask.shape, 1)
    keys = jnp.where(mask, position, position + time)
    keys = jax.lax.sort(keys, dimension=1, is_stable=False)
    order = jnp.where(keys < time, keys, keys - time)
    order = jnp.where(valid[:, None], order, _row(order, source))

    def back() -> Array:
        if time > PACKED:
            return jax.lax.sort((order, position), dimension=1, num_keys=1)[1]
        packed = jax.lax.sort(order * time + position, dimension=1, is_stable=False)
        return jax.lax.rem(packed, jnp.int32(time))

    return order, back


def _permuted(array: Array, order: Array, back: Any) -> Array:
    """Move the steps of each row; the gradient moves them back, and adds up nothing."""
    if not array.size:
        return array
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return _taken(array, order)
    # The one public way to give a linear function its transpose for all transformations.
    return jax.lax.custom_linear_solve(
        lambda x: _taken(x, back()),
        array,
        lambda _, x: _taken(x, order),
        lambda _, x: _taken(x, back()),
        symmetric=True,  # else JAX would derive the transpose that is given here
    )


def _taken(array: Array, order: Array) -> Array:
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=tuple(range(2, array.ndim)),
        collapsed_slice_dims=(1,),
        start_index_map=(1,),
        operand_batching_dims=(0,),
        start_indices_batching_dims=(0,),
    )
    sizes = (1, 1, *array.shape[2:])
    return jax.lax.gather(array, order[..., None], numbers, sizes, mode="promise_in_bounds")


def _substituted(array: Array, valid: Array, some: Array, source: Array) -> Array:
    """A copy of another row where a row cannot run."""
    row = stop_gradient(_row(array, source))
    if jnp.issubdtype(array.dtype, jnp.inexact):
        row = jnp.where(some, row, _harmless(row.shape, row.dtype))
    return jnp.where(masks.expand(jnp.asarray(valid), array.ndim), array, row)


def _harmless(shape: Sequence[int], dtype: Any) -> Array:
    """Distinct positive numbers, on which little is singular, for a batch without any row."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.zeros(shape, dtype)
    time, rest = (shape or (1,))[0], int(np.prod(shape[1:]))
    steps, features = np.arange(time) * 0.618034, np.arange(rest) * 0.414214
    return jnp.asarray(np.outer(0.5 + steps % 1, 0.5 + features % 1), dtype).reshape(shape)


def _without_garbage(array: Array, mask: np.ndarray) -> Array:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    return jnp.where(masks.expand(jnp.asarray(mask), array.ndim), array, jnp.zeros((), array.dtype))


def _cut(array: Array, name: str | None, program: Program) -> Array:
    """Cut the time axis to the length of the longest row that the function takes."""
    return array if name is None else array[:, : program.physical(name)]


def _nobody(
    call: Arguments, given: Sequence[Array], program: Program
) -> tuple[list[Array], dict[str, Array], Array]:
    """A batch whose every row is too short, since it is so itself."""
    arrays = []
    for array, name in zip(given, call.names, strict=True):
        rest = array.shape[1:] if name is None else (program.physical(name), *array.shape[2:])
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            row = jnp.broadcast_to(jax.random.key(0, impl=jax.random.key_impl(array)), rest)
        else:
            row = _harmless(rest, array.dtype)
        arrays.append(jnp.broadcast_to(row, (call.batch, *rest)))
    full = {name: program.physical(name) // program.multiple for name in call.masks}
    units = {name: jnp.full(call.batch, unit, jnp.int32) for name, unit in full.items()}
    return arrays, units, jnp.zeros(call.batch, bool)
