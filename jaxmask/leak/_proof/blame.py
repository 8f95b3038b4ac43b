"""From the bits of a refused result back to the operations to blame."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from jaxmask.leak._proof.causes import Causes, Node
from jaxmask.leak._proof.proof import Cause, Link
from jaxmask.leak._proof.verdict import Claim

MOST_LINKS = 40


def causes_of(
    found: list[tuple[Causes, Claim]], of: str = "padding", *, finite: bool = False
) -> tuple[Cause, ...]:
    """One cause for each line, with all results that it reaches; without those of gradients alone,
    which follow, where a value is reached too. Those that a fill such as -1e9 may keep out come
    last: what is seen to leak has another cause, if there is any.
    """
    merged: dict[Any, Cause] = {}
    for causes, claim in found:
        for cause in _of_claim(causes, claim, finite=finite):
            key = cause.place or cause.primitive
            old = merged.get(key)
            reaches = (*(old.reaches if old else ()), *cause.reaches)
            first = old or cause
            names = tuple(dict.fromkeys(reaches))
            merged[key] = replace(first, reaches=names, of=of)
    of_values = [cause for cause in merged.values() if cause.of_values]
    return tuple(sorted(of_values or merged.values(), key=lambda cause: cause.fill is not None))


def _of_claim(causes: Causes, claim: Claim, *, finite: bool) -> list[Cause]:
    if claim.bits is None:
        return []
    bits = int(np.bitwise_or.reduce(claim.bits, axis=None))
    where = f"{claim.what} of {claim.where}"
    node, found = claim.result.node, []
    for bit, primitive, place in causes.found_in(bits):
        way = _way(node, bit)
        fill = _fill_before(way[-1]) if finite and way and primitive in WEIGHING else None
        found.append(Cause(primitive, place, (where,), _chain(way), fill=fill))
    raw = bits & int(causes.raw)
    if raw and not found:  # nothing mixed it in: it stands where it stood, or was moved
        way = _way(node, raw)
        moved = next((k for k, node in enumerate(way) if node.moves), 0)
        last = way[moved] if way else None
        name = last.primitive if last else "no operation: the input itself"
        chain = _chain(way[: moved + 1] if moved else way)
        found.append(Cause(name, last.place if last else None, (where,), chain))
    return found


WEIGHING = ("dot_general", "reduce_max", "reduce_sum")  # of a softmax, and of what it weighs


def _fill_before(node: Node) -> float | None:
    """The fill of the nearest operation before this one that has one."""
    seen, nodes = set(), [node]
    for before in nodes:
        if before.fill is not None:
            return before.fill
        new = [parent for parent in before.parents if id(parent) not in seen]
        seen |= set(map(id, new))
        nodes += new
    return None


def _way(node: Node | None, bits: int) -> list[Node]:
    """The results from one back to where the bits were made."""
    way = []
    while node is not None:
        way.append(node)
        node = next((parent for parent in node.parents if parent.bits & bits), None)
    return way


def _chain(way: list[Node]) -> tuple[Link, ...]:
    """The operations of a way; a line once in a row."""
    links = (Link(node.primitive, node.place) for node in way)
    return tuple(link for link, _ in itertools.islice(itertools.groupby(links), MOST_LINKS))
