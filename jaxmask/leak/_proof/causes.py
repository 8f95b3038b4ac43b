"""Follow taint back to the operations that let the padding in.

Padding is harmless as long as it stays in its own positions. It gets in where an operation combines
elements of which some hold padding and some do not (a sum over time, a window, a step of a
recurrence). Each such operation gets a bit of its own, in place of the bit of the raw padding, so
the bits at the real entries of a result say all operations that are to blame.
"""

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmask._lines import HERE, is_own, is_worth_naming
from jaxmask.leak._proof.domain import Value
from jaxmask.leak._proof.ends import moves_padding, step_taken

RAW = 2  # bits of the padding itself: of the inputs, and of the cotangents of results
MOST = 64 - RAW


@dataclass(frozen=True)
class Place:
    """A line of code.

    Attributes:
      file: its path; "<string>" or "<stdin>" for code that was given to Python without a file.
      line: its number.
      function: the function it stands in.
      callers: where the line is a library's, those that called it, the innermost first; mistakes
        that share a line of a library stay apart by them.

    Example:
      >>> import jaxmask as jm
      >>> print(jm.leak.Place("model.py", 12, "forward"))
      model.py:12 (forward)
    """

    file: str
    line: int
    function: str
    callers: tuple["Place", ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        at = f"{self.file}, line " if self.file.startswith("<") else f"{self.file}:"
        return f"{at}{self.line} ({self.function})"


class Node:
    """A result of an equation, with its line, its bits and the operands that had some.

    Attributes:
      moves: whether the equation moves padding along its axis.
      fill: a large negative number that it puts in the place of others; None: it does not.
    """

    __slots__ = ("bits", "fill", "moves", "parents", "place", "primitive")

    def __init__(
        self,
        primitive: str,
        place: Place | None,
        bits: int,
        parents: list["Node"],
        *,
        moves: bool,
        fill: float | None = None,
    ):
        self.primitive, self.place, self.bits, self.parents = primitive, place, bits, parents
        self.moves, self.fill = moves, fill


class Causes:
    """The operations that combined padding with something else, a bit for each.

    Attributes:
      batch: the number of rows, where padding is that of steps; None: no ends of rows are named.
      calls: the equations that are being interpreted, each within the one before it.
      found: primitives and lines, the first of them that of the first bit after the raw ones.
    """

    def __init__(self, batch: int | None = None) -> None:
        self.batch = batch
        self.raw = np.uint64(2**RAW - 1)
        self.calls: list[Any] = []
        self.found: list[tuple[str, Place | None]] = []
        self._steps: dict[Place | None, set[int]] = {}  # that were taken, by line

    def raw_in(self, taint: np.ndarray) -> np.ndarray:
        """Where elements hold the padding itself."""
        return (taint & self.raw) != 0

    def named(self, bits: np.ndarray, partly: Any, name: str = "") -> np.ndarray:
        """Replace the bits of the raw padding by that of this operation, where it mixed some in."""
        hit = partly & self.raw_in(bits)
        if not np.any(hit):
            return bits
        bit = self._bit(name or self.calls[-1].primitive.name)
        return np.where(hit, (bits & ~self.raw) | bit, bits)

    def name(self, equation: Any, ins: list[Any]) -> str:
        """The primitive, and which end of all rows it takes, if it does."""
        name: str = equation.primitive.name
        if self.batch is None or not ins or ins[0].taint is None:
            return name
        taken = step_taken(equation, ins, self.raw_in(ins[0].taint), self.batch)
        if taken is None:
            return name
        on_line = self._steps.setdefault(self.place(), set())
        on_line.add(taken.step)
        in_loop = taken.neighbour in on_line  # which takes one step after the other
        return f"{name} of the {taken.end} step" if taken.end and not in_loop else name

    def moves(self, equation: Any, ins: list[Any]) -> bool:
        """Whether an equation moves padding along its axis."""
        first = ins[0].taint if ins else None
        return first is not None and moves_padding(equation, self.raw_in(first))

    def _bit(self, name: str) -> np.uint64:
        """The bit of the operation; the same for all on one line."""
        key = name, self.place()
        if key not in self.found:
            self.found.append(key)
        return np.uint64(1) << np.uint64(min(self.found.index(key), MOST - 1) + RAW)

    def place(self) -> Place | None:
        """The innermost line of the user's own code; else that of the layer that was called."""
        places = [place for call in reversed(self.calls) for place in _places(call)]
        for place in places:
            if is_own(place.file):
                return place
        layers = (n for n, place in enumerate(places) if _is_layer(place))
        number = next(layers, 0)
        return replace(places[number], callers=tuple(places[number + 1 :])) if places else None

    def found_in(self, bits: int) -> list[tuple[int, str, Place | None]]:
        """The operations whose bits are among `bits`, with the bit of each."""
        return [
            (1 << (index + RAW), *found)
            for index, found in enumerate(self.found[:MOST])
            if bits >> (index + RAW) & 1
        ]


LARGE = -1e3  # numbers below it are there to lose against others


def fill_of(primitive: str, ins: list[Any]) -> float | None:
    """The large negative number, short of the largest, that `where` or a sum puts among others."""
    for operand in ins if primitive in FILLING else ():
        if (large := _is_fill(operand)).any():
            return float(operand.value[large].min())
    return None


def with_infinite_fills(primitive: str, ins: list[Value]) -> list[Value]:
    """The operands with -inf in the place of such numbers."""
    if fill_of(primitive, ins) is None:
        return ins
    return [
        Value(
            v.shape, np.where(_is_fill(v), -np.inf, v.value).astype(v.value.dtype), v.known, v.taint
        )
        if v.value is not None
        else v
        for v in ins
    ]


FILLING = ("select_n", "add")


def _is_fill(operand: Any) -> np.ndarray:
    value = operand.value
    if value is None or not jnp.issubdtype(value.dtype, jnp.floating):
        return np.zeros(operand.shape, bool)
    large = (value <= LARGE) & (value > 0.5 * float(jnp.finfo(value.dtype).min))
    return np.asarray(operand.where_known & large)


_LEAK = f"{Path(__file__).parents[1]}/"


def _is_layer(place: Place) -> bool:
    return place.function.split(".")[-1] == "__call__" and not place.file.startswith(HERE)


def _places(equation: Any) -> list[Place]:
    """The lines from which an equation was traced, innermost first, without those of JAX.

    What called this module is not among them.
    """
    traceback = equation.source_info.traceback
    frames = traceback.frames if traceback is not None else ()
    inside = itertools.takewhile(lambda frame: not frame.file_name.startswith(_LEAK), frames)
    return [
        Place(frame.file_name, frame.line_num, frame.function_name)
        for frame in inside
        if is_worth_naming(frame.file_name)
    ]
