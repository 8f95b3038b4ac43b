"""What is kept of a function from one check to the next: its programs, and what was proved."""

import inspect
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")
MOST = 8  # functions

_kept: dict[tuple[int, int], tuple[Any, "Kept"]] = {}


class Kept:
    """Results by their key."""

    def __init__(self) -> None:
        self._found: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` gave when it was asked for first."""
        if key not in self._found:
            self._found[key] = make()
        found: T = self._found[key]
        return found

    def get(self, key: Any) -> Any:
        return self._found.get(key)

    def clear(self) -> None:
        self._found.clear()


def kept_of(fn: Any) -> Kept:
    """What is kept of a function, as long as it lives and few others were checked since."""
    method = inspect.ismethod(fn)
    owner = fn.__self__ if method else fn
    key = id(owner), id(fn.__func__) if method else 0
    try:
        reference = weakref.ref(owner, lambda _: _kept.pop(key, None))
    except TypeError:  # it cannot be told whether it still lives
        return Kept()
    _, kept = _kept.pop(key, (None, Kept()))
    _kept[key] = reference, kept
    while len(_kept) > MOST:
        del _kept[next(iter(_kept))]
    return kept


def is_same(a: Any, b: Any) -> bool:
    """Whether two closed jaxprs are the same program, with the same constants."""
    if str(a.jaxpr) != str(b.jaxpr) or len(a.consts) != len(b.consts):
        return False
    return all(x is y or _equal(x, y) for x, y in zip(a.consts, b.consts, strict=True))


def _equal(a: Any, b: Any) -> bool:
    if jax.dtypes.issubdtype(jax.dtypes.result_type(a), jax.dtypes.prng_key):
        a, b = (jax.random.key_data(key) for key in (a, b))
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()
