"""From a quotient for each class to one number, by the conventions of scikit-learn."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmask import _check
from jaxmask._sums import divide
from jaxmask._types import Array

AVERAGES = ("micro", "macro", "weighted", None)


class Averaging(NamedTuple):
    """How the classes become one number; static, so nan, which equals nothing, is a word."""

    average: str | None
    classes: tuple[int, ...] | None = None
    zero_division: float | str = 0.0

    @property
    def undefined(self) -> float:
        """What a quotient of nothing is."""
        return float(self.zero_division)


def averaging(
    average: str | None,
    classes: Sequence[int] | None,
    zero_division: float,
    num_classes: int,
    where: str,
    *,
    binary: bool = True,
) -> Averaging:
    """The options of `empty`, checked."""
    _check.choice(average, ("binary", *AVERAGES) if binary else AVERAGES, where, "average")
    if average == "binary" and (num_classes != 2 or classes is not None):
        given = f"{num_classes} classes" if classes is None else "`classes`"
        raise ValueError(
            f"{where}: `average` of {given} must be 'macro', 'micro', 'weighted' or None, got "
            "'binary'."
        )
    if classes is not None:
        classes = tuple(_check.count(c, where, "classes") for c in classes)
        if not classes or max(classes) >= num_classes or len(set(classes)) < len(classes):
            raise ValueError(
                f"{where}: `classes` must be different ids below {num_classes}, one at least, got "
                f"{classes}."
            )
    value = _check.static_number(zero_division, where, "zero_division")
    word: float | str = "nan" if math.isnan(value) else float(value)
    _check.choice(word, (0.0, 1.0, "nan"), where, "zero_division")
    return Averaging(average, classes, word)


def averaged(top: Array, bottom: Array, occurs: Array, support: Array, rule: Averaging) -> Array:
    """`top / bottom` of each class, `[classes]`, or their average.

    `occurs`: which classes "macro" counts where none are named. `support`: the weights of
    "weighted".
    """
    if rule.classes is not None:
        chosen = np.array(rule.classes)
        top, bottom, support = (x[chosen] for x in (top, bottom, support))
        occurs = jnp.ones(len(chosen), bool)
    if rule.average == "micro":
        return _quotient(jnp.sum(top), jnp.sum(bottom), rule)
    each = _quotient(top, bottom, rule)
    if rule.average is None:
        return each
    if rule.average == "binary":
        return each[1]
    # A class without a quotient does not count where that is nan. Not by `isnan(each)`: counts that
    # are nan make the average nan.
    defined = (bottom != 0) | (rule.zero_division != "nan")
    if rule.average == "macro":
        return _mean(each, occurs & defined, rule)
    weights = jnp.where(defined, support, 0)
    # scikit-learn weighs all alike where no weight is left.
    return jnp.where(
        jnp.sum(weights) != 0, _mean(each, weights, rule), _mean(each, occurs & defined, rule)
    )


def _quotient(top: Array, bottom: Array, rule: Averaging) -> Array:
    return jnp.where(bottom != 0, divide(top, bottom), rule.undefined)


def _mean(each: Array, weights: Array, rule: Averaging) -> Array:
    weights = weights.astype(each.dtype)
    total: Any = jnp.sum(jnp.where(weights != 0, weights * each, 0))
    return _quotient(total, jnp.sum(weights), rule)
