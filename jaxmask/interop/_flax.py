"""Flax modules as masked modules."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from jaxmask import _check, nn
from jaxmask.interop._plan import NO_REPLACEMENTS, At, Layer, Replacements, convert

_PLANNERS: dict[type, Callable[[Any, At], Layer]] = {}


def planner(*kinds: type) -> Callable[..., Any]:
    """Register how modules of these classes are planned."""

    def register(f: Callable[[Any, At], Layer]) -> Callable[[Any, At], Layer]:
        _PLANNERS.update(dict.fromkeys(kinds, f))
        return f

    return register


def from_flax(module: Any, *, replace: Replacements = NO_REPLACEMENTS) -> Any:
    """Convert a Flax NNX module to a masked module with the same weights, in evaluation mode.

    Args:
      module: an `nnx.Module`.
      replace: masked layers to put in the place of some of the model's, by path, such as
        `{"layers.2": jm.nn.Passthrough(f)}`.

    Returns:
      A module `(x, mask=None) -> (y, mask)`.

    Raises:
      TypeError: if `module` is no Flax module.
      ValueError: if a layer, or an option of one, is not covered; the text names all of them.

    Example:
      >>> import jaxmask as jm, flax.nnx as nnx
      >>> model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.relu)
      >>> y, mask = jm.interop.from_flax(model)(*jm.pad_sequences([[[1.0, 2, 3]], []]))
      >>> y.shape, mask.tolist()
      ((2, 1, 4), [[True], [False]])
    """
    if not isinstance(module, nnx.Module):
        raise TypeError(f"from_flax: expected an `nnx.Module`, got {_check.kind_of(module)}.")
    covered = [f"nnx.{kind.__name__}" for kind in _PLANNERS]
    return convert(plan(module, replace), "from_flax", covered, replace)


def plan(module: Any, replace: Replacements = NO_REPLACEMENTS) -> Layer:
    """What the module becomes."""
    return _plan(module, At("", "", _plan, replace))


def _plan(module: Any, at: At) -> Layer:
    at = at.of(f"nnx.{type(module).__name__}" if isinstance(module, nnx.Module) else "function")
    if (mine := at.replaced()) is not None:
        return mine
    if not isinstance(module, nnx.Module):
        name = getattr(module, "__name__", type(module).__name__)
        return at.layer(name, lambda: module)
    if type(module) in _PLANNERS:
        return _PLANNERS[type(module)](module, at)
    return at.refused("it is not covered.")


@planner(nnx.Sequential)
def _sequential(module: nnx.Sequential, at: At) -> Layer:
    parts = (at.inside(f"layers.{i}", inside) for i, inside in enumerate(module.layers))
    return at.layer("jm.nn.Sequential", nn.Sequential, parts=tuple(parts))


@planner(nnx.Linear)
def _as_it_is(module: Any, at: At) -> Layer:
    return at.layer(f"nnx.{type(module).__name__}", lambda: nnx.clone(module))
