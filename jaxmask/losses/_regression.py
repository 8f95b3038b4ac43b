"""Losses of predicted quantities and vectors."""

import math

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._logs import times
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _per_step


@refusing_pairs
def squared_error(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, where: ArrayLike | None = None
) -> Pair:
    """Square of the error.

        y = (predictions - targets)^2

    Args:
      predictions: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; floating.
      mask: boolean, or `Segments`, or None: every step is real.
      targets: the shape of `predictions`; nothing is broadcast. Padding may hold any value.
      where: boolean, the shape of `predictions`, False where a value is missing; None: none is. A
        missing value gives 0 and no gradient; `reduce(..., where=where)` does not count it.

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
    arrays = {"predictions": predictions, "targets": targets}
    return _per_step.elementwise(
        "squared_error", lambda x, target: (x - target) ** 2, mask, arrays, present=where
    )


@refusing_pairs
def l2_loss(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, where: ArrayLike | None = None
) -> Pair:
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
    arrays = {"predictions": predictions, "targets": targets}
    return _per_step.elementwise(
        "l2_loss", lambda x, target: (x - target) ** 2 / 2, mask, arrays, present=where
    )


@refusing_pairs
def huber_loss(
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    delta: float | Array = 1.0,
    where: ArrayLike | None = None,
) -> Pair:
    """Quadratic for small errors, linear for large ones.

        e = |predictions - targets|
        y = e^2 / 2                  where e <= delta
            delta (e - delta / 2)    elsewhere

    Args:
      delta: where the loss becomes linear: a number, or an array by row, by step or by element.
      predictions, mask, targets, where: as in `squared_error`.

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

    arrays = {"predictions": predictions, "targets": targets}
    return _per_step.elementwise("huber_loss", loss, mask, arrays, {"delta": delta}, present=where)


@refusing_pairs
def log_cosh(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, where: ArrayLike | None = None
) -> Pair:
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

    arrays = {"predictions": predictions, "targets": targets}
    return _per_step.elementwise("log_cosh", loss, mask, arrays, present=where)


@refusing_pairs
def absolute_error(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, where: ArrayLike | None = None
) -> Pair:
    """Size of the error, whose mean is the mean absolute error (MAE, L1 loss).

        y = |predictions - targets|,   with gradient 0 where they are equal

    Arguments and result are those of `squared_error`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> targets, mask = jnp.array([[3.0, 0.0]]), jnp.array([[True, False]])
      >>> jm.losses.absolute_error(jnp.array([[1.0, 9.0]]), mask, targets)[0].tolist()
      [[2.0, 0.0]]

    Agrees with Keras's `MeanAbsoluteError` and PyTorch's `l1_loss` of each unpadded row.
    """
    arrays = {"predictions": predictions, "targets": targets}
    return _per_step.elementwise(
        "absolute_error", lambda x, target: jnp.abs(x - target), mask, arrays, present=where
    )


@refusing_pairs
def quantile_loss(
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    quantile: float | Array = 0.5,
    where: ArrayLike | None = None,
) -> Pair:
    """Pinball loss, whose mean is least where the predictions are the quantile of the targets.

        e = targets - predictions
        y = quantile e          where e > 0
            (quantile - 1) e    elsewhere,   with gradient 0 at the kink

    Args:
      quantile: in (0, 1): a number, or an array by row, by step or by element. For several
        quantiles, predictions `[batch, time, quantile]`, broadcast them and the targets to that
        shape.
      predictions, mask, targets, where: as in `squared_error`.

    Returns:
      The pair `(per_step, mask)`, `per_step` in the shape of `predictions`, 0 in padding.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> targets, mask = jnp.array([[4.0, -4.0, jnp.nan]]), jnp.array([[True, True, False]])
      >>> jm.losses.quantile_loss(jnp.zeros((1, 3)), mask, targets, quantile=0.75)[0].tolist()
      [[3.0, 1.0, 0.0]]

    Source: Koenker and Bassett, 1978, Regression quantiles, doi:10.2307/1913643. The mean agrees
    with `sklearn.metrics.mean_pinball_loss` of the real steps.
    """

    def loss(predictions: Array, targets: Array, quantile: Array) -> Array:
        error = targets - predictions
        below = jnp.where(error < 0, (quantile - 1) * error, 0 * error)  # nan stays nan
        return jnp.where(error > 0, quantile * error, below)

    seen = quantile if isinstance(quantile, int | float) else _check.known(quantile)
    if seen is not None and not jnp.ndim(seen) and not 0 < seen < 1:  # padding holds anything
        raise ValueError(f"quantile_loss: `quantile` must lie between 0 and 1, got {quantile}.")
    arrays = {"predictions": predictions, "targets": targets}
    return _per_step.elementwise(
        "quantile_loss", loss, mask, arrays, {"quantile": quantile}, present=where
    )


@refusing_pairs
def poisson_nll_loss(
    log_predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    full: bool = False,
    where: ArrayLike | None = None,
) -> Pair:
    """Negative log likelihood of counts under Poisson distributions.

        y = exp(log_predictions) - targets log_predictions    [+ log targets! with `full`]

    Args:
      log_predictions: logarithms of the rates, as the `predictions` of `squared_error`. A rate of 0
        is -inf, and costs inf where the count is not 0. Of rates, pass `jnp.log(rates)`.
      targets: counts, at least 0, the shape of `log_predictions`; integer or floating.
      full: static; add the term that does not depend on the predictions.
      mask, where: as in `squared_error`.

    Returns:
      The pair `(per_step, mask)`, as in `squared_error`, in nats.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> log_rates, counts = jnp.array([[0.0, jnp.nan]]), jnp.array([[3, -1]])
      >>> jm.losses.poisson_nll_loss(log_rates, jnp.array([[True, False]]), counts)[0].tolist()
      [[1.0, 0.0]]

    Agrees with PyTorch's `poisson_nll_loss`, whose `full` term is Stirling's
    approximation, and with Keras's `Poisson` of the rates, up to its epsilon.
    """

    def loss(log_predictions: Array, targets: Array) -> Array:
        y = jnp.exp(log_predictions) - times(targets, log_predictions)
        return y + jax.scipy.special.gammaln(targets + 1) if full else y

    full = _check.flag(full, "poisson_nll_loss", "full")
    arrays = {"log_predictions": log_predictions, "targets": targets}
    return _per_step.elementwise("poisson_nll_loss", loss, mask, arrays, present=where)


@refusing_pairs
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
    arrays = {"predictions": predictions, "targets": targets}
    options = {"epsilon": epsilon}
    return _per_step.over_features("cosine_similarity", _cosine, mask, arrays, options)


@refusing_pairs
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
    arrays = {"predictions": predictions, "targets": targets}
    options = {"epsilon": epsilon}
    return _per_step.over_features(
        "cosine_distance", lambda x, y, epsilon: 1 - _cosine(x, y, epsilon), mask, arrays, options
    )


def _cosine(predictions: Array, targets: Array, epsilon: Array) -> Array:
    def unit(x: Array) -> Array:
        square = jnp.sum(x * x, axis=-1)
        return x / jnp.sqrt(jnp.where(square > epsilon, square, epsilon))[..., None]

    return jnp.sum(unit(predictions) * unit(targets), axis=-1)
