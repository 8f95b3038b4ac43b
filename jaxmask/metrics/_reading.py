"""What the metrics read: class ids, or logits in their place, and each other."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmask import _check, _class_ids
from jaxmask._types import Array, ArrayLike, Mask

NO_CLASS = -1  # what a prediction of nan logits is


class Classes(NamedTuple):
    """Class ids of one shape, and where they are classes.

    Example:
      >>> import jax.numpy as jnp
      >>> Classes(jnp.array([1]), jnp.array([1]), jnp.array([True])).valid.tolist()
      [True]
    """

    predictions: Array
    targets: Array
    valid: Array


def class_ids(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, where: str, classes: int | None = None
) -> Classes:
    """Ids of one shape; logits, which have an axis more than the targets, become ids.

    Of equal logits the first counts; with a nan among them the id is `NO_CLASS`. With `classes`,
    logits must have that many, and ids must be below.

    Example:
      >>> import jax.numpy as jnp
      >>> class_ids(jnp.array([[0.0, 1.0]]), None, jnp.array([1]), "example").predictions.tolist()
      [1]
    """
    read = _check.array(predictions, "predictions", where)
    ids = _check.array(targets, "targets", where)
    integer(ids, where, "targets")
    if read.ndim == ids.ndim + 1:
        logits(read, ids, where, classes)
        _check.pair(ids, mask, where, name="targets")
        ids, valid = _class_ids.real_ids(targets, mask, read.shape[-1], where, "targets")
        # argmax would take nan for the highest, and class 0 where all of a diverged model is nan.
        has_nan = jnp.any(jnp.isnan(read), axis=-1)
        return Classes(jnp.where(has_nan, NO_CLASS, jnp.argmax(read, axis=-1)), ids, valid)
    _check.shape(ids, read.shape, "the shape of `predictions`", where, "targets")
    integer(read, where, "predictions")
    _check.pair(ids, mask, where, name="targets")
    # Where nobody knows how many classes there are, an id below 0 still is none.
    size = jnp.iinfo(jnp.int32).max if classes is None else classes
    read, said = _class_ids.real_ids(predictions, mask, size, where, "predictions")
    ids, there = _class_ids.real_ids(targets, mask, size, where, "targets")
    return Classes(read, ids, said & there)


def logits(predictions: Array, targets: Array, where: str, classes: int | None = None) -> None:
    """One score for each class, along the last axis.

    Example:
      >>> import jax.numpy as jnp
      >>> logits(jnp.zeros((2, 5)), jnp.zeros(2, int), "example", classes=5)
    """
    _check.floating(predictions, where, "predictions")
    axes = "the shape of `predictions` without its last axis"
    _check.shape(targets, predictions.shape[:-1], axes, where, "targets")
    if classes is not None and predictions.shape[-1] != classes:
        raise ValueError(
            f"{where}: `predictions` must have {classes} classes along the last axis, got shape "
            f"{predictions.shape}."
        )


def integer(x: Array, where: str, name: str) -> None:
    """Class ids, integer or boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> integer(jnp.array([True, False]), "example", "targets")
    """
    if not (x.dtype == jnp.bool_ or jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(
            f"{where}: `{name}` must be class ids, integer or boolean, got dtype {x.dtype}. "
            "Logits have one axis more than the targets."
        )


def same_kind(metric: Any, other: Any) -> None:
    """Two metrics merge only if they count the same thing.

    Example:
      >>> import jaxmask as jm
      >>> same_kind(jm.metrics.Mean.empty(), jm.metrics.Mean.empty())
    """
    kind = type(metric).__name__
    if type(other) is not type(metric):
        raise TypeError(f"{kind}.merge: expected another {kind}, got {type(other).__name__}.")
    for field in dataclasses.fields(metric):
        if field.metadata.get("static"):
            ours, theirs = (getattr(m, field.name) for m in (metric, other))
            if ours != theirs:
                raise ValueError(
                    f"{kind}.merge: both metrics must have the same `{field.name}`, got {ours!r} "
                    f"and {theirs!r}."
                )
