"""Which files hold code of the user's own, and not of a library, for lines to be named."""

import functools
import sysconfig
from pathlib import Path

HERE = f"{Path(__file__).parent}/"
_PATHS = sysconfig.get_paths()
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "jaxmask", "numpy")
INSTALLED = (
    *(f"{path}/{name}/" for path in {_PATHS["purelib"], _PATHS["platlib"]} for name in _LIBRARIES),
    HERE,
)
_JAX = tuple(path for path in INSTALLED if path.rstrip("/").endswith(("jax", "jaxlib")))


def is_own(file: str) -> bool:
    """Whether a file is the user's own."""
    return is_worth_naming(file) and not file.startswith(INSTALLED)


@functools.cache
def is_worth_naming(file: str) -> bool:
    """Whether a file is neither of JAX nor of Python, nor no file at all."""
    standard = file.startswith(_PATHS["stdlib"]) and not file.startswith(_PATHS["purelib"])
    return not standard and not file.startswith((*_JAX, "<"))
