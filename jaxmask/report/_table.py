"""A table as text, HTML, a drawing, and for `rich`."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeAlias

from jaxmask.report._shown import TONES, Drawing, Shown

Cell: TypeAlias = tuple[str, str]  # text, tone
WIDEST, CHARACTER, LINE, MARGIN = 100, 7.83, 20, 12


@dataclass(frozen=True)
class Table(Shown):
    """Rows of cells under a header, with a title and notes."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    notes: Sequence[str]

    def widths(self) -> list[int]:
        """The width of each column; a row with one cell may run over the others."""
        full = [row for row in self.rows if any(text for text, _ in row[1:])]
        columns = zip(self.header, *([text for text, _ in row] for row in full), strict=True)
        return [max(map(len, column)) for column in columns]

    def __str__(self) -> str:
        widths = self.widths()
        header = [(name, "") for name in self.header]
        body = [_line(row, widths) for row in (header, *self.rows)]
        rule = "─" * max(map(len, body))
        return "\n".join(
            [
                self.title,
                "",
                body[0],
                rule,
                *body[1:],
                *([""] if self.notes else []),
                *self._wrapped(),
            ]
        )

    def _wrapped(self) -> list[str]:
        width = max(60, min(WIDEST, sum(self.widths()) + 2 * len(self.header)))
        return [line for note in self.notes for line in textwrap.wrap(note, width)]

    def html(self) -> str:
        """A `<table>` with the title above and the notes below."""
        cell = "padding:2px 8px;text-align:left;white-space:pre"
        head = "".join(f'<th style="{cell}">{escape(name)}</th>' for name in self.header)
        rows = "".join(
            "<tr>"
            + "".join(
                f'<td style="{cell};color:{TONES[tone]}">{escape(text)}</td>' for text, tone in row
            )
            + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return (
            f'<div style="overflow-x:auto;background:#fff;color:{TONES[""]}">'
            f"<p><b>{escape(self.title)}</b></p>"
            f'<table style="font-family:monospace;border-collapse:collapse"><thead><tr>{head}</tr>'
            f"</thead><tbody>{rows}</tbody></table>{notes}</div>"
        )

    def drawing(self) -> Drawing:
        """The table with a line for each row."""
        widths, notes = self.widths(), self._wrapped()
        characters = max(sum(widths) + 2 * len(widths), *map(len, (self.title, *notes)))
        height = (len(self.rows) + len(notes) + 4) * LINE + 2 * MARGIN
        drawing = Drawing(characters * CHARACTER + 2 * MARGIN, height)
        y = MARGIN + 14.0
        drawing.texts.append((MARGIN, y, self.title, TONES[""], True))
        header = tuple((name, "muted") for name in self.header)
        for number, row in enumerate((header, *self.rows)):
            y = MARGIN + 14 + (number + 1.5) * LINE
            if number % 2:
                drawing.boxes.append((0, y - 14, drawing.width, LINE, "#f6f8fa"))
            x = float(MARGIN)
            for (text, tone), width in zip(row, widths, strict=True):
                if text:
                    drawing.texts.append((x, y, text, TONES[tone], tone == "bad"))
                x += (width + 2) * CHARACTER
        for number, note in enumerate(notes):
            drawing.texts.append((MARGIN, y + (number + 1.5) * LINE, note, TONES["muted"], False))
        return drawing

    def rich(self) -> Any:
        """A `rich.table.Table`."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=self.title, caption="\n".join(self.notes), title_justify="left")
        for name in self.header:
            table.add_column(name, no_wrap=name == "layer")
        for row in self.rows:
            table.add_row(*(Text(text, style=TONES[tone]) if tone else text for text, tone in row))
        return table


def _line(row: Sequence[Cell], widths: Sequence[int]) -> str:
    return "  ".join(
        text.ljust(width) for (text, _), width in zip(row, widths, strict=True)
    ).rstrip()
