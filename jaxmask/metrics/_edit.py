"""Edit distance between ragged rows of ids, and the token error rate."""

from typing import Self

import jax
import jax.numpy as jnp

from jaxmask import _check, masks, ops
from jaxmask._errors import refusing_pairs
from jaxmask._types import Array, ArrayLike, Ids, Lengths, Mask, Scalar
from jaxmask.metrics._mean import Ratio
from jaxmask.metrics._metric import metric


@refusing_pairs
def edit_distance(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, target_mask: Mask
) -> tuple[Lengths, Mask]:
    """Fewest insertions, deletions and substitutions that turn each row into its target.

        d[i, 0] = i,   d[0, j] = j
        d[i, j] = min(d[i-1, j] + 1, d[i, j-1] + 1, d[i-1, j-1] + [predictions[i] != targets[j]])

    Both masks may have their padding anywhere (mask class: any). A scan over the predictions
    computes one row of d, over all targets, at a time.

    Args:
      predictions: `[batch, time]`, integer ids.
      mask: `[batch, time]`, boolean, or None.
      targets: `[batch, target]`, integer ids.
      target_mask: `[batch, target]`, boolean, or None.

    Returns:
      The pair `(distance, row_mask)`: `distance [batch]`, int32; `row_mask [batch]`, True where the
      row has a real id on either side. Where one side is empty, the distance is the length of the
      other; where both are, 0 and False. With both masks None the row mask is None.

    Raises:
      MaskError: if a mask does not belong to its array, or is `Segments`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 2, 3, 0]]), jnp.array([[2, 3, 4]])
      >>> mask = jnp.array([[True, True, True, False]])
      >>> distance, row_mask = jm.metrics.edit_distance(predictions, mask, targets, None)
      >>> distance.tolist(), row_mask.tolist()
      ([2], [True])

    Source: Wagner and Fischer, 1974, The string-to-string correction problem,
    doi:10.1145/321796.321811.
    """
    predictions, length, targets, target_length = _both(
        predictions, mask, targets, target_mask, "edit_distance"
    )
    distance = _distance(predictions, length, targets, target_length)
    if mask is None and target_mask is None:
        return distance, None
    return distance, (length > 0) | (target_length > 0)


def _both(
    predictions: ArrayLike, mask: Mask, targets: ArrayLike, target_mask: Mask, where: str
) -> tuple[Ids, Lengths, Ids, Lengths]:
    predictions, length = _tokens(predictions, mask, where, "predictions", "mask")
    targets, target_length = _tokens(targets, target_mask, where, "targets", "target_mask")
    if predictions.shape[0] != targets.shape[0]:
        raise ValueError(
            f"{where}: `predictions` and `targets` must have one batch, got shapes "
            f"{predictions.shape} and {targets.shape}."
        )
    return predictions, length, targets, target_length


def _tokens(
    ids: ArrayLike, mask: Mask, where: str, name: str, mask_name: str
) -> tuple[Ids, Lengths]:
    """Ids with their padding moved to the right, and the number of real ones."""
    ids, mask = _check.pair(
        ids, mask, where, over_time=True, segments=False, name=name, mask_name=mask_name
    )
    if ids.ndim != 2:
        raise ValueError(f"{where}: `{name}` must be of rank 2, one id a step, got {ids.shape}.")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{where}: `{name}` must be integer ids, got dtype {ids.dtype}.")
    ids, mask = ops.compact(ids, mask)
    if mask is None:
        return ids, jnp.full(ids.shape[0], ids.shape[1], jnp.int32)
    return ids, masks.lengths(mask)


def _distance(predictions: Ids, length: Lengths, targets: Ids, target_length: Lengths) -> Lengths:
    batch, time = predictions.shape
    column = jnp.arange(targets.shape[1] + 1, dtype=jnp.int32)[None]

    def next_row(row: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        prediction, real = step
        differs = (prediction[:, None] != targets).astype(jnp.int32)
        entered = jnp.minimum(row[:, 1:] + 1, row[:, :-1] + differs)
        entered = jnp.concatenate([row[:, :1] + 1, entered], axis=1)
        # Each insertion costs 1, so d at column j is j plus the least entered[k] - k over k <= j.
        new = jax.lax.cummin(entered - column, axis=1) + column
        return jnp.where(real[:, None], new, row), None

    first = jnp.broadcast_to(column, (batch, column.shape[1]))
    real = jnp.arange(time)[:, None] < length[None]
    last, _ = jax.lax.scan(next_row, first, (predictions.T, real))
    return jnp.take_along_axis(last, target_length[:, None], axis=1)[:, 0]


@metric
class TokenErrorRate(Ratio):
    """Edits that turn the predictions into the targets, over the number of target tokens.

        compute() = sum of edit distances / number of real target tokens     over all updates

    The word error rate of words, the character error rate of characters. Long rows weigh more than
    short ones, as is customary; the rate can exceed 1.

    Attributes:
      total: number of edits, compensated.
      count: number of real target tokens, compensated.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> predictions, targets = jnp.array([[1, 2, 3, 0]]), jnp.array([[2, 3, 4, 5]])
      >>> mask = jnp.array([[True, True, True, False]])
      >>> metric = jm.metrics.TokenErrorRate.empty().update(predictions, mask, targets, None)
      >>> float(metric.compute())
      0.75
    """

    def update(
        self, predictions: ArrayLike, mask: Mask, targets: ArrayLike, target_mask: Mask
    ) -> Self:
        """Take in a batch.

        A row without a target counts its predictions as edits and adds no token; a row without a
        prediction counts its targets as edits.

        Args:
          predictions, mask, targets, target_mask: as in `edit_distance`.
        """
        where = "TokenErrorRate.update"
        rows = _both(predictions, mask, targets, target_mask, where)
        edits = jnp.sum(_distance(*rows), dtype=jnp.int32)
        return self._plus(edits, jnp.sum(rows[3], dtype=jnp.int32))

    def compute(self) -> Scalar:
        """Edits over tokens, float32; 0 where there was neither, inf where only edits."""
        only_edits = (self.count.value() == 0) & (self.total.value() > 0)
        return jnp.where(only_edits, jnp.inf, super().compute())
