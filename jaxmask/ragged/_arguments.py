"""The arguments of a call: which are ragged, which are mapped, which are shared."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, ops
from jaxmask._types import Array, PyTree, Segments
from jaxmask.ragged._interpreter import dims

WHERE = "ragged_vmap"
NAMES = ("time", "time_2", "time_3", "time_4")


@dataclass
class Arguments:
    """The leaves of all arguments of a call.

    Attributes:
      tree: the structure of the arguments of the function.
      shared: for each leaf, the leaf itself if all rows share it, else None.
      is_shared: for each leaf, whether all rows share it.
      arrays: the mapped leaves, batch first.
      names: for each of `arrays`, the name of its length, or None if it has no ragged axis.
      masks: for each name, its mask: a NumPy array if it is known, also under `jit`.
      batch: the number of rows.
      given: whether any mask was given.
    """

    tree: Any
    shared: list[Any] = field(default_factory=list)
    is_shared: list[bool] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    masks: dict[str, Any] = field(default_factory=dict)
    batch: int = 0
    given: bool = False

    def rebuild(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments of the function, with other leaves in place of `arrays`."""
        inside = iter(leaves)
        shared = zip(self.shared, self.is_shared, strict=True)
        arguments = [leaf if is_shared else next(inside) for leaf, is_shared in shared]
        return tuple(jax.tree.unflatten(self.tree, arguments))


def read(arguments: Sequence[Any], in_axes: Any) -> Arguments:
    """Sort `(x, mask, ...)`, where each further ragged argument is a pair `(values, mask)`."""
    x, mask, *rest = arguments
    values: list[Any] = [(x, mask), *rest]
    axes = list(in_axes) if isinstance(in_axes, tuple) else [in_axes] * len(values)
    if len(axes) != len(values):
        raise ValueError(
            f"{WHERE}: `in_axes` must have one entry for each argument of the function, "
            f"{len(values)}, got {len(axes)}. The pair `(x, mask)` is one argument."
        )
    if axes[0] is None:
        raise ValueError(
            f"{WHERE}: the first argument is ragged, so its entry in `in_axes` must be an axis, "
            "got None."
        )
    reader = _Reader()
    for position, (value, axis) in enumerate(zip(values, axes, strict=True)):
        pair = position == 0 or (axis is not None and _is_pair(value))
        reader.argument(value, axis, pair, "x" if position == 0 else f"argument {position}")
    return reader.finish()


def _is_pair(value: Any) -> bool:
    """A plain tuple of values and their mask; lists, dicts and named tuples are values."""
    if type(value) is not tuple or len(value) != 2:
        return False
    second = value[1]
    if second is None or isinstance(second, Segments):
        return True
    is_array = isinstance(second, jax.Array | np.ndarray)
    return is_array and second.dtype == np.bool_ and second.ndim == 2


class _Reader:
    """Builds `Arguments` argument by argument."""

    def __init__(self) -> None:
        self.result = Arguments(tree=None)
        self.stripped: list[Any] = []
        self.seen: list[tuple[Any, str]] = []
        self.unmasked: list[tuple[int, int]] = []

    def argument(self, value: Any, axis: Any, pair: bool, label: str) -> None:
        name, mask = None, None
        if pair:
            value, mask = value
            name, mask = self._length(value, mask, axis, label)
        self.stripped.append(value)
        leaf_axes = _spread(axis, value)
        for leaf, leaf_axis in zip(jax.tree.leaves(value), leaf_axes, strict=True):
            self.result.is_shared.append(leaf_axis is None)
            self.result.shared.append(leaf if leaf_axis is None else None)
            if leaf_axis is None:
                continue
            array = _batch_first(leaf, leaf_axis)
            self._check_rows(array, label)
            if mask is not None and (array.ndim < 2 or array.shape[:2] != mask.shape):
                _check.pair(array, mask, WHERE, over_time=True, name=label)
            self.result.arrays.append(array)
            self.result.names.append(name)

    def _length(self, value: Any, mask: Any, axis: Any, label: str) -> tuple[str, Any]:
        if isinstance(mask, Segments):
            _check.refuse_segments(WHERE)
        leaves = zip(jax.tree.leaves(value), _spread(axis, value), strict=True)
        shapes = [_batch_first(x, a).shape for x, a in leaves if a is not None]
        if not shapes or len(shapes[0]) < 2:
            raise ValueError(
                f"{WHERE}: `{label}` must be [batch, time, ...], got shape "
                f"{shapes[0] if shapes else 'of nothing'}."
            )
        for other, name in self.seen:
            if mask is not None and other is mask:
                return name, self.result.masks[name]
        if mask is None:
            inside = any(map(dims.is_symbolic, shapes[0][:2]))  # an outer row function
            given: Any = (jnp if inside else np).ones(shapes[0][:2], bool)
        else:
            self.result.given = True
            given = _check.boolean(mask, WHERE)
            # A known mask stays known under `jit`, so a batch without padding is not compacted.
            given = mask if isinstance(mask, np.ndarray) else given
            given = given if isinstance(given, jax.core.Tracer) else np.asarray(given)
        if len(self.seen) == len(NAMES):
            raise ValueError(f"{WHERE}: at most {len(NAMES)} independent lengths, got more.")
        name = NAMES[len(self.seen)]
        self.seen.append((mask, name))
        self.result.masks[name] = given
        return name, given

    def _check_rows(self, array: Array, label: str) -> None:
        rows = self.result.batch if self.result.arrays else array.shape[0]
        if array.ndim == 0 or array.shape[0] != rows:
            raise ValueError(
                f"{WHERE}: every mapped argument must have the {rows} rows of `x`, but `{label}` "
                f"has shape {array.shape}. Give an argument that all rows share None in `in_axes`."
            )
        self.result.batch = rows

    def finish(self) -> Arguments:
        self.result.tree = jax.tree.structure(tuple(self.stripped))
        return self.result


def _spread(axes: Any, tree: PyTree) -> list[int | None]:
    """The entry of `in_axes` for each leaf; as in `vmap`, it may be a prefix of the tree."""
    if axes is None or isinstance(axes, int):
        return [axes] * len(jax.tree.leaves(tree))
    spread = jax.tree.map(
        lambda axis, part: [axis] * len(jax.tree.leaves(part)),
        axes,
        tree,
        is_leaf=lambda node: node is None,
    )
    found = jax.tree.leaves(spread, is_leaf=lambda node: node is None)
    return list(found)


def _batch_first(leaf: Any, axis: int) -> Array:
    array = jnp.asarray(leaf)
    if axis and not -array.ndim <= axis < array.ndim:
        raise ValueError(
            f"{WHERE}: `in_axes` names axis {axis} of an argument of shape {array.shape}."
        )
    return jnp.moveaxis(array, axis, 0) if axis != 0 else array


def compacted(call: Arguments) -> Arguments:
    """The arguments with the real steps of each row first."""
    arrays = [
        array if name is None or not array.size else ops.compact(array, call.masks[name])[0]
        for array, name in zip(call.arrays, call.names, strict=True)
    ]
    lengths = {name: np.sum(mask, 1, keepdims=True) for name, mask in call.masks.items()}
    right_padded = {name: np.arange(call.masks[name].shape[1]) < n for name, n in lengths.items()}
    return replace(call, arrays=arrays, masks=right_padded)
