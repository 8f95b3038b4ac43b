"""Adds to an error which layer of a stack it came from."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from flax import nnx

from jaxmask import _check

_SIZES = ("num_heads", "num_embeddings", "num_groups", "num_tags", "kernel_size", "max_length")


@contextlib.contextmanager
def located(at: str, layer: Any, x: Any) -> Iterator[None]:
    """Add to every error the layer that it came from.

    It keeps its type; its text ends with the layer, its position and the sizes it was built with.
    """
    try:
        yield
    except Exception as error:
        text = f"{at}, {sizes(layer)}, got {_check.kind_of(x)}."
        is_plain = type(error) in (ValueError, TypeError, _check.MaskError)
        if is_plain and len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (f"{error.args[0]}\n{text}",)
        else:
            error.add_note(text)
        raise


def sizes(layer: Any) -> str:
    """A layer by its class and the sizes it was built with, or those of the layer inside."""
    text = _sizes(layer)
    return _check.name_of(layer) if text is None else f"`{text}`"


def _sizes(layer: Any) -> str | None:
    given = vars(layer) if hasattr(layer, "__dict__") and not inspect.isroutine(layer) else {}
    known = {
        name: value
        for name, value in given.items()
        if (name.endswith("features") or name in _SIZES) and _is_size(value)
    }
    words = [f"{name}={value}" for name, value in sorted(known.items(), key=_input_first)]
    if not words:
        inside = (given.get(name) for name in ("layer", "cell", "module", "f"))
        words = [text for child in inside if child is not None and (text := _sizes(child))]
    if not words and isinstance(layer, nnx.Module):
        weights = nnx.to_flat_state(nnx.state(layer, nnx.Param))
        words = [f"{'.'.join(map(str, path))} {weight.shape}" for path, weight in weights]
    return f"{type(layer).__name__}({', '.join(words)})" if words else None


def _is_size(value: Any) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _input_first(item: tuple[str, Any]) -> tuple[bool, bool]:
    return not item[0].startswith("in_"), item[0].startswith("out_")
