"""`MaskError`, and what errors say of a wrong value and how to mend the call."""

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


class MaskError(ValueError):
    """A mask reached something that cannot handle it, or does not belong to its array.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> try:
      ...     jm.pool.mean(jnp.zeros((2, 3, 4)), jnp.ones((2, 1), bool))
      ... except jm.MaskError as error:
      ...     print(str(error).splitlines()[0])
      mean: `mask` must have the shape of the leading axes of `x`, (2, 3), got (2, 1).
    """


def name_of(layer: Any) -> str:
    """The class of a layer, or the name of a function."""
    if inspect.isroutine(inspect.unwrap(layer)):
        return f"function `{getattr(layer, '__name__', repr(layer))}`"
    return f"`{type(layer).__name__}`"


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"{type(value).__name__}"


def to_mask(value: Any, name: str) -> str:
    """How what stands in the place of a mask becomes one."""
    if hasattr(value, "as_segments"):
        return "Pass `packed.as_segments()`, which keeps the sequences of a row apart."
    if isinstance(value, list | tuple):
        return f"Pass `jnp.asarray({name})`, or unpack it if it is a pair `(x, mask)`."
    if isinstance(value, int | float):
        return "Pass None if every step is real, else one bool for each step."
    return "Give one bool for each step, True where it is real."


def from_numbers(kind: str, name: str) -> str:
    """What an array of numbers, of this kind of dtype, may mean in the place of booleans."""
    if name not in ("mask", "the mask") and not name.endswith("mask"):
        return f"If it holds 0 and 1, pass `{name}.astype(bool)`."
    hints = [
        f"If it holds 0/1 with 1 = real, pass `{name}.astype(bool)`; if 1 means padding, "
        "`jm.masks.from_paddings(...)`"
    ]
    if kind == "f":
        hints.append(f"if it is added to logits (0 or -inf), `{name} == 0`")
    else:
        hints.append("if it holds lengths, `jm.masks.from_lengths(lengths, time)`")
        hints.append("if it numbers the sequences of packed rows, `jm.Segments(ids, max_segments)`")
    return "; ".join(hints) + "."


def got(value: Any, shown: str) -> str:
    """What came in the place of a static option, and how a traced value becomes known."""
    if not isinstance(value, jax.core.Tracer):
        return f"got {shown}."
    return "got a traced value. Under `jax.jit`, close over it or name it in `static_argnames`."


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The nearest of the known names, in a sentence after others; nothing if none is near."""
    by_part = [one for one in known if name.lower() in one.lower() or one.lower() in name.lower()]
    near = by_part or difflib.get_close_matches(name, known, 1)
    return f" Did you mean `{near[0]}`?" if near else ""


def absent(module: str, names: Collection[str], known: Mapping[str, str]) -> Callable:
    """`__getattr__` of a module, which suggests the nearest name, or what `known` has for one."""

    def refuse(name: str) -> NoReturn:
        hint = ""
        if name in known:
            hint = f" Did you mean `{known[name]}`?"
        elif not name.startswith("_"):
            hint = did_you_mean(name, names)
        raise AttributeError(f"module {module!r} has no attribute {name!r}.{hint}")

    return refuse


def refusing_pairs(f: F) -> F:
    """`f(x, mask, ...)`, whose error for arguments that are missing says how to unpack a pair."""

    @functools.wraps(f)
    def refusing(*arguments: Any, **options: Any) -> Any:
        try:
            return f(*arguments, **options)
        except TypeError as error:
            # Without another frame, it is the call itself that does not fit.
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                _refuse_pairs(f, arguments, error)
            raise

    return refusing  # type: ignore[return-value]


def _refuse_pairs(f: Callable[..., Any], arguments: tuple[Any, ...], error: TypeError) -> None:
    missing = re.findall(r"'(\w+)'", str(error).partition(" required positional ")[2])
    if not missing or not any(map(_is_pair, arguments)):
        return
    name = f.__name__
    if "self" in inspect.signature(f).parameters:
        name = type(arguments[0]).__name__ + (f".{name}" if name != "__call__" else "")
        arguments = arguments[1:]
    shown = ["*pair" if _is_pair(value) else "..." for value in arguments]
    raise TypeError(
        f"{name}: got a pair `(x, mask)` as one argument, so `{'`, `'.join(missing)}` is missing. "
        f"Unpack it: `{name}({', '.join(shown)})`."
    ) from None


def _is_pair(value: Any) -> bool:
    """Not any tuple of two: a carry may be one."""
    if type(value) is not tuple or len(value) != 2:
        return False
    mask = value[1]
    return mask is None or hasattr(mask, "max_segments") or getattr(mask, "dtype", None) == np.bool_
