"""Trace the function once for each length, and read off what its results do with rows and time."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxmask import _keys
from jaxmask._loops import inside_loop
from jaxmask._types import Array
from jaxmask.skip._arguments import Arrays, Call
from jaxmask.skip._plan import WHERE, Plan
from jaxmask.skip._results import (
    Result,
    check_masks,
    check_pair,
    packed_results,
    read_results,
    says_what_is_empty,
)
from jaxmask.skip._scans import evaluate


class _Captured(NamedTuple):
    place: int


@dataclass(frozen=True, eq=False)
class Program:
    """The function, traced for one shape.

    Attributes:
      jaxpr: what it computes.
      consts: its constants; for a tracer its index among what all programs capture, since JAX
        keeps programs longer than a tracer may live.
      results: the shapes and dtypes of its results, in their structure.
    """

    jaxpr: Any
    consts: tuple[Any, ...]
    results: Any

    def __call__(self, arrays: Arrays) -> list[Array]:
        run = core.jaxpr_as_fun(self._closed(arrays))
        return run(*arrays.steps, *arrays.rows, *arrays.weights)

    def for_gradients(self, arrays: Arrays) -> list[Array]:
        """The same, with reverse-mode derivatives that cost less."""
        return evaluate(self._closed(arrays), *arrays.steps, *arrays.rows, *arrays.weights)

    def _closed(self, arrays: Arrays) -> core.ClosedJaxpr:
        consts = [
            arrays.captured[const.place] if isinstance(const, _Captured) else const
            for const in self.consts
        ]
        return core.ClosedJaxpr(self.jaxpr, consts)


@dataclass(frozen=True, eq=False)
class Programs:
    """Everything static about a call.

    Attributes:
      plan: how the batch is cut.
      at: the program for a group at each of the plan's lengths.
      whole: the program for the batch as it is.
      results: one for each array that the function returns.
      tree: the structure of what it returns.
      mask_at: the place of the mask among the arrays by step.
      zero_if_empty: whether a group without a real step gives zeros.
    """

    plan: Plan
    at: tuple[Program, ...]
    whole: Program
    results: tuple[Result, ...]
    tree: Any
    mask_at: int
    zero_if_empty: bool


def trace(f: Callable, call: Call, plan: Plan, arrays: Arrays) -> tuple[Programs, Arrays]:
    """All programs; and the arrays, with the tracers that `f` captures, which programs take too."""
    if plan.sequences:
        return _trace_packed(f, call, plan, arrays)
    captured: list[Array] = []

    def at(count: int, length: int) -> Program:
        steps = [_shaped(a, count, length) for a in arrays.steps]
        rows = [_shaped(a, count) for a in arrays.rows]
        return _program(f, call, arrays._replace(steps=steps, rows=rows), captured)

    with inside_loop():
        programs = tuple(at(plan.rows, length) for length in plan.lengths)
    whole = _program(f, call, arrays, captured)
    other = whole
    if arrays.steps[0].shape[0] == plan.rows:
        other = at(2 * plan.rows, plan.lengths[-1])
    tree = jax.tree.structure(whole.results)
    shapes = [program.results for program in programs]
    check_pair(whole.results)
    results = read_results(shapes, other.results, plan)
    check_masks(whole.results, results, plan)
    zero_if_empty = "row" not in call.kinds and says_what_is_empty(shapes, plan)
    found = Programs(plan, programs, whole, results, tree, call.mask_at, zero_if_empty)
    return found, arrays._replace(captured=captured)


def _trace_packed(f: Callable, call: Call, plan: Plan, arrays: Arrays) -> tuple[Programs, Arrays]:
    """The program for a chunk of packed rows, and that for the batch as it is."""
    captured: list[Array] = []
    time, sequences = plan.lengths[-1], plan.sequences
    steps = [_shaped(a, plan.rows, time) for a in arrays.steps]
    steps[call.mask_at] = _like(steps[call.mask_at], steps[call.mask_at].shape, jnp.int32)
    ids = [_like(a, (plan.rows, sequences, *a.shape[1:]), a.dtype) for a in arrays.rows]
    with inside_loop():
        program = _program(
            f, call, arrays._replace(steps=steps, rows=ids), captured, packed=sequences
        )
    whole = _program(f, call, arrays, captured)
    check_pair(whole.results)
    results = packed_results(program.results, whole.results, plan, arrays.steps[0].shape[0])
    tree = jax.tree.structure(whole.results)
    zero_if_empty = all(result.over_time for result in results)
    found = Programs(plan, (program,), whole, results, tree, call.mask_at, zero_if_empty)
    return found, arrays._replace(captured=captured)


def _like(a: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """What stands for an array of another shape and dtype, varying over devices as `a` does."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return jax.ShapeDtypeStruct(shape, dtype)
    return jnp.zeros_like(a, shape=shape, dtype=dtype)


def _shaped(a: Array, *sizes: int) -> Any:
    """What stands for `a` with other leading sizes."""
    shape = (*sizes, *a.shape[len(sizes) :])
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return jax.ShapeDtypeStruct(shape, a.dtype, weak_type=getattr(a, "weak_type", False))
    # Inside `shard_map` it must vary over the axes that `a` varies over.
    enough = a if sizes[0] <= a.shape[0] else jnp.concatenate([a, a])
    return enough[tuple(map(slice, shape))]


def _program(
    f: Callable, call: Call, arrays: Arrays, captured: list[Array], packed: int = 0
) -> Program:
    def of_arrays(arrays: Arrays) -> Any:
        if packed:
            arrays = arrays.packed(call.mask_at, packed)
        arguments, keywords = call.rebuild(arrays)
        return f(*arguments, **keywords)

    with _keys.ids_required(WHERE), _explained(arrays.steps[0].shape, packed):
        closed, results = jax.make_jaxpr(of_arrays, return_shape=True)(arrays)
    consts = tuple(_capture(const, captured) for const in closed.consts)
    return Program(closed.jaxpr, consts, results)


def _capture(const: Any, captured: list[Array]) -> Any:
    """The index of a tracer; constants stay in their program."""
    if not isinstance(const, jax.core.Tracer):
        return const
    for index, known in enumerate(captured):
        if known is const:
            return _Captured(index)
    captured.append(const)
    return _Captured(len(captured) - 1)


@contextlib.contextmanager
def _explained(shape: tuple[int, ...], packed: int) -> Any:
    """Say at which shape `f` failed: it may close over an array of another length."""
    try:
        yield
    except Exception as error:
        if packed:
            error.add_note(
                f"{WHERE}: this happened while `f` was traced for {shape[0]} packed rows, with "
                "`Segments` in the place of the mask. Leave `pack` False if it takes none."
            )
            raise
        error.add_note(
            f"{WHERE}: this happened while `f` was traced for a group of {shape[0]} rows and "
            f"{shape[1]} steps. `f` must take any number of rows and steps: arrays of the whole "
            'batch go in as arguments, with `rest="row"` or `rest="step"`.'
        )
        raise
