"""PyTorch's names and layouts of weights, for each kind of layer that holds some.

A rule yields an entry for each parameter of a layer: the variable, PyTorch's names of its arrays,
and the function that builds the variable from those arrays.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from flax import nnx

from jaxmask import nn
from jaxmask.interop._layers import EmbedWithPadding

Make: TypeAlias = Callable[..., np.ndarray]
Entry: TypeAlias = tuple[nnx.Variable, tuple[str, ...], Make]
Rule: TypeAlias = Callable[[Any], Iterator[Entry]]

_GATED = (nn.LSTM, nn.GRU, nn.SimpleRNN)


def _recurrent(layer: Any, suffix: str = "_l0") -> Iterator[Entry]:
    """One direction of one layer. An LSTM has the sum of the two biases, a GRU both."""
    join: Make = (lambda a, b: np.stack([a, b])) if layer.b.ndim == 2 else np.add
    yield layer.w_x, (f"weight_ih{suffix}",), np.transpose
    yield layer.w_h, (f"weight_hh{suffix}",), np.transpose
    yield layer.b, (f"bias_ih{suffix}", f"bias_hh{suffix}"), join


def _directions(layer: nn.Bidirectional, suffix: str = "_l0") -> Iterator[Entry]:
    yield from _recurrent(layer.forward, suffix)
    yield from _recurrent(layer.backward, f"{suffix}_reverse")


def _stack(layer: nn.StackedRNN) -> Iterator[Entry]:
    for number, part in enumerate(layer.layers):
        rule = _directions if isinstance(part, nn.Bidirectional) else _recurrent
        yield from rule(part, f"_l{number}")


def _as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def _embed(layer: Any) -> Iterator[Entry]:
    yield layer.embedding, ("weight",), _as_it_is


def _linear(layer: nnx.Linear) -> Iterator[Entry]:
    yield layer.kernel, ("weight",), np.transpose
    if layer.bias is not None:
        yield layer.bias, ("bias",), _as_it_is


def _norm(layer: Any) -> Iterator[Entry]:
    if layer.scale is not None:
        yield layer.scale, ("weight",), _as_it_is
    if getattr(layer, "bias", None) is not None:
        yield layer.bias, ("bias",), _as_it_is


def _batch_norm(layer: Any) -> Iterator[Entry]:
    yield from _norm(layer)
    yield layer.mean, ("running_mean",), _as_it_is
    yield layer.var, ("running_var",), _as_it_is


def _attention(layer: Any) -> Iterator[Entry]:
    """The three projections are rows of one matrix, head after head."""
    for number, part in enumerate((layer.query, layer.key, layer.value)):
        yield part.kernel, ("in_proj_weight",), _heads(part.kernel, number, 3)
        if part.bias is not None:
            yield part.bias, ("in_proj_bias",), _heads(part.bias, number, 3)
    yield layer.out.kernel, ("out_proj.weight",), _heads(layer.out.kernel, 0, 1, last=True)
    if layer.out.bias is not None:
        yield layer.out.bias, ("out_proj.bias",), _as_it_is


def _separate_attention(layer: Any) -> Iterator[Entry]:
    """Separate projections, as PyTorch has where `kdim` or `vdim` differs from `embed_dim`."""
    joined = {"in_proj_weight": iter(("q_proj_weight", "k_proj_weight", "v_proj_weight"))}
    for variable, names, make in _attention(layer):
        if names[0] in joined:
            yield variable, (next(joined[names[0]]),), _heads(variable, 0, 1)
        else:
            yield variable, names, make


def _cross_attention(layer: nn.CrossAttention) -> Iterator[Entry]:
    same = layer.kv_features == layer.in_features
    return _attention(layer) if same else _separate_attention(layer)


def _heads(variable: nnx.Variable, part: int, parts: int, *, last: bool = False) -> Make:
    """Part of a matrix or bias, with the axis of heads that the variable has.

    `last`: of the projection after the heads, not of one before them.
    """
    shape = variable.shape
    inputs = shape[:-1] if last else shape[:-2]
    size = int(np.prod(shape[len(inputs) :]))
    expected = (parts * size, *([int(np.prod(inputs))] if inputs else []))

    def make(array: np.ndarray) -> np.ndarray:
        if array.shape != expected:
            raise ValueError(f"expected an array of shape {expected}, got {array.shape}.")
        return np.split(array, parts)[part].T.reshape(shape)

    return make


def _encoder_block(layer: nn.TransformerEncoderBlock) -> Iterator[Entry]:
    yield from inside("self_attn", _attention(layer.attention))
    yield from inside("linear1", _linear(layer.mlp_in))
    yield from inside("linear2", _linear(layer.mlp_out))
    yield from inside("norm1", _norm(layer.attention_norm))
    yield from inside("norm2", _norm(layer.mlp_norm))


def inside(prefix: str, entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries of a layer whose names begin with a prefix."""
    for variable, names, make in entries:
        yield variable, tuple(f"{prefix}.{name}" if prefix else name for name in names), make


_RULES: dict[type, Rule] = {
    **dict.fromkeys(_GATED, _recurrent),
    nn.Bidirectional: _directions,
    nn.StackedRNN: _stack,
    **dict.fromkeys((nn.Embed, EmbedWithPadding, nnx.Embed), _embed),
    nnx.Linear: _linear,
    **dict.fromkeys(
        (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm, nnx.LayerNorm, nnx.RMSNorm), _norm
    ),
    **dict.fromkeys((nn.BatchNorm, nnx.BatchNorm), _batch_norm),
    nnx.GroupNorm: _norm,
    **dict.fromkeys((nn.Conv1D, nnx.Conv), _linear),
    **dict.fromkeys((nn.MultiHeadAttention, nnx.MultiHeadAttention), _attention),
    nn.CrossAttention: _cross_attention,
    nn.TransformerEncoderBlock: _encoder_block,
}


def entries_of(layer: Any) -> list[Entry] | None:
    """What PyTorch calls each parameter of a layer; None where it has no such layer."""
    parts: Any = ()
    if isinstance(layer, nnx.Conv) and layer.kernel.ndim != 3:
        return None  # over images, whose axes are in another order
    if type(layer) is nn.Bidirectional:
        parts = layer.forward, layer.backward
    elif type(layer) is nn.StackedRNN:
        parts = layer.layers
    known = {*_GATED, nn.Bidirectional} if type(layer) is nn.StackedRNN else {*_GATED}
    if any(type(p) not in known or entries_of(p) is None for p in parts):
        return None
    rule = _RULES.get(type(layer))
    if rule is None or getattr(layer, "variations", None):
        return None
    return list(rule(layer))
