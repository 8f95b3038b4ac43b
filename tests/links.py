"""What chains are made of: public functions and modules, each with parameters of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmask as jm
from tests.registry.recurrent import weights_of

EVERYWHERE = ("right", "left", "holes", "packed")
WITHOUT_HOLES = ("right", "left", "packed")


@dataclass(frozen=True)
class Link:
    """`make(features, rngs) -> (call(params, x, mask), params, features that come out)`.

    `layouts`: where padding may lie. `of_steps`: it needs steps, and not rows. `pools`: rows come
    out. `flat`: what comes out has no feature axis, so that it can only be the last.
    """

    make: Callable[[int, nnx.Rngs], tuple[Callable, Any, int]]
    layouts: tuple[str, ...] = EVERYWHERE
    of_steps: bool = True
    pools: bool = False
    flat: bool = False


def function(call: Callable, features: Callable[[int], int] = lambda n: n, **options: Any) -> Link:
    """A function without parameters."""
    return Link(lambda n, rngs: (lambda params, x, mask: call(x, mask), (), features(n)), **options)


def weighted(call: Callable, *shapes: Callable[[int], tuple[int, ...]], **options: Any) -> Link:
    """A function `call(x, mask, *weights)` whose weights have these shapes for n features."""
    out = options.pop("features", lambda n: n)

    def make(n: int, rngs: nnx.Rngs) -> tuple[Callable, Any, int]:
        draw = np.random.default_rng(np.asarray(jax.random.key_data(rngs.params())))
        weights = [draw.normal(size=shape(n)) / np.sqrt(n) for shape in shapes]
        return lambda params, x, mask: call(x, mask, *params), weights, out(n)

    return Link(make, **options)


def recurrent(name: str, kind: type, **options: Any) -> Link:
    def make(n: int, rngs: nnx.Rngs) -> tuple[Callable, Any, int]:
        def call(weights: Any, x: jax.Array, mask: Any) -> tuple:
            return getattr(jm.recurrent, name)(x, mask, weights, **options)[1]

        return call, weights_of(kind, n, 4), 4

    return Link(make)


def module(
    make: Callable[[int, nnx.Rngs], Any], features: Callable[[int], int] = lambda n: n, **options
) -> Link:
    """A module of n features; what is no parameter of it stays as it is."""

    def build(n: int, rngs: nnx.Rngs) -> tuple[Callable, Any, int]:
        layer = jm.nn.Sequential(make(n, rngs))
        layer.eval()
        graph, params, rest = nnx.split(layer, nnx.Param, ...)

        def call(params: Any, x: jax.Array, mask: Any) -> tuple:
            return nnx.merge(graph, params, rest, copy=True)(x, mask)

        return call, params, features(n)

    return Link(build, **options)


def attend(x: jax.Array, mask: Any, **options: Any) -> tuple:
    heads = x[:, :, None]
    y, mask = jm.attention.attend(heads, mask, heads, heads, mask, **options)
    return y[:, :, 0], mask


def with_flipped(merge: Callable) -> Callable:
    """A pair and the same row backwards."""
    return lambda x, mask: merge((x, mask), jm.ops.flip(x, mask))


def against_tanh(loss: Callable) -> Callable:
    def call(x: jax.Array, mask: Any) -> tuple:
        targets, _ = jm.ops.each_step(jnp.tanh, x, mask)
        return loss(x, mask, 0.5 + 0.4 * targets)

    return call


def crf(x: jax.Array, mask: Any, transitions: jax.Array) -> tuple:
    filled, _ = jm.ops.fill(x, mask)
    return jm.losses.crf(x, mask, jnp.argmax(filled, axis=-1), transitions)


FUNCTIONS = {
    **{
        f"ops.{name}": function(getattr(jm.ops, name))
        for name in ("softmax", "log_softmax", "cumsum", "flip", "shift", "compact")
    },
    "ops.each_step": function(
        lambda x, mask: jm.ops.each_step(lambda x: jnp.log1p(jnp.sqrt(x * x + 0.1)), x, mask),
        of_steps=False,
    ),
    "shape.upsample": function(lambda x, mask: jm.shape.upsample(x, mask, 2)),
    "shape.pad": function(lambda x, mask: jm.shape.pad(x, mask, (1, 2)), layouts=WITHOUT_HOLES),
    **{
        f"merge.{name}": function(with_flipped(getattr(jm.merge, name)))
        for name in ("add", "subtract", "multiply", "average", "maximum", "minimum")
    },
    "merge.concatenate": function(with_flipped(jm.merge.concatenate), lambda n: 2 * n),
    "merge.dot": function(with_flipped(jm.merge.dot), lambda n: 1),
    "norm.layer": weighted(jm.norm.layer, lambda n: (n,), lambda n: (n,), of_steps=False),
    "norm.rms": weighted(jm.norm.rms, lambda n: (n,), of_steps=False),
    "norm.instance": function(lambda x, mask: jm.norm.instance(x, mask, epsilon=0.1)),
    **{
        f"conv.conv1d:{padding}": weighted(
            lambda x, mask, kernel, bias, padding=padding: jm.conv.conv1d(
                x, mask, kernel, bias, padding=padding
            ),
            lambda n: (3, n, 4),
            lambda n: (4,),
            features=lambda n: 4,
            layouts=WITHOUT_HOLES,
        )
        for padding in ("same", "causal", "valid")
    },
    "conv.conv1d:strides": weighted(
        lambda x, mask, kernel: jm.conv.conv1d(x, mask, kernel, strides=2),
        lambda n: (3, n, 4),
        features=lambda n: 4,
        layouts=WITHOUT_HOLES,
    ),
    "conv.depthwise": weighted(jm.conv.depthwise, lambda n: (3, n, 1), layouts=WITHOUT_HOLES),
    "conv.max_pool1d": function(
        lambda x, mask: jm.conv.max_pool1d(x, mask, 2), layouts=WITHOUT_HOLES
    ),
    "conv.avg_pool1d": function(
        lambda x, mask: jm.conv.avg_pool1d(x, mask, 3, strides=1, padding="same"),
        layouts=WITHOUT_HOLES,
    ),
    "attention.attend": function(attend),
    "attention.attend:causal,window": function(
        lambda x, mask: attend(x, mask, causal=True, window=2)
    ),
    "recurrent.lstm": recurrent("lstm", jm.recurrent.LSTMWeights),
    "recurrent.gru:reverse": recurrent("gru", jm.recurrent.GRUWeights, reverse=True),
    "recurrent.simple": recurrent("simple", jm.recurrent.SimpleWeights),
    "losses.squared_error": function(against_tanh(jm.losses.squared_error), of_steps=False),
    "losses.huber_loss": function(against_tanh(jm.losses.huber_loss), of_steps=False),
    "losses.sigmoid_binary_cross_entropy": function(
        against_tanh(jm.losses.sigmoid_binary_cross_entropy), of_steps=False
    ),
    "losses.softmax_cross_entropy": function(
        against_tanh(jm.losses.softmax_cross_entropy), of_steps=False, flat=True
    ),
    "losses.cosine_distance": function(
        against_tanh(jm.losses.cosine_distance), of_steps=False, flat=True
    ),
    "losses.crf": weighted(crf, lambda n: (n, n), pools=True, flat=True),
    **{
        f"pool.{name}": function(getattr(jm.pool, name), pools=True)
        for name in ("mean", "max", "min", "sum", "first", "last")
    },
    "pool.attend": function(lambda x, mask: jm.pool.attend(x, mask, x[..., 0]), pools=True),
    "ops.logsumexp": function(jm.ops.logsumexp, pools=True),
}

nn = jm.nn
MODULES = {
    "nn.LSTM": module(lambda n, rngs: nn.LSTM(n, 4, rngs=rngs), lambda n: 4),
    "nn.GRU:reverse": module(lambda n, rngs: nn.GRU(n, 4, reverse=True, rngs=rngs), lambda n: 4),
    "nn.RNN": module(lambda n, rngs: nn.RNN(nnx.GRUCell(n, 3, rngs=rngs)), lambda n: 3),
    "nn.Bidirectional": module(
        lambda n, rngs: nn.Bidirectional(nn.LSTM(n, 3, rngs=rngs), nn.LSTM(n, 3, rngs=rngs)),
        lambda n: 6,
    ),
    "nn.MinGRU": module(lambda n, rngs: nn.MinGRU(n, 4, rngs=rngs), lambda n: 4),
    "nnx.Linear": module(lambda n, rngs: nnx.Linear(n, 5, rngs=rngs), lambda n: 5, of_steps=False),
    "nnx.LayerNorm": module(lambda n, rngs: nnx.LayerNorm(n, rngs=rngs), of_steps=False),
    "nn.BatchNorm": module(lambda n, rngs: nn.BatchNorm(n, rngs=rngs), of_steps=False),
    "nn.RMSNorm": module(lambda n, rngs: nn.RMSNorm(n, rngs=rngs), of_steps=False),
    "nn.Passthrough": module(lambda n, rngs: nn.Passthrough(jnp.tanh), of_steps=False),
    "nn.Dropout": module(lambda n, rngs: nn.Dropout(0.5, rngs=rngs), of_steps=False),
    "nn.Residual": module(lambda n, rngs: nn.Residual(nn.GRU(n, n, rngs=rngs))),
    "nn.Flip": module(lambda n, rngs: nn.Flip()),
    "nn.Upsample": module(lambda n, rngs: nn.Upsample(2)),
    "nn.Pad": module(lambda n, rngs: nn.Pad((1, 2)), layouts=WITHOUT_HOLES),
    "nn.Conv1D": module(
        lambda n, rngs: nn.Conv1D(n, 4, 3, rngs=rngs), lambda n: 4, layouts=WITHOUT_HOLES
    ),
    "nn.ConvTranspose1D": module(
        lambda n, rngs: nn.ConvTranspose1D(n, 4, 3, rngs=rngs),
        lambda n: 4,
        layouts=("right", "left"),
    ),
    "nn.MultiHeadAttention": module(
        lambda n, rngs: nn.MultiHeadAttention(2, n, 4, causal=True, rotary=True, rngs=rngs)
    ),
    "nn.TransformerEncoderBlock": module(
        lambda n, rngs: nn.TransformerEncoderBlock(1, n, 4, rngs=rngs)
    ),
    "nn.GlobalMeanPool": module(lambda n, rngs: nn.GlobalMeanPool(), pools=True),
    "nn.GlobalMaxPool": module(lambda n, rngs: nn.GlobalMaxPool(), pools=True),
    "nn.AttentionPool": module(lambda n, rngs: nn.AttentionPool(n, rngs=rngs), pools=True),
    "nn.LastStep": module(lambda n, rngs: nn.LastStep(), pools=True),
}
LINKS = FUNCTIONS | MODULES
