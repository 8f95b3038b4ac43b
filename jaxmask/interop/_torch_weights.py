"""PyTorch's names and layouts of weights, for each kind of layer that holds some.

A rule yields `(variable, array, name)` for every parameter of a layer: the array in the layout of
the variable, and the name that PyTorch gives it. `get(name)` reads one array.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from flax import nnx

from jaxmask import nn

Get = Callable[[str], np.ndarray]
Filling = Iterator[tuple[nnx.Variable, np.ndarray, str]]
Rule = Callable[[Any, Get], Filling]


def _recurrent(layer: Any, get: Get, suffix: str = "_l0") -> Filling:
    """One direction of one layer. An LSTM has the sum of the two biases, a GRU both."""
    yield layer.w_x, get(f"weight_ih{suffix}").T, f"weight_ih{suffix}"
    yield layer.w_h, get(f"weight_hh{suffix}").T, f"weight_hh{suffix}"
    names = f"bias_ih{suffix}", f"bias_hh{suffix}"
    both = [get(name) for name in names]
    join = np.stack if layer.b.ndim == 2 else sum
    yield layer.b, np.asarray(join(both)), " and ".join(names)


def _directions(layer: nn.Bidirectional, get: Get, suffix: str = "_l0") -> Filling:
    yield from _recurrent(layer.forward, get, suffix)
    yield from _recurrent(layer.backward, get, f"{suffix}_reverse")


def _stack(layer: nn.StackedRNN, get: Get) -> Filling:
    for number, inside in enumerate(layer.layers):
        rule = _directions if isinstance(inside, nn.Bidirectional) else _recurrent
        yield from rule(inside, get, f"_l{number}")


def _embed(layer: Any, get: Get) -> Filling:
    yield layer.embedding, get("weight"), "weight"


def _linear(layer: nnx.Linear, get: Get) -> Filling:
    yield layer.kernel, get("weight").T, "weight"
    if layer.bias is not None:
        yield layer.bias, get("bias"), "bias"


def _norm(layer: Any, get: Get) -> Filling:
    if layer.scale is not None:
        yield layer.scale, get("weight"), "weight"
    if getattr(layer, "bias", None) is not None:
        yield layer.bias, get("bias"), "bias"


def _batch_norm(layer: Any, get: Get) -> Filling:
    yield from _norm(layer, get)
    yield layer.mean, get("running_mean"), "running_mean"
    yield layer.var, get("running_var"), "running_var"


def _conv(layer: nn.Conv1D, get: Get) -> Filling:
    yield layer.kernel, get("weight").transpose(2, 1, 0), "weight"
    if layer.bias is not None:
        yield layer.bias, get("bias"), "bias"


def _attention(layer: Any, get: Get) -> Filling:
    """The projections are rows of one matrix, head after head."""
    for number, part in enumerate((layer.query, layer.key, layer.value)):
        kernel = part.kernel
        weight = np.split(get("in_proj_weight"), 3)[number]
        yield kernel, _reshaped(weight.T, kernel.shape), "in_proj_weight"
        if part.bias is not None:
            bias = np.split(get("in_proj_bias"), 3)[number]
            yield part.bias, _reshaped(bias, part.bias.shape), "in_proj_bias"
    kernel, name = layer.out.kernel, "out_proj.weight"
    yield kernel, _reshaped(get(name).T, kernel.shape), name
    if layer.out.bias is not None:
        yield layer.out.bias, get("out_proj.bias"), "out_proj.bias"


def _reshaped(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """With the axis of heads; an array of another size as it is, for the error that says so."""
    return array.reshape(shape) if array.size == np.prod(shape) else array


def _encoder_block(layer: nn.TransformerEncoderBlock, get: Get) -> Filling:
    parts: dict[str, tuple[Rule, Any]] = {
        "self_attn": (_attention, layer.attention),
        "linear1": (_linear, layer.mlp_in),
        "linear2": (_linear, layer.mlp_out),
        "norm1": (_norm, layer.attention_norm),
        "norm2": (_norm, layer.mlp_norm),
    }
    for prefix, (rule, part) in parts.items():
        yield from inside(prefix, rule, part, get)


def inside(prefix: str, rule: Rule, layer: Any, get: Get) -> Filling:
    """The weights of a layer whose names begin with a prefix."""
    for variable, array, name in rule(layer, lambda name: get(f"{prefix}.{name}")):
        yield variable, array, f"{prefix}.{name}"


RULES: dict[type, Rule] = {
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.SimpleRNN), _recurrent),
    nn.Bidirectional: _directions,
    nn.StackedRNN: _stack,
    **dict.fromkeys((nn.Embed, nnx.Embed), _embed),
    nnx.Linear: _linear,
    **dict.fromkeys(
        (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm, nnx.LayerNorm, nnx.RMSNorm),
        _norm,
    ),
    **dict.fromkeys((nn.BatchNorm, nnx.BatchNorm), _batch_norm),
    nn.Conv1D: _conv,
    **dict.fromkeys((nn.MultiHeadAttention, nn.CrossAttention), _attention),
    nn.TransformerEncoderBlock: _encoder_block,
}
