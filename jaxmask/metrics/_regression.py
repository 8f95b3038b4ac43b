"""Metrics of predicted quantities."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import jax.numpy as jnp

from jaxmask import _check, _mask_ops, losses
from jaxmask._reduction import total_and_count
from jaxmask._sums import accumulator, divide
from jaxmask._types import Array, ArrayLike, Mask, Pair, Scalar
from jaxmask.metrics._compensated import CompensatedSum, two_product
from jaxmask.metrics._mean import Ratio
from jaxmask.metrics._metric import Metric, metric

_EPSILON = 2.0**-52  # that of float64, which scikit-learn divides by, in any dtype


class _Error(Ratio):
    """The mean of a loss."""

    _loss: ClassVar[Callable[..., Pair]]

    def update(
        self,
        predictions: ArrayLike,
        mask: Mask,
        targets: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        where: ArrayLike | None = None,
    ) -> Self:
        """Take in a batch.

        Args:
          predictions: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask;
            floating. Features are averaged within their step.
          mask: boolean, or `Segments`, or None: every step is real.
          targets: the shape of `predictions`.
          weights: `[batch, time]` or `[batch]`, as in `jm.losses.reduce`; None weighs all alike.
          where: boolean, the shape of `predictions`, False where a value is missing; None: none is.
        """
        name = f"{type(self).__name__}.update"
        wide = _check.array(predictions, "predictions", name)
        wide = wide.astype(accumulator(wide.dtype))  # a square may not fit in 16 bits
        per_step, mask = self._loss(wide, mask, targets, where=where)
        return self._plus(*total_and_count(per_step, mask, weights, "step", name, where))


@metric
class MeanSquaredError(_Error):
    """Mean of the squared errors of the real steps.

        compute() = sum w (predictions - targets)^2 / sum w     over the real steps of all updates

    Its square root is the root mean squared error; a mean of the roots of batches is not.

    Attributes:
      total: sum of the squared errors, compensated.
      count: number of real steps, or sum of their weights, compensated.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1.0, 5.0, jnp.nan]]), jnp.zeros((1, 3))
      >>> mask = jnp.array([[True, True, False]])
      >>> metric = jm.metrics.MeanSquaredError.empty().update(predictions, mask, targets)
      >>> float(metric.compute())
      13.0

    Agrees with `sklearn.metrics.mean_squared_error` of the real steps.
    """

    _loss = staticmethod(losses.squared_error)


@metric
class RootMeanSquaredError(MeanSquaredError):
    """Square root of the mean of the squared errors of the real steps.

        compute() = sqrt(sum w (predictions - targets)^2 / sum w)     over all updates

    A mean of the roots of batches is not that root. Attributes as those of `MeanSquaredError`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1.0, 7.0, jnp.nan]]), jnp.zeros((1, 3))
      >>> mask = jnp.array([[True, True, False]])
      >>> metric = jm.metrics.RootMeanSquaredError.empty().update(predictions, mask, targets)
      >>> float(metric.compute())
      5.0

    Agrees with `sklearn.metrics.root_mean_squared_error` of the real steps of one output; of
    several, that averages their roots.
    """

    def compute(self) -> Scalar:
        """The root, float32; 0 where nothing was counted."""
        mean = super().compute()
        some = mean != 0  # the gradient of a root is infinite at 0
        return jnp.where(some, jnp.sqrt(jnp.where(some, mean, 1)), 0)


@metric
class MeanAbsoluteError(_Error):
    """Mean of the sizes of the errors of the real steps.

        compute() = sum w |predictions - targets| / sum w     over the real steps of all updates

    Attributes:
      total: sum of the absolute errors, compensated.
      count: number of real steps, or sum of their weights, compensated.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1.0, -5.0, jnp.nan]]), jnp.zeros((1, 3))
      >>> mask = jnp.array([[True, True, False]])
      >>> metric = jm.metrics.MeanAbsoluteError.empty().update(predictions, mask, targets)
      >>> float(metric.compute())
      3.0

    Agrees with `sklearn.metrics.mean_absolute_error` of the real steps.
    """

    _loss = staticmethod(losses.absolute_error)


def _relative_error(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, *, where: ArrayLike | None
) -> Pair:
    y, mask = losses.absolute_error(predictions, mask, targets, where=where)
    real = _mask_ops.entries(mask, where, y.shape, "MeanAbsolutePercentageError.update")
    size = jnp.abs(jnp.where(real, jnp.asarray(targets, y.dtype), 1))
    return y / jnp.maximum(size, _EPSILON), mask


@metric
class MeanAbsolutePercentageError(_Error):
    """Mean of the sizes of the errors, each relative to its target: a fraction, not per cent.

        compute() = sum w |predictions - targets| / max(|targets|, epsilon) / sum w

    A target of 0 counts 1 / epsilon = 4.5e15 for an error of 1, as in scikit-learn: take such steps
    out of the mask if that is not what you mean.

    Attributes:
      total: sum of the relative errors, compensated.
      count: number of real steps, or sum of their weights, compensated.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1.0, 3.0, jnp.nan]]), jnp.array([[2.0, 4.0, 0.0]])
      >>> mask = jnp.array([[True, True, False]])
      >>> metric = jm.metrics.MeanAbsolutePercentageError.empty()
      >>> float(metric.update(predictions, mask, targets).compute())
      0.375

    Agrees with `sklearn.metrics.mean_absolute_percentage_error` of the real steps.
    """

    _loss = staticmethod(_relative_error)


@metric
class R2Score(Metric):
    """Coefficient of determination: the fraction of the variance of the targets that is explained.

        compute() = 1 - sum w (targets - predictions)^2 / sum w (targets - mean of targets)^2

    over the real steps of all updates; the mean over outputs where there are several. Where the
    targets are constant it is 1 if the predictions are exact, else 0. The variance is that of exact
    products in two float32 numbers, so that targets far from 0 lose nothing.

    Attributes:
      count: sum of the weights, `[output...]`, compensated.
      first: sum of `w * targets`, likewise.
      second: sum of `w * targets^2`, likewise.
      error: sum of `w * (targets - predictions)^2`, likewise.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> targets = jnp.array([[1.0, 2.0, 3.0, 0.0]])
      >>> predictions = jnp.array([[1.0, 2.0, 2.0, 9.0]])
      >>> mask = jnp.array([[True, True, True, False]])
      >>> float(jm.metrics.R2Score.empty().update(predictions, mask, targets).compute())
      0.5

    Agrees with `sklearn.metrics.r2_score` of the real steps, except that a single one gives 1 or 0
    in place of nan.
    """

    count: CompensatedSum
    first: CompensatedSum
    second: CompensatedSum
    error: CompensatedSum

    @classmethod
    def empty(cls, outputs: tuple[int, ...] = ()) -> Self:
        """The metric of no step at all, for a static shape of the outputs of a step."""
        outputs = tuple(_check.count(n, "R2Score.empty", "outputs", least=1) for n in outputs)
        return cls(*(CompensatedSum.of(jnp.zeros(outputs)) for _ in range(4)))

    def update(
        self,
        predictions: ArrayLike,
        mask: Mask,
        targets: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        where: ArrayLike | None = None,
    ) -> Self:
        """Take in a batch.

        Args:
          predictions, mask, targets, weights, where: as in `MeanSquaredError.update`; predictions
            are `[batch, time, output...]`, weights at least 0.
        """
        name = "R2Score.update"
        _, mask = losses.squared_error(predictions, mask, targets, where=where)  # for its checks
        predicted, true = (jnp.asarray(x, jnp.float32) for x in (predictions, targets))
        outputs, axes = self.count.high.shape, 2 if mask is None else mask.ndim
        if predicted.ndim != axes + len(outputs) or predicted.shape[axes:] != outputs:
            raise ValueError(
                f"{name}: `predictions` must be [batch, time, output...] with outputs of shape "
                f"{outputs}, got {predicted.shape}. Pass the shape of the outputs to "
                "`R2Score.empty`."
            )
        real = _mask_ops.entries(mask, where, predicted.shape, name)
        w = real.astype(jnp.float32)
        if weights is not None:
            given = _check.by_row_or_step(
                weights, predicted, name, "weights", dtype=jnp.float32, of="predictions"
            )
            w = jnp.where(real, given, 0)
        predicted, true = (jnp.where(real, x, 0).reshape(-1, *outputs) for x in (predicted, true))
        w, gap = w.reshape(-1, *outputs), predicted - true
        once, rest = two_product(w, true)
        second = CompensatedSum.of_products(once, true)
        batch = type(self)(
            CompensatedSum.over(w),
            CompensatedSum.over(once, rest),
            second.add(CompensatedSum.of_products(rest, true)),
            CompensatedSum.of_products(w * gap, gap),
        )
        return self.merge(batch)

    def _options(self) -> dict[str, Any]:
        return {"outputs": self.count.high.shape}

    def compute(self) -> Scalar:
        """The score, float32; 0 where nothing was counted."""
        spread, error, count = self._spread(), self.error.value(), self.count.value()
        constant = spread <= 2.0**-42 * self.second.value()  # what rounding leaves of 0
        each = 1 - error / jnp.where(constant, 1, spread)
        each = jnp.where(constant, (error == 0).astype(jnp.float32), each)
        return jnp.mean(jnp.where(count != 0, each, 0))

    def _spread(self) -> Array:
        """`sum w (targets - mean)^2`, whose terms cancel where the mean is far from 0."""
        n, first, second = self.count, self.first, self.second
        # Around a rounded mean m: sum w (t - m)^2 = second - 2 m first + m^2 n.
        m = divide(first.high, n.high)
        linear, linear_rest = two_product(-2 * m, first.high)
        product, product_rest = two_product(m, n.high)
        product_rest += m * n.low
        square, square_rest = two_product(m, product)
        high = jnp.stack([second.high, linear, square])
        low = [second.low, linear_rest - 2 * m * first.low, square_rest + m * product_rest]
        around = CompensatedSum.over(high, jnp.stack(low)).value()
        off = (first.high - product) + (first.low - product_rest)
        return around - divide(off**2, n.high)
