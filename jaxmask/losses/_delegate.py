"""How a loss of optax becomes a function of a pair.

Steps do not mix in these losses, so one rule fits all: put a safe constant into the padding of the
predictions and of the targets, let optax do the arithmetic, and put 0 into the padding of the
result.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxmask import _check, ops
from jaxmask._types import Array, ArrayLike, Mask, Pair


def elementwise(
    loss: Callable[..., Array],
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    **options: Any,
) -> Pair:
    """Apply a loss that compares element with element; the result has the shape of both.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> x, mask = jnp.array([[1.0, jnp.nan]]), jnp.array([[True, False]])
      >>> elementwise(optax.losses.squared_error, x, mask, jnp.zeros((1, 2)))[0].tolist()
      [[1.0, 0.0]]
    """
    where = loss.__name__
    predictions, mask = _predictions(predictions, mask, where)
    targets = _check.array(targets, "targets", where)
    _same_shape(targets, predictions, where)
    return _between_fills(loss, predictions, mask, targets, options)


def over_features(
    loss: Callable[..., Array],
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    floating: bool = True,
    **options: Any,
) -> Pair:
    """Apply a loss that compares vectors along the last axis, and takes that axis away.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> x, mask = jnp.ones((1, 2, 3)), jnp.array([[True, False]])
      >>> over_features(optax.losses.cosine_similarity, x, mask, x)[0].shape
      (1, 2)
    """
    where = loss.__name__
    predictions, mask = _vectors(predictions, mask, where)
    targets = _check.array(targets, "targets", where)
    _same_shape(targets, predictions, where)
    if floating:
        _check.floating(targets, where, "targets")
    return _between_fills(loss, predictions, mask, targets, options)


def of_class_ids(
    loss: Callable[..., Array],
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    **options: Any,
) -> Pair:
    """Apply a loss of one score a class, along the last axis, and of the right class's id.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> x, mask = jnp.array([[[3.0, 1.0], [0.0, 0.0]]]), jnp.array([[True, False]])
      >>> loss = optax.losses.multiclass_perceptron_loss
      >>> of_class_ids(loss, x, mask, jnp.array([[1, -100]]))[0].tolist()
      [[2.0, 0.0]]
    """
    where = loss.__name__
    predictions, mask = _vectors(predictions, mask, where)
    targets = _check.array(targets, "targets", where)
    axes = "the shape of `predictions` without its last axis"
    _check.shape(targets, predictions.shape[:-1], axes, where, "targets")
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"{where}: `targets` must be integer class ids, got dtype {targets.dtype}.")
    return _between_fills(loss, predictions, mask, targets, options)


def _predictions(predictions: ArrayLike, mask: Mask, where: str) -> tuple[Array, Mask]:
    predictions, mask = _check.pair(predictions, mask, where, name="predictions")
    _check.floating(predictions, where, "predictions")
    return predictions, mask


def _vectors(predictions: ArrayLike, mask: Mask, where: str) -> tuple[Array, Mask]:
    predictions, mask = _predictions(predictions, mask, where)
    steps = 1 if mask is None else mask.ndim
    if predictions.ndim <= steps:
        raise ValueError(
            f"{where}: `predictions` must have an axis after those of the mask, to compare along, "
            f"got shape {predictions.shape} with {steps} axes of the mask."
        )
    return predictions, mask


def _same_shape(targets: Array, predictions: Array, where: str) -> None:
    axes = "the shape of `predictions`"
    _check.shape(targets, predictions.shape, axes, where, "targets")


def _between_fills(
    loss: Callable[..., Array],
    predictions: Array,
    mask: Mask,
    targets: Array,
    options: dict[str, Any],
) -> Pair:
    for name, value in options.items():
        if value is not None and jnp.ndim(value):
            raise ValueError(
                f"{loss.__name__}: `{name}` must be a scalar, got shape {jnp.shape(value)}."
            )
    return ops.fill(loss(_safe(predictions, mask), _safe(targets, mask), **options), mask)


def _safe(x: Array, mask: Mask) -> Array:
    # Not 0 for floats: the gradient of a norm or of log is nan there. It is selected away again in
    # `predictions`, but not in the gradient of an option such as `delta`, which sums over steps.
    return ops.fill(x, mask, 1 if jnp.issubdtype(x.dtype, jnp.floating) else 0)[0]
