"""What every picture can do: text, HTML for notebooks, SVG, PNG."""

import io
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

TONES = {
    "": "#1f2328",
    "muted": "#6e7781",
    "good": "#1a7f37",
    "note": "#0969da",
    "warn": "#9a6700",
    "bad": "#cf222e",
}
BACKGROUND = "#ffffff"
SIZE, FONT = 13, "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


@dataclass
class Drawing:
    """Rectangles `(x, y, width, height, colour)` and texts `(x, y, text, colour, bold)`."""

    width: float
    height: float
    boxes: list[tuple[float, float, float, float, str]] = field(default_factory=list)
    texts: list[tuple[float, float, str, str, bool]] = field(default_factory=list)

    def svg(self) -> str:
        """The picture as SVG."""
        size = f'width="{self.width:.0f}" height="{self.height:.0f}"'
        view = f'viewBox="0 0 {self.width:.0f} {self.height:.0f}"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} font-family="{FONT}" '
            f'font-size="{SIZE}">',
            f'<rect width="100%" height="100%" fill="{BACKGROUND}"/>',
        ]
        for x, y, width, height, colour in self.boxes:
            box = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
            parts.append(f'<rect {box} fill="{colour}"/>')
        for x, y, text, colour, bold in self.texts:
            weight = ' font-weight="bold"' if bold else ""
            place = f'x="{x:g}" y="{y:g}" fill="{colour}"{weight} xml:space="preserve"'
            parts.append(f"<text {place}>{escape(text)}</text>")
        return "\n".join([*parts, "</svg>", ""])

    def png(self) -> bytes:
        """The picture as PNG."""
        figure_of, agg = _matplotlib()
        dots = 144
        figure = figure_of(figsize=(self.width / 96, self.height / 96), dpi=dots)
        agg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, self.width)
        axes.set_ylim(self.height, 0)
        axes.axis("off")
        from matplotlib.patches import Rectangle

        for x, y, width, height, colour in self.boxes:
            axes.add_patch(Rectangle((x, y), width, height, color=colour, linewidth=0))
        for x, y, text, colour, bold in self.texts:
            style: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": SIZE * 0.73}
            weight = "bold" if bold else "normal"
            axes.text(x, y, text, color=colour, weight=weight, parse_math=False, **style)
        file = io.BytesIO()
        figure.savefig(file, dpi=dots, facecolor=BACKGROUND, format="png")
        return file.getvalue()


def _matplotlib() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "jaxmask.report: a PNG needs Matplotlib: `pip install jaxmask[report]`. `to_svg` needs "
            "nothing."
        ) from error
    return Figure, FigureCanvasAgg


class Shown:
    """A report that is text, HTML, SVG and PNG."""

    def drawing(self) -> Drawing:
        """The picture that `to_svg` and `to_png` write."""
        raise NotImplementedError

    def to_svg(self, path: str | Path | None = None) -> str:
        """The picture as SVG, also written to `path` if there is one."""
        return _written(self.drawing().svg(), path)

    def to_png(self, path: str | Path | None = None) -> bytes:
        """The picture as PNG, also written to `path` if there is one; needs `jaxmask[report]`."""
        picture = self.drawing().png()
        if path is not None:
            Path(path).write_bytes(picture)
        return picture

    def to_html(self, path: str | Path | None = None) -> str:
        """HTML without scripts or links, also written to `path` if there is one."""
        return _written(self.html(), path)

    def html(self) -> str:
        """The picture within HTML."""
        return f'<div style="overflow-x:auto">{self.drawing().svg()}</div>'

    def _repr_html_(self) -> str:
        return self.to_html()


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
