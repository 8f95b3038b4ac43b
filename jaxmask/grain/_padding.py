"""Pad the sequences of a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.fields import Options, by_length, read_columns
from jaxmask._host.padding import padded_columns
from jaxmask._host.rectangle import Side
from jaxmask._host.stream import noting
from jaxmask.grain._records import reader, stacked


def pad(
    maxlen: int | Mapping[str, int] | None = None,
    *,
    key: str | Sequence[str] | None = None,
    keep: Sequence[str] = (),
    value: Any = 0,
    dtype: DTypeLike | Mapping[str, Any] | None = None,
    padding: Side | Mapping[str, Any] = "post",
    lengths: Mapping[str, Any] | Sequence[str] | None = None,
) -> Callable[[Sequence[Any]], Any]:
    """Make the `batch_fn` that pads the sequences of a batch to one length.

    Args:
      maxlen: the steps of every batch, which no sequence may exceed. None takes those of the
        longest sequence of each batch, so each new longest length is a new shape to compile.
      keep: keys of other entries to keep, stacked.
      key: as in `Bucket`.
      value, dtype, padding, lengths: as in `jm.pad_sequences`.

    Returns:
      A function for `dataset.batch(batch_size, batch_fn=...)`. Batches are pairs `(x, mask)`, of
      several fields pairs of dicts; with one `key`, dicts with the key, `"mask"` and what was kept.

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
    if not isinstance(maxlen, Mapping):
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
        columns = read_columns(rows, Options(value, dtype, padding, "post", lengths), where)
        asked = by_length(maxlen, [*columns.lengths], where, "maxlen")
        times = {
            name: _time(found, most, where)
            for (name, found), most in zip(columns.lengths.items(), asked, strict=True)
        }
        x, mask = padded_columns(columns, times, where)
        if not isinstance(key, str):
            return x, mask
        every = np.arange(len(records))
        return {key: x, "mask": mask, **stacked(records, every, keep, len(records), where)}

    return batch


def _time(lengths: np.ndarray, most: int | None, where: str) -> int:
    longest = int(lengths.max(initial=0))
    if most is not None and longest > most:
        raise ValueError(
            f"{where}: record {int(np.argmax(lengths))} of the batch has {longest} steps, more "
            f"than `maxlen`, {most}. Nothing is cut off in silence."
        )
    return longest if most is None else most


def _shortened(record: Any) -> str:
    text = " ".join(repr(record).split())
    return text if len(text) <= 80 else text[:77] + "..."
