"""From a loss of one step to a function of a pair.

Steps do not mix in these losses, so one rule fits all: fill the padding of every array with a safe
constant, compute in at least float32, and fill the padding of the result with 0.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops
from jaxmask._steps import filled
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, common_dtype, promotion_allowed

Loss = Callable[..., Array]


def elementwise(
    where: str,
    loss: Loss,
    mask: Mask,
    arrays: dict[str, ArrayLike],
    options: dict[str, Any] | None = None,
    *,
    binary: bool = False,
    present: ArrayLike | None = None,
) -> Pair:
    """A loss that compares arrays of one shape element by element.

    `where` is the public function, `arrays` its arrays by the names that it has for them, the
    predictions first. With `binary`, integer targets are ids of two classes. `present`: the values
    that are not missing, which the functions call `where`.
    """
    given, (checked, mask) = mask, _checked(arrays, mask, where)
    seen: Any = mask
    if present is not None:
        given = seen = _mask_ops.entries(mask, present, checked[0].shape, where)
    y = _apply(loss, checked, seen, _spread(options, checked[0], seen, where, next(iter(arrays))))
    if binary and jnp.issubdtype(checked[1].dtype, jnp.integer):
        _, valid = _class_ids.real_ids(arrays["targets"], given, 2, where, "targets")
        y = _class_ids.nan_unless(valid, y)
    return _narrow(y, checked), mask


def over_features(
    where: str,
    loss: Loss,
    mask: Mask,
    arrays: dict[str, ArrayLike],
    options: dict[str, Any] | None = None,
    *,
    floating: bool = True,
) -> Pair:
    """A loss that compares vectors along the last axis, and reduces that axis."""
    checked, mask = _checked(arrays, mask, where, floating=floating)
    _has_features(checked[0], mask, where, next(iter(arrays)))
    like = jnp.zeros(checked[0].shape[:-1], checked[0].dtype)
    y = _apply(loss, checked, mask, _spread(options, like, mask, where, next(iter(arrays))))
    return _narrow(y, checked), mask


def of_class_ids(
    where: str, loss: Loss, logits: ArrayLike, mask: Mask, targets: ArrayLike, *, wide: bool = False
) -> Pair:
    """A loss of one logit a class, along the last axis, and of the target's id.

    With `wide` the result is in at least float32.
    """
    given, ([scores], mask) = mask, _checked({"logits": logits}, mask, where)
    _has_features(scores, mask, where, "logits")
    ids = _check.array(targets, "targets", where)
    axes = "the shape of `logits` without its last axis"
    _check.shape(ids, scores.shape[:-1], axes, where, "targets")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{where}: `targets` must be integer class ids, got dtype {ids.dtype}.")
    ids, valid = _class_ids.real_ids(targets, given, scores.shape[-1], where, "targets")
    y = _class_ids.nan_unless(valid, _apply(loss, [scores], mask, {"targets": ids}))
    return (y if wide else _narrow(y, [scores])), mask


def of_target(scores: Array, targets: Array) -> Array:
    """The score of the target's class, along the last axis."""
    return jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]


def _checked(
    arrays: dict[str, ArrayLike], mask: Mask, where: str, *, floating: bool = False
) -> tuple[list[Array], Mask]:
    """Arrays of one shape, the first of them floating; all of them with `floating`."""
    (name, predictions), *others = arrays.items()
    predictions, mask = _check.pair(predictions, mask, where, name=name)
    _check.floating(predictions, where, name)
    checked = [predictions]
    for other, value in others:
        x = _check.array(value, other, where)
        _check.shape(x, predictions.shape, f"the shape of `{name}`", where, other)
        _check.ordered(x, where, other)
        if floating:
            _check.floating(x, where, other)
        checked.append(x)
    return checked, mask


def _has_features(predictions: Array, mask: Mask, where: str, name: str) -> None:
    steps = 1 if mask is None else mask.ndim
    if predictions.ndim <= steps:
        raise ValueError(
            f"{where}: `{name}` must have an axis after those of the mask, to compare along, "
            f"got shape {predictions.shape} with {steps} axes of the mask."
        )


def _spread(
    options: dict[str, Any] | None, like: Array, mask: Mask, where: str, of: str
) -> dict[str, Array]:
    """Each option as a scalar, or as an array of the shape of the result, that of `like`."""
    spread: dict[str, Array] = {}
    for name, given in (options or {}).items():
        dtype = accumulator(like.dtype)
        value = _check.by_row_or_step(given, like, where, name, dtype=dtype, of=of)
        if value.ndim:
            # Filled too: the gradient in an option sums over steps, and 0 * nan is nan.
            value = filled(jnp.broadcast_to(value, like.shape), mask, 1)
        spread[name] = value
    return spread


def _apply(loss: Loss, arrays: list[Array], mask: Mask, options: dict[str, Any]) -> Array:
    dtype = common_dtype(accumulator(arrays[0].dtype), *_floating(arrays))
    # Not 0: the gradient of a norm or of log is nan there. It is selected away again in the
    # predictions, but not in the gradient of an option such as `delta`, which sums over steps.
    safe = [filled(x.astype(dtype), mask, 1) for x in arrays]
    with promotion_allowed():
        y = loss(*safe, **options)
    return filled(y, mask)


def _narrow(y: Array, arrays: list[Array]) -> Array:
    """The result in the dtype of the floating arrays."""
    return y.astype(common_dtype(*_floating(arrays)))


def _floating(arrays: list[Array]) -> list[jnp.dtype]:
    return [x.dtype for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
