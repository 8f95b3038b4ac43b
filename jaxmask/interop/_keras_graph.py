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
    layer. With several, `x` and `mask` have the structure of the inputs, and so has the result.

    Attributes:
      layers: of `nn`, or of the user; a layer of several inputs is called `layer(*pairs)`.
      names: of the layers in the source.
      nodes: the calls, in order; values are numbered, the inputs first.
    """

    def __init__(
        self,
        layers: Sequence[Callable[..., Any]],
        names: Sequence[str],
        nodes: Sequence[Node],
        inputs: Any,
        outputs: Any,
    ):
        self.layers = nnx.List(layers)
        self.names = tuple(names)
        self.nodes = tuple(nodes)
        self.inputs: Any = jax.tree.structure(inputs)
        self.outputs: Any = jax.tree.structure(outputs)
        self.results = tuple(jax.tree.leaves(outputs))

    def __call__(self, x: Any, mask: Mask | Any = None, **options: Any) -> tuple[Any, Any]:
        """Run the model and return `(y, mask)`; options as in `jm.nn.Sequential`."""
        one: dict[str, Any] = {"is_leaf": lambda m: m is None or isinstance(m, Segments)}
        given: Any = jax.tree.structure(x)
        if given != self.inputs:
            raise ValueError(
                f"Graph: `x` must have the structure of the model's inputs, {self.inputs}, got "
                f"{given}."
            )
        xs, marks = jax.tree.leaves(x), [None] * self.inputs.num_leaves
        if mask is not None:
            marks = jax.tree.leaves(mask, **one)
            structure: Any = jax.tree.structure(mask, **one)
            if structure != self.inputs:
                raise _check.MaskError(
                    f"Graph: `mask` must have the structure of `x`, {self.inputs}, with None for "
                    "an input whose steps are all real."
                )
        pairs = self.run(*zip(xs, marks, strict=True), **options)
        y, out = zip(*pairs, strict=True)
        return jax.tree.unflatten(self.outputs, y), jax.tree.unflatten(self.outputs, out)

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
