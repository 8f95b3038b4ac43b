"""One row inside the program: how long it is, and what stands in its padding.

The invariant that every rule keeps: **on each ragged axis, padding holds a copy of position 0**.
So a function of one step only ever meets values that it meets on the row alone. Nothing in the
padding can be nan or inf that is not so on the row, its zero cotangent stays zero, and functions
of each step need no mask at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmask._types import Array
from jaxmask.ragged import dims

Shape = tuple[Any, ...]


class Context:
    """The lengths of one row, and the sizes that arrays have to hold any row.

    Args:
      sizes: the bounds of all lengths.
      lengths: int32 scalars, for each name.
      live: a bool scalar, or None for True. Where it is False this part of the program would not
        run on the row alone: it is a branch that is not taken, or a loop of no steps. Its results
        are dropped, and the values in it are replaced by safe ones.
      row: whether the row is there at all. Loops of a row that is not there end at once.

    Example:
      >>> time, = jax.export.symbolic_shape("time")
      >>> row = Context(dims.Sizes({"time": (1, 4)}), {"time": jnp.int32(3)})
      >>> row.size(time), int(row.count(time)), row.real(time).tolist()
      (4, 3, [True, True, True, False])
    """

    def __init__(
        self,
        sizes: dims.Sizes,
        lengths: Mapping[str, Array],
        live: Array | None = None,
        row: Array | None = None,
    ):
        self.sizes, self.lengths, self.live, self.row = sizes, dict(lengths), live, row
        self.callers: list[Any] = []  # the equations that are running, the outermost first
        self._real: dict[str, Array] = {}
        self._count: dict[str, Array] = {}

    def inside(self, live: Array | None = None) -> "Context":
        """The same row inside a loop or a branch; `live` narrows what there is already."""
        if live is not None and self.live is not None:
            live = live & self.live
        live = self.live if live is None else live
        context = Context(self.sizes, self.lengths, live, self.row)
        context.callers = self.callers
        return context

    # ------------------------------------------------------------------------- sizes

    def size(self, dim: Any) -> int:
        """The physical size of an axis: that of the longest row."""
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
        """Whether an axis has no position in some row."""
        return dims.is_symbolic(dim) and self.sizes.span(dim)[0] <= 0

    def shape(self, shape: Sequence[Any]) -> tuple[int, ...]:
        """The physical shape of an array."""
        return tuple(self.size(dim) for dim in shape)

    def real(self, dim: Any) -> Array:
        """`[size]`, True at the positions that this row has."""
        text = str(dim)
        if text not in self._real:
            self._real[text] = jnp.arange(self.size(dim), dtype=jnp.int32) < self.count(dim)
        return self._real[text]

    # ----------------------------------------------------------------------- padding

    def mask(self, shape: Shape, axes: Sequence[int]) -> Array | None:
        """True where no index along `axes` is padding, in a shape that broadcasts; None: all."""
        mask = None
        for axis in ragged_axes(shape, axes):
            one = along(self.real(shape[axis]), axis, len(shape))
            mask = one if mask is None else mask & one
        return mask

    def fill(self, value: Array, shape: Shape, axes: Sequence[int], constant: Any) -> Array:
        """Put a constant, the identity of what follows, into the padding along `axes`."""
        mask = self.mask(shape, axes)
        if mask is None:
            return value
        return jnp.where(mask, value, jnp.asarray(constant, value.dtype))

    def repeat_first(self, value: Array, shape: Shape, axes: Sequence[int] | None = None) -> Array:
        """Put a copy of position 0 into the padding along `axes` (all of them where None)."""
        for axis in ragged_axes(shape, range(len(shape)) if axes is None else axes):
            first = jax.lax.slice_in_dim(value, 0, min(1, value.shape[axis]), 1, axis)
            # The copy carries no gradient: all of it would be 0.
            first = stop_gradient(first)
            real = along(self.real(shape[axis]), axis, value.ndim)
            value = jnp.where(real, value, first)
        return value

    def alive(self, shape: Shape) -> Array | None:
        """Whether the row alone computes an array of this shape at all; None where it always does.

        It does not in a part of the program that is not live, nor where an axis has no position.
        """
        alive = self.live
        for dim in {str(dim): dim for dim in shape if self.may_be_empty(dim)}.values():
            some = self.count(dim) > 0
            alive = some if alive is None else alive & some
        return alive


SCALARS: dict[str, Any] = {
    "floordiv": jnp.floor_divide,
    "mod": jnp.mod,
    "max": jnp.maximum,
    "min": jnp.minimum,
}


def ragged_axes(shape: Shape, axes: Sequence[int] | None = None) -> list[int]:
    """Those of some axes whose size depends on the row.

    Example:
      >>> time, = jax.export.symbolic_shape("time")
      >>> ragged_axes((2, time))
      [1]
    """
    chosen = range(len(shape)) if axes is None else axes
    return [axis for axis in chosen if dims.is_symbolic(shape[axis])]


def along(vector: Array, axis: int, ndim: int) -> Array:
    """A vector in a shape that broadcasts along one axis.

    Example:
      >>> along(jnp.zeros(3), 1, 3).shape
      (1, 3, 1)
    """
    return vector.reshape([-1 if k == axis else 1 for k in range(ndim)])


def take(value: Array, place: Array, axis: int) -> Array:
    """Positions of an axis; what lies outside is moved inside, and is not to be used.

    Example:
      >>> take(jnp.array([5, 6]), jnp.array([1, 9]), 0).tolist()
      [6, 6]
    """
    last = value.shape[axis] - 1
    if last < 0:
        shape = tuple(place.size if k == axis else size for k, size in enumerate(value.shape))
        return jnp.zeros(shape, value.dtype)
    return jnp.take(value, jnp.clip(place, 0, last), axis=axis, mode="clip")


def stop_gradient(value: Array) -> Array:
    """`jax.lax.stop_gradient`, for values that may be random keys too.

    Example:
      >>> stop_gradient(jax.random.key(0)).shape
      ()
    """
    if jnp.issubdtype(value.dtype, jnp.inexact):
        return jax.lax.stop_gradient(value)
    return value
