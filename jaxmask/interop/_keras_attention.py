"""Keras's layers of several inputs: merges and attention."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx

from jaxmask import nn
from jaxmask.interop import _keras_joints as joints
from jaxmask.interop._keras_layers import ZEROS
from jaxmask.interop._keras_parts import (
    KerasContext,
    Part,
    array,
    built,
    converts,
    options,
    put,
    require,
    streams,
)

OR = (
    "where masks differ, Keras mixes padding values in, and drops the mask if one input has none; "
    "here a step is real where any input that has a mask has it (`or`), what is padding in one is "
    "left out of the result, and an input without a mask adds no step"
)
ERASES = (
    "Keras's attention strips the mask from its inputs, so a residual connection after it has "
    "none; here they keep it"
)


def tensors(at: KerasContext) -> list[Any]:
    """The symbolic inputs of a call, in order."""
    if at.call is None:
        return []
    args = at.call.args or tuple(at.call.kwargs.values())
    return list(args[0]) if isinstance(args[0], list | tuple) else list(args)


@converts("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
def _merge(layer: Any, at: KerasContext) -> Part:
    if at.masks_differ:
        at.differs_under_mask(OR)
    name = type(layer).__name__
    axis = layer.axis if name == "Concatenate" else -1
    ranks = {len(x.shape) for x in tensors(at)}
    require(
        name != "Concatenate" or all(axis in (-1, 1, rank - 1) for rank in ranks),
        f"its `axis` is {axis}, which is neither time nor features.",
    )
    merged = joints.Merge(name, axis)
    return Part(f"jm.merge.{name.lower()}", lambda: (merged,))


@converts("Dot")
def _dot(layer: Any, at: KerasContext) -> Part:
    require(
        all(len(x.shape) == 2 for x in tensors(at)),
        "it multiplies sequences; only rows `[batch, feature]` are supported. For "
        "attention scores use `keras.layers.Attention`, which respects the mask of the keys.",
    )
    return Part("jm.merge.dot", lambda: (joints.DotRows(layer.normalize),))


def _is_causal(at: KerasContext) -> bool:
    given = {} if at.call is None else at.call.kwargs
    require(not given.get("return_attention_scores"), "it returns its attention scores.")
    return bool(given.get("use_causal_mask"))


@converts("Attention")
def _attention(layer: Any, at: KerasContext) -> Part:
    built(layer)
    require(layer.score_mode == "dot", 'its `score_mode` is "concat".')
    causal = _is_causal(at)

    def make() -> tuple[Any, ...]:
        scale = None if layer.scale is None else array(layer.scale)
        return (joints.DotAttention(scale, causal, layer.dropout, streams()),)

    return Part("jm.attention.attend", make)


@converts("AdditiveAttention")
def _additive(layer: Any, at: KerasContext) -> Part:
    built(layer)
    require(not layer.dropout, "its `dropout` of attention weights is not supported.")
    causal, shapes = _is_causal(at), [x.shape for x in tensors(at)]
    if layer.scale is None and not shapes:
        config = layer.get_build_config() or {}
        shapes = config.get("input_shape") or config.get("shapes_dict", {}).get("input_shape") or []
    require(layer.scale is not None or shapes, "it has no scale, so its size is unknown.")

    def make() -> tuple[Any, ...]:
        size = 0 if layer.scale is not None else shapes[0][-1]
        scale = array(layer.scale) if layer.scale is not None else np.ones(size, layer.dtype)
        return (joints.Additive(scale, causal, layer.scale is not None),)

    return Part("jm.attention.additive", make)


@converts("MultiHeadAttention")
def _multi_head(layer: Any, at: KerasContext) -> Part:
    built(layer)
    for name, plain in (("_use_gate", False), ("_sliding_window", None)):
        require(getattr(layer, name, plain) == plain, f"its `{name[1:]}` is set.")
    require(
        layer.attention_axes in (None, (1,)), f"its `attention_axes` are {layer.attention_axes}."
    )
    shape = layer._output_shape
    require(shape is None or len(shape) == 1, f"its `output_shape` {shape} has several axes.")
    given = at.call.kwargs if at.call is not None else {}
    require(given.get("attention_mask") is None, "it is called with an `attention_mask`.")
    causal = _is_causal(at)
    itself = attends_to_itself(layer, at)
    require(itself or not causal, "it attends to another sequence with a causal mask.")
    inputs = query_inputs(at)
    require(len({id(x) for x in inputs[1:]}) < 2, "its keys and values are two sequences.")
    at.differs_under_mask(ERASES)
    name = "MultiHeadAttention" if itself else "CrossAttention"
    return Part(f"jm.nn.{name}", lambda: (_made(layer, itself, causal),))


def query_inputs(at: KerasContext) -> list[Any]:
    """Query, value and key of a call, as far as they are given."""
    if at.call is None:
        return []
    names = ("query", "value", "key")
    found = [*at.call.args, *(at.call.kwargs.get(name) for name in names[len(at.call.args) :])]
    return [x for x in found[:3] if x is not None]


def attends_to_itself(layer: Any, at: KerasContext) -> bool:
    """Whether queries, keys and values are one tensor; by their sizes where no call is known."""
    if inputs := query_inputs(at):
        return len({id(x) for x in inputs}) == 1
    kernels = layer._query_dense.kernel, layer._value_dense.kernel, layer._key_dense.kernel
    return len({kernel.shape[0] for kernel in kernels}) == 1


def _made(layer: Any, itself: bool, causal: bool) -> Any:
    query, key, value, out = (
        getattr(layer, f"_{name}_dense") for name in ("query", "key", "value", "output")
    )
    (features, heads, size), (memory, _, _) = query.kernel.shape, key.kernel.shape
    given = {"qkv_features": heads * size, "out_features": out.kernel.shape[-1]}
    given |= {"dropout_rate": layer.dropout, "use_bias": layer.use_bias, "kernel_init": ZEROS}
    given |= options(layer)
    made: Any
    if itself:
        made = nn.MultiHeadAttention(heads, features, causal=causal, **given)
    else:
        made = nn.CrossAttention(heads, features, memory, **given)
    if layer.value_dim != size:
        linear = {"use_bias": layer.use_bias, "kernel_init": ZEROS, **options(layer)}
        made.value = nnx.LinearGeneral(value.kernel.shape[0], (heads, layer.value_dim), **linear)
        wide = (heads, layer.value_dim)
        made.out = nnx.LinearGeneral(wide, out.kernel.shape[-1], axis=(-2, -1), **linear)
    for linear, dense in zip(
        (made.query, made.key, made.value, made.out), (query, key, value, out), strict=True
    ):
        put(linear.kernel, dense.kernel)
        if layer.use_bias:
            put(linear.bias, dense.bias)
    return made if itself else joints.Cross(made)


def inputs_of(layer: Any, at: KerasContext) -> Sequence[Any]:
    """The tensors of a call that the converted layer takes, in its order."""
    name = type(layer).__name__
    if name == "MultiHeadAttention":
        given = query_inputs(at)
        return given[:1] if attends_to_itself(layer, at) else given[:2]
    return tensors(at)
