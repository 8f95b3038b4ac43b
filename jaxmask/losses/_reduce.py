"""From per-step values to one number."""

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._reduction import total_and_count
from jaxmask._sums import divide
from jaxmask._types import ArrayLike, Mask, Scalar


@refusing_pairs
def reduce(
    per_step: ArrayLike,
    mask: Mask,
    weights: ArrayLike | None = None,
    by: str = "step",
    *,
    where: ArrayLike | None = None,
) -> Scalar:
    """Reduce per-step values to one number over the real steps.

        by="step"   sum w y / sum w          over the real steps of the batch
        by="row"    mean over rows of (sum_t w y / sum_t w)      over rows with a real step
        by="sum"    sum w y

    Trailing feature axes of `per_step` are averaged within their step first.

    Args:
      per_step: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; real numbers.
        Without a mask it holds steps, unless it is `[batch]`.
      mask: boolean, or `Segments` (rows are then segments), or None.
      weights: `[batch, time]` weighs steps, and `[batch]` weighs rows: every step of a row by
        "step" and "sum", the row's mean by "row". None weighs all equally. A weight of 0 does not
        hide a nan at a real step: take that step out of the mask.
      by: what weighs the same without `weights`, "step" or "row"; "sum" divides by nothing.
      where: boolean, the shape of `per_step`, False where a value is missing; None: none is. A step
        then counts by the fraction of its values that are present, so that each of them weighs the
        same, and the mean is that over all values present.

    Returns:
      A scalar, in at least float32; 0 where there is nothing to count: no real step, or weights
      that sum to 0. By "row", a row whose weights sum to 0 does not count.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> per_step = jnp.array([[1.0, 1.0, 1.0], [5.0, jnp.nan, jnp.nan]])
      >>> mask = jnp.array([[True, True, True], [True, False, False]])
      >>> float(jm.losses.reduce(per_step, mask)), float(jm.losses.reduce(per_step, mask, by="row"))
      (2.0, 3.0)

    Over devices and accumulated steps a mean of means is wrong: `accumulate` sums both numbers of
    `sum_and_count`, and divides once.
    """
    _check.choice(by, ("step", "row", "sum"), "reduce", "by")
    step_or_row = "step" if by == "sum" else by
    total, count = total_and_count(per_step, mask, weights, step_or_row, "reduce", where)
    return total if by == "sum" else divide(total, count)


@refusing_pairs
def sum_and_count(
    per_step: ArrayLike,
    mask: Mask,
    weights: ArrayLike | None = None,
    by: str = "step",
    *,
    where: ArrayLike | None = None,
) -> tuple[Scalar, Scalar]:
    """The sum of per-step values, and the count to divide it by.

        by="step"   (sum w y, sum w)         over the real steps of the batch
        by="row"    (sum over rows of sum_t w y / sum_t w, number of rows)   with a real step

    The mean over several devices or accumulated steps is the sum of all totals over the sum of all
    counts: `jax.lax.psum(total, axis) / jax.lax.psum(count, axis)`. Likewise for gradients:
    differentiate `total`, sum the gradients, and divide by the sum of the counts.

    Args:
      per_step: `[batch, time, feature...]`, or `[batch, feature...]` with a row mask; real numbers.
      mask: boolean, or `Segments` (rows are then segments), or None.
      weights: `[batch, time]` or `[batch]`, as in `reduce`.
      by: "step" or "row". A "sum" has no count: over devices, sum the totals by "step".
      where: as in `reduce`.

    Returns:
      Two scalars `(total, count)`, in at least float32. `reduce` is their quotient.

    Raises:
      TypeError, ValueError, MaskError: as `reduce`; ValueError if `by` is "sum".

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, True, False]])
      >>> total, count = jm.losses.sum_and_count(jnp.array([[1.0, 4.0, 9.0]]), mask)
      >>> float(total), float(count)
      (5.0, 2.0)
    """
    name = "sum_and_count"
    if by == "sum":
        raise ValueError(
            f'{name}: `by` must be "step" or "row", got "sum": a sum has no count. Its total is '
            'that of by="step"; over devices, add the totals and divide by nothing.'
        )
    _check.choice(by, ("step", "row"), name, "by")
    return total_and_count(per_step, mask, weights, by, name, where)
