"""What the metrics read: class ids, or logits in their place, and scores."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmask import _check, _class_ids, _mask_ops
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask

NO_CLASS = -1  # what a prediction of nan logits is


class ClassIds(NamedTuple):
    """Class ids of one shape, and where they are classes."""

    predictions: Array
    targets: Array
    valid: Array


def class_ids(
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    where: str,
    classes: int | None = None,
    present: ArrayLike | None = None,
) -> ClassIds:
    """Ids of one shape; logits, which have one axis more than the targets, become ids.

    Of equal logits the first wins; with a nan among them the id is `NO_CLASS`. With `classes`,
    there must be that many logits, and ids must be below. `present` marks what is not missing.
    """
    predicted = _check.array(predictions, "predictions", where)
    ids = _check.array(targets, "targets", where)
    check_ids(ids, where, "targets")
    if predicted.ndim == ids.ndim + 1:
        check_logits(predicted, ids, where, "predictions", classes)
        mask = _of_targets(ids, mask, present, where)
        ids, valid = _class_ids.real_ids(targets, mask, predicted.shape[-1], where, "targets")
        # argmax would take nan for the highest, and class 0 where all of a diverged model is nan.
        has_nan = jnp.any(jnp.isnan(predicted), axis=-1)
        return ClassIds(jnp.where(has_nan, NO_CLASS, jnp.argmax(predicted, axis=-1)), ids, valid)
    _check.shape(ids, predicted.shape, "the shape of `predictions`", where, "targets")
    check_ids(predicted, where, "predictions")
    mask = _of_targets(ids, mask, present, where)
    # Where the number of classes is unknown, an id below 0 still is not a class.
    size = jnp.iinfo(jnp.int32).max if classes is None else classes
    predicted, predicted_valid = _class_ids.real_ids(predictions, mask, size, where, "predictions")
    ids, valid = _class_ids.real_ids(targets, mask, size, where, "targets")
    return ClassIds(predicted, ids, predicted_valid & valid)


def _of_targets(ids: Array, mask: Mask, present: ArrayLike | None, where: str) -> Any:
    _check.pair(ids, mask, where, name="targets")
    return mask if present is None else _mask_ops.entries(mask, present, ids.shape, where)


class BinaryScores(NamedTuple):
    """Scores of a positive class, all of one shape."""

    scores: Array  # in at least float32, 0 where there is none
    positive: Array
    real: Array
    valid: Array  # where the target is a class, or there is none


def binary_scores(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, where: str, present: ArrayLike | None
) -> BinaryScores:
    """What the metrics of a curve read."""
    scores, checked = _check.pair(predictions, mask, where, name="predictions")
    _check.floating(scores, where, "predictions")
    ids = _check.array(targets, "targets", where)
    _check.shape(ids, scores.shape, "the shape of `predictions`", where, "targets")
    if jnp.issubdtype(ids.dtype, jnp.inexact):
        raise TypeError(
            f"{where}: `targets` must be 0 or 1, boolean or integer, got dtype {ids.dtype}."
        )
    real = _mask_ops.entries(checked, present, scores.shape, where)
    given: Any = mask if present is None else real
    ids, valid = _class_ids.real_ids(targets, given, 2, where, "targets")
    scores = jnp.where(real, scores.astype(accumulator(scores.dtype)), 0)
    return BinaryScores(scores, ids != 0, real, valid)


def check_logits(
    logits: Array, targets: Array, where: str, name: str, classes: int | None = None
) -> None:
    """One logit for each class, along the last axis."""
    _check.floating(logits, where, name)
    axes = f"the shape of `{name}` without its last axis"
    _check.shape(targets, logits.shape[:-1], axes, where, "targets")
    if classes is not None and logits.shape[-1] != classes:
        raise ValueError(
            f"{where}: `{name}` must have {classes} classes along the last axis, got shape "
            f"{logits.shape}."
        )


def check_ids(x: Array, where: str, name: str) -> None:
    """Class ids, integer or boolean."""
    if not (x.dtype == jnp.bool_ or jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(
            f"{where}: `{name}` must be class ids, integer or boolean, got dtype {x.dtype}. "
            "Logits have one axis more than the targets."
        )
