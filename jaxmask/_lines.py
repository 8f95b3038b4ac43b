"""Which files hold code of the user's own, and not of a library, for lines to be named.

Libraries need not lie below the prefix of this Python: with layered environments, `pip install
--target` or `PYTHONPATH` they are where they were imported from.
"""

import functools
import sys
import sysconfig
from pathlib import Path

HERE = f"{Path(__file__).parent}/"
_PATHS = sysconfig.get_paths()
_INSTALLED = {_PATHS["purelib"], _PATHS["platlib"]}
_JAX = ("jax", "jaxlib")
_LIBRARIES = (*_JAX, "flax", "optax", "numpy", "jaxtyping", "jaxmask")
_TYPED = ("<stdin>", "<console>", "<input>", "<python-input", "<ipython-input")


@functools.cache
def is_own(file: str) -> bool:
    """Whether a file is the user's own."""
    return is_worth_naming(file) and not file.startswith((HERE, *_directories(_LIBRARIES)))


@functools.cache
def is_worth_naming(file: str) -> bool:
    """Whether a file is neither of JAX nor of Python, nor code that a library generated."""
    if file.startswith("<"):
        return is_typed(file)
    return not file.startswith(_directories(_JAX)) and not _is_standard(file)


def is_typed(file: str) -> bool:
    """Whether it stands for what was typed at a prompt, or given to Python without a file."""
    return file.startswith(_TYPED) or (file == "<string>" and sys.argv[:1] == ["-c"])


def _directories(names: tuple[str, ...]) -> tuple[str, ...]:
    """Where packages are: whoever has a line in a program was imported before."""
    found = {f"{path}/{name}" for path in _INSTALLED for name in names}
    for name in names:
        found.update(getattr(sys.modules.get(name), "__path__", ()))
    return tuple(f"{path}/" for path in found)


def _is_standard(file: str) -> bool:
    inside = file.removeprefix(f"{_PATHS['stdlib']}/")
    return inside != file and not inside.startswith(("site-packages/", "dist-packages/"))
