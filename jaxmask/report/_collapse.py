"""Equal blocks one after another, shown once, so that a model of 100 layers stays readable."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

LONGEST = 8  # layers in a block that repeats
Layer: TypeAlias = Any


@dataclass(frozen=True)
class Line:
    """A layer, or a line that says how many blocks like those above it follow."""

    layer: Layer
    depth: int
    parent: str | None = None
    repeats: str = ""


@dataclass(frozen=True)
class _Node:
    layer: Layer
    inside: tuple["_Node", ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """All that is shown, but for the path."""
        return replace(self.layer, path=""), tuple(node.key for node in self.inside)


def lines(layers: Sequence[Layer]) -> list[Line]:
    """The lines of a table."""
    roots, _ = _nodes(layers, 0, 0)
    return list(_lines(roots, None))


def _nodes(layers: Sequence[Layer], start: int, depth: int) -> tuple[tuple[_Node, ...], int]:
    nodes = []
    while start < len(layers) and layers[start].depth == depth:
        inside, end = _nodes(layers, start + 1, depth + 1)
        nodes.append(_Node(layers[start], inside))
        start = end
    return tuple(nodes), start


def _lines(nodes: Sequence[_Node], parent: str | None) -> Iterator[Line]:
    keys, start = [node.key for node in nodes], 0
    while start < len(nodes):
        period, blocks = _repeats(keys, start)
        for node in nodes[start : start + period]:
            yield Line(node.layer, node.layer.depth, parent)
            yield from _lines(node.inside, node.layer.path)
        end = start + period * blocks
        if blocks > 1:
            first, last = nodes[start + period].layer.path, nodes[end - 1].layer.path
            like = "it" if period == 1 else f"these {period}"
            text = f"… {blocks - 1} more like {like}, {first} to {last}"
            yield Line(nodes[start].layer, nodes[start].layer.depth, parent, text)
        start = end


def _repeats(keys: Sequence[Any], start: int) -> tuple[int, int]:
    """The period at which most is left out, and how often it comes; twice alone is shown."""
    best = 1, 1
    for period in range(1, LONGEST + 1):
        block, blocks = keys[start : start + period], 1
        while keys[start + period * blocks : start + period * (blocks + 1)] == block:
            blocks += 1
        if blocks > 1 and period * (blocks - 1) > max(1, best[0] * (best[1] - 1)):
            best = period, blocks
    return best
