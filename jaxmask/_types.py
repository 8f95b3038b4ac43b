"""The axis legend, the array aliases, and the two kinds of mask.

Axes, always in this order:

    batch    rows: one sequence each (or several, when rows are packed)
    time     steps of a row, real ones and padding
    feature  the values of one step; any number of feature axes, also none
    hidden   features that a recurrent layer makes
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxmask._errors import MaskError, kind_of

Array: TypeAlias = jax.Array
ArrayLike: TypeAlias = jax.Array | np.ndarray
PyTree: TypeAlias = Any

Steps: TypeAlias = Shaped[Array, "batch time *feature"]
Rows: TypeAlias = Shaped[Array, "batch *feature"]
StepMask: TypeAlias = Bool[Array, "batch time"]
RowMask: TypeAlias = Bool[Array, "batch"]
Lengths: TypeAlias = Int[Array, "batch"]
Ids: TypeAlias = Int[Array, "batch time"]
Scalar: TypeAlias = Float[Array, ""]


def common_dtype(first: jax.typing.DTypeLike, *others: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype that holds all of these, also under `jax_numpy_dtype_promotion="strict"`.

    That setting finds accidental promotion; this one is documented.
    """
    with promotion_allowed():
        common = jnp.dtype(first)
        for other in others:
            common = jnp.promote_types(common, other)
        return common


@contextlib.contextmanager
def promotion_allowed() -> Iterator[None]:
    """For foreign functions that fail under `jax_numpy_dtype_promotion="strict"` and the like.

    Those settings find accidental promotion in code that is written to avoid it.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Segments:
    """Which sequence of a packed row each step belongs to, in the place of a mask.

    Per-step layers pass it on, functions over time keep the sequences apart, and pooling gives one
    result per segment. Functions that cannot keep sequences apart refuse it. `segments & real`
    leaves out the steps where `real`, boolean `[batch, time]`, is False.

    Attributes:
      ids: `[batch, time]`, integer. 1, 2, ... number the sequences of a row, 0 is padding. NumPy
        ids are checked for that where they are used; the values of JAX arrays are not.
      max_segments: static, the most sequences of a row, so that shapes stay static. Larger ids must
        not occur: they belong to no segment when rows are pooled.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> ids = jnp.array([[1, 1, 2, 0]])
      >>> x = jnp.array([[[1.0], [3.0], [5.0], [9.0]]])
      >>> y, row_mask = jm.pool.mean(x, jm.Segments(ids, max_segments=2))
      >>> y.tolist(), row_mask.tolist()
      ([[2.0], [5.0]], [True, True])
      >>> (jm.Segments(ids, max_segments=2) & (x[..., 0] != 3)).ids.tolist()
      [[1, 0, 2, 0]]
    """

    ids: Ids
    max_segments: int = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `ids`."""
        return self.ids.shape

    @property
    def ndim(self) -> int:
        """The rank of `ids`, 2."""
        return self.ids.ndim

    __array_ufunc__: ClassVar[None] = None  # so that NumPy leaves `real & segments` to us

    def __and__(self, real: Any) -> "Segments":
        if isinstance(real, Segments) or getattr(real, "dtype", None) != np.bool_:
            raise TypeError(
                "Segments: `segments & real` takes a boolean array [batch, time], False at the "
                f"steps to leave out, got {kind_of(real)}{_dtype_of(real)}."
            )
        if real.shape != self.shape:
            raise MaskError(
                f"Segments: in `segments & real` both must have the shape {self.shape}, got "
                f"{real.shape}; nothing is broadcast."
            )
        return Segments(jnp.where(real, jnp.asarray(self.ids), 0), self.max_segments)

    __rand__ = __and__

    def _refuse(self, other: Any = None) -> NoReturn:
        raise TypeError(
            "Segments: `segments & real` leaves steps out, and no other operator has a meaning: "
            "steps that come in belong to no sequence. `jm.masks.as_bool(segments)` is a boolean "
            "array."
        )

    __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = _refuse


def _dtype_of(value: Any) -> str:
    return f" and dtype {value.dtype}" if hasattr(value, "dtype") else ""


Mask: TypeAlias = Bool[Array, "batch *time"] | Segments | None
Pair: TypeAlias = tuple[Array, Mask]
# Of a recurrent layer: one of `_check.ACTIVATIONS`, or a function of each element alone.
Activation: TypeAlias = str | Callable[[Array], Array]
# Of attention: steps up to a query and from it on, its own counted in both, or one number of both.
Window: TypeAlias = int | tuple[int | None, int | None] | None
