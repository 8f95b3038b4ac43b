"""What each layer of a model becomes: planned first, then shown or made.

A planner walks the source and returns one `Layer` for the whole of it, with its parts below it. It
makes nothing and raises nothing: an unsupported layer is marked `refused`, so that a plan can list
all of them at once.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flax import nnx

from jaxmask import _check, nn
from jaxmask.nn import Sequential

Replacements = Mapping[str, Callable[..., Any]]
NO_REPLACEMENTS: Replacements = MappingProxyType({})


class InteropWarning(UserWarning):
    """A converted model deliberately differs from its source: the text lists where and why.

    Example:
      >>> import warnings, jaxmask as jm
      >>> warnings.filterwarnings("ignore", category=jm.interop.InteropWarning)
    """


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """What becomes of one layer of the source.

    Attributes:
      path: where it is in the source, `""` for the whole of it.
      source: its class.
      becomes: what it becomes, in words; empty where it is not supported.
      make: makes that, given what was made of `parts`, one argument each.
      parts: layers inside it.
      notes: what to know, such as another order of axes; shown by `explain`.
      differs: where values deliberately differ from those of the source, and why; also warned of.
      refused: why it is not supported.
    """

    path: str
    source: str
    becomes: str = ""
    make: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    parts: tuple["Layer", ...] = ()
    notes: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    refused: str = ""

    @property
    def name(self) -> str:
        """The layer in a sentence."""
        return _name(self.path, self.source)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What each layer of a model becomes; `str()` of it is a table.

    Attributes:
      layers: one entry for each layer, the outer before the inner, with `path`, `source` (its
        class), `becomes`, `notes`, `differs` (where values deliberately differ, and why) and
        `refused` (why it is not supported).

    Example:
      >>> import jaxmask as jm, flax.nnx as nnx
      >>> plan = jm.interop.explain(nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.relu))
      >>> plan.ok, [layer.becomes for layer in plan.layers]
      (True, ['jm.nn.Sequential', 'nnx.Linear', 'relu'])
    """

    layers: tuple[Layer, ...]

    @property
    def ok(self) -> bool:
        """Whether every layer is supported."""
        return not any(layer.refused for layer in self.layers)

    def __str__(self) -> str:
        rows = [("layer", "class", "becomes")]
        for layer in self.layers:
            rows.append((layer.path or ".", layer.source, layer.becomes or "not supported"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        for title, field in (
            ("Not supported:", "refused"),
            ("Values differ:", "differs"),
            ("Notes:", "notes"),
        ):
            lines += _listed(title, self.layers, field)
        return "\n".join(lines)


def _name(path: str, source: str) -> str:
    return f"`{path}` ({source})" if path else f"the model ({source})"


def plan_of(layer: Layer) -> Plan:
    """All layers, the outer before the inner."""
    return Plan(tuple(_each(layer)))


def _each(layer: Layer) -> Iterator[Layer]:
    yield layer
    for part in layer.parts:
        yield from _each(part)


def _listed(title: str, layers: Sequence[Layer], field: str) -> list[str]:
    lines = []
    for layer in layers:
        value = getattr(layer, field)
        texts = (value,) if isinstance(value, str) else value
        lines += [f"- {layer.name}: {text}" for text in texts if text]
    return [title, *lines] if lines else []


@dataclasses.dataclass(frozen=True)
class LayerContext:
    """A layer's place in the model, and the options of the conversion.

    Attributes:
      path, source: of the layer, as in `Layer`.
      plan: plans any layer of this library.
      replace: layers of the user, by path.
      rngs: streams for the dropout of converted layers.
      causal: whether self-attention is converted as causal.
    """

    path: str
    source: str
    plan: Callable[[Any, "LayerContext"], Layer]
    replace: Replacements
    rngs: Any = None
    causal: bool = False

    @property
    def name(self) -> str:
        """The layer in a sentence."""
        return _name(self.path, self.source)

    def of(self, source: str) -> "LayerContext":
        """The same place, once the class of the layer is known."""
        return dataclasses.replace(self, source=source)

    def replaced(self) -> Layer | None:
        """The plan of the user's replacement for this layer, if there is one."""
        if self.path not in self.replace:
            return None
        layer = self.replace[self.path]
        return self.layer(f"replaced by {_check.name_of(layer)}", lambda: layer)

    def layer(self, becomes: str, make: Callable[..., Any], **more: Any) -> Layer:
        """The plan of this layer; `more` as in `Layer`."""
        return Layer(self.path, self.source, becomes, make, **more)

    def refused(self, why: str) -> Layer:
        """The plan of a layer that is not supported."""
        return Layer(self.path, self.source, refused=why)

    def inside(self, name: str, layer: Any) -> Layer:
        """The plan of a layer inside this one."""
        path = f"{self.path}.{name}" if self.path else name
        return self.plan(layer, dataclasses.replace(self, path=path))


def convert(
    layer: Layer, where: str, supported: Sequence[str], replace: Replacements = NO_REPLACEMENTS
) -> nn.Sequential | Any:
    """Make what a plan says, in evaluation mode; or refuse it, with nothing made.

    A module that takes no mask, such as `nnx.Linear`, comes in a `jm.nn.Sequential`.
    """
    plan = plan_of(layer)
    _refuse(plan, where, supported)
    unknown = sorted(set(replace) - {part.path for part in plan.layers})
    if unknown:
        raise ValueError(
            f"{where}: `replace` names `{unknown[0]}`, which is not a layer of the model. "
            f"Its layers are: {', '.join(part.path for part in plan.layers if part.path)}."
        )
    module = _made(layer, {})
    if not _takes_a_mask(module):
        module = Sequential(module)
    _warn(plan, where)
    if isinstance(module, nnx.Module):
        module.eval()
    return module


def _made(layer: Layer, made: dict[int, Any]) -> Any:
    """Build a layer once; shared layers stay shared."""
    if id(layer) not in made:
        assert layer.make is not None
        made[id(layer)] = layer.make(*(_made(part, made) for part in layer.parts))
    return made[id(layer)]


def _takes_a_mask(module: Any) -> bool:
    return type(module).__module__.startswith("jaxmask.")


def _refuse(plan: Plan, where: str, supported: Sequence[str]) -> None:
    refused = [layer for layer in plan.layers if layer.refused]
    if not refused:
        return
    first = refused[0]
    lines = [f"{where}: cannot convert {first.name}: {first.refused}"]
    lines += [f"Also {layer.name}: {layer.refused}" for layer in refused[1:]]
    lines.append(f"Supported: {', '.join(supported)}.")
    at = first.path or "path of a layer"
    lines.append(
        "Nothing was converted. Either pass:\n"
        f'  - a masked layer to put in its place, `{where}(model, replace={{"{at}": layer}})`: '
        "`jm.nn.Passthrough(f)` if `f` acts on each step independently, `jm.nn.RaggedVmap(f)` if "
        "it mixes the steps of a row (`batched=True` if it is written for `[batch, time, ...]`), "
        "or any `(x, mask) -> (y, mask)`;\n"
        f"  - the supported parts, one by one, `{where}(part)`, joined in "
        "`jm.nn.Sequential` or by a module of your own."
    )
    raise ValueError("\n".join(lines))


def _warn(plan: Plan, where: str) -> None:
    lines = _listed(
        f"{where}: converted, with deliberate differences from the source:", plan.layers, "differs"
    )
    if lines:
        warnings.warn("\n".join(lines), InteropWarning, stacklevel=4)
