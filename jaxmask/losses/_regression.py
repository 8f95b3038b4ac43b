"""Losses of predicted quantities and vectors."""

import math

import jax.numpy as jnp

from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _per_step

__all__ = [
    "cosine_distance",
    "cosine_similarity",
    "huber_loss",
    "l2_loss",
    "log_cosh",
    "squared_error",
]


def squared_error(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Square of the error.

        y = (predictions - targets)^2

    Args:
      predictions: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; floating.
      mask: boolean, or `Segments`, or None: every step is real.
      targets: the shape of `predictions`; nothing is broadcast. Padding may hold any value.

    Returns:
      The pair `(per_step, mask)`, `per_step` in the shape of `predictions`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions = jnp.array([[1.0, 5.0, jnp.nan]])
      >>> targets = jnp.array([[3.0, 5.0, -100.0]])
      >>> mask = jnp.array([[True, True, False]])
      >>> jm.losses.squared_error(predictions, mask, targets)[0].tolist()
      [[4.0, 0.0, 0.0]]

    Agrees with `optax.losses.squared_error` of each unpadded row.
    """

    def loss(predictions: Array, targets: Array) -> Array:
        return (predictions - targets) ** 2

    return _per_step.elementwise(
        "squared_error", loss, mask, predictions=predictions, targets=targets
    )


def l2_loss(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Half the square of the error, whose gradient is the error.

        y = (predictions - targets)^2 / 2

    Arguments and result are those of `squared_error`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> jm.losses.l2_loss(jnp.array([[1.0, 9.0]]), mask, jnp.array([[3.0, 0.0]]))[0].tolist()
      [[2.0, 0.0]]

    Agrees with `optax.losses.l2_loss` of each unpadded row.
    """

    def loss(predictions: Array, targets: Array) -> Array:
        return (predictions - targets) ** 2 / 2

    return _per_step.elementwise("l2_loss", loss, mask, predictions=predictions, targets=targets)


def huber_loss(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, delta: float | Array = 1.0
) -> Pair:
    """Quadratic for small errors, linear for large ones.

        e = |predictions - targets|
        y = e^2 / 2                  where e <= delta
            delta (e - delta / 2)    elsewhere

    Args:
      delta: where the loss becomes linear: a number, or an array by row, by step or by
        element.
      predictions, mask, targets: as in `squared_error`.

    Returns:
      The pair `(per_step, mask)`, `per_step` in the shape of `predictions`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, True]])
      >>> jm.losses.huber_loss(jnp.array([[1.0, 5.0]]), mask, jnp.zeros((1, 2)))[0].tolist()
      [[0.5, 4.5]]

    Source: Huber, 1964, Robust estimation of a location parameter, doi:10.1214/aoms/1177703732.
    Agrees with `optax.losses.huber_loss` of each unpadded row.
    """

    def loss(predictions: Array, targets: Array, delta: Array) -> Array:
        error = jnp.abs(predictions - targets)
        # Selected before the square too: that of an infinite error has the gradient 0 * inf.
        near = error <= delta
        return jnp.where(near, jnp.where(near, error, 0) ** 2 / 2, delta * (error - delta / 2))

    return _per_step.elementwise(
        "huber_loss", loss, mask, {"delta": delta}, predictions=predictions, targets=targets
    )


def log_cosh(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Logarithm of the hyperbolic cosine of the error: a Huber loss that is smooth everywhere.

        y = log cosh(predictions - targets)

    Arguments and result are those of `squared_error`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> y, _ = jm.losses.log_cosh(jnp.array([[2.0, 9.0]]), mask, jnp.zeros((1, 2)))
      >>> [round(value, 4) for value in y[0].tolist()]
      [1.325, 0.0]

    Agrees with `optax.losses.log_cosh` of each unpadded row.
    """

    def loss(predictions: Array, targets: Array) -> Array:
        error = predictions - targets
        return jnp.logaddexp(error, -error) - math.log(2)

    return _per_step.elementwise("log_cosh", loss, mask, predictions=predictions, targets=targets)


def cosine_similarity(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, epsilon: float | Array = 0.0
) -> Pair:
    """Cosine of the angle between two vectors.

        y = <predictions, targets> / (|predictions| |targets|)

    Args:
      predictions: `[batch, time, ..., feature]`, or `[batch, ..., feature]` with a row mask;
        floating.
      mask: boolean, or `Segments`, or None.
      targets: floating, the shape of `predictions`.
      epsilon: the least squared norm to divide by: a number, or an array by row or by step. With 0,
        a zero vector at a real step gives nan, as in optax.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions = jnp.array([[[2.0, 0.0], [0.0, 0.0]]])
      >>> targets = jnp.array([[[3.0, 0.0], [0.0, 0.0]]])
      >>> jm.losses.cosine_similarity(predictions, jnp.array([[True, False]]), targets)[0].tolist()
      [[1.0, 0.0]]

    Agrees with `optax.losses.cosine_similarity` of each unpadded row.
    """
    where, options = "cosine_similarity", {"epsilon": epsilon}
    return _per_step.over_features(
        where, _cosine, mask, options, predictions=predictions, targets=targets
    )


def cosine_distance(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, epsilon: float | Array = 0.0
) -> Pair:
    """One minus the cosine of the angle between two vectors.

        y = 1 - <predictions, targets> / (|predictions| |targets|)

    Arguments and result are those of `cosine_similarity`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions = jnp.array([[[2.0, 0.0], [0.0, 0.0]]])
      >>> targets = jnp.array([[[0.0, 3.0], [0.0, 0.0]]])
      >>> jm.losses.cosine_distance(predictions, jnp.array([[True, False]]), targets)[0].tolist()
      [[1.0, 0.0]]

    Agrees with `optax.losses.cosine_distance` of each unpadded row.
    """

    def loss(predictions: Array, targets: Array, epsilon: Array) -> Array:
        return 1 - _cosine(predictions, targets, epsilon)

    where, options = "cosine_distance", {"epsilon": epsilon}
    return _per_step.over_features(
        where, loss, mask, options, predictions=predictions, targets=targets
    )


def _cosine(predictions: Array, targets: Array, epsilon: Array) -> Array:
    def unit(x: Array) -> Array:
        square = jnp.sum(x * x, axis=-1)
        return x / jnp.sqrt(jnp.where(square > epsilon, square, epsilon))[..., None]

    return jnp.sum(unit(predictions) * unit(targets), axis=-1)
