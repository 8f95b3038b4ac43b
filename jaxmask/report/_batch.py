"""`batch`: which steps of a batch are real, and how full it is."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._types import PyTree, Segments
from jaxmask.report import _grid as grid
from jaxmask.report._shown import Drawing, Shown

WHERE = "batch"


@dataclass(frozen=True, eq=False)
class BatchPicture(Shown):
    """Which steps of a batch are real; `str()` of it draws them in characters.

    Attributes:
      shape: of `x`.
      steps: `[batch, time]`, 0 for padding, 1 for a real step, or the number of its sequence.
      is_packed: whether rows hold several sequences.

    Example:
      >>> import jaxmask as jm
      >>> picture = jm.report.batch(*jm.pad_sequences([[1, 2, 3, 4], [5]]))
      >>> picture.fill, picture.row_fill.tolist()
      (0.625, [1.0, 0.25])
    """

    shape: tuple[int, ...]
    steps: np.ndarray
    is_packed: bool

    @property
    def fill(self) -> float:
        """The share of real steps."""
        return float((self.steps > 0).mean())

    @property
    def row_fill(self) -> np.ndarray:
        """The share of real steps in each row."""
        return (self.steps > 0).mean(1)

    def __str__(self) -> str:
        rows = [
            f"{row.label}  {_characters(row.cells, self.is_packed)}  {row.text}"
            for row in self._rows()
        ]
        return "\n".join([self._title(), *rows, *self._notes()])

    def drawing(self) -> Drawing:
        """Real steps in colour, one for each sequence, and padding in grey."""
        colours = (grid.PADDING, *(grid.COLOURS if self.is_packed else (grid.REAL,)))
        return grid.draw(self._title(), self._rows(), self._notes(), colours)

    def _title(self) -> str:
        batch, time = self.steps.shape
        packed = f", {int(self.steps.max(1).sum())} sequences" if self.is_packed else ""
        return f"batch {list(self.shape)}: {batch} rows, {time} steps{packed}, {self.fill:.0%} real"

    def _rows(self) -> list[grid.Row]:
        cells, _ = grid.cells(self.steps[: grid.MOST_ROWS])
        digits = len(str(len(self.steps) - 1))
        return [
            grid.Row(
                f"row {number:>{digits}}",
                row.tolist(),
                f"{int((steps > 0).sum())} real, {(steps > 0).mean():.0%}",
            )
            for number, (row, steps) in enumerate(zip(cells, self.steps, strict=False))
        ]

    def _notes(self) -> list[str]:
        notes = []
        _, width = grid.cells(self.steps[:1])
        hidden = len(self.steps) - grid.MOST_ROWS
        if width > 1:
            notes.append(f"A cell is {width} steps, and is real if any of them is.")
        if hidden > 0:
            notes.append(f"{hidden} more rows, {(self.steps[-hidden:] > 0).mean():.0%} real.")
        empty = int((~(self.steps > 0).any(1)).sum())
        if empty:
            notes.append(f"{empty} of {len(self.steps)} rows have no real step.")
        return notes


def _characters(cells: Any, is_packed: bool) -> str:
    """`█` and `·`; packed sequences as 1 to 9 in turn."""
    if is_packed:
        return "".join("·" if kind == 0 else str(1 + (kind - 1) % 9) for kind in cells)
    return "".join("█" if kind else "·" for kind in cells)


@refusing_pairs
def batch(x: PyTree, mask: Any, segments: Any = None) -> BatchPicture:
    """Show which steps of a batch are real, and how full it is.

    Args:
      x: `[batch, time, ...]`, or a pytree of such arrays; only shapes are read.
      mask: `[batch, time]`, boolean, or `Segments`; None if `segments` say it, or every step is
        real.
      segments: `[batch, time]`, integer ids of packed sequences from 1, 0 for padding; or
        `Segments`.

    Returns:
      A `BatchPicture`.

    Raises:
      MaskError: if the mask does not fit `x` or the segments, or marks nothing as real.

    Example:
      >>> import jaxmask as jm
      >>> print(jm.report.batch(*jm.pad_sequences([[1, 2, 3, 4], [5]])))
      batch [2, 4]: 2 rows, 4 steps, 62% real
      row 0  ████  4 real, 100%
      row 1  █···  1 real, 25%
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(x)]
    if not shapes or any(len(shape) < 2 for shape in shapes):
        raise ValueError(f"{WHERE}: `x` must be [batch, time, ...], got shapes {shapes}.")
    steps = None if mask is None else grid.steps_of(mask, WHERE)
    ids = _ids(segments)
    if steps is not None and ids is not None and not np.array_equal(steps > 0, ids > 0):
        raise _check.MaskError(
            f"{WHERE}: `mask` and `segments` differ in which steps are real; ids are 0 at padding."
        )
    is_packed = ids is not None or isinstance(mask, Segments)
    steps = ids if ids is not None else steps
    steps = np.ones(shapes[0][:2], int) if steps is None else steps
    if any(shape[:2] != steps.shape for shape in shapes):
        raise _check.MaskError(
            f"{WHERE}: the mask has shape {steps.shape}, and `x` has {shapes}; a mask has the "
            "leading axes of its array."
        )
    grid.require_real(steps, WHERE)
    return BatchPicture(shapes[0], steps, is_packed)


def _ids(segments: Any) -> np.ndarray | None:
    if segments is None:
        return None
    ids = np.asarray(segments.ids if isinstance(segments, Segments) else segments)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise _check.MaskError(
            f"{WHERE}: `segments` must be integer ids [batch, time] or `Segments`, got "
            f"{ids.dtype} of shape {ids.shape}."
        )
    return ids.astype(int)
