"""What the results of the function do with rows and time, read off their shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._types import Segments
from jaxmask.skip._arguments import is_mask
from jaxmask.skip._plan import WHERE, Plan


@dataclass(frozen=True)
class Result:
    """One array among the results, for a group at the full length.

    Attributes:
      shape: its shape, `[rows * per_row, ...]`.
      dtype: its dtype.
      per_row: how many of its rows belong to one row of the batch: several where packed rows are
        pooled.
      over_time: the axes whose size follows the length.
      packed_dtype: its dtype for packed rows, where the ids of `Segments` are the mask.
    """

    shape: tuple[int, ...]
    dtype: Any
    per_row: int
    over_time: tuple[int, ...]
    packed_dtype: Any = None

    @property
    def is_floating(self) -> bool:
        return bool(jnp.issubdtype(self.dtype, jnp.inexact))


def read_results(shapes: Sequence[Any], other: Any, plan: Plan) -> tuple[Result, ...]:
    """What each result does with rows and time: from those of a group at each length.

    `other`: those of another number of rows.
    """
    last = shapes[-1]
    tree = jax.tree.structure(last)
    for results, length in zip(shapes, plan.lengths, strict=True):
        if not bool(jax.tree.structure(results) == tree):  # type: ignore[operator]
            raise ValueError(
                f"{WHERE}: at {length} steps `f` returns another structure than at "
                f"{plan.lengths[-1]}: {jax.tree.structure(results)} and {tree}."
            )
    columns = zip(*map(jax.tree.leaves, shapes), strict=True)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(last)]
    others = jax.tree.leaves(other)
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


def check_pair(results: Any) -> None:
    """`(y, mask)` or `(carry, (y, mask))`."""
    pair = _pair_of(results)
    if not (isinstance(pair, tuple) and len(pair) == 2):
        raise TypeError(
            f"{WHERE}: `f` must return a pair `(y, mask)` or `(carry, (y, mask))`, with a boolean "
            f"mask, `Segments` or None, got {_shown(results)}."
        )


def _shown(results: Any) -> str:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(results)]
    if shapes == [()]:
        return "one number. Return the values of the rows or steps, and take the mean outside"
    kinds = "an array" if len(shapes) == 1 else f"a {type(results).__name__} with arrays"
    return f"{kinds} of shape {', '.join(map(str, shapes))}"


def check_whole(results: Any, x: Any) -> None:
    """Of the batch as it is: what a group of rows would be refused for, as far as can be seen."""
    check_pair(results)
    batch, *_ = [*(n for leaf in jax.tree.leaves(x) for n in jnp.shape(leaf)[:1]), 0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(results):
        size = jnp.shape(leaf)
        if isinstance(batch, int) and batch and (not size or size[0] % batch):
            _refuse_rows(jax.tree_util.keystr(path), size, batch)


def says_what_is_empty(shapes: Sequence[Any], plan: Plan) -> bool:
    """Whether the result is a pair whose mask is by step and adds none.

    Where no mask comes back, or where steps are added, an empty row may have a value.
    """
    masks = [jax.tree.leaves(results[1]) if is_mask(results[1]) else [] for results in shapes]
    return all(
        mask and all(len(a.shape) > 1 and a.shape[1] <= length for a in mask)
        for mask, length in zip(masks, plan.lengths, strict=True)
    )


def check_masks(results: Any, found: Sequence[Result], plan: Plan) -> None:
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


def _pair_of(results: Any) -> Any:
    """The pair inside `(carry, (carry, (y, mask)))`."""
    while isinstance(results, tuple) and len(results) == 2 and not is_mask(results[1]):
        results = results[1]
    return results


# ------------------------------------------------------------------------- of packed rows


def packed_results(packed: Any, whole: Any, plan: Plan, batch: int) -> tuple[Result, ...]:
    """What each result of packed rows is: one by step, or one for each sequence."""
    y, mask = _pair_of(packed)
    if mask is None:
        _refuse_packed("None for its mask, which would say that padding is real")
    by_step = isinstance(mask, Segments)
    in_pair = {id(leaf) for leaf in jax.tree.leaves((y, mask))}
    wholes = jax.tree.leaves(whole)
    leaves = jax.tree_util.tree_leaves_with_path(packed)
    if len(wholes) != len(leaves):
        _refuse_packed(f"{len(leaves)} arrays in the place of {len(wholes)}")
    sizes = {True: (plan.rows, plan.lengths[-1]), False: (plan.rows * plan.sequences,)}
    results = []
    for (path, leaf), of_batch in zip(leaves, wholes, strict=True):
        steps = by_step and id(leaf) in in_pair
        expected = sizes[steps]
        alone = (batch, *expected[1:])
        rest = leaf.shape[len(expected) :]
        if steps and leaf.shape[:1] == expected[:1] and leaf.shape[1:2] != expected[1:]:
            _refuse_packed(
                f"result{jax.tree_util.keystr(path)} of shape {leaf.shape} for {plan.rows} packed "
                f"rows of {expected[1]} steps: `f` changes the number of steps, by a stride or at "
                "the ends, and steps of packed rows must stay in their places"
            )
        if leaf.shape[: len(expected)] != expected or of_batch.shape != (*alone, *rest):
            _refuse_packed(
                f"result{jax.tree_util.keystr(path)} of shape {leaf.shape} for {plan.rows} packed "
                f"rows and {of_batch.shape} for the batch: neither one value for each step nor one "
                "for each sequence"
            )
        per_row = 1 if steps else plan.sequences
        over_time = (1,) if steps else ()
        results.append(Result(leaf.shape, of_batch.dtype, per_row, over_time, leaf.dtype))
    return tuple(results)


def _refuse_packed(what: str) -> NoReturn:
    raise ValueError(
        f"{WHERE}: with `pack`, `f` must return for `Segments` what it returns for a mask, by step "
        f"or by sequence; it returns {what}. Leave `pack` False for this function."
    )
