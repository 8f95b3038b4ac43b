"""Rows sorted by length and run group by group, each at the shortest length that holds it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmask._sums import accumulator
from jaxmask._types import Array
from jaxmask.skip._arguments import Arrays
from jaxmask.skip._tracing import Program, Programs


class Order(NamedTuple):
    """Where rows go: sorted by length, after `filled` copies that are no rows of the batch."""

    order: Array  # [filled + batch]
    inverse: Array  # [batch]
    filled: int
    branch: Array  # [groups]


def forward(programs: Programs, arrays: Arrays) -> list[Array]:
    """All results, `[batch, ...]`."""
    order = _sorted(programs, arrays)

    def step(_: None, group: Any) -> tuple[None, list[Array]]:
        branch, steps, rows = group
        own = arrays._replace(steps=steps, rows=rows)
        return None, _switch(programs, branch, _results_at, own)

    _, results = jax.lax.scan(step, None, (order.branch, *_grouped(programs, order, arrays)))
    pairs = zip(results, programs.results, strict=True)
    return [_ungrouped(order, y, result.per_row) for y, result in pairs]


def backward(programs: Programs, arrays: Arrays, given: list[Array]) -> list[Array]:
    """Gradients of the floating arrays, from the cotangents of the floating results."""
    order = _sorted(programs, arrays)

    def step(total: list[Array], group: Any) -> tuple[list[Array], Any]:
        branch, steps, rows, given = group
        own = arrays._replace(steps=steps, rows=rows)
        gradients = _switch(programs, branch, _gradients_at, own, given)
        moving = len(gradients) - len(total)
        return list(map(jnp.add, total, gradients[moving:])), gradients[:moving]

    shared = _shared_floats(arrays)
    start = [zeros(arrays.steps[0], a.shape, accumulator(a.dtype)) for a in shared]
    per_row = [result.per_row for result in programs.results if result.is_floating]
    cotangents = [_cotangents(programs, order, *pair) for pair in zip(given, per_row, strict=True)]
    groups = (order.branch, *_grouped(programs, order, arrays), cotangents)
    total, moving = jax.lax.scan(step, start, groups)
    gradients = [*(_ungrouped(order, g) for g in moving), *total]
    return [g.astype(a.dtype) for g, a in zip(gradients, floats(arrays), strict=True)]


def floating_results(
    programs: Programs, program: Callable[[Arrays], list[Array]], arrays: Arrays
) -> list[Array]:
    """Those results of a program that have a gradient."""
    pairs = zip(program(arrays), programs.results, strict=True)
    return [y for y, result in pairs if result.is_floating]


# ------------------------------------------------------------------------- one group


def _results_at(programs: Programs, program: Program, length: int, group: Arrays) -> list[Array]:
    """The results of a group, padded to the full length."""
    pairs = zip(program(_cut(group, length)), programs.results, strict=True)
    return [varying(_padded(y, result.shape), group.steps[0]) for y, result in pairs]


def _gradients_at(
    programs: Programs, program: Program, length: int, group: Arrays, given: list[Array]
) -> list[Array]:
    """The gradients of a group; only its inputs are kept, so the program runs again."""
    like, cut = group.steps[0], _cut(group, length)

    def of_floats(values: list[Array]) -> list[Array]:
        return floating_results(programs, program.for_gradients, merged(cut, values))

    results, pull = jax.vjp(of_floats, floats(cut))
    own = [g[tuple(map(slice, y.shape))] for g, y in zip(given, results, strict=True)]
    pairs = zip(pull(own)[0], floats(group), strict=True)
    moving = len(floats(group)) - len(_shared_floats(group))
    gradients = [varying(_padded(g, a.shape), like) for g, a in pairs]
    return [
        g if position < moving else g.astype(accumulator(g.dtype))
        for position, g in enumerate(gradients)
    ]


def _switch(programs: Programs, branch: Array, at_length: Any, *operands: Any) -> list[Array]:
    """`at_length` for the length of a group, or zeros where the group has no real step."""
    branches: list[Any] = [
        functools.partial(at_length, programs, program, length)
        for program, length in zip(programs.at, programs.plan.lengths, strict=True)
    ]
    if programs.zero_if_empty:
        shapes = jax.eval_shape(branches[0], *operands)
        like = operands[0].steps[0]
        branches.insert(0, lambda *_: [zeros(like, a.shape, a.dtype) for a in shapes])
    return jax.lax.switch(branch, branches, *operands)


def _cut(group: Arrays, length: int) -> Arrays:
    return group._replace(steps=[a[:, :length] for a in group.steps])


def _padded(y: Array, shape: Sequence[int]) -> Array:
    return jnp.pad(y, [(0, full - size) for size, full in zip(y.shape, shape, strict=True)])


# ------------------------------------------------------------------------- rows to groups


def _sorted(programs: Programs, arrays: Arrays) -> Order:
    plan = programs.plan
    real = arrays.real(programs.mask_at)
    lengths = jnp.max(jnp.where(real, jnp.arange(1, real.shape[1] + 1), 0), axis=1)
    order = jnp.argsort(lengths)
    filled = plan.groups * plan.rows - real.shape[0]
    longest = jnp.pad(lengths[order], (filled, 0)).reshape(plan.groups, plan.rows)[:, -1]
    branch = jnp.searchsorted(jnp.asarray(plan.lengths), longest)
    if programs.zero_if_empty:  # its branch stands in front of those of the lengths
        branch = jnp.where(longest == 0, 0, branch + 1)
    places = jnp.concatenate([jnp.broadcast_to(order[:1], (filled,)), order])
    return Order(places, jnp.argsort(order), filled, branch)


def _grouped(programs: Programs, order: Order, arrays: Arrays) -> tuple[list[Array], list[Array]]:
    """The arrays by step and by row as `[groups, rows, ...]`."""
    moving = arrays.steps, arrays.rows
    return jax.tree.map(lambda a: _by_group(programs, a[order.order]), moving)


def _cotangents(programs: Programs, order: Order, given: Array, per_row: int) -> Array:
    """`[groups, rows * per_row, ...]`, 0 for copies, whose results nobody sees."""
    of_rows = given.reshape(-1, per_row, *given.shape[1:])[order.order].at[: order.filled].set(0)
    return _by_group(programs, of_rows).reshape(programs.plan.groups, -1, *given.shape[1:])


def _by_group(programs: Programs, a: Array) -> Array:
    return a.reshape(programs.plan.groups, programs.plan.rows, *a.shape[1:])


def _ungrouped(order: Order, a: Array, per_row: int = 1) -> Array:
    """`[groups, rows * per_row, ...]` as `[batch * per_row, ...]`."""
    of_rows = a.reshape(-1, per_row, *a.shape[2:])[order.filled :][order.inverse]
    return of_rows.reshape(-1, *a.shape[2:])


# ------------------------------------------------------------------------- floating arrays


def floats(arrays: Arrays) -> list[Array]:
    """The arrays that have gradients."""
    return _only_floats(jax.tree.leaves(arrays))


def _shared_floats(arrays: Arrays) -> list[Array]:
    return _only_floats([*arrays.weights, *arrays.captured])


def _only_floats(leaves: Sequence[Array]) -> list[Array]:
    return [a for a in leaves if is_floating(a)]


def is_floating(a: Array) -> bool:
    """Whether an array has a gradient."""
    return bool(jnp.issubdtype(a.dtype, jnp.inexact))


def merged(arrays: Arrays, values: Sequence[Any], *, others: bool = True) -> Arrays:
    """`arrays` with other floating ones; those without a gradient stay, or become None."""
    inside = iter(values)
    return jax.tree.map(lambda a: next(inside) if is_floating(a) else a if others else None, arrays)


def varying(a: Array, like: Array) -> Array:
    """`a`, which varies over the axes of a `shard_map` that `like` varies over."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return a
    return jnp.where(jnp.zeros_like(like, shape=(), dtype=bool), jnp.zeros_like(a), a)


def zeros(like: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return jnp.zeros_like(like, shape=shape, dtype=dtype)
