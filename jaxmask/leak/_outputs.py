"""How an output is read: which arrays it holds, and which of their entries are real.

- A pair is a tuple of arrays and a mask, boolean of rank 1 or 2, or `Segments`, whose shape is that
  of the leading axes of all the arrays. Their entries are compared only where it is True.
- Anything else (a loss, a carry, a pair whose mask is None) has no mask: every entry counts.
- Pairs may be anywhere in a pytree: `(carry, (y, mask))`, a list of pairs, a dict.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask._types import Array, PyTree, Segments


@dataclass(frozen=True)
class Slot:
    """One array of an output.

    Attributes:
      what: "mask", "value" or "statistics".
      where: its path, as in an index expression.
      array: traced, abstract or NumPy.
      mask: which entries are real; None: all.
      mask_where: the path of that mask.
    """

    what: str
    where: str
    array: Any
    mask: Any = None
    mask_where: str = ""

    @property
    def differentiable(self) -> bool:
        """Whether the slot takes a cotangent."""
        return self.what == "value" and is_inexact(self.array)

    def describe(self) -> str:
        """How it is read, for the text of a report."""
        shape = f"{self.where} {self.array.dtype} {list(self.array.shape)}"
        if self.mask is None:
            return f"{shape}, without a mask: every entry counts"
        return f"{shape}, {'rows' if self.mask.ndim == 1 else 'steps'} marked by {self.mask_where}"


def path_of(path: Any) -> str:
    """The path of a leaf, without the `.value` of an NNX variable."""
    return jax.tree_util.keystr(path).removesuffix(".value")


def is_inexact(x: Any) -> bool:
    """Whether an array holds floating point or complex numbers, so that it may have a gradient."""
    return _is_inexact_type(x.dtype if hasattr(x, "dtype") else jnp.result_type(x))


@functools.cache
def _is_inexact_type(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def slots(output: PyTree, statistics: PyTree = ()) -> list[Slot]:
    """Every array of an output, each mask before its values."""
    found = list(_walk(output))
    for path, leaf in jax.tree_util.tree_flatten_with_path(statistics)[0]:
        found.append(Slot("statistics", "statistics" + path_of(path), leaf))
    return found


def _walk(output: PyTree) -> Iterator[Slot]:
    for path, node in jax.tree_util.tree_flatten_with_path(output, is_leaf=is_pair)[0]:
        where = "output" + path_of(path)
        if not is_pair(node):
            yield Slot("value", where, node)
            continue
        values, mask = node
        mask_where = f"{where}[1]"
        packed = isinstance(mask, Segments)
        yield Slot("mask", mask_where, mask.ids if packed else mask)
        if packed:
            yield Slot("value", f"{mask_where}.ids", mask.ids, mask, mask_where)
        for inner, leaf in jax.tree_util.tree_flatten_with_path(values)[0]:
            yield Slot("value", f"{where}[0]{path_of(inner)}", leaf, mask, mask_where)


def is_pair(node: Any) -> bool:
    """Whether a node of an output is values with their mask."""
    if not (isinstance(node, tuple) and len(node) == 2 and _is_mask(node[1])):
        return False
    mask, leaves = node[1], jax.tree.leaves(node[0])
    return bool(leaves) and all(leaf.shape[: mask.ndim] == mask.shape for leaf in leaves)


def _is_mask(x: Any) -> bool:
    if isinstance(x, Segments):
        return True
    return getattr(x, "dtype", None) == np.bool_ and x.ndim in (1, 2)


def attributable(slot: Slot, pooled_rows: int) -> bool:
    """Whether each real entry belongs to a segment of the input: by ids, or one row per segment."""
    if slot.mask is None or isinstance(slot.mask, Segments):
        return slot.mask is not None
    return bool(slot.mask.ndim == 1 and slot.mask.shape[0] == pooled_rows)


def real_entries(slot: Slot, focus: Array, batch: int, max_segments: int | None) -> Array | None:
    """The boolean mask of a slot, or None; `focus` above 0 keeps the entries of that segment."""
    mask = slot.mask
    if mask is None:
        return None
    if isinstance(mask, Segments):
        return (mask.ids > 0) & ((focus == 0) | (mask.ids == focus))
    own = focus == 0
    if max_segments and attributable(slot, batch * max_segments):
        own = own | (jnp.arange(mask.shape[0]) % max_segments == focus - 1)
    return mask & own
