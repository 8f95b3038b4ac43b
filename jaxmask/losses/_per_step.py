"""How a loss of one step becomes a function of a pair.

Steps do not mix in these losses, so one rule fits all: put a safe constant into the padding of the
predictions, targets and options, do the arithmetic in at least float32, and put 0 into the padding
of the result.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxmask import _check, _class_ids, ops
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, common_dtype, promotion_allowed


def elementwise(
    where: str,
    loss: Callable[..., Array],
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    yes_or_no: bool = False,
    **options: Any,
) -> Pair:
    """Apply a loss that compares element with element; the result has the shape of both.

    `where` is the name of the public function. With `yes_or_no`, integer targets are ids of two
    classes. Options are numbers, or arrays by row, by step or by element.

    Example:
      >>> import jax.numpy as jnp
      >>> x, mask = jnp.array([[1.0, jnp.nan]]), jnp.array([[True, False]])
      >>> elementwise("example", lambda x, y: (x - y) ** 2, x, mask, jnp.zeros((1, 2)))[0].tolist()
      [[1.0, 0.0]]
    """
    given, (predictions, mask) = mask, _predictions(predictions, mask, where)
    against = _check.array(targets, "targets", where)
    _check.shape(against, predictions.shape, "the shape of `predictions`", where, "targets")
    options = _options(options, predictions, mask, where)
    y, mask = _apply(loss, predictions, mask, options, against)
    if yes_or_no and jnp.issubdtype(against.dtype, jnp.integer):
        _, valid = _class_ids.real_ids(targets, given, 2, where, "targets")
        y = _class_ids.nan_unless(valid, y)
    return _narrow((y, mask), predictions, against)


def over_features(
    where: str,
    loss: Callable[..., Array],
    predictions: ArrayLike,
    mask: Mask,
    *targets: ArrayLike,
    names: tuple[str, ...] = ("predictions", "targets"),
    floating: bool = True,
    **options: Any,
) -> Pair:
    """Apply a loss that compares vectors along the last axis, and takes that axis away.

    `names` are what the caller calls the predictions and each of the targets. Options are numbers,
    or arrays by row or by step.

    Example:
      >>> import jax.numpy as jnp
      >>> x, mask = jnp.ones((1, 2, 3)), jnp.array([[True, False]])
      >>> over_features("example", lambda x, y: (x * y).sum(-1), x, mask, x)[0].shape
      (1, 2)
    """
    predictions, mask = _vectors(predictions, mask, where, names[0])
    others = []
    for name, target in zip(names[1:], targets, strict=True):
        target = _check.array(target, name, where)
        _check.shape(target, predictions.shape, f"the shape of `{names[0]}`", where, name)
        if floating:
            _check.floating(target, where, name)
        others.append(target)
    like = jnp.zeros(predictions.shape[:-1], predictions.dtype)
    options = _options(options, like, mask, where)
    return _narrow(_apply(loss, predictions, mask, options, *others), predictions, *others)


def of_class_ids(
    where: str,
    loss: Callable[..., Array],
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    name: str = "predictions",
    wide: bool = False,
) -> Pair:
    """Apply a loss of one score a class, along the last axis, and of the right class's id.

    With `wide` the result is in at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> x, mask = jnp.array([[[3.0, 1.0], [0.0, 0.0]]]), jnp.array([[True, False]])
      >>> of_class_ids("example", chosen, x, mask, jnp.array([[1, -100]]))[0].tolist()
      [[1.0, 0.0]]
    """
    given, (predictions, mask) = mask, _vectors(predictions, mask, where, name)
    ids = _check.array(targets, "targets", where)
    axes = f"the shape of `{name}` without its last axis"
    _check.shape(ids, predictions.shape[:-1], axes, where, "targets")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{where}: `targets` must be integer class ids, got dtype {ids.dtype}.")
    ids, valid = _class_ids.real_ids(targets, given, predictions.shape[-1], where, "targets")
    y, mask = _apply(functools.partial(loss, targets=ids), predictions, mask, {})
    pair = _class_ids.nan_unless(valid, y), mask
    return pair if wide else _narrow(pair, predictions)


def chosen(scores: Array, targets: Array) -> Array:
    """The score of one class, along the last axis.

    Example:
      >>> import jax.numpy as jnp
      >>> chosen(jnp.array([3.0, 1.0]), jnp.array(1)).tolist()
      1.0
    """
    return jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]


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


def _options(options: dict[str, Any], like: Array, mask: Mask, where: str) -> dict[str, Any]:
    """Each option as a number, or as an array of the shape of the result, that of `like`."""
    spread: dict[str, Any] = {}
    for name, given in options.items():
        if given is None:
            spread[name] = None
            continue
        dtype = accumulator(like.dtype)
        value = _check.by_row_or_step(given, like, where, name, dtype=dtype)
        if value.ndim:
            # Filled too: the gradient in an option sums over steps, and 0 * nan is nan.
            value, _ = ops.fill(jnp.broadcast_to(value, like.shape), mask, 1)
        spread[name] = value
    return spread


def _apply(
    loss: Callable[..., Array],
    predictions: Array,
    mask: Mask,
    options: dict[str, Any],
    *targets: Array,
) -> Pair:
    """The loss in at least float32, of what is safe in the padding; targets in the same dtype."""
    floats = [x.dtype for x in targets if jnp.issubdtype(x.dtype, jnp.floating)]
    dtype = common_dtype(accumulator(predictions.dtype), *floats)
    # Not 0: the gradient of a norm or of log is nan there. It is selected away again in
    # `predictions`, but not in the gradient of an option such as `delta`, which sums over steps.
    safe = [ops.fill(x.astype(dtype), mask, 1)[0] for x in (predictions, *targets)]
    with promotion_allowed():
        y = loss(*safe, **options)
    return ops.fill(y, mask)


def _narrow(pair: Pair, *inputs: Array) -> Pair:
    """The result in the dtype of the inputs that are floating."""
    floats = [x.dtype for x in inputs if jnp.issubdtype(x.dtype, jnp.floating)]
    return pair[0].astype(common_dtype(*floats)), pair[1]
