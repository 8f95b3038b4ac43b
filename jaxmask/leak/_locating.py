"""Which layers of a model let padding in."""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Location:
    """The layers of a model that let padding in, found by `jaxmask.leak.locate`.

    Attributes:
      name: the class of the model.
      guilty: `jm.report.Layer` of each, in the order of their calls. Each was tried alone, so it
        lets padding in even where all others are mended.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 3, 2)), jnp.array([[True, True, False]])
      >>> jm.leak.locate(jm.nn.GlobalMeanPool(), x, mask).ok
      True
    """

    name: str
    guilty: tuple[Any, ...]

    @property
    def ok(self) -> bool:
        """Whether no layer lets padding in."""
        return not self.guilty

    @property
    def first(self) -> Any:
        """The first layer that lets padding in, or None."""
        return self.guilty[0] if self.guilty else None

    def __str__(self) -> str:
        if self.ok:
            return f"leak.locate of `{self.name}`: no layer was seen to let padding in."
        lines = [f"leak.locate of `{self.name}`: the first layer that lets padding in is"]
        lines += [f"  {_described(self.guilty[0])}"]
        if len(self.guilty) > 1:
            lines.append("with that one mended, so do")
            lines += [f"  {_described(layer)}" for layer in self.guilty[1:]]
        lines.append("`jm.leak.prove(model, x, mask)` names the lines.")
        return "\n".join(lines)


def _described(layer: Any) -> str:
    path = layer.path or "the model itself"
    how = "mixes steps and takes no mask" if "missing" in layer.words else "reads padded steps"
    return f"{path}, `{layer.name}`: {how}"


def locate(model: Any, *inputs: Any) -> Location:
    """Find the layers of a model that let padding in.

    A copy of the model is traced once on the inputs. Then each layer that has steps runs alone on
    random values, with and without other values in its padding, as `jm.report.mask_flow` does it;
    nothing in the model advances. A layer with others inside is guilty if none of them is: then its
    own code lets padding in.

    Args:
      model: an `nnx.Module`, of jaxmask or not.
      *inputs: what it is called with. If the last is a mask that the model does not take, it says
        what is padding in a model that knows of none.

    Returns:
      A `Location`: `.first`, `.guilty` and `.ok`; `str()` of it is the text.

    Raises:
      TypeError: if `model` is not a module that can be called, or does not take so many inputs.
      MaskError: if a mask belongs to no input, or marks nothing as real.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> from flax import nnx
      >>> class Model(nnx.Module):
      ...     def __init__(self, rngs):
      ...         self.project = nnx.Linear(2, 2, rngs=rngs)
      ...         self.conv = nnx.Conv(2, 2, kernel_size=(3,), rngs=rngs)
      ...
      ...     def __call__(self, x):
      ...         return self.conv(self.project(x))
      >>> x, mask = jnp.ones((1, 5, 2)), jnp.arange(5)[None] < 3
      >>> print(jm.leak.locate(Model(nnx.Rngs(0)), x, mask))
      leak.locate of `Model`: the first layer that lets padding in is
        conv, `Conv`: mixes steps and takes no mask
      `jm.leak.prove(model, x, mask)` names the lines.
    """
    report = importlib.import_module("jaxmask.report")  # it lies above this module
    layers = report.mask_flow(model, *inputs).layers
    guilty: list[Any] = []
    for position, layer in enumerate(layers):
        inside = _inside(layers, position)
        if _lets_in(layer) and not any(map(_lets_in, inside)):
            guilty.append(layer)
    return Location(type(model).__name__, tuple(guilty))


def _lets_in(layer: Any) -> bool:
    return layer.verdict == "sees padding" or "missing" in layer.words


def _inside(layers: tuple[Any, ...], position: int) -> list[Any]:
    """The layers called within one: those that follow and lie deeper."""
    found = []
    for layer in layers[position + 1 :]:
        if layer.depth <= layers[position].depth:
            break
        found.append(layer)
    return found
