"""Rows packed into fewer rows, and these run chunk by chunk, as many as there are.

One program runs in a loop whose length is data. What the backward pass needs of the first chunks is
kept; those beyond run their forward again, so that memory does not grow with the batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmask._sums import accumulator
from jaxmask._types import Array
from jaxmask.skip._arguments import Arrays
from jaxmask.skip._groups import floats, is_floating, merged, zeros
from jaxmask.skip._places import Places, place, taken
from jaxmask.skip._results import Result
from jaxmask.skip._tracing import Programs

KEPT = 3 / 8  # of the batch as it is, whose residuals may be kept


class _Saved(NamedTuple):
    """The residuals of one chunk that are not its inputs, and how a pullback is made of them."""

    arrays: list[Array]
    pull: Callable[[list[Array]], Callable]


def _kept_chunks(programs: Programs) -> int:
    """How many chunks keep their residuals."""
    return max(int(programs.plan.groups * KEPT), 1)


def forward(programs: Programs, arrays: Arrays) -> list[Array]:
    """All results, `[batch, ...]`."""
    places = _places(programs, arrays)

    def run(chunk: Array, buffers: list[Array]) -> list[Array]:
        results = programs.at[0](_chunk(programs, places, arrays, chunk))
        return _put(buffers, chunk, results)

    buffers = _loop(places, run, _buffers(programs, arrays))
    return _unpacked(programs, places, buffers)


def forward_keeping(programs: Programs, arrays: Arrays) -> tuple[list[Array], list[Array]]:
    """All results, and the residuals of the chunks that keep them, `[chunks, ...]`."""
    places, kept = _places(programs, arrays), _kept_chunks(programs)

    def residuals(own: Arrays) -> list[Array]:
        return _linearized(programs, own)[1].arrays

    def run(chunk: Array, state: tuple) -> tuple[list[Array], list[Array]]:
        buffers, saved = state
        own = _chunk(programs, places, arrays, chunk)
        results, residual = _linearized(programs, own)
        # The last place is for all that are not kept.
        saved = _put(saved, jnp.minimum(chunk, kept), residual.arrays)
        return _put(buffers, chunk, results), saved

    first = _chunk(programs, places, arrays, jnp.zeros((), jnp.int32))
    saved = [
        zeros(arrays.steps[0], (kept + 1, *a.shape), a.dtype)
        for a in jax.eval_shape(residuals, first)
    ]
    buffers, saved = _loop(places, run, (_buffers(programs, arrays), saved))
    return _unpacked(programs, places, buffers), saved


def backward(
    programs: Programs, arrays: Arrays, saved: list[Array], given: list[Array]
) -> list[Array]:
    """Gradients of the floating arrays, from the cotangents of the floating results."""
    places, kept = _places(programs, arrays), _kept_chunks(programs)
    floating = [result for result in programs.results if result.is_floating]
    moving = [a for a in arrays.steps if is_floating(a)]

    def run(chunk: Array, state: tuple) -> tuple[list[Array], list[Array]]:
        total, packed = state
        own = _chunk(programs, places, arrays, chunk)
        pull: list[Callable] = []

        def again() -> list[Array]:
            residual = _linearized(programs, own)[1]
            pull.append(residual.pull)
            return residual.arrays

        def read() -> list[Array]:
            return [a[chunk] for a in saved]

        residuals = jax.lax.cond(chunk < kept, read, again)
        cotangents = [
            _chunk_of(places, g, result, chunk) for g, result in zip(given, floating, strict=True)
        ]
        gradients = pull[-1](residuals)(cotangents)[0]
        shared = [g.astype(accumulator(g.dtype)) for g in gradients[len(moving) :]]
        return list(map(jnp.add, total, shared)), _put(packed, chunk, gradients[: len(moving)])

    plan = programs.plan
    shared = floats(arrays)[len(moving) :]
    total = [zeros(arrays.steps[0], a.shape, accumulator(a.dtype)) for a in shared]
    sizes = (plan.groups, plan.rows, plan.lengths[-1])
    packed = [zeros(arrays.steps[0], (*sizes, *a.shape[2:]), a.dtype) for a in moving]
    total, packed = _loop(places, run, (total, packed))
    steps = [taken(g.reshape(-1, *g.shape[3:]), places.at) for g in packed]
    return [*steps, *(g.astype(a.dtype) for g, a in zip(total, shared, strict=True))]


# --------------------------------------------------------------------------------- one chunk


def _is_kept(primitive: Any, *_: Any, **__: Any) -> bool:
    """Of what a forward pass computes: what costs more to run again than to keep."""
    return primitive.name in ("dot_general", "conv_general_dilated")


def _linearized(programs: Programs, own: Arrays) -> tuple[list[Array], _Saved]:
    """The results of a chunk, and its residuals without what are inputs."""

    def of_floats(values: list[Array]) -> tuple[list[Array], list[Array]]:
        results = programs.at[0].for_gradients(merged(own, values))
        pairs = zip(results, programs.results, strict=True)
        return [y for y, result in pairs if result.is_floating], results

    inputs = floats(own)
    linear = jax.checkpoint(of_floats, policy=_is_kept, prevent_cse=False)  # loops keep them apart
    _, pull, results = jax.vjp(linear, inputs, has_aux=True)
    leaves, tree = jax.tree.flatten(pull)
    known = {id(a): position for position, a in enumerate(inputs)}
    places = [known.get(id(leaf)) for leaf in leaves]

    kept = [leaf for leaf, p in zip(leaves, places, strict=True) if p is None]
    # Buffers hold numbers, which random keys are not. (No tracer may stay in `pull_from`.)
    is_key = [jnp.issubdtype(a.dtype, jax.dtypes.prng_key) for a in kept]
    impls = [jax.random.key_impl(a) if key else None for a, key in zip(kept, is_key, strict=True)]
    raw = [jax.random.key_data(a) if key else a for a, key in zip(kept, is_key, strict=True)]

    def pull_from(arrays: list[Array]) -> Callable:
        rest = iter(
            a if impl is None else jax.random.wrap_key_data(a, impl=impl)
            for a, impl in zip(arrays, impls, strict=True)
        )
        return jax.tree.unflatten(tree, [next(rest) if p is None else inputs[p] for p in places])

    return results, _Saved(raw, pull_from)


def _chunk(programs: Programs, places: Places, arrays: Arrays, chunk: Array) -> Arrays:
    """The arrays of one chunk, `[packed rows, time, ...]`."""
    plan = programs.plan
    source = _rows_of(places.source, chunk, plan.rows)
    steps = [taken(a.reshape(-1, *a.shape[2:]), source) for a in arrays.steps]
    steps[programs.mask_at] = _rows_of(places.ids, chunk, plan.rows)
    row = _rows_of(places.row, chunk, plan.rows)
    return arrays._replace(steps=steps, rows=[taken(a, row) for a in arrays.rows])


def _chunk_of(places: Places, y: Array, result: Result, chunk: Array) -> Array:
    """What a chunk has of an array shaped as a result, `[batch, ...]`."""
    rows = result.shape[0] // result.per_row
    if result.over_time:
        return taken(y.reshape(-1, *y.shape[2:]), _rows_of(places.source, chunk, rows))
    return taken(y, _rows_of(places.row, chunk, rows)).reshape(result.shape)


def _rows_of(table: Array, chunk: Array, rows: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(table, chunk * rows, rows)


# ----------------------------------------------------------------------------- over all chunks


def _places(programs: Programs, arrays: Arrays) -> Places:
    return place(programs.plan, arrays.real(programs.mask_at), programs.zero_if_empty)


def _loop(places: Places, run: Callable, start: Any) -> Any:
    return jax.lax.fori_loop(0, places.chunks, run, start)


def _buffers(programs: Programs, arrays: Arrays) -> list[Array]:
    groups = programs.plan.groups
    return [zeros(arrays.steps[0], (groups, *r.shape), r.packed_dtype) for r in programs.results]


def _put(buffers: list[Array], chunk: Array, values: list[Array]) -> list[Array]:
    return [b.at[chunk].set(v) for b, v in zip(buffers, values, strict=True)]


def _unpacked(programs: Programs, places: Places, buffers: list[Array]) -> list[Array]:
    """Results of packed rows, back at their rows: masks are boolean there."""
    results = []
    for y, result in zip(buffers, programs.results, strict=True):
        if result.over_time:
            y = taken(y.reshape(-1, *y.shape[3:]), places.at)
        else:
            y = y.reshape(-1, *y.shape[2:])[places.number]
        results.append(y.astype(result.dtype))
    return results
