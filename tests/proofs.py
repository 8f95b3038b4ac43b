"""Entries of the registry as subjects of `leak.prove`."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from tests import rows as tools
from tests.registry import Entry

ROWS = np.arange(4)
IDS = np.array([[1, 1, 2, 2, 0], [1, 2, 2, 3, 3], [1, 1, 1, 0, 0], [1, 2, 0, 0, 0]], np.int32)


def arguments(entry: Entry, layout: str = "right", masks: Any = None) -> tuple[Any, list, list]:
    """`fn(params, x, masks)`, `x` and a mask for each array of it."""
    masks = tools.masks_for(entry, layout) if masks is None else masks
    numbers = [spec.mask for spec in entry.inputs]
    first = {number: numbers.index(number) for number in numbers}

    def function(params: Any, xs: list, by_array: list) -> list:
        given = [by_array[first[number]] for number in sorted(first)]
        pairs = entry.call(params, xs, given, ROWS)
        return [y if mask is None else (y, mask) for y, mask in pairs]

    function.__name__ = entry.name
    xs = tools.arguments(entry, masks, ROWS)
    return function, xs, [masks[number] for number in numbers]


def prove(entry: Entry, of: str = "padding", layout: str = "right", **options: Any) -> Any:
    """The proof of an entry."""
    masks = options.pop("masks", None)
    if of == "segments":
        masks = [IDS > 0] * (1 + max(spec.mask for spec in entry.inputs))
    function, xs, masks = arguments(entry, layout, masks)
    if of == "segments":
        masks = [jm.Segments(jnp.asarray(IDS), 3) for _ in masks]
    return jm.leak.prove(function, xs, masks, params=entry.params, of=of, **options)
