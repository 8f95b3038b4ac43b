"""Losses of predicted quantities and vectors."""

import optax

from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _delegate

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
      targets: the shape of `predictions`; nothing is broadcast. Any value may stand in padding.

    Returns:
      The pair `(per_step, mask)`, `per_step` like `predictions`, 0 in padding.

    Raises:
      TypeError: if `predictions` is not floating, or `mask` is not boolean.
      ValueError: if `targets` has not the shape of `predictions`.
      MaskError: if `mask` does not belong to `predictions`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions = jnp.array([[1.0, 5.0, jnp.nan]])
      >>> targets = jnp.array([[3.0, 5.0, -100.0]])
      >>> mask = jnp.array([[True, True, False]])
      >>> jm.losses.squared_error(predictions, mask, targets)[0].tolist()
      [[4.0, 0.0, 0.0]]

    Agrees with `optax.losses.squared_error` of each unpadded row.
    """
    return _delegate.elementwise(optax.losses.squared_error, predictions, mask, targets)


def l2_loss(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Half the square of the error, whose gradient is the error.

        y = (predictions - targets)^2 / 2

    Args:
      predictions: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: the shape of `predictions`.

    Returns:
      The pair `(per_step, mask)`, `per_step` like `predictions`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `squared_error`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> jm.losses.l2_loss(jnp.array([[1.0, 9.0]]), mask, jnp.array([[3.0, 0.0]]))[0].tolist()
      [[2.0, 0.0]]

    Agrees with `optax.losses.l2_loss` of each unpadded row.
    """
    return _delegate.elementwise(optax.losses.l2_loss, predictions, mask, targets)


def huber_loss(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, delta: float | Array = 1.0
) -> Pair:
    """Quadratic for small errors, linear for large ones.

        e = |predictions - targets|
        y = e^2 / 2                  where e <= delta
            delta (e - delta / 2)    else

    Args:
      predictions: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: the shape of `predictions`.
      delta: a scalar, the error from which the loss is linear.

    Returns:
      The pair `(per_step, mask)`, `per_step` like `predictions`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `squared_error`; ValueError if `delta` is not a scalar.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, True]])
      >>> jm.losses.huber_loss(jnp.array([[1.0, 5.0]]), mask, jnp.zeros((1, 2)))[0].tolist()
      [[0.5, 4.5]]

    Source: Huber, 1964, Robust estimation of a location parameter, doi:10.1214/aoms/1177703732.
    Agrees with `optax.losses.huber_loss` of each unpadded row.
    """
    return _delegate.elementwise(optax.losses.huber_loss, predictions, mask, targets, delta=delta)


def log_cosh(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Logarithm of the hyperbolic cosine of the error: a Huber loss that is smooth everywhere.

        y = log cosh(predictions - targets)

    Args:
      predictions: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      targets: the shape of `predictions`.

    Returns:
      The pair `(per_step, mask)`, `per_step` like `predictions`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `squared_error`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, False]])
      >>> y, _ = jm.losses.log_cosh(jnp.array([[2.0, 9.0]]), mask, jnp.zeros((1, 2)))
      >>> [round(value, 4) for value in y[0].tolist()]
      [1.325, 0.0]

    Agrees with `optax.losses.log_cosh` of each unpadded row.
    """
    return _delegate.elementwise(optax.losses.log_cosh, predictions, mask, targets)


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
      epsilon: a scalar, the least squared norm to divide by. With 0, a vector of zeros at a real
        step gives nan, as in optax; in padding it is harmless.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]`, 0 in padding.

    Raises:
      TypeError: if an array is not floating, or `mask` is not boolean.
      ValueError: if `targets` has not the shape of `predictions`, if there is no axis after those
        of the mask, or if `epsilon` is not a scalar.
      MaskError: if `mask` does not belong to `predictions`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions = jnp.array([[[2.0, 0.0], [0.0, 0.0]]])
      >>> targets = jnp.array([[[3.0, 0.0], [0.0, 0.0]]])
      >>> jm.losses.cosine_similarity(predictions, jnp.array([[True, False]]), targets)[0].tolist()
      [[1.0, 0.0]]

    Agrees with `optax.losses.cosine_similarity` of each unpadded row.
    """
    return _delegate.over_features(
        optax.losses.cosine_similarity, predictions, mask, targets, epsilon=epsilon
    )


def cosine_distance(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, epsilon: float | Array = 0.0
) -> Pair:
    """One minus the cosine of the angle between two vectors.

        y = 1 - <predictions, targets> / (|predictions| |targets|)

    Args:
      predictions: `[batch, time, ..., feature]`, or `[batch, ..., feature]` with a row mask;
        floating.
      mask: boolean, or `Segments`, or None.
      targets: floating, the shape of `predictions`.
      epsilon: as in `cosine_similarity`.

    Returns:
      The pair `(per_step, mask)`, `per_step [batch, time, ...]`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `cosine_similarity`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions = jnp.array([[[2.0, 0.0], [0.0, 0.0]]])
      >>> targets = jnp.array([[[0.0, 3.0], [0.0, 0.0]]])
      >>> jm.losses.cosine_distance(predictions, jnp.array([[True, False]]), targets)[0].tolist()
      [[1.0, 0.0]]

    Agrees with `optax.losses.cosine_distance` of each unpadded row.
    """
    return _delegate.over_features(
        optax.losses.cosine_distance, predictions, mask, targets, epsilon=epsilon
    )
