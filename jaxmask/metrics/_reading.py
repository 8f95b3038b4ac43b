"""What the metrics read: class ids, or logits in their place, and each other."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxmask import _check
from jaxmask._types import Array, ArrayLike

# Not -1, which may stand among the targets.
NO_CLASS = jnp.iinfo(jnp.int32).min


def class_ids(
    predictions: ArrayLike, targets: ArrayLike, where: str, classes: int | None = None
) -> tuple[Array, Array]:
    """Ids of one shape; logits, which have an axis more than the targets, become ids.

    Of equal logits the first counts; with a nan among them they are no class. With `classes`,
    logits must have that many.

    Example:
      >>> import jax.numpy as jnp
      >>> class_ids(jnp.array([[0.0, 1.0]]), jnp.array([1]), "example")[0].tolist()
      [1]
    """
    predictions = _check.array(predictions, "predictions", where)
    targets = _check.array(targets, "targets", where)
    ids(targets, where, "targets")
    if predictions.ndim == targets.ndim + 1:
        logits(predictions, targets, where, classes)
        # argmax would take nan for the highest, and class 0 where all of a diverged model is nan.
        has_nan = jnp.any(jnp.isnan(predictions), axis=-1)
        return jnp.where(has_nan, NO_CLASS, jnp.argmax(predictions, axis=-1)), targets
    _check.shape(targets, predictions.shape, "the shape of `predictions`", where, "targets")
    ids(predictions, where, "predictions")
    return predictions, targets


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


def ids(x: Array, where: str, name: str) -> None:
    """Class ids, integer or boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> ids(jnp.array([True, False]), "example", "targets")
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
