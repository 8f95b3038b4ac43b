"""Merging of pairs; the rules are those of the package."""

import functools
import operator
from collections.abc import Callable

import jax.numpy as jnp

from jaxmask import _check, _mask_ops, ops
from jaxmask._sums import accumulator, divide, mean_dtype
from jaxmask._types import Array, Mask, Pair, Segments

_RULES = ("and", "or", "first")


def _checked(pairs: tuple[Pair, ...], where: str, *, features: bool = False) -> list[Pair]:
    """Pairs of one dtype and shape; of any number of features where `features`."""
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
    return checked


def _merged(pairs: list[Pair], combine: str, where: str) -> Mask:
    """The one mask of all pairs."""
    _check.choice(combine, _RULES, where, "combine")
    given = [mask for _, mask in pairs if mask is not None]
    if not given:
        return None
    if len({mask.ndim for mask in given}) > 1:
        raise _check.MaskError(
            f"{where}: every `mask` must have the same rank, got shapes "
            f"{[mask.shape for mask in given]}: steps and rows do not meet. `jm.shape.repeat` "
            "makes steps of rows."
        )
    if any(isinstance(mask, Segments) for mask in given):
        return _merged_segments(pairs, combine, where)
    real = [_real(x, mask, given[0].ndim) for x, mask in pairs]
    if combine == "first":
        return real[0]
    return functools.reduce(jnp.logical_and if combine == "and" else jnp.logical_or, real)


def _real(x: Array, mask: Mask, ndim: int) -> Array:
    return _mask_ops.real_steps(mask, x.shape[:ndim])


def _merged_segments(pairs: list[Pair], combine: str, where: str) -> Segments:
    segments = [mask for _, mask in pairs if isinstance(mask, Segments)]
    if len(segments) < len(pairs):
        raise _check.MaskError(
            f"{where}: either every mask is `Segments` or none is: a boolean mask or None does not "
            "say which sequence of a packed row a step belongs to."
        )
    ids = jnp.maximum(jnp.stack([mask.ids for mask in segments]), 0)
    highest = jnp.max(ids, axis=0)
    agree = jnp.all((ids == highest[None]) | (ids == 0), axis=0)
    if combine != "or":
        agree &= jnp.all(ids > 0, axis=0) if combine == "and" else ids[0] > 0
    return Segments(jnp.where(agree, highest, 0), max(mask.max_segments for mask in segments))


def _filled(pairs: list[Pair], identity: int = 0) -> list[Array]:
    return [ops.fill(x, mask, identity)[0] for x, mask in pairs]


def _folded(
    pairs: tuple[Pair, ...],
    combine: str,
    where: str,
    operation: Callable[[Array, Array], Array],
    identity: int = 0,
) -> Pair:
    checked = _checked(pairs, where)
    mask = _merged(checked, combine, where)
    return ops.fill(functools.reduce(operation, _filled(checked, identity)), mask)


def _two(pairs: tuple[Pair, ...], where: str) -> None:
    if len(pairs) != 2:
        raise ValueError(f"{where}: expected two pairs `(x, mask)`, got {len(pairs)}.")


def add(*pairs: Pair, combine: str = "and") -> Pair:
    """Add pairs up, step by step.

        y[b, t] = sum_i x_i[b, t]

    Args:
      *pairs: `(x [batch, time, feature...], mask)`, one tuple each, or rows with row masks; any
        dtype, the same for all.
      combine: `"and"`, `"or"` (a pair without the step adds 0) or `"first"`.

    Returns:
      The pair `(y, mask)`.

    Raises:
      TypeError: if an argument is not a pair, dtypes differ, or a mask is not boolean.
      ValueError, MaskError: if shapes differ, or `Segments` meet another kind of mask.

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
      combine: `"and"`, `"or"` (a pair without the step stands there as 0) or `"first"`.

    Returns:
      The pair `(y, mask)`.

    Raises:
      TypeError: if an argument is not a pair, dtypes differ or are boolean, or a mask is not
        boolean.
      ValueError, MaskError: if there are not two, shapes differ, or `Segments` meet another kind
        of mask.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> jm.merge.subtract((jnp.array([[5, 9]]), mask), (jnp.array([[2, 1]]), mask))[0].tolist()
      [[3, 0]]

    Agrees with `keras.layers.Subtract` where the masks are equal.
    """
    _two(pairs, "subtract")
    checked = _checked(pairs, "subtract")
    if checked[0][0].dtype == jnp.bool_:
        raise TypeError(
            "subtract: booleans have no difference, got dtype bool. Cast both with "
            "`.astype(jnp.int32)`, or ask where they differ: `x != y`."
        )
    return _folded(pairs, combine, "subtract", jnp.subtract)


def multiply(*pairs: Pair, combine: str = "and") -> Pair:
    """Multiply pairs, step by step.

        y[b, t] = prod_i x_i[b, t]

    Args:
      *pairs: `(x [batch, time, feature...], mask)`, one tuple each, or rows with row masks; any
        dtype, the same for all.
      combine: `"and"`, `"or"` (a pair without the step stands there as 1) or `"first"`.

    Returns:
      The pair `(y, mask)`.

    Raises:
      TypeError: if an argument is not a pair, dtypes differ, or a mask is not boolean.
      ValueError, MaskError: if shapes differ, or `Segments` meet another kind of mask.

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
      The pair `(y, mask)`.

    Raises:
      TypeError: if an argument is not a pair, dtypes differ, or a mask is not boolean.
      ValueError, MaskError: if shapes differ, or `Segments` meet another kind of mask.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> one = jnp.array([[1.0, 2.0]]), jnp.array([[True, True]])
      >>> two = jnp.array([[5.0, 9.0]]), jnp.array([[True, False]])
      >>> jm.merge.average(one, two, combine="or")[0].tolist()
      [[3.0, 2.0]]

    Agrees with `keras.layers.Average` where the masks are equal.
    """
    checked = _checked(pairs, "average")
    merged = _merged(checked, combine, "average")
    dtype = mean_dtype(checked[0][0].dtype)
    total = functools.reduce(jnp.add, [x.astype(accumulator(dtype)) for x in _filled(checked)])
    if merged is None:
        return (total / len(checked)).astype(dtype), None
    have = functools.reduce(
        jnp.add, [_real(x, m, merged.ndim).astype(jnp.int32) for x, m in checked]
    )
    return ops.fill(divide(total, _mask_ops.expand(have, total.ndim)).astype(dtype), merged)


def maximum(*pairs: Pair, combine: str = "and") -> Pair:
    """Largest value of the pairs that have the step, step by step.

        y[b, t] = max_i x_i[b, t]

    Args:
      *pairs: `(x [batch, time, feature...], mask)`, one tuple each, or rows with row masks; real
        numbers or booleans. The gradient goes to the largest; of values that tie, to the first.
      combine: `"and"`, `"or"` or `"first"`.

    Returns:
      The pair `(y, mask)`.

    Raises:
      TypeError: if an argument is not a pair, dtypes differ or are complex, or a mask is not
        boolean.
      ValueError, MaskError: if shapes differ, or `Segments` meet another kind of mask.

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

    Args:
      *pairs: `(x [batch, time, feature...], mask)`, one tuple each, or rows with row masks; real
        numbers or booleans. The gradient goes to the smallest; of values that tie, to the first.
      combine: `"and"`, `"or"` or `"first"`.

    Returns:
      The pair `(y, mask)`.

    Raises:
      TypeError: if an argument is not a pair, dtypes differ or are complex, or a mask is not
        boolean.
      ValueError, MaskError: if shapes differ, or `Segments` meet another kind of mask.

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
    checked = _checked(pairs, where)
    _check.ordered(checked[0][0], where)
    merged = _merged(checked, combine, where)
    y, *others = _filled(checked)
    if merged is None:
        return functools.reduce(lambda y, x: _better(x, y, beats), others, y), None
    has, *have = [_mask_ops.expand(_real(x, m, merged.ndim), x.ndim) for x, m in checked]
    for other, real in zip(others, have, strict=True):
        # No number is the identity (a real -inf is below every finite one): who lacks the step is
        # left out by a select.
        y = jnp.where(has & real, _better(other, y, beats), jnp.where(has, y, other))
        has |= real
    return ops.fill(y, merged)


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
      combine: `"and"`, `"or"` or `"first"`; the product with a step that is not there is 0.
      normalize: divide by both norms first, for the cosine of the angle; 0 where a norm is 0.

    Returns:
      The pair `(y, mask)`, with a last axis of size 1; 16-bit floats are summed in float32.

    Raises:
      TypeError: if an argument is not a pair, dtypes differ, or a mask is not boolean.
      ValueError, MaskError: if there are not two, shapes differ, there is no feature axis, or
        `Segments` meet another kind of mask.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> x = jnp.array([[[1.0, 2.0], [9.0, 9.0]]])
      >>> jm.merge.dot((x, mask), (3 * x, mask))[0].tolist()
      [[[15.0], [0.0]]]

    Agrees with `keras.layers.Dot(axes=-1)` of rows.
    """
    _two(pairs, "dot")
    checked = _checked(pairs, "dot")
    merged = _merged(checked, combine, "dot")
    _check.features(checked[0][0], merged, "dot")
    _check.floating(checked[0][0], "dot")
    dtype = checked[0][0].dtype
    one, two = (x.astype(accumulator(dtype)) for x in _filled(checked))
    if normalize:
        one, two = _unit(one), _unit(two)
    return ops.fill(jnp.sum(one * two, axis=-1, keepdims=True).astype(dtype), merged)


def _unit(x: Array) -> Array:
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    # Keras's own floor, inside the root, where the gradient at 0 is finite. A select, since the
    # rule of `jnp.maximum` compares its operands with the result.
    return x / jnp.sqrt(jnp.where(square > 1e-12, square, 1e-12))


def concatenate(*pairs: Pair, combine: str = "and") -> Pair:
    """Lay the features of pairs behind each other, step by step.

        y[b, t] = (x_0[b, t], x_1[b, t], ...)

    Along time it is `jm.shape.concatenate`.

    Args:
      *pairs: `(x [batch, time, ..., feature_i], mask)`, one tuple each, or rows with row masks; any
        dtype, the same for all.
      combine: `"and"`, `"or"` (the features of a pair without the step are 0) or `"first"`.

    Returns:
      The pair `(y, mask)`, `y [batch, time, ..., sum of feature_i]`.

    Raises:
      TypeError: if an argument is not a pair, dtypes differ, or a mask is not boolean.
      ValueError, MaskError: if shapes differ before the last axis, there is no feature axis, or
        `Segments` meet another kind of mask.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> one = jnp.array([[[1], [2]]]), jnp.array([[True, True]])
      >>> two = jnp.array([[[5], [9]]]), jnp.array([[True, False]])
      >>> jm.merge.concatenate(one, two, combine="first")[0].tolist()
      [[[1, 5], [2, 0]]]

    Agrees with `keras.layers.Concatenate` where the masks are equal.
    """
    checked = _checked(pairs, "concatenate", features=True)
    merged = _merged(checked, combine, "concatenate")
    _check.features(checked[0][0], merged, "concatenate")
    return ops.fill(jnp.concatenate(_filled(checked), axis=-1), merged)
