"""One row inside the program: its lengths, and what its padding holds.

Every rule keeps the invariant that **padding holds a copy of position 0 on each ragged axis**;
the module `padding` states it in full and checks it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged._interpreter import dims

Shape = tuple[Any, ...]


class Context:
    """The lengths of one row, and the sizes that arrays have to hold any row.

    Args:
      sizes: the bounds of all lengths.
      lengths: int32 scalars, for each name.
      reached: a bool scalar, or None for True. Where False, this part of the program would not
        run on the row alone: it is a branch not taken, or a loop without steps. Its results are
        dropped, and the values in it are replaced by safe ones.
      valid: whether the row is long enough to run; loops of a row that is not end at once.
    """

    def __init__(
        self,
        sizes: dims.Sizes,
        lengths: Mapping[str, Array],
        reached: Array | None = None,
        valid: Array | None = None,
    ):
        self.sizes, self.lengths, self.reached, self.valid = sizes, dict(lengths), reached, valid
        # True in a linear program that JAX transposes directly: `stop_gradient` has no transpose.
        self.linear = False
        self.callers: list[Any] = []  # the equations that are running, outermost first
        self._positions: dict[int, Array] = {}
        self._real: dict[str, Array] = {}
        self._count: dict[str, Array] = {}

    def inside(self, reached: Array | None = None) -> "Context":
        """The same row inside a loop or a branch; `reached` is combined with that of the caller."""
        if reached is not None and self.reached is not None:
            reached = reached & self.reached
        reached = self.reached if reached is None else reached
        context = Context(self.sizes, self.lengths, reached, self.valid)
        context.callers, context.linear = self.callers, self.linear
        return context

    # ------------------------------------------------------------------------- sizes

    def size(self, dim: Any) -> int:
        """The physical size of an axis: its size in the longest row."""
        return self.sizes.span(dim)[1]

    def count(self, dim: Any) -> Any:
        """The size of an axis in this row: an int, or an int32 scalar."""
        if not dims.is_symbolic(dim):
            return int(dim)
        text = str(dim)
        if text not in self._count:
            value = dims.evaluate(dim, self.lengths, SCALARS)
            self._count[text] = jnp.asarray(value, jnp.int32)
        return self._count[text]

    def may_be_empty(self, dim: Any) -> bool:
        """Whether an axis is empty in some row."""
        return dims.is_symbolic(dim) and self.sizes.span(dim)[0] <= 0

    def shape(self, shape: Sequence[Any]) -> tuple[int, ...]:
        """The physical shape of an array."""
        return tuple(self.size(dim) for dim in shape)

    def positions(self, size: int) -> Array:
        """`[size]`, int32: 0, 1, 2, ..."""
        if size not in self._positions:
            self._positions[size] = jax.lax.iota(jnp.int32, size)
        return self._positions[size]

    def real(self, dim: Any) -> Array:
        """`[size]`, True at the positions that this row has."""
        text = str(dim)
        if text not in self._real:
            self._real[text] = self.positions(self.size(dim)) < self.count(dim)
        return self._real[text]

    # ----------------------------------------------------------------------- padding

    def mask(self, shape: Shape, axes: Sequence[int] | None = None) -> Array | None:
        """True where no index along `axes` is padding, of the physical shape; None for all True."""
        mask = None
        for axis in ragged_axes(shape, axes):
            one = along(self.real(shape[axis]), axis, self.shape(shape))
            mask = one if mask is None else mask & one
        return mask

    def fill(self, value: Array, shape: Shape, axes: Sequence[int] | None, constant: Any) -> Array:
        """Fill the padding along `axes` with a constant, such as the identity of a sum."""
        mask = self.mask(shape, axes)
        return value if mask is None else select(mask, value, constant)

    def repeat_first(self, value: Array, shape: Shape, axes: Sequence[int] | None = None) -> Array:
        """Fill the padding along `axes`, or all axes, with copies of position 0."""
        for axis in ragged_axes(shape, axes):
            first = jax.lax.slice_in_dim(value, 0, min(1, value.shape[axis]), 1, axis)
            # The copies carry no gradient, which would be 0 in any case.
            first = first if self.linear else stop_gradient(first)
            value = select(along(self.real(shape[axis]), axis, value.shape), value, first)
        return value

    def computed(self, shape: Shape) -> Array | None:
        """Whether the row alone computes an entry of an array of this shape; None for always.

        It does not in a part of the program that is not reached, nor where an axis is empty.
        """
        computed = self.reached
        for dim in {str(dim): dim for dim in shape if self.may_be_empty(dim)}.values():
            some = self.count(dim) > 0
            computed = some if computed is None else computed & some
        return computed


SCALARS: dict[str, Any] = {
    "floordiv": jnp.floor_divide,
    "mod": jnp.mod,
    "max": jnp.maximum,
    "min": jnp.minimum,
}


def ragged_axes(shape: Shape, axes: Sequence[int] | None = None) -> list[int]:
    """The axes whose size depends on the row, among `axes` or all."""
    chosen = range(len(shape)) if axes is None else axes
    return [axis for axis in chosen if dims.is_symbolic(shape[axis])]


def along(vector: Array, axis: int, shape: Sequence[int]) -> Array:
    """A vector, broadcast along one axis of a shape."""
    return jax.lax.broadcast_in_dim(vector, shape, (axis,))


def select(inside: Array, value: Array, other: Any) -> Array:
    """`jnp.where(inside, value, other)` in few operations; only `other` is broadcast."""
    if jnp.ndim(other) == 0:
        other = jax.lax.full(value.shape, other, value.dtype)
    elif other.shape != value.shape:
        other = jax.lax.broadcast_in_dim(other, value.shape, range(value.ndim))
    return jax.lax.select_n(inside, other, value)


def gather_along(value: Array, index: Array, axis: int) -> Array:
    """`jnp.take` along an axis, clipped: callers must not use values read out of bounds."""
    if not value.shape[axis]:
        shape = tuple(index.size if k == axis else size for k, size in enumerate(value.shape))
        return jnp.zeros(shape, value.dtype)
    dimensions = jax.lax.GatherDimensionNumbers(
        offset_dims=tuple(k for k in range(value.ndim) if k != axis),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
    )
    sizes = tuple(1 if k == axis else size for k, size in enumerate(value.shape))
    return jax.lax.gather(value, index[:, None], dimensions, sizes, mode="clip")


def stop_gradient(value: Array) -> Array:
    """`jax.lax.stop_gradient`, for values that may be random keys too."""
    if jnp.issubdtype(value.dtype, jnp.inexact):
        return jax.lax.stop_gradient(value)
    return value
