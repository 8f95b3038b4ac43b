"""Trace the function once for each length, and read off what its results do with rows and time."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxmask import _check, _keys
from jaxmask._loops import inside_loop
from jaxmask._types import Array
from jaxmask.skip._arguments import Arrays, Call, is_mask
from jaxmask.skip._plan import WHERE, Plan


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
        consts = [
            arrays.captured[const.place] if isinstance(const, _Captured) else const
            for const in self.consts
        ]
        run = core.jaxpr_as_fun(core.ClosedJaxpr(self.jaxpr, consts))
        return run(*arrays.steps, *arrays.rows, *arrays.weights)


@dataclass(frozen=True)
class Result:
    """One array among the results, for a group at the full length.

    Attributes:
      shape: its shape, `[rows * per_row, ...]`.
      dtype: its dtype.
      per_row: how many of its rows belong to one row of the batch: several where packed rows are
        pooled.
      over_time: the axes whose size follows the length.
    """

    shape: tuple[int, ...]
    dtype: Any
    per_row: int
    over_time: tuple[int, ...]

    @property
    def is_floating(self) -> bool:
        return bool(jnp.issubdtype(self.dtype, jnp.inexact))


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
    _check_pair(whole.results)
    results = _results(programs, other, plan)
    _check_masks(whole.results, results, plan)
    zero_if_empty = "row" not in call.kinds and _says_what_is_empty(programs, plan)
    found = Programs(plan, programs, whole, results, tree, call.mask_at, zero_if_empty)
    return found, arrays._replace(captured=captured)


def _shaped(a: Array, *sizes: int) -> Any:
    """What stands for `a` with other leading sizes."""
    shape = (*sizes, *a.shape[len(sizes) :])
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return jax.ShapeDtypeStruct(shape, a.dtype, weak_type=getattr(a, "weak_type", False))
    # Inside `shard_map` it must vary over the axes that `a` varies over.
    enough = a if sizes[0] <= a.shape[0] else jnp.concatenate([a, a])
    return enough[tuple(map(slice, shape))]


def _program(f: Callable, call: Call, arrays: Arrays, captured: list[Array]) -> Program:
    def of_arrays(arrays: Arrays) -> Any:
        arguments, keywords = call.rebuild(arrays)
        return f(*arguments, **keywords)

    with _keys.ids_required(WHERE), _explained(arrays.steps[0].shape):
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
def _explained(shape: tuple[int, ...]) -> Any:
    """Say at which shape `f` failed: it may close over an array of another length."""
    try:
        yield
    except Exception as error:
        error.add_note(
            f"{WHERE}: this happened while `f` was traced for a group of {shape[0]} rows and "
            f"{shape[1]} steps. `f` must take any number of rows and steps: arrays of the whole "
            'batch go in as arguments, with `rest="row"` or `rest="step"`.'
        )
        raise


# ------------------------------------------------------------------------------- results


def _results(programs: Sequence[Program], other: Program, plan: Plan) -> tuple[Result, ...]:
    last = programs[-1].results
    tree = jax.tree.structure(last)
    for program, length in zip(programs, plan.lengths, strict=True):
        if not bool(jax.tree.structure(program.results) == tree):  # type: ignore[operator]
            raise ValueError(
                f"{WHERE}: at {length} steps `f` returns another structure than at "
                f"{plan.lengths[-1]}: {jax.tree.structure(program.results)} and {tree}."
            )
    columns = zip(*(jax.tree.leaves(p.results) for p in programs), strict=True)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(last)]
    others = jax.tree.leaves(other.results)
    return tuple(
        _result(path, sizes, of_other, plan.rows)
        for path, sizes, of_other in zip(paths, columns, others, strict=True)
    )


def _result(path: str, sizes: Sequence[Any], other: Any, rows: int) -> Result:
    """What one result does with rows and time, from its shapes."""
    shape, dtype = sizes[-1].shape, sizes[-1].dtype
    if not shape or shape[0] % rows or other.shape[:1] == shape[:1]:
        _refuse_rows(path, shape, rows)
    over_time: set[int] = set()
    for size in sizes:
        if size.dtype != dtype or len(size.shape) != len(shape) or size.shape[0] != shape[0]:
            raise ValueError(
                f"{WHERE}: result{path} must have one rank and dtype at every length, got "
                f"{size.dtype}{list(size.shape)} and {dtype}{list(shape)}."
            )
        over_time |= {axis for axis, n in enumerate(size.shape) if n != shape[axis]}
        if any(n > full for n, full in zip(size.shape, shape, strict=True)):
            raise ValueError(
                f"{WHERE}: result{path} is longer for fewer steps, {size.shape}, than for all, "
                f"{shape}, so it cannot be padded."
            )
    return Result(tuple(shape), dtype, shape[0] // rows, tuple(sorted(over_time)))


def _refuse_rows(path: str, shape: tuple[int, ...], rows: int) -> NoReturn:
    raise ValueError(
        f"{WHERE}: result{path} has shape {shape} for {rows} rows, so its first axis does not hold "
        "the rows: `f` mixes them, and a group of rows does not give what the batch gives. Return "
        "a result for each row, and take the sum or mean outside."
    )


def _check_pair(results: Any) -> None:
    """`(y, mask)` or `(carry, (y, mask))`."""
    pair = results
    while isinstance(pair, tuple) and len(pair) == 2 and not is_mask(pair[1]):
        pair = pair[1]
    if not (isinstance(pair, tuple) and len(pair) == 2):
        raise TypeError(
            f"{WHERE}: `f` must return a pair `(y, mask)` or `(carry, (y, mask))`, with a boolean "
            f"mask, `Segments` or None, got {jax.tree.structure(results)}."
        )


def _says_what_is_empty(programs: Sequence[Program], plan: Plan) -> bool:
    """Whether the result is a pair whose mask is by step and adds none.

    Where no mask comes back, or where steps are added, an empty row may have a value.
    """
    masks = [jax.tree.leaves(p.results[1]) if is_mask(p.results[1]) else [] for p in programs]
    return all(
        mask and all(len(a.shape) > 1 and a.shape[1] <= length for a in mask)
        for mask, length in zip(masks, plan.lengths, strict=True)
    )


def _check_masks(results: Any, found: Sequence[Result], plan: Plan) -> None:
    """A mask over time must follow the length, and what follows the length must have a mask."""
    marked = jax.tree.unflatten(jax.tree.structure(results), found)
    while not is_mask(results[1]):
        results, marked = results[1], marked[1]
    masks = jax.tree.leaves(marked[1])
    for mask in masks:
        if len(mask.shape) > 1 and not mask.over_time:
            raise ValueError(
                f"{WHERE}: the mask that `f` returns has {mask.shape[1]} steps at each of the "
                f"lengths {plan.lengths}: its time axis does not follow that of `x`, so nothing "
                "can be skipped."
            )
    if not masks and any(leaf.over_time for leaf in jax.tree.leaves(marked[0])):
        raise _check.MaskError(
            f"{WHERE}: `f` returns a time axis and None for its mask, which would say that the "
            "steps beyond a group's length are real. Return the mask too."
        )
