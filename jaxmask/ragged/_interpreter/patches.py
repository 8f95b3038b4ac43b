"""Where JAX itself is changed for row functions that are being traced: here and nowhere else.

JAX has no public means for two things:

- `x.shape[0] == 3` must be an error. A symbolic length equals a number for some rows and not for
  others. JAX raises for `<`, but says False for `==`, since its own caches ask too; a function that
  asks would silently be wrong for rows of that length.
- `jax.lax.associative_scan` refuses an axis whose length is a symbol.

So `jax.lax.associative_scan` and the methods `==`, `!=` and `bool` of symbolic sizes are wrapped
once, when the first row function is traced, and stay so. A wrapper does something of its own only
for the sizes of a row function that is being traced at that moment, which it knows by their scope;
all other sizes, in this thread or another, get what JAX says.
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
_depth = threading.local()
_lock = threading.Lock()
_installed: list[Any] = []


def nesting() -> int:
    """How many row functions this thread is tracing, one inside the other.

    Example:
      >>> nesting()
      0
    """
    return getattr(_depth, "value", 0)


@contextmanager
def watched(scope: Any, sizes: dims.Sizes) -> Iterator[None]:
    """While a row function is traced, know its sizes by their scope.

    Example:
      >>> time, = export.symbolic_shape("time")
      >>> with watched(time.scope, dims.Sizes({"time": (1, 4)})):
      ...     try:
      ...         time == 3
      ...     except Exception as error:
      ...         print(type(error).__name__)
      InconclusiveDimensionOperation
    """
    with _lock:
        if not _installed:
            _install()
    dims.TRACED[scope] = sizes
    _depth.value = nesting() + 1
    try:
        yield
    finally:
        _depth.value = nesting() - 1
        del dims.TRACED[scope]


def _install() -> None:
    # The class of symbolic sizes has no public name.
    (example,) = export.symbolic_shape("time")
    kind: Any = type(example)
    _installed.append(kind)
    for name in ("__eq__", "__ne__"):
        if name in kind.__dict__:
            setattr(kind, name, _watching(kind.__dict__[name], name == "__eq__"))
    if "__bool__" not in kind.__dict__:
        kind.__bool__ = _truth
    jax.lax.associative_scan = _scanning(jax.lax.associative_scan)


def _scanning(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def associative_scan(*arguments: Any, **options: Any) -> Any:
        scan = substitutes.associative_scan if dims.TRACED else original
        return scan(*arguments, **options)

    return associative_scan


def _watching(method: Callable[[Any, Any], Any], equal: bool) -> Callable[[Any, Any], Any]:
    @functools.wraps(method)
    def compare(self: Any, other: Any) -> Any:
        answer = method(self, other)
        if answer is equal or not _is_traced(self) or not _is_size(other):
            return answer
        if _asks_user(sys._getframe(1)):
            # These raise where lengths do not decide, and then neither is the answer decided.
            _ = self < other or self > other
        return answer

    return compare


def _truth(self: Any) -> bool:
    """`if x.shape[0] % 2:`, which is True for any object that does not say otherwise."""
    if _is_traced(self) and _asks_user(sys._getframe(1)):
        return bool(self < 0 or self > 0)
    return True


def _is_traced(size: Any) -> bool:
    return bool(dims.TRACED) and size.scope in dims.TRACED


def _is_size(value: Any) -> bool:
    return isinstance(value, int) or bool(export.is_symbolic_dim(value))


def _asks_user(frame: Any) -> bool:
    """Whether the question is not our own or JAX's, whatever generated code it came through."""
    while frame.f_back is not None and _is_between(frame.f_code.co_filename):
        frame = frame.f_back
    return not frame.f_code.co_filename.startswith(_OWN)


def _is_between(file: str) -> bool:
    return file == "<string>" or (file.startswith(_STANDARD) and "site-packages" not in file)
