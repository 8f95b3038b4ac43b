"""What is known of one call of a layer, and its row in the table."""

from dataclasses import dataclass, field

from jaxmask.leak import Place
from jaxmask.report._collapse import Line
from jaxmask.report._probe import SEES
from jaxmask.report._table import Cell

HEADER = ("layer", "in", "out", "mask", "fill", "ops", "on padding", "memory", "alone")
TONES = {"missing": "bad", "dropped": "warn", "made": "good", "changed": "note", "used": "good"}


@dataclass(frozen=True)
class Layer:
    """One call of a layer, in the order of calls.

    Attributes:
      path: where in the model, `layers[2].attention`; "" is the model.
      name: its class.
      depth: how many layers it is inside of.
      inputs, outputs: dtypes and shapes.
      words: what happens to the mask: "made", "used" (the layer mixes steps, or takes the mask and
        returns none), "passed", "changed", "dropped", "missing" (it mixes steps, with no mask),
        "not needed" (it acts on each step alone, and is given no mask). Empty if nothing is known.
      fill: the share of real steps after it; None where that is not known.
      operations: arithmetic in it, with that of the layers inside.
      on_padding: how many of these were spent on padding.
      loops: whether a loop in it has turns that the data decide, so that `operations` is a lower
        bound and `on_padding` does not count the loop.
      bytes: memory of its outputs.
      bytes_of_padding: how much of that is padding.
      verdict: on the values of the layer alone: "proved" to ignore padding, whatever it holds,
        "proved if finite", "sees padding", "undecided"; "ignores padding" was tried, and could not
        be asked of `leak.prove`. "" where there are no steps, else "not tried: " and the error.
      place: the line of your code that calls it; if its own code lets padding in, that line.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 4, 2)), jnp.array([[True, True, True, False]])
      >>> flow = jm.report.mask_flow(jm.nn.DropMask(), x, mask)
      >>> flow.layers[0].words, flow.layers[0].fill, flow.layers[0].bytes_of_padding
      (('dropped',), 0.75, 8.0)
    """

    path: str
    name: str
    depth: int
    inputs: str
    outputs: str
    words: tuple[str, ...]
    fill: float | None
    operations: int
    on_padding: float
    loops: bool
    bytes: int
    bytes_of_padding: float
    verdict: str
    place: Place | None = field(default=None, compare=False)


def row(line: Line) -> tuple[Cell, ...]:
    """The cells under `HEADER`."""
    if line.repeats:
        return ((f"{'  ' * line.depth}{line.repeats}", "muted"), *[("", "")] * 8)
    layer = line.layer
    path = layer.path if line.parent is None else _below(layer.path, line.parent)
    name = "  " * layer.depth + " ".join(filter(None, (path, layer.name)))
    tone = next((TONES[word] for word in layer.words if word in TONES), "")
    spent = layer.on_padding / layer.operations if layer.operations else 0
    return (
        (name, ""),
        (_short(layer.inputs), "muted"),
        (_short(layer.outputs), ""),
        (", ".join(layer.words) or "-", tone),
        ("" if layer.fill is None else f"{layer.fill:.0%}", ""),
        (("≥" if layer.loops else "") + _scaled(layer.operations), ""),
        ("" if layer.fill is None and not spent else f"{spent:.0%}", "warn" if spent > 0.5 else ""),
        (f"{_scaled(layer.bytes)}B", ""),
        (layer.verdict, "bad" if layer.verdict == SEES else ""),
    )


def _below(path: str, parent: str) -> str:
    return path.removeprefix(parent).removeprefix(".") if path.startswith(parent) else path


def _short(shapes: str) -> str:
    for long, short in (("float", "f"), ("uint", "u"), ("int", "i"), ("bool", "b")):
        shapes = shapes.replace(f"b{long}", f"b{short}").replace(long, short)
    return shapes


def _scaled(number: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000 or unit == "T":
            break
        number /= 1000
    return f"{number:.3g}{unit}"
