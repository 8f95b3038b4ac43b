"""Which layers of a model let padding in."""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmask import _nnx
from jaxmask._report import once_fixed
from jaxmask._types import Segments
from jaxmask.leak._proof.proof import source_of


@dataclass(frozen=True)
class Location:
    """The layers of a model that let padding in, found by `jaxmask.leak.locate`.

    Attributes:
      name: the class of the model.
      guilty: `jm.report.Layer` of each, in the order of their calls; `.place` is the line. Each was
        tried alone, so it lets padding in even where all others are fixed.
      unjudged: `jm.report.Layer` of those around them, whose own code is not judged yet.
      takes_mask: whether `leak.check` takes the same inputs.
      has_table: whether the model holds an `nnx.Embed`, which gives nan for ids out of its table.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 3, 2)), jnp.array([[True, True, False]])
      >>> jm.leak.locate(jm.nn.GlobalMeanPool(), x, mask).ok
      True
    """

    name: str
    guilty: tuple[Any, ...]
    unjudged: tuple[Any, ...] = ()
    takes_mask: bool = True
    has_table: bool = False

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
            text = (
                f"leak.locate of `{self.name}`: no layer was seen to let padding in. {OF_CONTENTS}"
            )
            return f"{text} {OF_TABLES}" if self.has_table else text
        lines = [f"leak.locate of `{self.name}`: the first layer that lets padding in is"]
        lines += [f"  {_described(self.guilty[0])}"]
        if len(self.guilty) > 1:
            lines.append("with that one fixed, so do")
            lines += [f"  {_described(layer)}" for layer in self.guilty[1:]]
        if self.unjudged:
            lines.append(once_fixed(layer.name for layer in self.unjudged))
        model = "model" if self.takes_mask else "fn"
        lines.append(f"`jm.leak.check({model}, x, mask)` says how far each moves the results.")
        return "\n".join(lines)


OF_CONTENTS = (
    "Only what padding holds was varied, and no gradient was compared: `jm.leak.check` does so, "
    "and also varies how much of it there is."
)
OF_TABLES = "`jm.leak.check` also tries ids out of the table of `nnx.Embed`, which become nan."


def _described(layer: Any) -> str:
    path = layer.path or "the model itself"
    how = "mixes steps and takes no mask" if "missing" in layer.words else "reads padded steps"
    place = f"\n    {layer.place}{source_of(layer.place)}" if layer.place else ""
    return f"{path}, `{layer.name}`: {how}{place}"


def locate(model: Any, *inputs: Any) -> Location:
    """Find the layers of a model that let padding in.

    A copy of the model is traced once on the inputs. Then each layer that has steps runs alone on
    random values, with and without other values in its padding, as `jm.report.mask_flow` does it;
    nothing in the model advances. So a fill before a layer does not count for it; masks and lengths
    that the model gives it do, and one that is then proved to ignore padding is not named. Only
    what padding holds is varied: `jm.leak.check` also varies how much of it there is, and so finds
    a mean over the padded length. A layer with others inside is guilty if none of them is: then its
    own code lets padding in. Until they are fixed its own code is not judged. The text names the
    line of your code: that which lets padding in, or calls the layer of a library that does.

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
      The code of `Model` itself is judged once these are fixed: run again.
      `jm.leak.check(model, x, mask)` says how far each moves the results.
    """
    report = importlib.import_module("jaxmask.report")  # it lies above this module
    flow = report.mask_flow(model, *inputs)
    masked = len(inputs) == 2 and (isinstance(inputs[1], Segments) or _is_boolean(inputs[1]))
    return Location(
        type(model).__name__,
        flow.guilty,
        flow.unjudged,
        takes_mask=masked,
        has_table=bool(_nnx.table_rows(model)),
    )


def _is_boolean(value: Any) -> bool:
    return getattr(value, "dtype", None) == np.bool_
