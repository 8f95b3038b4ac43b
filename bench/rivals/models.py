"""Models in JAX, each in jaxmask, Flax and Keras, with the same weights by the same names.

`Apply` is `(weights, x, mask) -> y`; a name of weights is the path in the module of jaxmask, which
that of Flax shares.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm
from bench.contest import LeftOut

KB = ("kernel", "bias")

Weights = dict[str, Any]
Apply = Callable[[Weights, jax.Array, jax.Array], jax.Array]


# Smooth: where libraries round a number near 0 apart, the gradients of a ReLU would differ.
gelu = functools.partial(jax.nn.gelu, approximate=False)


class Sizes(NamedTuple):
    batch: int = 32
    time: int = 256
    features: int = 256
    heads: int = 8
    mlp: int = 1024
    window: int = 5
    outputs: int = 64


class Peephole(nnx.RNNCellBase):
    """An LSTM whose gates see the cell's state: a cell that neither library has."""

    def __init__(self, in_features: int, hidden_features: int, *, rngs: nnx.Rngs):
        self.in_features, self.hidden_features = in_features, hidden_features
        self.dense = nnx.Linear(in_features + hidden_features, 4 * hidden_features, rngs=rngs)
        self.peepholes = nnx.Param(0.1 * rngs.params.normal((3, hidden_features)))

    def __call__(self, carry: tuple, x: jax.Array) -> tuple[tuple, jax.Array]:
        h, c = carry
        i, f, g, o = jnp.split(self.dense(jnp.concatenate([x, h], -1)), 4, -1)
        p = self.peepholes[...]
        c = nnx.sigmoid(f + p[0] * c) * c + nnx.sigmoid(i + p[1] * c) * jnp.tanh(g)
        h = nnx.sigmoid(o + p[2] * c) * jnp.tanh(c)
        return (h, c), h

    def initialize_carry(self, input_shape: tuple, rngs: Any = None, *_: Any) -> tuple:
        zero = jnp.zeros((*input_shape[:-1], self.hidden_features))
        return zero, zero

    @property
    def num_feature_axes(self) -> int:
        return 1


class FlaxBlock(nnx.Module):
    """The encoder block of Flax's own layers; `seen` is what Flax calls a mask."""

    def __init__(
        self,
        heads: int,
        features: int,
        mlp: int,
        activation: Callable = gelu,
        *,
        rngs: nnx.Rngs,
    ):
        self.activation = activation
        self.attention = nnx.MultiHeadAttention(heads, features, decode=False, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(features, rngs=rngs)
        self.mlp_in = nnx.Linear(features, mlp, rngs=rngs)
        self.mlp_out = nnx.Linear(mlp, features, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(features, rngs=rngs)

    def __call__(self, x: jax.Array, seen: Any = None) -> jax.Array:
        x = x + self.attention(self.attention_norm(x), mask=seen)
        return x + self.mlp_out(self.activation(self.mlp_in(self.mlp_norm(x))))


# -------------------------------------------------------------------------- jaxmask: (x, mask)


def _encoder(sizes: Sizes, rngs: nnx.Rngs, blocks: int = 2, causal: bool = False) -> nnx.Module:
    options = {"causal": causal, "activation": gelu, "rngs": rngs}
    given = sizes.heads, sizes.features, sizes.mlp
    return jm.nn.Sequential(
        *(jm.nn.TransformerEncoderBlock(*given, **options) for _ in range(blocks))
    )


def _convolutions(sizes: Sizes, rngs: nnx.Rngs, conv: Any = jm.nn.Conv1D) -> list:
    given = sizes.features, sizes.features, sizes.window
    return [layer for _ in range(3) for layer in (conv(*given, rngs=rngs), nnx.gelu)]


def bilstm(width: int, hidden: int, rngs: nnx.Rngs) -> nnx.Module:
    return jm.nn.Bidirectional(*(jm.nn.LSTM(width, hidden, rngs=rngs) for _ in range(2)))


def _tagger(sizes: Sizes, rngs: nnx.Rngs) -> nnx.Module:
    last = nnx.Linear(2 * sizes.features, sizes.outputs, rngs=rngs)
    return jm.nn.Sequential(bilstm(sizes.features, sizes.features, rngs), last)


def _cell(sizes: Sizes, rngs: nnx.Rngs) -> Peephole:
    return Peephole(sizes.features, sizes.features, rngs=rngs)


OURS = {
    "encoder": _encoder,
    "decoder": lambda sizes, rngs: _encoder(sizes, rngs, 1, causal=True),
    "convolutions": lambda sizes, rngs: jm.nn.Sequential(*_convolutions(sizes, rngs)),
    "tagger": _tagger,
    "own cell": lambda sizes, rngs: jm.nn.RNN(_cell(sizes, rngs)),
}
MODELS = tuple(OURS)


# --------------------------------------------------------------------------------------- Flax


def _flax_blocks(sizes: Sizes, rngs: nnx.Rngs, blocks: int = 2) -> nnx.Module:
    given = sizes.heads, sizes.features, sizes.mlp
    return nnx.Sequential(*(FlaxBlock(*given, rngs=rngs) for _ in range(blocks)))


def flax_bilstm(width: int, hidden: int, rngs: nnx.Rngs) -> nnx.Module:
    cells = (nnx.OptimizedLSTMCell(width, hidden, rngs=rngs) for _ in range(2))
    return nnx.Bidirectional(*map(nnx.RNN, cells))


def _flax_tagger(sizes: Sizes, rngs: nnx.Rngs) -> nnx.Module:
    last = nnx.Linear(2 * sizes.features, sizes.outputs, rngs=rngs)
    return nnx.Sequential(flax_bilstm(sizes.features, sizes.features, rngs), last)


def _call_blocks(causal: bool) -> Callable:
    def call(model: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
        seen = mask[:, None, None]
        if causal:
            seen = seen & nnx.make_causal_mask(mask, dtype=bool)
        for block in model.layers:
            x = block(x, seen)
        return x

    return call


def _call_convolutions(model: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
    """`nnx.Conv` takes no mask of steps: padding is filled by hand."""
    for layer in model.layers:
        x = layer(jnp.where(mask[..., None], x, 0))
    return x


def _call_tagger(model: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
    both, last = model.layers
    return last(both(x, seq_lengths=mask.sum(1)))


FLAX = {
    "encoder": (_flax_blocks, _call_blocks(causal=False)),
    "decoder": (lambda sizes, rngs: _flax_blocks(sizes, rngs, 1), _call_blocks(causal=True)),
    "convolutions": (
        lambda sizes, rngs: nnx.Sequential(*_convolutions(sizes, rngs, nnx.Conv)),
        _call_convolutions,
    ),
    "tagger": (_flax_tagger, _call_tagger),
    "own cell": (
        lambda sizes, rngs: nnx.RNN(_cell(sizes, rngs)),
        lambda model, x, mask: model(x, seq_lengths=mask.sum(1)),
    ),
}


# -------------------------------------------------------------------------------------- of both


def named(module: nnx.Module, names: list[str] | None = None) -> tuple[Weights, Callable]:
    """Weights by the paths of parameters, and `of(weights)`, the module with these.

    `names`: what a module calls its parameters that has them in the same order elsewhere.
    """
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    leaves, tree = jax.tree.flatten_with_path(params)
    paths = [".".join(str(key.key) for key in path if hasattr(key, "key")) for path, _ in leaves]
    names = names or paths

    def of(weights: Weights) -> nnx.Module:
        params = jax.tree.unflatten(tree, [weights[name] for name in names])
        return nnx.merge(graph, params, rest, copy=True)

    return {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}, of


def compared(slopes: dict[str, Any]) -> dict[str, Any]:
    """Without the biases of keys: softmax ignores them, and their gradients are rounding alone."""
    return {name: slope for name, slope in slopes.items() if not name.endswith("key.bias")}


def ours(name: str, sizes: Sizes) -> tuple[Weights, Callable]:
    """Weights, and `(x, mask, weights) -> (y, mask)`."""
    weights, of = named(OURS[name](sizes, nnx.Rngs(0)))
    draw = np.random.default_rng(0)  # so that a bias is not 0
    weights = {
        key: value + 0.05 * draw.normal(size=value.shape).astype("f4")
        for key, value in weights.items()
    }
    return weights, lambda x, mask, weights: of(weights)(x, mask)


def flax(name: str, sizes: Sizes, weights: Weights) -> Apply:
    make, call = FLAX[name]
    _, of = named(make(sizes, nnx.Rngs(0)), list(weights))
    return lambda weights, x, mask: call(of(weights), x, mask)


# --------------------------------------------------------------------------------------- Keras


def keras(name: str, sizes: Sizes) -> Apply:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    if name == "tagger":
        return keras_bilstms([sizes.features], sizes.features, sizes.outputs)
    if name not in ("encoder", "decoder"):
        raise LeftOut("it has no such layer that takes a mask")
    return _keras_blocks(sizes, name == "decoder")


def built(layer: Any, *shapes: tuple) -> Callable:
    """`(weights, *inputs) -> y` of a layer of Keras."""
    layer.build(*shapes)
    rest = [v.value for v in layer.non_trainable_variables]
    return lambda own, *inputs, **options: layer.stateless_call(own, rest, *inputs, **options)[0]


def _keras_blocks(sizes: Sizes, causal: bool) -> Apply:
    from keras import layers

    wide = (None, None, sizes.features)
    norm = built(layers.LayerNormalization(epsilon=1e-6), wide)
    attention = layers.MultiHeadAttention(sizes.heads, sizes.features // sizes.heads)
    attention = built(attention, wide, wide)
    mlp_in = built(layers.Dense(sizes.mlp, activation="gelu"), wide)
    mlp_out = built(layers.Dense(sizes.features), (None, None, sizes.mlp))

    def apply(weights: Weights, x: jax.Array, mask: jax.Array) -> jax.Array:
        for k in range(1 if causal else 2):

            def own(name: str, *ends: str, k: int = k) -> list:
                return [weights[f"layers.{k}.{name}.{end}"] for end in ends]

            heads = [
                w for n in ("query", "key", "value", "out") for w in own(f"attention.{n}", *KB)
            ]
            y = norm(own("attention_norm", "scale", "bias"), x)
            seen = {"attention_mask": mask[:, None], "use_causal_mask": causal}
            x = x + attention(heads, y, y, **seen)
            y = norm(own("mlp_norm", "scale", "bias"), x)
            x = x + mlp_out(own("mlp_out", *KB), mlp_in(own("mlp_in", *KB), y))
        return x

    return apply


def matrices(weights: Weights, layer: int) -> list:
    """Those of a bidirectional LSTM, in the order of Keras."""
    names = [(way, name) for way in ("forward", "backward") for name in ("w_x", "w_h", "b")]
    return [weights[f"layers.{layer}.{way}.{name}"] for way, name in names]


def keras_bilstms(widths: list[int], hidden: int, outputs: int, first: int = 0) -> Apply:
    """Bidirectional LSTMs and a dense layer, whose weights are those from layer `first` on."""
    from keras import layers

    def both(width: int) -> Callable:
        lstm = layers.LSTM(hidden, return_sequences=True)
        return built(layers.Bidirectional(lstm), (None, None, width))

    deep = list(map(both, widths))
    last = built(layers.Dense(outputs), (None, None, 2 * hidden))

    def apply(weights: Weights, x: jax.Array, mask: jax.Array) -> jax.Array:
        for k, layer in enumerate(deep, first):
            x = layer(matrices(weights, k), x, mask=mask)
        return last([weights[f"layers.{first + len(deep)}.{end}"] for end in KB], x)

    return apply
