"""What is known of an array, element by element.

An element is known (a concrete value, for every content of the padding), or clean (some value, with
the same bits for every content), or tainted (it may depend on the padding). Taint is a set of bits,
so that one run answers several questions: a bit for each row, for each cut in time, or for each
operation that let the padding in.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]
BITS = np.uint64
NONE = BITS(0)


class Value:
    """One array.

    Attributes:
      shape: of the array.
      value: concrete values where they are known; None: nowhere.
      known: where; None: nowhere.
      taint: the bits of each element; None: no element has any. What is known has none.
      node: how the taint came here, in a run that follows it.
    """

    __slots__ = ("known", "node", "shape", "taint", "value")

    def __init__(
        self,
        shape: Shape,
        value: np.ndarray | None = None,
        known: np.ndarray | None = None,
        taint: np.ndarray | None = None,
    ):
        if known is not None and not known.any():
            value = known = None
        if taint is not None and not taint.any():
            taint = None
        self.shape, self.value, self.known, self.taint = shape, value, known, taint
        self.node: Any = None

    @property
    def where_known(self) -> np.ndarray:
        """Where the value is known, as an array."""
        return np.broadcast_to(False, self.shape) if self.known is None else self.known

    @property
    def bits(self) -> np.ndarray:
        """The taint as an array."""
        return np.broadcast_to(NONE, self.shape) if self.taint is None else self.taint

    @property
    def all_known(self) -> bool:
        return not self.size or (self.known is not None and bool(self.known.all()))

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    def is_known(self, constant: Any) -> np.ndarray:
        """Where the value is known to equal a number, whatever the sign of zero."""
        if self.known is None or self.value is None:
            return np.broadcast_to(False, self.shape)
        return self.known & (self.value == constant)

    def moved(self, move: Callable[[np.ndarray], np.ndarray], shape: Shape) -> "Value":
        """The result of an operation that only moves elements."""
        arrays = (self.value, self.known, self.taint)
        return Value(shape, *(None if a is None else move(a) for a in arrays))

    def with_taint(self, taint: np.ndarray | None) -> "Value":
        """The same, no longer known where there is more taint."""
        if taint is None:
            return self
        known = None if self.known is None else self.known & (taint == NONE)
        return Value(self.shape, self.value, known, self.bits | taint)

    def unknown(self) -> "Value":
        """The same, with nothing known."""
        return Value(self.shape, taint=self.taint)


def concrete(array: Any, dtype: Any = None) -> Value:
    """An array whose elements are all known; keys of random numbers are only clean."""
    if jnp.issubdtype(jax.dtypes.result_type(array), jax.dtypes.prng_key):
        return Value(np.shape(array))
    array = np.asarray(array)
    if dtype is not None and array.dtype != dtype:
        array = array.astype(dtype)
    return Value(array.shape, array, np.broadcast_to(True, array.shape))


def tainted(shape: Shape, bits: Any) -> Value:
    """An array of which nothing is known; `bits` is broadcast to it."""
    return Value(shape, taint=np.broadcast_to(BITS(bits), shape))


def union(shape: Shape, taints: Iterable[np.ndarray | None]) -> np.ndarray | None:
    """All bits of several arrays, broadcast to a shape."""
    found = None
    for taint in taints:
        if taint is not None:
            found = taint if found is None else found | taint
    return None if found is None else np.broadcast_to(found, shape)


def all_bits(values: Iterable[Value]) -> np.uint64:
    """The union over all elements of some arrays."""
    found = NONE
    for value in values:
        if value.taint is not None and value.size:
            found |= np.bitwise_or.reduce(value.taint, axis=None)
    return found


def same_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays are equal to the bit, but for the kinds of nan."""
    if a.dtype.kind in "biu":
        return a == b
    if a.dtype.kind == "c":
        return same_bits(a.real, b.real) & same_bits(a.imag, b.imag)
    return ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))


def join(values: Sequence[Value]) -> Value:
    """What holds of an array that is one of several."""
    first, *rest = values
    for other in rest:
        first = _join(first, other)
    return first


def _join(a: Value, b: Value) -> Value:
    if a is b:
        return a
    taint = union(a.shape, (a.taint, b.taint))
    if a.known is None or b.known is None or a.value is None or b.value is None:
        return Value(a.shape, taint=taint)
    return Value(a.shape, a.value, a.known & b.known & same_bits(a.value, b.value), taint)


def same(a: Value, b: Value) -> bool:
    """Whether as much is known of two arrays."""
    for x, y in ((a.known, b.known), (a.taint, b.taint)):
        if x is None or y is None:
            if x is not y:
                return False
        elif not np.array_equal(x, y):
            return False
    if a.known is None or a.value is None or b.value is None:
        return True
    return bool((same_bits(a.value, b.value) | ~a.known).all())


def fingerprint(value: Value) -> tuple[Any, ...]:
    """A key under which equal knowledge is found again."""
    known = value.where_known
    kept = None if value.value is None else np.where(known, value.value, 0).tobytes()
    taint = None if value.taint is None else value.taint.tobytes()
    return kept, None if kept is None else known.tobytes(), taint
