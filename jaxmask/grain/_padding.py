"""Pad the sequences of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.rectangle import fill_value, full
from jaxmask._host.stream import noting
from jaxmask.batching import pad_sequences
from jaxmask.grain._records import reader, stacked


def pad(
    maxlen: int | None = None,
    *,
    key: str | None = None,
    keep: Sequence[str] = (),
    value: Any = 0,
    dtype: DTypeLike | None = None,
) -> Callable[[Sequence[Any]], Any]:
    """Make the `batch_fn` that pads the sequences of a batch to one length.

    Args:
      maxlen: the steps of every batch, which no sequence may exceed. None takes those of the
        longest sequence of each batch, so each new longest length is a new shape to compile.
      key: of the sequence in a record; None if the record is the sequence.
      keep: keys of other entries to keep, stacked.
      value: of the padding.
      dtype: as in `jm.pad_sequences`.

    Returns:
      A function for `dataset.batch(batch_size, batch_fn=...)`. Batches are pairs `(x, mask)`; with
      a `key`, dicts with the key, `"mask"` and what was kept.

    Raises:
      TypeError: if `keep` is given without `key`.
      KeyError, ValueError: in the pipeline, if a record lacks a key, or is longer than `maxlen`; or
        as `jm.pad_sequences`.

    Example:
      >>> import grain, jaxmask as jm
      >>> dataset = grain.MapDataset.source([[1], [2, 2], [3]])
      >>> x, mask = next(iter(dataset.batch(2, batch_fn=jm.grain.pad())))
      >>> x.tolist(), mask.tolist()
      ([[1, 0], [2, 2]], [[True, False], [True, True]])
    """
    where = "jaxmask.grain.pad"
    row_of = reader(key, keep, ["mask"], where)
    maxlen = _check.optional_count(maxlen, where, "maxlen")

    def batch(records: Sequence[Any]) -> Any:
        try:
            return padded(records)
        except Exception as error:
            error.add_note(
                f"{where}: records are counted from the first one of their batch, since Grain does "
                f"not say which batch this is. It has {len(records)}, and begins with "
                f"{_shortened(records[0]) if len(records) else 'none'}."
            )
            raise

    def padded(records: Sequence[Any]) -> Any:
        rows = [noting(k, where, row_of, record) for k, record in enumerate(records)]
        x, mask = pad_sequences(rows, None, dtype, value=value)
        if maxlen is not None:
            if x.shape[1] > maxlen:
                raise ValueError(
                    f"{where}: record {int(np.argmax(mask.sum(1)))} of the batch has {x.shape[1]} "
                    f"steps, more than `maxlen`, {maxlen}. Nothing is cut off in silence."
                )
            wide = full((len(x), maxlen, *x.shape[2:]), fill_value(value, x.dtype, where))
            wide[:, : x.shape[1]] = x
            x, mask = wide, np.pad(mask, ((0, 0), (0, maxlen - x.shape[1])))
        if key is None:
            return x, mask
        every = np.arange(len(records))
        return {key: x, "mask": mask, **stacked(records, every, keep, len(records), where)}

    return batch


def _shortened(record: Any) -> str:
    text = " ".join(repr(record).split())
    return text if len(text) <= 80 else text[:77] + "..."
