"""Export recurrent layers and embeddings to Keras."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmask import _check, nn
from jaxmask.interop._keras_recurrent import swapped


def to_keras(module: Any) -> Any:
    """Make a Keras layer, or a `Sequential` of layers, of a module, with the same weights.

    Converted are `jm.nn.LSTM`, `GRU`, `SimpleRNN`, `Embed`, `Masking`, `Bidirectional` of recurrent
    modules, and `jm.nn.Sequential` of these. The result is built, and agrees with the module at
    real steps of rows padded on the right or left, or with holes. As Keras does, it repeats
    the last output at padded steps instead of 0, unless it is bidirectional, and a reversed layer
    returns its outputs last step first.

    Args:
      module: a module of `jaxmask.nn`.

    Returns:
      A layer of Keras 3, on the backend that Keras uses.

    Raises:
      TypeError: if `module`, or a layer in it, is none of these.
      ValueError: if Keras has no counterpart, as for a reversed layer inside `Sequential`.
      ModuleNotFoundError: if Keras is not installed.

    Example:
      >>> import os
      >>> os.environ["KERAS_BACKEND"] = "jax"
      >>> import jaxmask as jm, flax.nnx as nnx
      >>> layer = jm.interop.to_keras(jm.nn.LSTM(3, 4, rngs=nnx.Rngs(0)))
      >>> type(layer).__name__, [weight.shape for weight in layer.weights]
      ('LSTM', [(3, 16), (4, 16), (16,)])
    """
    _convertible(module, "to_keras: `module`")  # first all of it, so that nothing is half converted
    layers = importlib.import_module("keras").layers
    return _made(module, layers)


def _convertible(module: Any, at: str) -> None:
    kind = type(module)
    if kind is nn.Sequential:
        for place, layer in enumerate(module.layers):
            _convertible(layer, f"{at}, layer {place},")
            if getattr(layer, "reverse", False) is True and getattr(
                layer, "return_sequences", False
            ):
                raise ValueError(
                    f"{at}, layer {place}, is reversed. Keras's layer of that kind returns its "
                    "outputs last step first, which the layers after it do not expect."
                )
    elif kind is nn.Bidirectional:
        for way, layer in (("forward", module.forward), ("backward", module.backward)):
            if type(layer) not in _RECURRENT:
                _refuse(layer, f"{at}, `{way}`,")
        if module.forward.return_sequences != module.backward.return_sequences:
            raise ValueError(f"{at} returns every step in one direction and the last in the other.")
    elif kind not in _MAKERS:
        _refuse(module, at)
    for layer in (module.forward, module.backward) if kind is nn.Bidirectional else (module,):
        if options := getattr(layer, "variations", None):
            raise ValueError(f"{at} has {', '.join(options)}, which is not supported.")


def _refuse(module: Any, at: str) -> None:
    raise TypeError(
        f"{at} is {_check.kind_of(module)}. Of jaxmask's modules it converts "
        f"{', '.join(k.__name__ for k in _MAKERS)}, Bidirectional and Sequential; make the others "
        "in Keras and set their weights."
    )


def _made(module: Any, layers: Any) -> Any:
    if type(module) is nn.Sequential:
        sequential = importlib.import_module("keras").Sequential
        made = sequential([_made(layer, layers) for layer in module.layers])
        return made
    if type(module) is nn.Bidirectional:
        ahead: Any = module.forward
        back: Any = module.backward
        options = {"backward_layer": _recurrent(back, layers, go_backwards=True)}
        made = layers.Bidirectional(
            _recurrent(ahead, layers, go_backwards=False), merge_mode=module.merge, **options
        )
        made.build((None, None, ahead.in_features))
        weights = [*_recurrent_weights(ahead), *_recurrent_weights(back)]
        made.set_weights(weights)
        return made
    return _MAKERS[type(module)](module, layers)


def _recurrent(module: Any, layers: Any, **options: Any) -> Any:
    options |= {"return_sequences": module.return_sequences, "dtype": _dtype(module.w_x)}
    if isinstance(module, nn.GRU):
        options["reset_after"] = module.reset_after
    if isinstance(module, nn.SimpleRNN):
        options["activation"] = module.activation
    return getattr(layers, type(module).__name__)(module.hidden_features, **options)


def _dtype(parameter: Any) -> str:
    return str(parameter[...].dtype)


def _recurrent_weights(module: Any) -> list[np.ndarray]:
    weights = [np.asarray(parameter[...]) for parameter in (module.w_x, module.w_h, module.b)]
    return [swapped(weight) for weight in weights] if isinstance(module, nn.GRU) else weights


def _recurrent_layer(module: Any, layers: Any) -> Any:
    made = _recurrent(module, layers, go_backwards=module.reverse)
    made.build((None, None, module.in_features))
    made.set_weights(_recurrent_weights(module))
    return made


def _embedding(module: Any, layers: Any) -> Any:
    sizes = module.num_embeddings, module.features
    dtype = _dtype(module.embedding)
    made = layers.Embedding(*sizes, mask_zero=module.mask_zero, dtype=dtype)
    made.build((None, None))
    made.set_weights([np.asarray(module.embedding[...])])
    return made


def _masking(module: Any, layers: Any) -> Any:
    return layers.Masking(module.mask_value)


_RECURRENT = (nn.LSTM, nn.GRU, nn.SimpleRNN)
_MAKERS: dict[type, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(_RECURRENT, _recurrent_layer),
    nn.Embed: _embedding,
    nn.Masking: _masking,
}
