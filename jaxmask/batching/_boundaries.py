"""The time sizes of buckets: chosen to give the fewest steps, or checked."""

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jaxmask import _check


def fewest_steps(
    lengths: np.ndarray,
    rows_of: Callable[[np.ndarray], np.ndarray],
    max_shapes: int,
    candidates: int = 512,
) -> tuple[int, ...]:
    """Choose time sizes so that all batches together have the fewest steps, padding included.

        steps = sum over buckets: ceil(sequences / rows) * rows * boundary

    Dynamic programming over the sorted sizes, with one more bucket in each round: exact where there
    are no more than `candidates` different lengths. Of equally good choices the one with the fewest
    shapes is taken.

    Args:
      lengths: `[sequences]`, integer.
      rows_of: gives for each of an array of time sizes the rows of a batch, at least 1.
      max_shapes: the most sizes to return.
      candidates: the most sizes to choose from.

    Returns:
      Increasing sizes, at least 1 each, the last one the longest length; `()` for no sequence.

    Example:
      >>> fewest_steps(np.array([1, 1, 9, 10]), lambda sizes: np.full_like(sizes, 2), max_shapes=2)
      (1, 10)
    """
    ordered = np.sort(np.maximum(lengths, 1))
    if not len(ordered):
        return ()
    sizes = np.unique(ordered)
    if len(sizes) > candidates:
        sizes = np.unique(ordered[np.linspace(0, len(ordered) - 1, candidates).astype(int)])
    edges = np.concatenate([[0], np.searchsorted(ordered, sizes, side="right")])
    rows = edges[1:] - edges[:-1, None]  # [first size, last size] of a bucket
    batch_rows = rows_of(sizes)
    cost = np.where(rows > 0, -(-rows // batch_rows) * batch_rows * sizes, np.inf)
    best = cost[0]
    totals, firsts = [best[-1]], [np.zeros(len(sizes), int)]
    for _ in range(1, min(max_shapes, len(sizes))):
        through = best[:-1, None] + cost[1:]
        firsts.append(np.argmin(through, axis=0) + 1)
        best = np.min(through, axis=0)
        totals.append(best[-1])
    return _traced_back(sizes, firsts[: int(np.argmin(totals)) + 1])


def _traced_back(sizes: np.ndarray, firsts: list[np.ndarray]) -> tuple[int, ...]:
    """From the first size of each best last bucket to the boundaries of all buckets."""
    last = len(sizes) - 1
    chosen = []
    for first in reversed(firsts):
        chosen.append(int(sizes[last]))
        last = int(first[last]) - 1
    return tuple(reversed(chosen))


def check_boundaries(
    boundaries: Sequence[int],
    lengths: np.ndarray,
    where: str,
    indices: Sequence[int] | np.ndarray | None = None,
) -> tuple[int, ...]:
    """Time sizes that increase, and that no sequence exceeds; `indices` are the sequences' names.

    Example:
      >>> check_boundaries([2, 4], np.array([3]), "example")
      (2, 4)
    """
    if not isinstance(boundaries, Iterable):
        raise TypeError(
            f"{where}: `boundaries` must be a sequence of ints, got {type(boundaries).__name__}."
        )
    sizes = tuple(_check.count(size, where, "boundaries", least=1) for size in boundaries)
    if not sizes or any(low >= high for low, high in itertools.pairwise(sizes)):
        raise ValueError(
            f"{where}: `boundaries` must be at least one time size, increasing, got {sizes}."
        )
    longest = int(np.argmax(lengths)) if len(lengths) else None
    if longest is not None and lengths[longest] > sizes[-1]:
        index = longest if indices is None else indices[longest]
        raise ValueError(
            f"{where}: `sequences[{index}]` has {lengths[longest]} steps, more than the last of "
            f"`boundaries`, {sizes[-1]}. Nothing is cut off in silence: add a boundary, or cut or "
            "leave out long sequences first."
        )
    return sizes


def rows_of(
    batch_size: int | None, tokens: int | None, shards: int, where: str
) -> Callable[[np.ndarray], np.ndarray]:
    """The rows of a batch, of all processes together, for each of an array of time sizes.

    Example:
      >>> rows_of(None, 100, 2, "example")(np.array([10, 30]))
      array([10,  2])
    """
    if (batch_size is None) == (tokens is None):
        raise TypeError(
            f"{where}: give either `batch_size`, the rows of each batch, or `tokens`, its most "
            f"steps, got {batch_size} and {tokens}."
        )
    if tokens is not None:
        most = _check.count(tokens, where, "tokens", least=1)
        return lambda sizes: most // sizes // shards * shards
    rows = _check.count(batch_size, where, "batch_size", least=1)
    if rows % shards:
        raise ValueError(
            f"{where}: `batch_size` must be a multiple of the {shards} processes of `shard`, got "
            f"{rows}."
        )
    return lambda sizes: np.full(len(sizes), rows)


def check_rows(
    rows: np.ndarray, sizes: Sequence[int] | np.ndarray, tokens: int | None, where: str
) -> None:
    """Every bucket must have batches of at least one row.

    Example:
      >>> check_rows(np.array([2]), [30], 60, "example")
    """
    if not all(rows):
        size = int(sizes[int(np.argmin(rows))])
        raise ValueError(
            f"{where}: `tokens` must hold a row of {size} steps for each process, got {tokens}. "
            "Raise it, or cut or leave out long sequences first."
        )


def rows_of_batches(
    sizes: Sequence[int], batch_size: int | None, tokens: int | None, where: str
) -> list[int]:
    """The rows of the batches of each bucket.

    Example:
      >>> rows_of_batches([10, 30], None, 60, "example")
      [6, 2]
    """
    rows = rows_of(batch_size, tokens, 1, where)(np.array(sizes))
    check_rows(rows, sizes, tokens, where)
    return [int(number) for number in rows]
