"""PyTorch's packed sequences as pairs `(x, mask)`, and back."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask import _check, masks
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask.interop._weights import as_numpy, as_torch


def from_packed_sequence(packed: Any, time: int | None = None) -> Pair:
    """Unpack a `PackedSequence` of PyTorch into a padded pair.

    Args:
      packed: a `torch.nn.utils.rnn.PackedSequence`, sorted or not.
      time: number of steps of the padded rows; the longest row where None.

    Returns:
      The pair `(x, mask)`, `x [batch, time, feature...]` in the order that the rows had before they
      were packed, and `mask [batch, time]`.

    Raises:
      TypeError: if `packed` is not a packed sequence.
      ValueError: if a row is longer than `time`.

    Example:
      >>> import torch, jaxmask as jm
      >>> rows = [torch.tensor([1.0]), torch.tensor([2.0, 3.0])]
      >>> packed = torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
      >>> x, mask = jm.interop.from_packed_sequence(packed)
      >>> x.tolist(), mask.tolist()
      ([[1.0, 0.0], [2.0, 3.0]], [[True, False], [True, True]])
    """
    where = "from_packed_sequence"
    if not (hasattr(packed, "batch_sizes") and hasattr(packed, "data")):
        raise TypeError(
            f"{where}: expected a `torch.nn.utils.rnn.PackedSequence`, got "
            f"{_check.kind_of(packed)}. What `pad_packed_sequence` returns, rows and lengths, has "
            "its mask from `jm.masks.from_lengths(lengths, time)`."
        )
    data, sizes = as_numpy(packed.data), as_numpy(packed.batch_sizes)
    steps = len(sizes) if time is None else _check.count(time, where, "time")
    if steps < len(sizes):
        raise ValueError(f"{where}: `time` is {steps}, and the longest row has {len(sizes)} steps.")
    batch = int(sizes[0]) if len(sizes) else 0
    x = np.zeros((batch, steps, *data.shape[1:]), data.dtype)
    mask = np.zeros((batch, steps), bool)
    mask[:, : len(sizes)] = np.arange(batch)[:, None] < sizes
    # Packed data lies step after step.
    x.swapaxes(0, 1)[mask.T] = data
    if packed.unsorted_indices is not None:
        order = as_numpy(packed.unsorted_indices)
        x, mask = x[order], mask[order]
    return jnp.asarray(x), jnp.asarray(mask)


def to_packed_sequence(x: ArrayLike, mask: Mask) -> Any:
    """Pack the real steps of each row for PyTorch; holes are closed.

    Args:
      x: `[batch, time, feature...]`.
      mask: `[batch, time]`, boolean, or None.

    Returns:
      A `torch.nn.utils.rnn.PackedSequence`; `from_packed_sequence` is its inverse.

    Raises:
      ValueError: if a row is empty, or there is none, which PyTorch cannot pack.

    Example:
      >>> import numpy as np, torch, jaxmask as jm
      >>> x, mask = jm.pad_sequences([[1.0], [2.0, 3.0]])
      >>> jm.interop.to_packed_sequence(x, mask).data.tolist()
      [2.0, 1.0, 3.0]
    """
    where = "to_packed_sequence"
    array, mask = _check.pair(x, mask, where, over_time=True, segments=False)
    real = np.ones(array.shape[:2], bool) if mask is None else np.asarray(masks.as_bool(mask))
    empty = np.flatnonzero(~real.any(axis=1))
    if not len(real):
        raise ValueError(f"{where}: `x` has no row, and PyTorch packs no empty batch.")
    if empty.size:
        raise ValueError(
            f"{where}: row {empty[0]} has no real step in its mask, and PyTorch packs no empty row."
            " Leave such rows out: `x[mask.any(1)], mask[mask.any(1)]`."
        )
    import torch

    values = np.asarray(array)
    rows = [as_torch(values[b][real[b]]) for b in range(len(values))]
    return torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
