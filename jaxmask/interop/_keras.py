"""`from_keras`: models of Keras 3 as masked modules."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from jaxmask import _check, nn
from jaxmask.interop import (
    _keras_attention,
    _keras_layers,
    _keras_operations,
    _keras_recurrent,
    _keras_windows,
)
from jaxmask.interop._keras_graph import Graph, Nested, Node
from jaxmask.interop._keras_joints import MultiInput
from jaxmask.interop._keras_modules import Cast
from jaxmask.interop._keras_operations import is_symbolic
from jaxmask.interop._keras_parts import (
    CONVERTERS,
    Call,
    KerasContext,
    Part,
    Refused,
    check_policy,
    is_of_keras,
    require,
)
from jaxmask.interop._plan import NO_REPLACEMENTS, Layer, Replacements, convert

_CONVERTING = (
    _keras_attention,
    _keras_layers,
    _keras_recurrent,
    _keras_windows,
)  # which fill the table
SUPPORTED = ("Sequential", "Functional", *sorted(CONVERTERS))


def from_keras(source: Any, *, replace: Replacements = NO_REPLACEMENTS) -> Any:
    """Make a masked module of a Keras layer or model, with the same weights, in evaluation mode.

    Where Keras ignores or loses a mask the module does not, and one `InteropWarning` lists the
    layers; `explain` shows them, and what was dropped, such as regularizers. The mask that Keras
    attaches to a tensor, `x._keras_mask`, is an argument here: `module(x, mask)`.

    A module of one input is called `(x, mask=None)` and returns `(y, mask)`; one of several takes
    `x` and `mask` in the structure of the model's inputs, or as dicts by their names, and returns
    `y` and mask in the structure of its outputs. A merge or attention layer on its own is called
    with pairs, `layer((x, mask), (memory, memory_mask))`. A row without a real step gives 0
    everywhere.

    Args:
      source: a layer, `Sequential` or functional model of Keras 3 on any backend, with weights.
        Subclasses are refused, since their code is unknown.
      replace: masked layers, by the path of the layer they replace, such as
        `{"encoder.lambda_1": jm.nn.Passthrough(f)}`; one of several inputs is called with pairs.

    Returns:
      A module of `jaxmask.nn`, mostly `jm.nn.Sequential` of the layers in order.

    Raises:
      TypeError: if `source` is not a Keras layer or model.
      ValueError: if a layer is not supported, has no weights yet, or computes in another dtype than
        its weights; nothing is converted then.

    Example:
      >>> import os
      >>> os.environ["KERAS_BACKEND"] = "jax"
      >>> import keras, numpy as np, jaxmask as jm
      >>> model = keras.Sequential([
      ...     keras.layers.Embedding(9, 4, mask_zero=True),
      ...     keras.layers.GlobalAveragePooling1D(),
      ... ])
      >>> model.build((None, None))
      >>> module = jm.interop.from_keras(model)
      >>> y, row_mask = module(np.array([[7, 8, 0], [5, 0, 0]]))
      >>> y.shape, row_mask.tolist()
      ((2, 4), [True, True])
    """
    if not is_of_keras_at_all(source):
        raise TypeError(
            "from_keras: expected a layer or a model of Keras 3 (`keras.layers`, "
            f"`keras.Sequential`, `keras.Model(inputs, outputs)`), got {_check.kind_of(source)}."
        )
    return convert(plan(source, replace), "from_keras", SUPPORTED, replace)


def is_of_keras_at_all(source: Any) -> bool:
    """Whether a value is a layer of Keras 3, or an instance of a subclass."""
    kinds = (f"{kind.__module__}.{kind.__name__}" for kind in type(source).__mro__)
    return "keras.src.layers.layer.Layer" in kinds


def plan(source: Any, replace: Replacements = NO_REPLACEMENTS) -> Layer:
    inside = [layer for layer in source._flatten_layers() if not hasattr(layer, "_nodes_by_depth")]
    dtypes = {layer.compute_dtype for layer in inside if not hasattr(layer, "compile")}
    planned, _ = _Planner(replace, dtypes - {None} != {"float32"}).plan(source, "")
    make = planned.make
    if make is None:
        return planned
    return dataclasses.replace(planned, make=lambda *parts: _one(make(*parts)))


class _Planner:
    def __init__(self, replace: Replacements, casts: bool):
        self.replace = replace
        self.casts = casts

    def plan(
        self,
        layer: Any,
        path: str,
        mask: str | None = None,
        call: Call | None = None,
        masks_differ: bool = False,
    ) -> tuple[Layer, str | None]:
        """What becomes of a layer, and the mask of its result."""
        source = type(layer).__name__
        if path and path in self.replace:
            replacement = self.replace[path]
            words = f"replaced by {_check.name_of(replacement)}"
            return Layer(path, source, words, lambda *_: (replacement,)), mask
        at = KerasContext(path, mask, call, self.plan, masks_differ)
        try:
            part = self._converted(layer, at)
        except Refused as why:
            return Layer(path, source, refused=str(why)), mask
        if hasattr(layer, "weights"):
            _note_what_is_left_out(layer, at)
        notes, differs = (tuple(dict.fromkeys(found)) for found in (at.notes, at.differs))
        planned = Layer(path, source, part.becomes, part.make, part.parts, notes, differs)
        return planned, mask if at.mask_out == "" else at.mask_out

    def _converted(self, layer: Any, at: KerasContext) -> Part:
        name = type(layer).__name__
        if is_of_keras(layer, "models.sequential"):
            return self._sequential(layer, at)
        if is_of_keras(layer, "models.functional"):
            return self._functional(layer, at)
        if is_of_keras(layer, "ops."):
            return _keras_operations.plan_operation(layer, at)
        if not is_of_keras(layer, "layers") or name not in CONVERTERS:
            raise Refused(_why_not(layer, name))
        check_policy(layer)
        part = CONVERTERS[name](layer, at)
        return self._with_cast(part, layer.compute_dtype) if self.casts else part

    def _with_cast(self, part: Part, dtype: str) -> Part:
        def make(*parts: Any) -> tuple[Any, ...]:
            made = part.make(*parts)
            if made and isinstance(made[0], MultiInput):
                made[0].dtype = dtype
                return made
            return (Cast(dtype), *made)

        return part._replace(make=make)

    def _sequential(self, model: Any, at: KerasContext) -> Part:
        require(
            model.built and model._functional is not None,
            "its weights are not built. Build it, `model.build((None, None))`, or call it once.",
        )
        planned, mask = [], at.mask
        for layer in model.layers:
            inside, mask = self.plan(layer, _below(at.path, layer), mask)
            planned.append(inside)
        at.mask_out = mask

        def make(*parts: tuple[Any, ...]) -> tuple[Any, ...]:
            return (nn.Sequential(*_without_needless_casts([x for p in parts for x in p])),)

        return Part("jm.nn.Sequential", make, tuple(planned))

    def _functional(self, model: Any, at: KerasContext) -> Part:
        inputs, outputs = _plain(model._inputs_struct), _plain(model._outputs_struct)
        nodes = list(_needed(model, jax.tree.leaves(outputs)))
        places = {id(x): place for place, x in enumerate(jax.tree.leaves(inputs))}
        masks = {place: (at.mask, place) for place in places.values()}  # and where it was made
        planned: dict[int, tuple[int, Layer, int]] = {}
        steps = []
        for operation, call, given, made in nodes:
            taken = tuple(places[id(x)] for x in given)
            found = {masks[place] for place in taken}
            words = {mask for mask, _ in found}
            mask = "steps" if "steps" in words else "rows" if "rows" in words else None
            mask_out = mask
            if id(operation) not in planned:
                path = _below(at.path, operation)
                inside, mask_out = self.plan(operation, path, mask, call, len(found) > 1)
                planned[id(operation)] = len(planned), inside, len(taken)
            number, _, wanted = planned[id(operation)]
            require(
                wanted == len(taken),
                f"`{operation.name}` is called with different numbers of inputs.",
            )
            origin = masks[taken[0]][1] if mask_out == mask else len(places)
            for x in made:
                places[id(x)] = len(places)
                masks[places[id(x)]] = mask_out, origin
            steps.append(Node(number, taken, tuple(places[id(x)] for x in made)))
        at.mask_out, _ = masks[places[id(jax.tree.leaves(outputs)[0])]]
        parts = tuple(inside for _, inside, _ in planned.values())
        names = [f"{inside.path} ({inside.source})" for inside in parts]
        inputs_by_name = [x.name for x in jax.tree.leaves(inputs)]
        counted = [jax.tree.map(lambda x: places[id(x)], struct) for struct in (inputs, outputs)]
        is_small = all(len(jax.tree.leaves(struct)) == 1 for struct in counted)

        def make(*made: tuple[Any, ...]) -> tuple[Any, ...]:
            graph = Graph([_one(layers) for layers in made], names, inputs_by_name, steps, *counted)
            return (graph if is_small or at.call is None else Nested(graph),)

        return Part("a graph of its layers", make, parts)


def _why_not(layer: Any, name: str) -> str:
    if name == "Lambda":
        return (
            "a Lambda runs arbitrary code, so how it treats masks is unknown. Replace it with "
            "`jm.nn.Passthrough(f)` if f acts on each step independently, `jm.nn.LastStep()` if it "
            "is `x[:, -1]`, or `jm.nn.Consume(f)`, `f(x, mask)`, if it makes one value of a row."
        )
    if hasattr(layer, "compile"):
        return (
            "it is a subclassed model with its own `call`. Convert its layers one by "
            "one, `from_keras(model.layer)`, and call them on pairs in your own module."
        )
    if not is_of_keras(layer, "layers"):
        return "it is a custom class, so how it treats masks is unknown."
    return "this class of Keras is not supported."


def _note_what_is_left_out(layer: Any, at: KerasContext) -> None:
    owners = (layer, *(getattr(layer, name, layer) for name in ("cell", "forward_layer")))
    ends = ("_regularizer", "_constraint")
    found = {name for o in owners for name in vars(o) if name.endswith(ends) and getattr(o, name)}
    if found:
        at.notes.append(
            f"its {', '.join(sorted(found))} are dropped, which matters in training only"
        )
    if layer.weights and not layer.trainable and "Batch" not in type(layer).__name__:
        at.notes.append("it is frozen in Keras; leave its parameters out of what you train")


def _below(path: str, layer: Any) -> str:
    return f"{path}.{layer.name}" if path else layer.name


def _one(made: Any) -> Any:
    """Layers one after another as one."""
    if not isinstance(made, tuple):
        return made
    layers = _without_needless_casts(list(made))
    is_masked = len(layers) == 1 and (
        type(layers[0]).__module__.startswith("jaxmask.") or isinstance(layers[0], MultiInput)
    )
    return layers[0] if is_masked else nn.Sequential(*layers)


def _without_needless_casts(layers: list[Any]) -> list[Any]:
    """With one dtype throughout, only the first cast does anything."""
    casts = [layer for layer in layers if isinstance(layer, Cast)]
    if len({layer.dtype for layer in casts}) > 1:
        return layers
    return [layer for layer in layers if not isinstance(layer, Cast) or layer is casts[0]]


def _plain(struct: Any) -> Any:
    """Lists and dicts in the place of those that Keras tracks; a list of one is that one."""
    if isinstance(struct, dict):
        return {name: _plain(value) for name, value in struct.items()}
    if isinstance(struct, list | tuple):
        inside = [_plain(value) for value in struct]
        return inside[0] if len(inside) == 1 else inside
    return struct


def _needed(model: Any, outputs: list[Any]) -> Iterator[tuple[Any, Call, list[Any], list[Any]]]:
    """The calls that make the outputs, in order, but those that only make Keras's own masks."""
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [n for depth in depths for n in model._nodes_by_depth[depth] if not n.is_input]
    wanted, kept = {id(x) for x in outputs}, []
    for node in reversed(nodes):
        if not wanted & {id(x) for x in node.outputs}:
            continue
        call = Call(tuple(node.arguments.args), _without_masks(node))
        given = _inputs_of(node.operation, call)
        _check_options(node, given)
        wanted |= {id(x) for x in given}
        kept.append((node.operation, call, given, list(node.outputs)))
    yield from reversed(kept)


def _check_options(node: Any, given: list[Any]) -> None:
    """Refuse masks that the user hands to a layer, and layers that always train."""
    name = node.operation.name
    require(
        node.arguments.kwargs.get("training") is not True,
        f"`{name}` is called with `training=True`. Call it without, and use `model.train()`.",
    )
    for option, mask in node.arguments.kwargs.items():
        masks = mask if isinstance(mask, list | tuple) else [mask]
        for value in masks if option.endswith("mask") and option != "use_causal_mask" else []:
            require(
                not is_symbolic(value) or _roots(value) <= _ancestors(given),
                f"`{name}` is given an explicit mask, `{option}`. Leave it out, and call the "
                "converted model with `(x, mask)`.",
            )


def _roots(mask: Any) -> set[int]:
    """The tensors that a mask was computed from by bare operations."""
    history = mask._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    if node.is_input or is_of_keras(history.operation, "layers"):
        return {id(mask)}
    return {root for x in node.input_tensors for root in _roots(x)}


def _ancestors(tensors: list[Any]) -> set[int]:
    """The tensors, and all that they were computed from."""
    found: set[int] = set()
    waiting = list(tensors)
    while waiting:
        x = waiting.pop()
        if id(x) in found:
            continue
        found.add(id(x))
        history = x._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        waiting += node.input_tensors
    return found


def _without_masks(node: Any) -> dict[str, Any]:
    """The options of a call, but the masks that Keras has put there itself."""
    given = dict(node.arguments.kwargs)
    for name in [name for name in given if name == "mask" or name.endswith("_mask")]:
        if name != "use_causal_mask" and (name != "attention_mask" or given[name] is None):
            del given[name]
    return given


def _inputs_of(operation: Any, call: Call) -> list[Any]:
    if is_of_keras(operation, "layers.attention") or is_of_keras(operation, "layers.merging"):
        at = KerasContext("", None, call, _no_plan)
        return list(_keras_attention.inputs_of(operation, at))
    if is_of_keras(operation, "models"):
        return jax.tree.leaves(_plain((call.args or tuple(call.kwargs.values()))[0]))
    return _keras_operations.inputs_of(call)


def _no_plan(*_: Any) -> Any:
    raise AssertionError
