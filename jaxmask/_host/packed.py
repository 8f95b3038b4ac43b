"""Packed rows, and where each sequence is in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check
from jaxmask._host.arrays import to_numpy
from jaxmask._host.fields import BARE, Field
from jaxmask._host.rectangle import full
from jaxmask._types import ArrayLike, Segments


class Pieces(NamedTuple):
    """Where each sequence or record is; a split one has several pieces, a dropped one none.

    Attributes:
      sequence: `[pieces]`, int64, increasing: the index of the sequence.
      row: `[pieces]`, int64; -1 for a sequence without a step.
      start: `[pieces]`, int64, the first step in the row; of records, a dict with an array for
        each length.
      length: `[pieces]`, int64; of records, such a dict.
      segment: `[pieces]`, int64, the id in `segments`; 0 for a sequence without a step.

    Example:
      >>> import jaxmask as jm
      >>> jm.pack_sequences([[1], [2, 2]], row_length=3).pieces.start.tolist()
      [2, 0]
    """

    sequence: np.ndarray
    row: np.ndarray
    start: Any
    length: Any
    segment: np.ndarray


@dataclass(frozen=True, eq=False)
class Packed:
    """Packed rows. All arrays are NumPy's.

    Rows are filled from the left without a gap, so a row is right-padded.

    Of records, `x`, `mask`, `segments` and `positions` are dicts of fields. All fields of a record
    are in one row, and have one id there, whatever their lengths. A field with one value for each
    record is in `x` and `mask` only, arranged as `place` arranges it.

    Attributes:
      x: `[rows, row_length, feature...]`.
      mask: `[rows, row_length]`, boolean, True where a step is real.
      segments: `[rows, row_length]`, int32: 1, 2, ... number the sequences of a row, 0 is padding.
      positions: `[rows, row_length]`, int32, the rank of each step in its sequence; 0 in padding.
      pieces: where each sequence is.
      indices: `[sequences]`, int64, of all sequences that went in, empty and dropped ones included:
        0, 1, ..., or in a batch of a stream their indices in the stream.
      dropped: the steps that were left out, by the index of the sequence that was cut or dropped;
        of records, the values without a length too where a record is in no row.

    Example:
      >>> import jaxmask as jm
      >>> packed = jm.pack_sequences([[1], [2, 2], [3, 3, 3]], row_length=3)
      >>> packed.segments.tolist(), packed.positions.tolist()
      ([[1, 1, 1], [1, 1, 2]], [[0, 1, 2], [0, 1, 0]])
      >>> packed.fill, packed.max_segments
      (1.0, 2)
    """

    x: Any
    mask: Any
    segments: Any
    positions: Any
    pieces: Pieces
    indices: np.ndarray
    dropped: Mapping[int, Any] = field(default_factory=dict)
    _fields: tuple[Field, ...] = field(default=BARE, repr=False)

    @property
    def count(self) -> int:
        """How many sequences went in."""
        return len(self.indices)

    @property
    def fill(self) -> float:
        """The fraction of steps that are real; 1 if there is no row."""
        ids = jax.tree.leaves(self.segments)
        size = sum(each.size for each in ids)
        return float(sum(map(np.count_nonzero, ids)) / size) if size else 1.0

    @property
    def max_segments(self) -> int:
        """The most sequences of a row, at least 1."""
        return max(1, int(self.pieces.segment.max(initial=0)))

    @property
    def _rows(self) -> int:
        return len(jax.tree.leaves(self.segments)[0])

    def as_segments(self, max_segments: int | None = None) -> Any:
        """The mask of the packed rows: `jm.Segments(segments, max_segments)`.

        Args:
          max_segments: static, so functions are compiled again for each value: use one for all
            batches, and the same limit in `pack_sequences`. None takes what this batch needs.

        Returns:
          `jm.Segments` with NumPy ids; of records, a dict of them.

        Raises:
          ValueError: if a row holds more sequences.
        """
        most = self._most(max_segments, "as_segments")
        # NumPy ids are checked where they are used.
        return jax.tree.map(lambda ids: Segments(ids, most), self.segments)

    def place(
        self, values: ArrayLike, max_segments: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Arrange one value of each sequence, such as its label, as pooling arranges its results.

        Args:
          values: `[sequences, feature...]`, in the order of the sequences.
          max_segments: that of the `Segments` that are pooled.

        Returns:
          The pair `(values, row_mask)`: `[rows * max_segments, feature...]`, 0 where there is no
          sequence, and `[rows * max_segments]`, boolean. Each piece of a split sequence has the
          value of the whole.

        Raises:
          TypeError, ValueError: if `values` is not an array of one value for each sequence, or a
            row holds more sequences than `max_segments`.
        """
        where = "place"
        source = to_numpy(values, "values", where)
        if source.ndim < 1 or len(source) != self.count:
            raise ValueError(
                f"{where}: `values` must have one value for each of the {self.count} sequences, "
                f"got shape {source.shape}."
            )
        most = self._most(max_segments, where)
        return placed(source, self.pieces, self._rows, most, np.zeros((), source.dtype))

    def collect(
        self, y: ArrayLike, max_segments: int | None = None
    ) -> tuple[ArrayLike, np.ndarray]:
        """The result of each sequence, from what pooling returned: the inverse of `place`.

        Args:
          y: `[rows * max_segments, feature...]`, NumPy's or JAX's; differentiable.
          max_segments: that of the `Segments` that were pooled.

        Returns:
          The pair `(y, row_mask)`: `[sequences, feature...]` in the order of the sequences, 0 for
          empty and dropped ones, whose `row_mask [sequences]` is False.

        Raises:
          TypeError, ValueError: if `y` does not belong to these rows; if a sequence was split,
            since each of its pieces has its own result.
        """
        where = "collect"
        most = self._most(max_segments, where)
        if not isinstance(y, jax.Array):
            y = to_numpy(y, "y", where)
        if y.ndim < 1 or len(y) != self._rows * most:
            raise ValueError(
                f"{where}: `y` must be [rows * max_segments, ...] = [{self._rows} * {most}, ...], "
                f"got shape {y.shape}. Pass the `max_segments` of the `Segments` that were pooled."
            )
        twice = np.flatnonzero(np.diff(self.pieces.sequence) == 0)
        if len(twice):
            raise ValueError(
                f"{where}: sequence {self.pieces.sequence[twice[0]]} was split, and each of its "
                "pieces has its own result: combine them yourself, by `packed.pieces`."
            )
        if not len(y):
            return np.zeros((self.count, *y.shape[1:]), y.dtype), np.zeros(self.count, bool)
        slots = np.zeros(self.count, np.int64)
        real = np.zeros(self.count, bool)
        slots[self.pieces.sequence] = np.maximum(slots_of(self.pieces, most), 0)
        real[self.pieces.sequence] = self.pieces.row >= 0
        shown = real.reshape(-1, *[1] * (y.ndim - 1))
        library: Any = jnp if isinstance(y, jax.Array) else np
        return library.where(shown, y[slots], np.zeros((), y.dtype)), real

    def _most(self, max_segments: int | None, where: str) -> int:
        needed = self.max_segments
        if max_segments is None:
            return needed
        most = _check.count(max_segments, where, "max_segments", least=1)
        if most < needed:
            row = int(self.pieces.row[np.argmax(self.pieces.segment)])
            raise ValueError(
                f"{where}: row {row} holds {needed} sequences, and `max_segments` is {most}. Pass "
                f"`max_segments={most}` to `pack_sequences` too, which limits them."
            )
        return most


def placed(
    values: np.ndarray, pieces: Pieces, rows: int, most: int, filler: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`[rows * most, ...]` and a row mask: one value of each sequence, where pooling puts its."""
    x = full((rows * most, *values.shape[1:]), filler)
    real = np.zeros(len(x), bool)
    some = pieces.row >= 0
    slots = slots_of(pieces, most)[some]
    x[slots] = values[pieces.sequence[some]]
    real[slots] = True
    return x, real


def slots_of(pieces: Pieces, most: int) -> np.ndarray:
    """Where pooling puts each piece."""
    found: np.ndarray = pieces.row * most + pieces.segment - 1
    return found
