"""Steps chosen by their rank among the real steps of their row, as on the unpadded row.

`Segments` are refused: a rank in a packed row does not say in which sequence it counts.
"""

import jax.numpy as jnp
from jaxtyping import Int

from jaxmask import _check, masks, ops
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled, gather
from jaxmask._types import Array, ArrayLike, Mask, Pair


@refusing_pairs
def crop(x: ArrayLike, mask: Mask, width: tuple[int, int]) -> Pair:
    """Drop the first and last real steps of each row, and move the rest to the left.

    Mask class: any. What is dropped is counted in real steps, so a short row loses its own ends and
    not its padding.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or None. `Segments` are refused.
      width: static `(left, right)` numbers of real steps.

    Returns:
      The pair `(y, mask)`, `y [batch, max(0, time - left - right), feature...]`, padded on the
      right. A row with fewer steps than are dropped is empty.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> mask = jnp.array([[True, True, True, False]])
      >>> y, mask = jm.shape.crop(jnp.array([[1, 2, 3, 0]]), mask, (1, 1))
      >>> y.tolist(), mask.tolist()
      ([[2, 0]], [[True, False]])
    """
    left, right = _check.two_counts(width, "crop", "width", "left, right")
    x, mask = _check.pair(x, mask, "crop", over_time=True, segments=False)
    kept = slice(left, max(left, x.shape[1] - right))
    if mask is None:
        return x[:, kept], None
    y, _ = ops.compact(x, mask)
    time = y[:, kept].shape[1]
    rest = masks.lengths(mask)[:, None] - left - right
    real = jnp.arange(time)[None] < rest
    return filled(y[:, kept], real), real


@refusing_pairs
def take(x: ArrayLike, mask: Mask, indices: ArrayLike) -> Pair:
    """Gather given real steps of each row.

        y[b, k] = the indices[b, k]-th real step of row b

    Mask class: any. The result always has a mask, since an index may point at no step.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or None. `Segments` are refused.
      indices: `[batch, n]`, integer ranks among the real steps of the row, from 0; negative ones
        count from its end. They may repeat.

    Returns:
      The pair `(y, mask)`: `y [batch, n, feature...]`, and mask `[batch, n]`, False (and 0 in `y`)
      where the row has no such step.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[9, 1, 2, 3]]), jnp.array([[False, True, True, True]])
      >>> y, mask = jm.shape.take(x, mask, jnp.array([[0, -1, 3]]))
      >>> y.tolist(), mask.tolist()
      ([[1, 3, 0]], [[True, True, False]])

    Agrees with `numpy.take` of the unpadded row.
    """
    x, mask = _check.pair(x, mask, "take", over_time=True, segments=False)
    index = _ranks(indices, x, "take", "indices")
    lengths = _lengths(x, mask)
    index = jnp.where(index < 0, index + lengths, index)
    return _gather(x, mask, index, (index >= 0) & (index < lengths))


@refusing_pairs
def split_at(x: ArrayLike, mask: Mask, positions: ArrayLike) -> list[Pair]:
    """Cut each row at its own positions, such as a prompt from its answer.

        piece i of row b = its real steps of rank positions[b, i - 1] up to positions[b, i]

    Mask class: any. `jm.shape.split` cuts all rows at the same positions. Every piece has a mask,
    since it is padded to the length of `x`.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or None. `Segments` are refused.
      positions: `[batch, cuts]`, or `[batch]` for one cut: integer ranks among the real steps of
        the row, in order; negative ones count from its end. A cut beyond the row leaves an empty
        piece.

    Returns:
      A list of `cuts + 1` pairs `(piece [batch, time, feature...], mask [batch, time])`, each
      padded on the right.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[1, 2, 3, 9]]), jnp.array([[True, True, True, False]])
      >>> prompt, answer = jm.shape.split_at(x, mask, jnp.array([1]))
      >>> prompt[0].tolist(), answer[0].tolist(), answer[1].tolist()
      ([[1, 0, 0, 0]], [[2, 3, 0, 0]], [[True, True, False, False]])

    Agrees with `numpy.split` of the unpadded row.
    """
    x, mask = _check.pair(x, mask, "split_at", over_time=True, segments=False)
    cuts = _check.array(positions, "positions", "split_at")
    cuts = _ranks(cuts[:, None] if cuts.ndim == 1 else cuts, x, "split_at", "positions")
    lengths = _lengths(x, mask)
    cuts = jnp.clip(jnp.where(cuts < 0, cuts + lengths, cuts), 0, lengths)
    bounds = jnp.concatenate([jnp.zeros_like(lengths), cuts, lengths], axis=1)
    pieces = []
    for i in range(bounds.shape[1] - 1):
        rank = bounds[:, i : i + 1] + jnp.arange(x.shape[1])[None]
        pieces.append(_gather(x, mask, rank, rank < bounds[:, i + 1 : i + 2]))
    return pieces


def _ranks(indices: ArrayLike, x: Array, where: str, name: str) -> Int[Array, "batch n"]:
    index = _check.array(indices, name, where)
    if not jnp.issubdtype(index.dtype, jnp.integer):
        raise TypeError(f"{where}: `{name}` must be integers, got dtype {index.dtype}.")
    if index.ndim != 2 or index.shape[0] != x.shape[0]:
        raise ValueError(
            f"{where}: `{name}` must be [batch, n] with a batch of {x.shape[0]}, got {index.shape}."
        )
    return index.astype(jnp.int32)


def _lengths(x: Array, mask: Mask) -> Int[Array, "batch 1"]:
    if mask is None:
        return jnp.full((x.shape[0], 1), x.shape[1], jnp.int32)
    return masks.lengths(mask)[:, None]


def _gather(x: Array, mask: Mask, rank: Array, inside: Array) -> Pair:
    """The steps of these ranks, real where `inside`."""
    if not x.shape[1]:
        return jnp.zeros((*rank.shape, *x.shape[2:]), x.dtype), inside
    closed, _ = ops.compact(x, mask)
    # Clipped, since a rank that no step has must not wrap around.
    return filled(gather(closed, rank), inside), inside
