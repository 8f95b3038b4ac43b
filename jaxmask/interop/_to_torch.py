"""Export recurrent layers and embeddings to PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmask import _check, nn
from jaxmask.interop import _weights as weights
from jaxmask.interop._layers import EmbedWithPadding

_SUPPORTED = "LSTM, GRU, SimpleRNN, Bidirectional and StackedRNN of these, and Embed"


def to_torch(module: Any) -> Any:
    """Convert a recurrent layer or an embedding to a PyTorch module with the same weights.

    Args:
      module: `jm.nn.LSTM`, `GRU`, `SimpleRNN`, a `Bidirectional` or a `StackedRNN` of one kind of
        these, or `jm.nn.Embed`.

    Returns:
      A `torch.nn.LSTM`, `GRU` or `RNN` with `batch_first=True`, or a `torch.nn.Embedding`, in
      evaluation mode. Padding goes through `jm.interop.to_packed_sequence`; PyTorch has no holes.

    Raises:
      TypeError: if `module` is another module.
      ValueError: if PyTorch has no counterpart of an option, such as `reverse`.

    Example:
      >>> import torch, jaxmask as jm, flax.nnx as nnx
      >>> jm.interop.to_torch(jm.nn.LSTM(3, 4, rngs=nnx.Rngs(0)))
      LSTM(3, 4, batch_first=True)
    """
    if isinstance(module, nn.Embed):
        return _embedding(module)
    layers = _layers(module)
    first = layers[0][0]
    for cells in layers:
        for position, cell in enumerate(cells):
            _check_cell(cell, first, is_backward=position == 1)
    import torch

    kinds: dict[Any, Any] = {
        nn.LSTM: torch.nn.LSTM,
        nn.GRU: torch.nn.GRU,
        nn.SimpleRNN: torch.nn.RNN,
    }
    more: dict[str, Any] = {"batch_first": True, "bidirectional": len(layers[0]) == 2}
    if isinstance(first, nn.SimpleRNN):
        more["nonlinearity"] = first.activation
    if isinstance(module, nn.StackedRNN) and len(layers) > 1:
        more["dropout"] = module.dropout.rate
    arrays = {
        f"{name}_l{number}{suffix}": array
        for number, cells in enumerate(layers)
        for cell, suffix in zip(cells, ("", "_reverse"), strict=False)
        for name, array in _weights(cell).items()
    }
    sizes = first.in_features, first.hidden_features, len(layers)
    return _filled(lambda: kinds[type(first)](*sizes, **more), arrays)


def _layers(module: Any) -> list[tuple[Any, ...]]:
    """The cells of each layer, one or two directions."""
    stack = list(module.layers) if isinstance(module, nn.StackedRNN) else [module]
    if getattr(module, "residual", False) or getattr(module, "variational", False):
        raise ValueError("to_torch: StackedRNN: PyTorch has no `residual` and no `variational`.")
    layers: list[tuple[Any, ...]] = []
    for layer in stack:
        if not isinstance(layer, nn.Bidirectional):
            layers.append((layer,))
        elif layer.merge != "concat":
            raise ValueError(f"to_torch: Bidirectional: PyTorch has no `merge={layer.merge!r}`.")
        else:
            layers.append((layer.forward, layer.backward))
    if len({len(cells) for cells in layers}) > 1:
        raise ValueError(
            "to_torch: in PyTorch either every layer of a stack is bidirectional or none is."
        )
    return layers


def _check_cell(layer: Any, first: Any, is_backward: bool) -> None:
    if type(layer) not in (nn.LSTM, nn.GRU, nn.SimpleRNN):
        raise TypeError(
            f"to_torch: expected one of {_SUPPORTED}, got {_check.name_of(layer)}. Convert the "
            "supported layers one by one."
        )
    name = type(layer).__name__
    if type(layer) is not type(first) or _size(layer) != _size(first):
        raise ValueError(
            "to_torch: all layers of a PyTorch stack must have the same type, size and activation, "
            f"got {type(first).__name__} of {_size(first)} and {name} of {_size(layer)}."
        )
    if layer.variations:
        raise ValueError(f"to_torch: {name} with {', '.join(layer.variations)} is not supported.")
    if layer.reverse and not is_backward:
        raise ValueError(f"to_torch: {name}: PyTorch has no backward-only layer.")
    if not layer.return_sequences:
        raise ValueError(
            f"to_torch: {name}: PyTorch returns every step: set `return_sequences=True`, and take "
            "the last step from `h_n`."
        )
    if not getattr(layer, "reset_after", True):
        raise ValueError("to_torch: GRU: PyTorch has no `reset_after=False`.")


def _size(cell: Any) -> tuple[Any, ...]:
    return cell.hidden_features, *([cell.activation] if isinstance(cell, nn.SimpleRNN) else [])


def _weights(cell: Any) -> dict[str, np.ndarray]:
    bias = np.asarray(cell.b[...])
    two = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    return {
        "weight_ih": np.asarray(cell.w_x[...]).T,
        "weight_hh": np.asarray(cell.w_h[...]).T,
        "bias_ih": two[0],
        "bias_hh": two[1],
    }


def _embedding(module: nn.Embed) -> Any:
    import torch

    padding = 0 if module.mask_zero else None
    sizes = module.num_embeddings, module.features
    table = np.array(module.embedding[...])
    if padding is not None:
        table[padding] = 0  # what jaxmask gives there
    if isinstance(module, EmbedWithPadding):
        padding = module.padding_id
    return _filled(lambda: torch.nn.Embedding(*sizes, padding_idx=padding), {"weight": table})


def _filled(make: Callable[[], Any], arrays: dict[str, np.ndarray]) -> Any:
    import torch

    state = {name: weights.as_torch(array) for name, array in arrays.items()}
    with torch.random.fork_rng(devices=[]):  # PyTorch draws weights, which are then replaced
        made = make()
    made.to(next(iter(state.values())).dtype).load_state_dict(state)
    return made.eval()
