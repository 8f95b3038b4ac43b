"""Masked losses of losses that know nothing of masks."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops, ops
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled_with_copies
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, common_dtype


def lift(loss: Callable[..., Array]) -> Callable[..., Pair]:
    """Make a masked loss of a loss that acts on each element or on each step alone.

        lift(loss)(predictions, mask, targets)[0][b, t] = loss(predictions, targets)[b, t]
                                                          where mask[b, t], else 0

    The loss never sees padding: a copy of a real step, without a gradient, takes its place in every
    array. Padding may lie anywhere (mask class: any), provided that the loss does not mix steps;
    `jm.leak.check` tests that. Floating arrays reach the loss in at least float32, and the result
    has their dtype. Its gradient is that of the loss.

    Args:
      loss: `loss(predictions, targets, ...) -> per_step`, a loss of optax or a function of your
        own. Its result has the shape of `predictions`, or lacks trailing axes of it.

    Returns:
      A function `(predictions, mask, targets, *arrays, **options) -> (per_step, mask)`. All arrays
      begin with the axes of the mask; it is boolean, of steps or of rows, or `Segments`, or None.
      `arrays` are further arguments of the loss with a value for each step, such as weights.
      `options` reach the loss as they are, so an array among them must hold no padding. With
      `where=`, a boolean of the shape of `predictions`, values that are missing one by one, False
      there, are as padding: the loss must then act on each element alone, arrays of that shape get
      copies of the elements of another place, and the result is 0 there. (Give a loss an option
      that it calls `where` by `functools.partial`.) It raises TypeError, ValueError or MaskError if
      an array, a shape or the mask is not as above.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm, optax
      >>> perceptron_loss = jm.losses.lift(optax.losses.perceptron_loss)
      >>> scores, mask = jnp.array([[0.5, 0.5, jnp.nan]]), jnp.array([[True, True, False]])
      >>> perceptron_loss(scores, mask, jnp.array([[1, -1, 0]]))[0].tolist()
      [[0.0, 0.5, 0.0]]

      A loss of your own, with a further array and an option:

      >>> def pinball(predictions, targets, weights, *, quantile):
      ...     error = targets - predictions
      ...     return weights * jnp.where(error > 0, quantile * error, (quantile - 1) * error)
      >>> ones = jnp.ones((1, 3))
      >>> jm.losses.lift(pinball)(scores, mask, ones, 2 * ones, quantile=0.25)[0].tolist()
      [[0.25, 0.25, 0.0]]

    Other losses of optax: `poly_loss_cross_entropy`, `generalized_kl_divergence`, `sparsemax_loss`,
    `multiclass_hinge_loss`, `multiclass_perceptron_loss`, and `multiclass_sparsemax_loss`, which
    takes one leading axis, as `lift(jax.vmap(optax.losses.multiclass_sparsemax_loss))`.
    """
    _check.function(loss, "lift", "loss")
    caller = f"lift({getattr(loss, '__name__', type(loss).__name__)})"

    @refusing_pairs
    def lifted(
        predictions: ArrayLike,
        mask: Mask,
        targets: ArrayLike,
        *arrays: ArrayLike,
        where: ArrayLike | None = None,
        **options: Any,
    ) -> Pair:
        predictions, mask = _check.pair(predictions, mask, caller, name="predictions")
        leading = predictions.shape[: 1 if mask is None else mask.ndim]
        named = {"targets": targets, **{f"arrays[{i}]": x for i, x in enumerate(arrays)}}
        every = [predictions]
        for name, given in named.items():
            every.append(_check.array(given, name, caller))
            if every[-1].shape[: len(leading)] != leading:
                raise ValueError(
                    f"{caller}: `{name}` must begin with the axes of the mask, {leading}, got "
                    f"shape {every[-1].shape}. What is no array of steps goes by keyword."
                )
        seen = None
        if where is not None:
            seen = _mask_ops.entries(mask, where, predictions.shape, caller)
        safe = [_safe(x.astype(accumulator(x.dtype)), mask, seen) for x in every]
        y = _checked_result(loss(*safe, **options), predictions, leading, caller)
        if seen is not None:
            if y.shape != seen.shape:
                raise ValueError(
                    f"{caller}: `where` goes with a loss that gives one value for each element, "
                    f"{predictions.shape}, got {y.shape}, one value for several elements."
                )
            y = jnp.where(seen, y, jnp.zeros((), y.dtype))
        dtypes = [x.dtype for x in every if jnp.issubdtype(x.dtype, jnp.floating)]
        is_float = dtypes and jnp.issubdtype(y.dtype, jnp.floating)
        return ops.fill(y.astype(common_dtype(*dtypes)) if is_float else y, mask)

    return lifted


def _safe(x: Array, mask: Mask, seen: Array | None) -> Array:
    """Copies of one step, or of one element, in all arrays.

    What is safe together need not be safe one by one.
    """
    if seen is None or x.shape != seen.shape:
        return filled_with_copies(x, mask)
    flat = (x.shape[0], math.prod(x.shape[1:]))
    return filled_with_copies(x.reshape(flat), seen.reshape(flat)).reshape(x.shape)


def _checked_result(y: Any, predictions: Array, leading: tuple[int, ...], where: str) -> Array:
    """A value for each element or each step; another shape means that the arguments broadcast."""
    if not isinstance(y, jax.Array | np.ndarray):
        raise TypeError(f"{where}: the loss must give an array, got {_check.kind_of(y)}.")
    y = jnp.asarray(y)
    if y.ndim < len(leading) or y.shape != predictions.shape[: y.ndim]:
        raise ValueError(
            f"{where}: the loss must give one value for each element or each step: the shape of "
            f"`predictions`, {predictions.shape}, or its leading axes, {leading} at least, got "
            f"{y.shape}. A loss must not reduce; the shape of `targets` must not broadcast."
        )
    return y
