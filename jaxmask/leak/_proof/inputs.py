"""What is proved: a function, its arguments with the mask of each, and how to call it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxmask._types import PyTree, Segments
from jaxmask.leak._subject import (
    Leaves,
    callable_of,
    check_leaf,
    marks_of,
    name_of,
    plain,
)

WHERE = "leak.prove"
Call = Callable[[list[Any], list[Any], list[Any]], tuple[PyTree, PyTree]]


@dataclass(frozen=True)
class Masks:
    """The masks of the arguments.

    Attributes:
      marks: each mask as an array, boolean or ids of segments.
      max_segments: for each mask, that of `Segments`, else None.
      of_leaf: for each array of `x`, the number of its mask; None: it has no padding.
    """

    marks: list[np.ndarray]
    max_segments: list[int | None]
    of_leaf: list[int | None]


@dataclass(frozen=True)
class Inputs:
    """A function and its arguments.

    Attributes:
      name: of the function, for the text of a proof.
      call: `(params leaves, x leaves, marks) -> (output, statistics)`, all of arrays.
      x: arrays; those without a mask have no padding.
      params: arrays.
      masks: which steps are real.
    """

    name: str
    call: Call
    x: Leaves
    params: Leaves
    masks: Masks

    def marks_of_leaf(self, index: int) -> np.ndarray | None:
        """The mask of an array of `x` as an array."""
        number = self.masks.of_leaf[index]
        return None if number is None else self.masks.marks[number]

    @property
    def marks(self) -> np.ndarray:
        """The first mask, or the only one."""
        return self.masks.marks[0]

    @property
    def max_segments(self) -> int | None:
        return self.masks.max_segments[0]

    @property
    def batch(self) -> int:
        return len(self.marks)


def make_inputs(fn: Any, x: PyTree, mask: Any, params: PyTree, where: str = WHERE) -> Inputs:
    """Check the arguments of `leak.prove`, and find how to call the function."""
    leaves = Leaves.of(x, "x")
    if not leaves.arrays:
        raise ValueError(f"{where}: `x` must hold at least one array, got none.")
    given, tree = flat_masks(mask)
    marks: list[np.ndarray] = []
    max_segments: list[int | None] = []
    numbers: dict[int, int] = {}
    for index, each in enumerate(given):
        if each is not None or tree is None:
            array, segments = marks_of(each, where)
            numbers[index] = len(marks)
            marks.append(array)
            max_segments.append(segments)
    if not marks or not any((array > 0).any() for array in marks):
        raise ValueError(f"{where}: the mask marks nothing as real, so any claim would be empty.")
    of_leaf = []
    for leaf, name, place in zip(leaves.arrays, leaves.names, _owners(mask, x, where), strict=True):
        check_leaf(leaf, given[place], name, where)
        of_leaf.append(numbers.get(place))
    params, call = callable_of(fn, params, where)
    weights = Leaves.of(params, "params")
    for leaf, name in zip(weights.arrays, weights.names, strict=True):
        check_leaf(leaf, None, name, where)

    def flat(weight_leaves: list[Any], arrays: list[Any], marks: list[Any]) -> Any:
        masks: list[Any] = [None] * len(given)
        for index, number in numbers.items():
            most = max_segments[number]
            masks[index] = marks[number] if most is None else Segments(marks[number], most)
        rebuilt = masks[0] if tree is None else jax.tree.unflatten(tree, masks)
        args = weights.tree.unflatten(weight_leaves), leaves.tree.unflatten(arrays), rebuilt
        output, statistics = call(*args)
        return jax.tree.map(plain, output), jax.tree.map(plain, statistics)

    masks = Masks(marks, max_segments, of_leaf)
    return Inputs(name_of(fn), flat, leaves.on_host(), weights.on_host(), masks)


def _is_mask(node: Any) -> bool:
    return node is None or isinstance(node, Segments)


def flat_masks(mask: Any) -> tuple[list[Any], Any]:
    """The masks of a pytree of masks, with its structure; None for a single mask."""
    if isinstance(mask, tuple | list | dict):
        flat, tree = jax.tree.flatten(mask, is_leaf=_is_mask)
        if flat and all(_is_mask(leaf) or np.ndim(leaf) > 0 for leaf in flat):
            return flat, tree
    return [mask], None


def _owners(mask: Any, x: PyTree, where: str) -> list[int]:
    """For each array of `x`, the number of its mask."""
    given, tree = flat_masks(mask)
    if tree is None:
        return [0] * len(jax.tree.leaves(x))
    numbered = jax.tree.unflatten(tree, list(range(len(given))))
    try:
        spread = jax.tree.map(lambda k, part: [k] * len(jax.tree.leaves(part)), numbered, x)
    except ValueError as error:
        raise ValueError(
            f"{where}: a pytree of masks must have the structure of `x`, or of its upper part, "
            f"with a mask or None at each place. {error}"
        ) from error
    return [int(k) for k in jax.tree.leaves(spread)]
