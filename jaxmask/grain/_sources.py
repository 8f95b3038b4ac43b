"""Sequences that are already bucketed or packed, as datasets."""

from collections.abc import Callable
from typing import Any

import grain

from jaxmask import _check
from jaxmask.batching import BucketBatches
from jaxmask.packing import Packed


def batches(bucketed: BucketBatches, epochs: int = 1) -> grain.MapDataset:
    """Read the batches of `jm.bucket_batches` as a dataset of Grain.

    Args:
      bucketed: the batches. With a `shard` they hold the rows of this process, so that all
        processes have the same shape at each step.
      epochs: how many epochs, one after the other, each in its own order.

    Returns:
      A `grain.MapDataset` of `(x, mask, indices)`, with Grain's own state, threads and workers.

    Raises:
      TypeError, ValueError: if `epochs` is not an int, or is negative.

    Example:
      >>> import jaxmask as jm
      >>> bucketed = jm.bucket_batches([[1], [2, 2], [3]], 2, boundaries=[1, 2])
      >>> [indices.tolist() for x, mask, indices in jm.grain.batches(bucketed, epochs=1)]
      [[0, 2], [1, -1]]
    """
    length = _check.count(epochs, "jaxmask.grain.batches", "epochs") * len(bucketed)
    return grain.MapDataset.source(_Items(length, bucketed.__getitem__))


def rows(packed: Packed) -> grain.MapDataset:
    """Read the rows of `jm.pack_sequences` as a dataset of Grain, to shuffle, shard and batch.

    Args:
      packed: the rows.

    Returns:
      A `grain.MapDataset` of dicts with `"x"`, `"mask"`, `"segments"` and `"positions"`, all
      `[row_length, ...]`.

    Example:
      >>> import jaxmask as jm
      >>> packed = jm.pack_sequences([[1], [2, 2], [3, 3, 3]], row_length=3)
      >>> dataset = jm.grain.rows(packed).shuffle(seed=0).batch(2)
      >>> dataset[0]["segments"].shape
      (2, 3)
    """
    names = ("x", "mask", "segments", "positions")
    fields = {name: getattr(packed, name) for name in names}
    return grain.MapDataset.source(
        _Items(len(packed.x), lambda row: {name: fields[name][row] for name in names})
    )


class _Items:
    """A sequence of `length` items that `get` reads by index."""

    def __init__(self, length: int, get: Callable[[int], Any]):
        self._length, self._get = length, get

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return self._get(index)
