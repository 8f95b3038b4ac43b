"""`compare`: at which steps two outputs differ, and by how much."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask import _check
from jaxmask._types import ArrayLike
from jaxmask.report import _grid as grid
from jaxmask.report._shown import Drawing, Shown

WHERE = "compare"
EQUAL, DIFFERS = "#2da44e", "#cf222e"


@dataclass(frozen=True, eq=False)
class Comparison(Shown):
    """At which steps two outputs differ; `str()` of it draws them in characters.

    Attributes:
      steps: `[batch, time]`, the largest difference over the features of each step; nan where only
        one of them is nan, 0 at padding. `[batch, 1]` for outputs without time.
      real: the steps that were compared.
      tolerance: differences up to it count as none.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> found = jm.report.compare(jnp.zeros((2, 3)), jnp.array([[0.0, 2, 1], [0, 0, 0]]))
      >>> found.ok, found.largest, found.first.tolist()
      (False, 2.0, [1, -1])
    """

    steps: np.ndarray
    real: np.ndarray
    tolerance: float

    @property
    def differs(self) -> np.ndarray:
        """`[batch, time]`, whether the step differs."""
        return ~(self.steps <= self.tolerance)

    @property
    def ok(self) -> bool:
        """Whether no real step differs."""
        return not self.differs.any()

    @property
    def first(self) -> np.ndarray:
        """`[batch]`, the first step of each row that differs, -1 for none."""
        return np.where(self.differs.any(1), self.differs.argmax(1), -1)

    @property
    def largest(self) -> float:
        """The largest difference; nan where only one of them is nan."""
        return float(np.max(self.steps))

    def __str__(self) -> str:
        rows = [
            f"{row.label}  {''.join('·=#'[kind] for kind in row.cells)}  {row.text}"
            for row in self._rows()
        ]
        return "\n".join([self._title(), *rows, *self._notes()])

    def drawing(self) -> Drawing:
        """Equal steps green, differing ones red, padding grey."""
        colours = (grid.PADDING, EQUAL, DIFFERS)
        legend = "green: equal, red: differs, grey: padding"
        return grid.draw(self._title(), self._rows(), [legend, *self._notes()[1:]], colours)

    def _title(self) -> str:
        count, of = int(self.differs.sum()), int(self.real.sum())
        if self.ok:
            return f"compare: all {of} real steps agree"
        rows = int(self.differs.any(1).sum())
        return (
            f"compare: {count} of {of} real steps differ, in {rows} of {len(self.steps)} rows, by "
            f"up to {self.largest:.3g}"
        )

    def _shown_rows(self) -> np.ndarray:
        """Rows that differ come first where not all can be shown."""
        order = np.argsort(~self.differs.any(1), kind="stable")
        return np.sort(order[: grid.MOST_ROWS])

    def _rows(self) -> list[grid.Row]:
        kinds, _ = grid.cells(self.real.astype(int) + self.differs)
        digits = len(str(len(self.steps) - 1))
        return [
            grid.Row(f"row {number:>{digits}}", kinds[number].tolist(), self._text(number))
            for number in self._shown_rows()
        ]

    def _text(self, number: int) -> str:
        first = int(self.first[number])
        if first < 0:
            return "equal" if self.real[number].any() else "no real step"
        row = self.steps[number]
        return f"from step {first}: {row[first]:.3g}, at most {np.max(row):.3g}"

    def _notes(self) -> list[str]:
        _, width = grid.cells(self.real[:1].astype(int))
        hidden = len(self.steps) - grid.MOST_ROWS
        notes = ["= equal, # differs, · padding"]
        if width > 1:
            notes.append(f"A cell is {width} steps, and differs if any of them does.")
        return notes + ([f"{hidden} more rows."] if hidden > 0 else [])


def compare(a: ArrayLike, b: ArrayLike, mask: Any = None, *, tolerance: float = 0.0) -> Comparison:
    """Show at which steps two outputs differ.

    The difference of a step is `max |a - b|` over its features. Two nan are equal, as are two equal
    infinities.

    Args:
      a: `[batch, time, ...]`, or `[batch]`, which counts as one step.
      b: of the same shape.
      mask: `[batch, time]`, boolean, or `Segments`: the steps to compare. None: all.
      tolerance: differences up to it count as none.

    Returns:
      A `Comparison`.

    Raises:
      ValueError: if shapes differ.
      MaskError: if the mask does not fit, or marks nothing as real.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> a = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]])
      >>> mask = jnp.array([[True, True, True], [True, True, False]])
      >>> print(jm.report.compare(a, a.at[0, 1].add(0.5).at[1, 2].set(9.0), mask))
      compare: 1 of 5 real steps differ, in 1 of 2 rows, by up to 0.5
      row 0  =#=  from step 1: 0.5, at most 0.5
      row 1  ==·  equal
      = equal, # differs, · padding
    """
    first, second = (np.asarray(jnp.asarray(value)) for value in (a, b))
    if first.shape != second.shape or first.ndim == 0:
        raise ValueError(
            f"{WHERE}: `a` and `b` must have one shape [batch, time, ...], got {first.shape} and "
            f"{second.shape}."
        )
    _check.static_number(tolerance, WHERE, "tolerance")
    if first.ndim == 1:
        first, second = first[:, None], second[:, None]
    real = np.ones(first.shape[:2], int) if mask is None else grid.steps_of(mask, WHERE)
    if real.shape != first.shape[:2]:
        raise _check.MaskError(
            f"{WHERE}: the mask has shape {real.shape}, and the outputs {first.shape}; a mask has "
            "the leading axes of its array."
        )
    grid.require_real(real, WHERE)
    moved = _difference(first, second).reshape(*real.shape, -1).max(-1, initial=0)
    return Comparison(np.where(real > 0, moved, 0), real > 0, float(tolerance))


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    kind = complex if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    a, b = a.astype(kind), b.astype(kind)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.abs(a - b))
