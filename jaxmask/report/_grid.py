"""Rows of steps as coloured cells, many steps to a cell where a row is long."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmask import _check
from jaxmask._types import Segments
from jaxmask.report._shown import TONES, Drawing

MOST_ROWS, MOST_CELLS = 40, 64
PADDING, REAL = "#d0d7de", "#0969da"
COLOURS = (
    *("#0969da", "#1a7f37", "#bf8700", "#8250df", "#bf3989", "#1b7c83"),
    *("#953800", "#57606a"),
)
CELL, LABEL, MARGIN, LINE = 9, 130, 12, 20


def steps_of(mask: Any, where: str, name: str = "mask") -> np.ndarray:
    """The ids of a mask `[batch, time]`: 0 for padding, 1 for real, or those of the segments."""
    ids = mask.ids if isinstance(mask, Segments) else _check.boolean(mask, where, name)
    if ids.ndim != 2:
        raise _check.MaskError(f"{where}: `{name}` must be [batch, time], got shape {ids.shape}.")
    return np.asarray(ids).astype(int)


def require_real(steps: np.ndarray, where: str) -> None:
    """Refuse a mask without a real step."""
    if not steps.any():
        raise _check.MaskError(
            f"{where}: the mask of shape {steps.shape} marks no step as real, so there is nothing "
            "to show. True marks a real step."
        )


@dataclass(frozen=True)
class Row:
    """One row of a picture: its label, a kind for each cell, and what stands behind."""

    label: str
    cells: Sequence[int]
    text: str


def cells(steps: np.ndarray) -> tuple[np.ndarray, int]:
    """At most `MOST_CELLS` cells a row, and how many steps one is; it shows its largest kind."""
    width = -(-steps.shape[1] // MOST_CELLS) or 1
    padded = np.pad(steps, ((0, 0), (0, -steps.shape[1] % width)))
    return padded.reshape(len(steps), -1, width).max(-1), width


def draw(title: str, rows: Sequence[Row], notes: Sequence[str], colours: Sequence[str]) -> Drawing:
    """Rows of cells with labels; `colours[kind]`, and all kinds beyond share those after 0."""
    longest = max((len(row.cells) for row in rows), default=0)
    behind = max((len(row.text) for row in rows), default=0)
    body = LABEL + longest * CELL + 10 + behind * 8
    width = max(body, *(len(text) * 8 for text in (title, *notes))) + 2 * MARGIN
    drawing = Drawing(width, 2 * MARGIN + (len(rows) + len(notes) + 2) * LINE)
    drawing.texts.append((MARGIN, MARGIN + 12, title, TONES[""], True))
    for number, row in enumerate(rows):
        y = MARGIN + (number + 1.3) * LINE
        drawing.texts.append((MARGIN, y + 13, row.label, TONES["muted"], False))
        for place, kind in enumerate(row.cells):
            x = LABEL + place * CELL
            drawing.boxes.append((x, y + 2, CELL - 1, LINE - 5, colour_of(kind, colours)))
        end = LABEL + longest * CELL + 10
        drawing.texts.append((end, y + 13, row.text, TONES[""], False))
    for number, note in enumerate(notes):
        y = MARGIN + (len(rows) + number + 1.8) * LINE
        drawing.texts.append((MARGIN, y + 13, note, TONES["muted"], False))
    return drawing


def colour_of(kind: int, colours: Sequence[str]) -> str:
    """The colour of a kind; 0 is padding."""
    return colours[0] if kind == 0 else colours[1 + (kind - 1) % (len(colours) - 1)]
