"""What a program is run on: real steps first, and a row that can run in every place."""

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
from jaxmask.ragged._tracing import Program

PACKED = 46_000  # the longest row of which two positions fit in one int32


def prepared(
    call: Arguments, given: Sequence[Array], program: Program, least: int, multiple: int
) -> tuple[list[Array], dict[str, Array], Array]:
    """Arrays, lengths in units of the program's symbols, and which rows are there.

    In the arrays the real steps of each row come first, and copies of the first one follow. A row
    that is too short to run gets the values of another one. Zeros would not do: the gradient of a
    norm or a logarithm there is nan, and would reach the parameters. Copies carry no gradient, and
    the results of a row that is not there are dropped.

    Example:
      >>> from jaxmask.ragged._arguments import read
      >>> from jaxmask.ragged._tracing import trace
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
    known = isinstance(valid, np.ndarray)
    too_short = any(program.physical(n) > mask.shape[1] for n, mask in call.masks.items())
    if too_short or call.batch == 0 or (known and not np.any(valid)):
        return _nobody(call, given, program)
    if known and np.all(valid) and all(map(np.all, call.masks.values())):
        arrays = [_cut(a, n, program) for a, n in zip(given, call.names, strict=True)]
        return arrays, _units(lengths, multiple), valid
    rows = _rows(valid)
    lengths = {name: _picked(length, rows) for name, length in lengths.items()}
    if not known:
        # A batch without any row runs at the full length: at its own, a softmax is nan.
        some = jnp.any(valid)
        lengths = {n: jnp.where(some, k, program.physical(n)) for n, k in lengths.items()}
    plans = {
        name: _plan(mask, lengths[name], valid, rows, program.physical(name))
        for name, mask in call.masks.items()
    }
    arrays = []
    for array, name in zip(given, call.names, strict=True):
        laid = _of_rows(array, valid, rows) if name is None else _laid_out(array, plans[name])
        arrays.append(laid if known else _or_harmless(laid, some))
    return arrays, _units(lengths, multiple), jnp.asarray(valid)


def _lengths(mask: Any) -> Any:
    if isinstance(mask, np.ndarray):
        return mask.sum(1, dtype=np.int32)
    return masks.lengths(mask)


def _units(lengths: dict[str, Any], multiple: int) -> dict[str, Any]:
    return {n: length // multiple if multiple > 1 else length for n, length in lengths.items()}


def _rows(valid: Any) -> Any:
    """For each row the one whose values it gets: itself, or the first row that is there."""
    if isinstance(valid, np.ndarray):
        return np.where(valid, np.arange(len(valid)), np.argmax(valid)).astype(np.int32)
    first = jax.lax.argmax(valid, 0, jnp.int32)
    return jnp.where(valid, jax.lax.broadcasted_iota(jnp.int32, valid.shape, 0), first)


class _Plan(NamedTuple):
    """From where each place of a batch is read.

    Attributes:
      places: `[batch, physical, 2]`, row and step.
      order: `[batch, time]`, the steps of each row, its real ones first.
      back: the inverse of `order`, where the mask is known.
      own: `[batch, physical]`, True where a place holds a real step of its own row.
    """

    places: Any
    order: Any
    back: Any
    own: Any


def _plan(mask: Any, lengths: Any, valid: Any, rows: Any, physical: int) -> _Plan:
    known = isinstance(valid, np.ndarray)
    xp: Any = np if known else jnp
    order = np.argsort(~mask, 1, kind="stable").astype(np.int32) if known else _order(mask)
    back = np.argsort(order, 1).astype(np.int32) if known else None
    inside = np.arange(physical, dtype=np.int32)[None] < lengths[:, None]
    steps = _picked(order, rows)
    steps = xp.where(inside, steps[:, :physical], steps[:, :1])
    places = xp.stack([xp.broadcast_to(rows[:, None], steps.shape), steps], -1)
    return _Plan(places, order, back, inside & valid[:, None])


def _order(mask: Any) -> Array:
    # Whatever the mask: sorting numbers costs less than a branch does.
    time, mask = mask.shape[1], jnp.asarray(mask)
    position = jax.lax.broadcasted_iota(jnp.int32, mask.shape, 1)
    keys = jax.lax.sort(jnp.where(mask, position, position + time), dimension=1, is_stable=False)
    return jnp.where(keys < time, keys, keys - time)


def _inverse(order: Array) -> Array:
    time, position = order.shape[1], jax.lax.broadcasted_iota(jnp.int32, order.shape, 1)
    if time > PACKED:
        return jax.lax.sort((order, position), dimension=1, num_keys=1)[1]
    packed = jax.lax.sort(order * time + position, dimension=1, is_stable=False)
    return jax.lax.rem(packed, jnp.int32(time))


def _laid_out(array: Array, plan: _Plan) -> Array:
    """All in one gather; what flows back reaches each real step from its one place."""
    if not array.size or not jnp.issubdtype(array.dtype, jnp.inexact):
        return _gathered(array, plan.places)
    return _moved(array, plan)


@jax.custom_jvp
def _moved(array: Array, plan: _Plan) -> Array:
    return _gathered(array, plan.places)


@_moved.defjvp
def _moved_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    array, plan = primals
    tangent = _permuted(tangents[0], plan)[:, : plan.own.shape[1]]
    own = _mask_ops.expand(plan.own, array.ndim)
    return _moved(array, plan), jnp.where(own, tangent, jnp.zeros((), array.dtype))


def _permuted(array: Array, plan: _Plan) -> Array:
    """Move the steps of each row; the gradient moves them back, and adds up nothing."""

    def forth(x: Array) -> Array:
        return _of_steps(x, plan.order)

    def back(x: Array) -> Array:
        return _of_steps(x, _inverse(plan.order) if plan.back is None else plan.back)

    # The one public way to give a linear function its transpose for all transformations.
    # "Symmetric", else JAX would derive the transpose that is given here.
    return jax.lax.custom_linear_solve(
        back, array, lambda _, x: forth(x), lambda _, x: back(x), symmetric=True
    )


def _of_steps(array: Array, steps: Array) -> Array:
    rows = jax.lax.broadcasted_iota(jnp.int32, steps.shape, 0)
    return _gathered(array, jnp.stack([rows, steps], -1))


def _picked(array: Any, rows: Any) -> Any:
    if isinstance(rows, np.ndarray):
        return array[rows]
    return _gathered(jnp.asarray(array), rows[:, None])


def _gathered(array: Array, places: Any) -> Array:
    """`array[places[..., 0], places[..., 1], ...]`, all of which are there."""
    batch, depth = len(places.shape) - 1, places.shape[-1]
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=tuple(range(batch, batch + array.ndim - depth)),
        collapsed_slice_dims=tuple(range(depth)),
        start_index_map=tuple(range(depth)),
    )
    sizes = (1,) * depth + array.shape[depth:]
    return jax.lax.gather(array, jnp.asarray(places), numbers, sizes, mode="promise_in_bounds")


def _of_rows(array: Array, valid: Any, rows: Any) -> Array:
    """An array without time."""
    other = stop_gradient(_gathered(array, jnp.asarray(rows)[:, None]))
    return jnp.where(_mask_ops.expand(jnp.asarray(valid), array.ndim), array, other)


def _or_harmless(array: Array, some: Array) -> Array:
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return array
    return jnp.where(some, array, _harmless(array.shape[1:], array.dtype))


def _harmless(shape: Sequence[int], dtype: Any) -> Array:
    """Distinct positive numbers, on which little is singular, for a batch without any row."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.zeros(shape, dtype)
    time, rest = (shape or (1,))[0], int(np.prod(shape[1:]))
    steps, features = np.arange(time) * 0.618034, np.arange(rest) * 0.414214
    return jnp.asarray(np.outer(0.5 + steps % 1, 0.5 + features % 1), dtype).reshape(shape)


def _cut(array: Array, name: str | None, program: Program) -> Array:
    """Cut the time axis to the length of the longest row that the function takes."""
    return array if name is None else array[:, : program.physical(name)]


def _nobody(
    call: Arguments, given: Sequence[Array], program: Program
) -> tuple[list[Array], dict[str, Array], Array]:
    """A batch without rows, or whose every row is too short, since it is so itself."""
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
