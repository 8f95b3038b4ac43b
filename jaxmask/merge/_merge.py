"""Merging of pairs; the rules are those of the package."""

import functools
import operator
from collections.abc import Callable

import jax.numpy as jnp

from jaxmask import _check, _mask_ops
from jaxmask._steps import filled
from jaxmask._sums import accumulator, divide, mean_dtype
from jaxmask._types import Array, Mask, Pair, Segments

_RULES = ("and", "or", "first")


def _meet(
    pairs: tuple[Pair, ...], combine: str, where: str, *, features: bool = False
) -> tuple[list[Pair], Mask]:
    """The pairs, checked, and the one mask that `combine` makes of theirs.

    Shapes are equal, but for the last axis where `features`.
    """
    _check.pairs(pairs, where)
    checked = [_check.pair(x, mask, where) for x, mask in pairs]
    first, *_ = (x for x, _ in checked)
    for x, _ in checked:
        if x.dtype != first.dtype:
            raise TypeError(
                f"{where}: dtypes differ, {first.dtype} and {x.dtype}; cast one with `.astype`."
            )
        same = x.shape[:-1] == first.shape[:-1] if features else x.shape == first.shape
        if not same or x.ndim != first.ndim:
            text = "only the last axis may differ" if features else "shapes must be equal"
            raise ValueError(
                f"{where}: {text}, got {first.shape} and {x.shape}. Nothing is broadcast."
            )
    return checked, _combined(checked, combine, where)


def _meet_two(pairs: tuple[Pair, ...], combine: str, where: str) -> tuple[list[Pair], Mask]:
    if len(pairs) != 2:
        raise ValueError(f"{where}: expected two pairs `(x, mask)`, got {len(pairs)}.")
    return _meet(pairs, combine, where)


def _combined(pairs: list[Pair], combine: str, where: str) -> Mask:
    _check.choice(combine, _RULES, where, "combine")
    given = [mask for _, mask in pairs if mask is not None]
    if not given:
        return None
    if len({mask.ndim for mask in given}) > 1:
        raise _check.MaskError(
            f"{where}: every `mask` must have the same rank, got shapes "
            f"{[mask.shape for mask in given]}: steps and rows do not combine. `jm.shape.repeat` "
            "makes steps of rows."
        )
    if segments := _check.packed([mask for _, mask in pairs], where):
        return _combined_segments(segments, combine)
    real = _real(pairs, given[0].ndim)
    if combine == "first":
        return real[0]
    return functools.reduce(jnp.logical_and if combine == "and" else jnp.logical_or, real)


def _real(pairs: list[Pair], ndim: int) -> list[Array]:
    return [_mask_ops.real_steps(mask, x.shape[:ndim]) for x, mask in pairs]


def _combined_segments(segments: list[Segments], combine: str) -> Segments:
    ids = jnp.maximum(jnp.stack([mask.ids for mask in segments]), 0)
    highest = jnp.max(ids, axis=0)
    agree = jnp.all((ids == highest[None]) | (ids == 0), axis=0)
    if combine != "or":
        agree &= jnp.all(ids > 0, axis=0) if combine == "and" else ids[0] > 0
    return Segments(jnp.where(agree, highest, 0), max(mask.max_segments for mask in segments))


def _filled(pairs: list[Pair], identity: int = 0) -> list[Array]:
    return [filled(x, mask, identity) for x, mask in pairs]


def _folded(
    pairs: tuple[Pair, ...],
    combine: str,
    where: str,
    operation: Callable[[Array, Array], Array],
    identity: int = 0,
) -> Pair:
    checked, mask = _meet(pairs, combine, where)
    return filled(functools.reduce(operation, _filled(checked, identity)), mask), mask


def add(*pairs: Pair, combine: str = "and") -> Pair:
    """Add pairs up, step by step.

        y[b, t] = sum_i x_i[b, t]

    Args:
      *pairs: `(x [batch, time, feature...], mask)`, one tuple each, or rows with row masks; any
        dtype, the same for all.
      combine: `"and"`, `"or"` (a pair without the step adds 0) or `"first"`.

    Returns:
      The pair `(sum, mask)`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> one = jnp.array([[1, 2, 9]]), jnp.array([[True, True, False]])
      >>> two = jnp.array([[5, 9, 9]]), jnp.array([[True, False, False]])
      >>> jm.merge.add(one, two)[0].tolist(), jm.merge.add(one, two, combine="or")[0].tolist()
      ([[6, 0, 0]], [[6, 2, 0]])

    Agrees with `keras.layers.Add` where the masks are equal.
    """
    return _folded(pairs, combine, "add", jnp.add)


def subtract(*pairs: Pair, combine: str = "and") -> Pair:
    """Subtract the second pair from the first, step by step.

        y[b, t] = x_0[b, t] - x_1[b, t]

    Args:
      *pairs: two tuples `(x [batch, time, feature...], mask)`, or rows with row masks; numbers.
      combine: `"and"`, `"or"` (a pair without the step counts as 0) or `"first"`.

    Returns:
      The pair `(difference, mask)`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> jm.merge.subtract((jnp.array([[5, 9]]), mask), (jnp.array([[2, 1]]), mask))[0].tolist()
      [[3, 0]]

    Agrees with `keras.layers.Subtract` where the masks are equal.
    """
    checked, mask = _meet_two(pairs, combine, "subtract")
    if checked[0][0].dtype == jnp.bool_:
        raise TypeError(
            "subtract: booleans have no difference, got dtype bool. Cast both with "
            "`.astype(jnp.int32)`, or ask where they differ: `x != y`."
        )
    return filled(jnp.subtract(*_filled(checked)), mask), mask


def multiply(*pairs: Pair, combine: str = "and") -> Pair:
    """Multiply pairs, step by step.

        y[b, t] = prod_i x_i[b, t]

    Arguments and result are those of `add`; with `combine="or"` a pair without the step counts as
    1.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> jm.merge.multiply((jnp.array([[5, 9]]), mask), (jnp.array([[2, 1]]), mask))[0].tolist()
      [[10, 0]]

    Agrees with `keras.layers.Multiply` where the masks are equal.
    """
    return _folded(pairs, combine, "multiply", jnp.multiply, 1)


def average(*pairs: Pair, combine: str = "and") -> Pair:
    """Average pairs, step by step, over those that have the step.

        y[b, t] = sum_i mask_i[b, t] x_i[b, t] / max(1, sum_i mask_i[b, t])

    Args:
      *pairs: `(x [batch, time, feature...], mask)`, one tuple each, or rows with row masks; 16-bit
        floats are summed in float32, and of integers and booleans the average is float32.
      combine: `"and"`, `"or"` or `"first"`.

    Returns:
      The pair `(average, mask)`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> one = jnp.array([[1.0, 2.0]]), jnp.array([[True, True]])
      >>> two = jnp.array([[5.0, 9.0]]), jnp.array([[True, False]])
      >>> jm.merge.average(one, two, combine="or")[0].tolist()
      [[3.0, 2.0]]

    Agrees with `keras.layers.Average` where the masks are equal.
    """
    checked, mask = _meet(pairs, combine, "average")
    dtype = mean_dtype(checked[0][0].dtype)
    total = functools.reduce(jnp.add, [x.astype(accumulator(dtype)) for x in _filled(checked)])
    if mask is None:
        return (total / len(checked)).astype(dtype), None
    count = functools.reduce(
        jnp.add, [real.astype(jnp.int32) for real in _real(checked, mask.ndim)]
    )
    return filled(divide(total, _mask_ops.expand(count, total.ndim)).astype(dtype), mask), mask


def maximum(*pairs: Pair, combine: str = "and") -> Pair:
    """Largest value of the pairs that have the step, step by step.

        y[b, t] = max_i x_i[b, t]

    Args:
      *pairs: `(x [batch, time, feature...], mask)`, one tuple each, or rows with row masks; real
        numbers or booleans. The gradient goes to the largest, and to the first of ties.
      combine: `"and"`, `"or"` or `"first"`.

    Returns:
      The pair `(largest, mask)`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> one = jnp.array([[1, -2]]), jnp.array([[True, True]])
      >>> two = jnp.array([[5, 9]]), jnp.array([[True, False]])
      >>> jm.merge.maximum(one, two, combine="or")[0].tolist()
      [[5, -2]]

    Agrees with `keras.layers.Maximum` where the masks are equal.
    """
    return _extreme(pairs, combine, "maximum", operator.gt)


def minimum(*pairs: Pair, combine: str = "and") -> Pair:
    """Smallest value of the pairs that have the step, step by step.

        y[b, t] = min_i x_i[b, t]

    Arguments and result are those of `maximum`; the gradient goes to the smallest.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> one = jnp.array([[1, 2]]), jnp.array([[True, True]])
      >>> two = jnp.array([[5, -9]]), jnp.array([[True, False]])
      >>> jm.merge.minimum(one, two, combine="or")[0].tolist()
      [[1, 2]]

    Agrees with `keras.layers.Minimum` where the masks are equal.
    """
    return _extreme(pairs, combine, "minimum", operator.lt)


def _extreme(
    pairs: tuple[Pair, ...], combine: str, where: str, beats: Callable[[Array, Array], Array]
) -> Pair:
    checked, mask = _meet(pairs, combine, where)
    _check.ordered(checked[0][0], where)
    y, *others = _filled(checked)
    if mask is None:
        return functools.reduce(lambda y, x: _better(x, y, beats), others, y), None
    has, *have = [_mask_ops.expand(real, y.ndim) for real in _real(checked, mask.ndim)]
    for other, real in zip(others, have, strict=True):
        # No number is the identity (a real -inf is below every finite one): a pair without the step
        # is left out by a select.
        y = jnp.where(has & real, _better(other, y, beats), jnp.where(has, y, other))
        has |= real
    return filled(y, mask), mask


def _better(new: Array, old: Array, beats: Callable[[Array, Array], Array]) -> Array:
    """`new` where it beats `old` or is nan; nan stays.

    A select gives each gradient to exactly one of the two. The rule of `jnp.maximum` compares both
    with their maximum, and may find neither equal where XLA computes it again.
    """
    new_wins = beats(new, old)
    if jnp.issubdtype(new.dtype, jnp.floating):
        new_wins |= jnp.isnan(new) & ~jnp.isnan(old)
    return jnp.where(new_wins, new, old)


def dot(*pairs: Pair, combine: str = "and", normalize: bool = False) -> Pair:
    """Dot product of the features of two pairs, step by step.

        y[b, t, 0] = sum_f x_0[b, t, f] x_1[b, t, f]

    Args:
      *pairs: two tuples `(x [batch, time, ..., feature], mask)`, or rows with row masks; floating.
      combine: `"and"`, `"or"` or `"first"`; the product with a missing step is 0.
      normalize: divide by both norms first, for the cosine of the angle; 0 where a norm is 0.

    Returns:
      The pair `(y, mask)`, with a last axis of size 1; 16-bit floats are summed in float32.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> x = jnp.array([[[1.0, 2.0], [9.0, 9.0]]])
      >>> jm.merge.dot((x, mask), (3 * x, mask))[0].tolist()
      [[[15.0], [0.0]]]

    Agrees with `keras.layers.Dot(axes=-1)` of rows.
    """
    checked, mask = _meet_two(pairs, combine, "dot")
    _check.features(checked[0][0], mask, "dot")
    _check.floating(checked[0][0], "dot")
    normalize = _check.flag(normalize, "dot", "normalize")
    dtype = checked[0][0].dtype
    one, two = (x.astype(accumulator(dtype)) for x in _filled(checked))
    if normalize:
        one, two = _unit(one), _unit(two)
    return filled(jnp.sum(one * two, axis=-1, keepdims=True).astype(dtype), mask), mask


def _unit(x: Array) -> Array:
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    # Keras's own floor, inside the root, where the gradient at 0 is finite. A select, since the
    # rule of `jnp.maximum` compares its operands with the result.
    return x / jnp.sqrt(jnp.where(square > 1e-12, square, 1e-12))


def concatenate(*pairs: Pair, combine: str = "and") -> Pair:
    """Concatenate the features of pairs, step by step.

        y[b, t] = (x_0[b, t], x_1[b, t], ...)

    `jm.shape.concatenate` does it along time.

    Args:
      *pairs: `(x [batch, time, ..., feature_i], mask)`, one tuple each, or rows with row masks; any
        dtype, the same for all.
      combine: `"and"`, `"or"` (the features of a pair without the step are 0) or `"first"`.

    Returns:
      The pair `(y, mask)`, `y [batch, time, ..., sum of feature_i]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> one = jnp.array([[[1], [2]]]), jnp.array([[True, True]])
      >>> two = jnp.array([[[5], [9]]]), jnp.array([[True, False]])
      >>> jm.merge.concatenate(one, two, combine="first")[0].tolist()
      [[[1, 5], [2, 0]]]

    Agrees with `keras.layers.Concatenate` where the masks are equal.
    """
    checked, mask = _meet(pairs, combine, "concatenate", features=True)
    _check.features(checked[0][0], mask, "concatenate")
    return filled(jnp.concatenate(_filled(checked), axis=-1), mask), mask
