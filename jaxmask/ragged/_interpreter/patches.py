"""The only place that changes JAX itself, for row functions while they are traced.

JAX offers no public API for two things:

- `x.shape[0] == 3` must be an error: a symbolic length equals a number for some rows and not for
  others. JAX raises for `<` but answers `==` with False, since its own caches compare sizes too, so
  a function that compares would silently be wrong for rows of that length.
- `jax.lax.associative_scan` refuses an axis of symbolic length.

So the first trace wraps `jax.lax.associative_scan` and the methods `==`, `!=` and `bool` of
symbolic sizes, and they stay wrapped. A wrapper acts only in a thread that is tracing a row
function, and only on that function's sizes; anything else gets JAX's own answer.
"""

import functools
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax import export

from jaxmask.ragged._interpreter import dims, substitutes

_OWN = tuple(f"{Path(f).parent}{os.sep}" for f in (jax.__file__, __file__))
_STANDARD = sysconfig.get_path("stdlib")
_lock = threading.Lock()
_patched: list[type] = []


@contextmanager
def traced_sizes(scope: Any, sizes: dims.Sizes) -> Iterator[None]:
    """Register the sizes of a row function, by their JAX scope, while this thread traces it."""
    with _lock:
        if not _patched:
            _patch()
    dims.TRACING.sizes[scope] = sizes
    try:
        yield
    finally:
        del dims.TRACING.sizes[scope]


def _patch() -> None:
    # The class of symbolic sizes has no public name.
    (example,) = export.symbolic_shape("time")
    kind: Any = type(example)
    _patched.append(kind)
    for name in ("__eq__", "__ne__"):
        if name in kind.__dict__:
            setattr(kind, name, _watching(kind.__dict__[name], name == "__eq__"))
    if "__bool__" not in kind.__dict__:
        kind.__bool__ = _truth
    jax.lax.associative_scan = _scanning(jax.lax.associative_scan)


def _scanning(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def associative_scan(*arguments: Any, **options: Any) -> Any:
        scan = substitutes.associative_scan if dims.nesting() else original
        return scan(*arguments, **options)

    return associative_scan


def _watching(method: Callable[[Any, Any], Any], equal: bool) -> Callable[[Any, Any], Any]:
    @functools.wraps(method)
    def compare(self: Any, other: Any) -> Any:
        answer = method(self, other)
        if answer is equal or dims.traced(self) is None or not _is_size(other):
            return answer
        if _asked_by_user(sys._getframe(1)):
            # These raise where the order depends on lengths, and then equality does too.
            _ = self < other or self > other
        return answer

    return compare


def _truth(self: Any) -> bool:
    """`if x.shape[0] % 2:`; without this method, Python takes any object as True."""
    if dims.traced(self) is not None and _asked_by_user(sys._getframe(1)):
        return bool(self < 0 or self > 0)
    return True


def _is_size(value: Any) -> bool:
    return isinstance(value, int) or dims.is_symbolic(value)


def _asked_by_user(frame: Any) -> bool:
    """Whether user code compares, not JAX or this package, directly or via the standard library."""
    while frame.f_back is not None and _is_between(frame.f_code.co_filename):
        frame = frame.f_back
    return not frame.f_code.co_filename.startswith(_OWN)


def _is_between(file: str) -> bool:
    return file == "<string>" or (file.startswith(_STANDARD) and "site-packages" not in file)
