"""From the bits of a refused result back to the operations to blame."""

from typing import Any

import numpy as np

from jaxmask.leak._proof.causes import Causes, Node
from jaxmask.leak._proof.proof import Cause, Link
from jaxmask.leak._proof.verdict import Claim

MOST_LINKS = 40


def causes_of(found: list[tuple[Causes, Claim]]) -> tuple[Cause, ...]:
    """One cause for each line, with all results that it reaches; without those of gradients alone,
    which follow, where a value is reached too.
    """
    merged: dict[Any, Cause] = {}
    for causes, claim in found:
        for cause in _of_claim(causes, claim):
            key = cause.place or cause.primitive
            old = merged.get(key)
            reaches = (*(old.reaches if old else ()), *cause.reaches)
            first = old or cause
            names = tuple(dict.fromkeys(reaches))
            merged[key] = Cause(first.primitive, first.place, names, first.chain)
    of_values = [cause for cause in merged.values() if cause.of_values]
    return tuple(of_values or merged.values())


def _of_claim(causes: Causes, claim: Claim) -> list[Cause]:
    if claim.bits is None:
        return []
    bits = int(np.bitwise_or.reduce(claim.bits, axis=None))
    where = f"{claim.what} of {claim.where}"
    node, found = claim.result.node, []
    for bit, primitive, place in causes.found_in(bits):
        found.append(Cause(primitive, place, (where,), _chain(node, bit)))
    raw = bits & int(causes.raw)
    if raw and not found:  # nothing mixed it in: it stands where it stood, or was moved
        name = "no operation: the input itself" if node is None else node.primitive
        place = None if node is None else node.place
        found.append(Cause(name, place, (where,), _chain(node, raw)))
    return found


def _chain(node: Node | None, bits: int) -> tuple[Link, ...]:
    """The operations from a result back to the one that made the bits; a line once in a row."""
    links: list[Link] = []
    while node is not None and len(links) < MOST_LINKS:
        link = Link(node.primitive, node.place)
        if not links or links[-1] != link:
            links.append(link)
        node = next((parent for parent in node.parents if parent.bits & bits), None)
    return tuple(links)
