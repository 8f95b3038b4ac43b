"""Losses of a yes or no for each element."""

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.losses import _per_step
from jaxmask.losses._logs import times

__all__ = [
    "hinge_loss",
    "perceptron_loss",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "sparsemax_loss",
]


def sigmoid_binary_cross_entropy(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Cross entropy of independent yes-or-no predictions.

        p = sigmoid(predictions)
        y = -targets log p - (1 - targets) log(1 - p),   0 log 0 = 0

    Args:
      predictions: logits, `[batch, time, feature...]`, or `[batch, feature...]` with a row mask;
        floating.
      mask: boolean, or `Segments`, or None.
      targets: the shape of `predictions`; 0 or 1, or probabilities; boolean, integer or floating.
        An integer that is neither 0 nor 1 at a real step is a ValueError; under `jit`, where values
        cannot be seen, it gives nan.

    Returns:
      The pair `(per_step, mask)`, `per_step` like `predictions`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `squared_error`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[0.0, jnp.nan]]), jnp.array([[1, -100]])
      >>> mask = jnp.array([[True, False]])
      >>> y, _ = jm.losses.sigmoid_binary_cross_entropy(predictions, mask, targets)
      >>> [round(value, 4) for value in y[0].tolist()]
      [0.6931, 0.0]

    Agrees with `optax.losses.sigmoid_binary_cross_entropy` of each unpadded row.
    """
    where = "sigmoid_binary_cross_entropy"
    return _per_step.elementwise(where, _cross_entropy, predictions, mask, targets, yes_or_no=True)


def _cross_entropy(logits: Array, targets: Array) -> Array:
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -times(targets, yes) - times(1 - targets, no)


def sigmoid_focal_loss(
    predictions: ArrayLike,
    mask: Mask,
    targets: ArrayLike,
    *,
    alpha: float | Array | None = None,
    gamma: float | Array = 2.0,
) -> Pair:
    """Binary cross entropy that counts easy elements less.

        p = sigmoid(predictions) where targets = 1, 1 - sigmoid(predictions) where targets = 0
        a = alpha where targets = 1, 1 - alpha where targets = 0; 1 without alpha
        y = -a (1 - p)^gamma log p

    Args:
      predictions: logits, `[batch, time, feature...]`, or `[batch, feature...]` with a row mask;
        floating.
      mask: boolean, or `Segments`, or None.
      targets: the shape of `predictions`; 0 or 1, or probabilities; boolean, integer or floating.
        An integer that is neither 0 nor 1 at a real step is a ValueError; under `jit`, where values
        cannot be seen, it gives nan.
      alpha: in (0, 1), the weight of yes against no: a number, or an array by row, by step or by
        element.
      gamma: alike; the larger, the less an easy element counts.

    Returns:
      The pair `(per_step, mask)`, `per_step` like `predictions`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `squared_error`; ValueError if an option has another
        shape.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[0.0, jnp.nan]]), jnp.array([[1, -100]])
      >>> y, _ = jm.losses.sigmoid_focal_loss(predictions, jnp.array([[True, False]]), targets)
      >>> [round(value, 4) for value in y[0].tolist()]
      [0.1733, 0.0]

    Source: Lin et al., 2017, Focal loss for dense object detection, arXiv:1708.02002.
    Agrees with `optax.losses.sigmoid_focal_loss` of each unpadded row.
    """

    def loss(logits: Array, targets: Array, alpha: Array | None, gamma: Array) -> Array:
        wrong = (1 - targets) * jax.nn.sigmoid(logits) + targets * jax.nn.sigmoid(-logits)
        some = wrong > 0
        # By the logarithm: a power below 1 has no slope at 0.
        log_wrong = jnp.log(jnp.where(some, wrong, 1))
        focus = jnp.where(some, jnp.exp(gamma * log_wrong), jnp.where(gamma == 0, 1, 0))
        cross_entropy = _cross_entropy(logits, targets)
        endless = jnp.isinf(cross_entropy)
        # There the focus has come to stand still: its slope is 0, and 0 * inf is nan.
        y = jnp.where(
            endless,
            jax.lax.stop_gradient(focus) * cross_entropy,
            focus * jnp.where(endless, 0, cross_entropy),
        )
        return y if alpha is None else (alpha * targets + (1 - alpha) * (1 - targets)) * y

    where, options = "sigmoid_focal_loss", {"alpha": alpha, "gamma": gamma}
    return _per_step.elementwise(where, loss, predictions, mask, targets, yes_or_no=True, **options)


def hinge_loss(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Zero where the score has the right sign and is at least 1 in size, linear before.

        y = max(0, 1 - predictions targets)     without a gradient where the two are equal

    Args:
      predictions: scores, `[batch, time, feature...]`, or `[batch, feature...]` with a row mask;
        floating.
      mask: boolean, or `Segments`, or None.
      targets: the shape of `predictions`; -1 or 1, integer or floating.

    Returns:
      The pair `(per_step, mask)`, `per_step` like `predictions`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `squared_error`; TypeError if `targets` are boolean.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[0.5, 0.5, 9.0]]), jnp.array([[1, -1, 0]])
      >>> jm.losses.hinge_loss(predictions, jnp.array([[True, True, False]]), targets)[0].tolist()
      [[0.5, 1.5, 0.0]]

    Source: Cortes and Vapnik, 1995, Support-vector networks, doi:10.1007/BF00994018.
    Agrees with `optax.losses.hinge_loss` of each unpadded row.
    """
    _refuse_booleans(targets, "hinge_loss")

    def loss(predictions: Array, targets: Array) -> Array:
        return _positive(1 - predictions * targets)

    return _per_step.elementwise("hinge_loss", loss, predictions, mask, targets)


def perceptron_loss(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Zero where the score has the right sign, its size where it has not.

        y = max(0, -predictions targets)     without a gradient where the two are equal

    Args:
      predictions: scores, `[batch, time, feature...]`, or `[batch, feature...]` with a row mask;
        floating.
      mask: boolean, or `Segments`, or None.
      targets: the shape of `predictions`; -1 or 1, integer or floating.

    Returns:
      The pair `(per_step, mask)`, `per_step` like `predictions`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `hinge_loss`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[0.5, 0.5]]), jnp.array([[1, -1]])
      >>> jm.losses.perceptron_loss(predictions, jnp.array([[True, True]]), targets)[0].tolist()
      [[0.0, 0.5]]

    Source: Rosenblatt, 1958, The perceptron, doi:10.1037/h0042519.
    Agrees with `optax.losses.perceptron_loss` of each unpadded row.
    """
    _refuse_booleans(targets, "perceptron_loss")

    def loss(predictions: Array, targets: Array) -> Array:
        return _positive(-predictions * targets)

    return _per_step.elementwise("perceptron_loss", loss, predictions, mask, targets)


def _positive(x: Array) -> Array:
    # Not `jnp.maximum`, whose gradient asks which of the two is equal to the result.
    return jnp.where(x <= 0, 0, x)


def sparsemax_loss(predictions: ArrayLike, mask: Mask, targets: ArrayLike) -> Pair:
    """Binary loss that is exactly 0 from a margin of 1 on, and smooth before.

        s = -predictions where targets, else predictions
        y = 0 where s <= -1, (s + 1)^2 / 4 where -1 < s < 1, s where s >= 1

    Args:
      predictions: scores, `[batch, time, feature...]`, or `[batch, feature...]` with a row mask;
        floating.
      mask: boolean, or `Segments`, or None.
      targets: the shape of `predictions`; 0 or 1, boolean or integer. Another integer at a real
        step is a ValueError; under `jit`, where values cannot be seen, it gives nan.

    Returns:
      The pair `(per_step, mask)`, `per_step` like `predictions`, 0 in padding.

    Raises:
      TypeError, ValueError, MaskError: as `squared_error`; TypeError if `targets` are floating,
        since any probability but 0 would count as yes.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[0.0, 3.0, 3.0]]), jnp.array([[1, 1, 0]])
      >>> jm.losses.sparsemax_loss(predictions, jnp.ones((1, 3), bool), targets)[0].tolist()
      [[0.25, 0.0, 3.0]]

    Source: Blondel, Martins and Niculae, 2020, Learning with Fenchel-Young losses,
    arXiv:1901.02324, section 4.4. Agrees with `optax.losses.sparsemax_loss` of each unpadded row.
    """
    where, dtype = "sparsemax_loss", _check.array(targets, "targets", "sparsemax_loss").dtype
    if not (dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.integer)):
        raise TypeError(
            f"{where}: `targets` must be 0 or 1, boolean or integer, got dtype {dtype}."
        )

    def loss(predictions: Array, targets: Array) -> Array:
        s = jnp.where(targets != 0, -predictions, predictions)
        # Selected before the square too: that of an infinite score has the gradient 0 * inf.
        curved = jnp.where(jnp.abs(s) >= 1, 0, s)
        return jnp.where(s <= -1, 0, jnp.where(s >= 1, s, (curved + 1) ** 2 / 4))

    return _per_step.elementwise(where, loss, predictions, mask, targets, yes_or_no=True)


def _refuse_booleans(targets: ArrayLike, where: str) -> None:
    if _check.array(targets, "targets", where).dtype == jnp.bool_:
        raise TypeError(
            f"{where}: `targets` must be -1 or 1, got dtype bool. Pass `2 * targets - 1` in the "
            "dtype of `predictions`."
        )
