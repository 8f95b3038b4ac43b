"""A functional model of Keras as a module: its layers, and the order in which they run."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx

from jaxmask import _check, nn
from jaxmask._types import Mask, Pair, Segments
from jaxmask.interop._keras_joints import MultiInput


class Node(NamedTuple):
    """One call: the place of the layer, and of the values that it takes and gives."""

    layer: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Graph(nnx.Module):
    """Layers run in order on pairs, each called as often as the source calls it.

    With one input and one output it is called `(x, mask=None)` and returns `(y, mask)`, as any
    layer. With several, `x` and `mask` have the structure of the inputs, or are dicts by the names
    of the inputs; the result has the structure of the outputs.

    Attributes:
      layers: of `nn`, or of the user; a layer of several inputs is called `layer(*pairs)`.
      names: of the layers in the source.
      input_names: of the inputs in the source, in order.
      nodes: the calls, in order; values are numbered, the inputs first.
    """

    def __init__(
        self,
        layers: Sequence[Callable[..., Any]],
        names: Sequence[str],
        input_names: Sequence[str],
        nodes: Sequence[Node],
        inputs: Any,
        outputs: Any,
    ):
        self.layers = nnx.List(layers)
        self.names = tuple(names)
        self.input_names = tuple(input_names)
        self.nodes = tuple(nodes)
        self.inputs: Any = jax.tree.structure(inputs)
        self.outputs: Any = jax.tree.structure(outputs)
        self.results = tuple(jax.tree.leaves(outputs))

    def __call__(self, x: Any, mask: Mask | Any = None, **options: Any) -> tuple[Any, Any]:
        """Run the model and return `(y, mask)`; options as in `jm.nn.Sequential`."""
        xs = self._in_order(x)
        if xs is None:
            raise ValueError(f"Graph: `x` must be {self._expected()}, got {_described(x)}.")
        marks = [None] * len(xs) if mask is None else self._in_order(mask)
        if marks is None:
            raise _check.MaskError(
                f"Graph: `mask` must have the structure of `x`, {self._expected()}, with None for "
                f"an input whose steps are all real, got {_described(mask)}."
            )
        pairs = self.run(*zip(xs, marks, strict=True), **options)
        y, out = zip(*pairs, strict=True)
        return jax.tree.unflatten(self.outputs, y), jax.tree.unflatten(self.outputs, out)

    def _in_order(self, values: Any) -> list[Any] | None:
        """The values of the inputs, or their masks, in order; None where they do not fit."""
        leaves, structure = jax.tree.flatten(values, is_leaf=_is_one)
        if structure == self.inputs:
            return leaves
        if isinstance(values, dict) and set(values) == set(self.input_names):
            by_name = [values[name] for name in self.input_names]
            return by_name if all(map(_is_one, by_name)) else None
        return None

    def _expected(self) -> str:
        names = ", ".join(f"`{name}`" for name in self.input_names)
        if self.inputs.num_leaves == 1:
            return f"one value, of the input {names}"
        by_name = "or a dict with these names"
        if self.inputs == jax.tree.structure([0] * self.inputs.num_leaves):
            return f"a list of the model's inputs, {names} in this order, {by_name}"
        shown = str(self.inputs).removeprefix("PyTreeDef(").removesuffix(")")
        return f"in the structure of the model's inputs, {shown} of {names}, {by_name}"

    def run(self, *pairs: Pair, **options: Any) -> list[Pair]:
        """Run the model on the pairs of its inputs, in order, and return those of its outputs."""
        values: dict[int, Pair] = dict(enumerate(pairs))
        for node in self.nodes:
            given = [values[place] for place in node.inputs]
            try:
                made = _called(self.layers[node.layer], given, options)
            except Exception as error:
                error.add_note(f"Graph: raised in `{self.names[node.layer]}`.")
                raise
            results = [made] if len(node.outputs) == 1 else _apart(made)
            values.update(zip(node.outputs, results, strict=True))
        return [values[place] for place in self.results]

    def compute_mask(self, x: Any, mask: Mask | Any = None) -> Mask | Any:
        """The mask that calling the module gives; nothing advances."""
        quiet = nnx.merge(*nnx.split(self), copy=True)
        quiet.set_attributes(deterministic=True, raise_if_not_found=False)
        return quiet(x, mask)[1]


def _is_one(value: Any) -> bool:
    return value is None or isinstance(value, Segments) or hasattr(value, "shape")


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict with {', '.join(f'`{name}`' for name in value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return _check.kind_of(value)


def _called(layer: Any, pairs: list[Pair], options: dict[str, Any]) -> Any:
    if isinstance(layer, MultiInput) or len(pairs) > 1:
        return layer(*pairs, **options)
    # `Sequential` knows which options a layer takes.
    return nn.Sequential(layer)(*pairs[0], **options) if options else layer(*pairs[0])


def _apart(made: Any) -> list[Pair]:
    """The pairs of several outputs: a tuple of pairs, or `((y, z), mask)`."""
    if len(made) == 2 and not isinstance(made[1], tuple):
        ys, mask = made
        return [(y, mask) for y in ys]
    return list(made)


class Nested(MultiInput):
    """A functional model of several inputs or outputs as a layer of another."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def _joined(self, *pairs: Pair, **options: Any) -> Any:
        made = self.graph.run(*pairs, **options)
        return made[0] if len(made) == 1 else tuple(made)
