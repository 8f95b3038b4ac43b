"""How a loss of optax becomes a function of a pair.

Steps do not mix in these losses, so one rule fits all: put a safe constant into the padding of the
predictions and of the targets, let optax do the arithmetic, and put 0 into the padding of the
result.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxmask import _check, ops
from jaxmask._types import Array, ArrayLike, Mask, Pair, promotion_allowed


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
    _check.shape(targets, predictions.shape, "the shape of `predictions`", where, "targets")
    return _between_fills(loss, predictions, mask, options, targets)


def over_features(
    loss: Callable[..., Array],
    predictions: ArrayLike,
    mask: Mask,
    *targets: ArrayLike,
    names: tuple[str, ...] = ("predictions", "targets"),
    floating: bool = True,
    **options: Any,
) -> Pair:
    """Apply a loss that compares vectors along the last axis, and takes that axis away.

    `names` are what the caller calls the predictions and each of the targets.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> x, mask = jnp.ones((1, 2, 3)), jnp.array([[True, False]])
      >>> over_features(optax.losses.cosine_similarity, x, mask, x)[0].shape
      (1, 2)
    """
    where = loss.__name__
    predictions, mask = _vectors(predictions, mask, where, names[0])
    others = []
    for name, target in zip(names[1:], targets, strict=True):
        target = _check.array(target, name, where)
        _check.shape(target, predictions.shape, f"the shape of `{names[0]}`", where, name)
        if floating:
            _check.floating(target, where, name)
        others.append(target)
    return _between_fills(loss, predictions, mask, options, *others)


def of_class_ids(
    loss: Callable[..., Array],
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    name: str = "predictions",
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
    predictions, mask = _vectors(predictions, mask, where, name)
    targets = _check.array(targets, "targets", where)
    axes = f"the shape of `{name}` without its last axis"
    _check.shape(targets, predictions.shape[:-1], axes, where, "targets")
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"{where}: `targets` must be integer class ids, got dtype {targets.dtype}.")
    return _between_fills(loss, predictions, mask, options, targets)


def _predictions(
    predictions: ArrayLike, mask: Mask, where: str, name: str = "predictions"
) -> tuple[Array, Mask]:
    predictions, mask = _check.pair(predictions, mask, where, name=name)
    _check.floating(predictions, where, name)
    return predictions, mask


def _vectors(
    predictions: ArrayLike, mask: Mask, where: str, name: str = "predictions"
) -> tuple[Array, Mask]:
    predictions, mask = _predictions(predictions, mask, where, name)
    steps = 1 if mask is None else mask.ndim
    if predictions.ndim <= steps:
        raise ValueError(
            f"{where}: `{name}` must have an axis after those of the mask, to compare along, "
            f"got shape {predictions.shape} with {steps} axes of the mask."
        )
    return predictions, mask


def _between_fills(
    loss: Callable[..., Array],
    predictions: Array,
    mask: Mask,
    options: dict[str, Any],
    *targets: Array,
) -> Pair:
    for name, value in options.items():
        if value is not None and jnp.ndim(value):
            raise ValueError(
                f"{loss.__name__}: `{name}` must be a scalar, got shape {jnp.shape(value)}."
            )
    safe = [_safe(x, mask) for x in (predictions, *targets)]
    with promotion_allowed():
        per_step = loss(*safe, **options)
    return ops.fill(per_step, mask)


def _safe(x: Array, mask: Mask) -> Array:
    # Not 0 for floats: the gradient of a norm or of log is nan there. It is selected away again in
    # `predictions`, but not in the gradient of an option such as `delta`, which sums over steps.
    return ops.fill(x, mask, 1 if jnp.issubdtype(x.dtype, jnp.floating) else 0)[0]
