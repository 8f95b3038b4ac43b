"""`x.shape[0] == 3` in a row function: an error, where JAX would say False.

A symbolic length is equal to a number for some rows and not for others. JAX raises for `<`, but
says False for `==`, since its own caches ask, too; a function that asks would silently be wrong for
rows of that length. While a row function is traced, code that is not JAX's own gets the error.
"""

import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax import export

_JAX = str(Path(jax.__file__).parent)
_STANDARD = sysconfig.get_path("stdlib")


@contextmanager
def watched_equality() -> Iterator[None]:
    """Make undecided equalities of lengths an error, for the code of users and their libraries.

    Example:
      >>> time, = export.symbolic_shape("time")
      >>> with watched_equality():
      ...     try:
      ...         time == 3
      ...     except Exception as error:
      ...         print(type(error).__name__)
      InconclusiveDimensionOperation
    """
    # The class of symbolic sizes has no public name.
    (example,) = export.symbolic_shape("time")
    kind: Any = type(example)
    saved = {name: kind.__dict__[name] for name in ("__eq__", "__ne__") if name in kind.__dict__}
    for name, method in saved.items():
        setattr(kind, name, _watching(method, name == "__eq__"))
    truth = None if "__bool__" in kind.__dict__ else _truth
    if truth is not None:
        kind.__bool__ = truth
    try:
        yield
    finally:
        if truth is not None:
            del kind.__bool__
        for name, method in saved.items():
            setattr(kind, name, method)


def _watching(method: Callable[[Any, Any], Any], equal: bool) -> Callable[[Any, Any], Any]:
    thread = threading.get_ident()  # others trace what they like

    def compare(self: Any, other: Any) -> Any:
        answer = method(self, other)
        if answer is equal or thread != threading.get_ident():
            return answer
        if not _asks_user(sys._getframe(1)) or not _is_size(other):
            return answer
        # These raise where lengths do not decide, and then neither is the answer decided.
        _ = self < other or self > other
        return answer

    return compare


def _truth(self: Any) -> bool:
    """`if x.shape[0] % 2:`, which is True for any object that does not say otherwise."""
    return not _asks_user(sys._getframe(1)) or bool(self < 0 or self > 0)


def _asks_user(frame: Any) -> bool:
    """Whether the question is not JAX's own, through generated code or the standard library."""
    while frame.f_back is not None and _is_between(frame.f_code.co_filename):
        frame = frame.f_back
    return not frame.f_code.co_filename.startswith(_JAX)


def _is_between(file: str) -> bool:
    # A nested `ragged_vmap` watches what is watched already, so this file asks itself.
    if file == __file__:
        return True
    return file == "<string>" or (file.startswith(_STANDARD) and "site-packages" not in file)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) or bool(export.is_symbolic_dim(value))
