"""Layers and functions of Flax, JAX, optax and Keras, each used as its documentation says."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx

from tests.field import MASK, Subject, X


class Layer(nnx.Module):
    """A layer of Flax, and how it is given the mask."""

    def __init__(self, layer: nnx.Module, use: Callable):
        self.layer, self.use = layer, use

    def __call__(self, x: Any, mask: Any) -> Any:
        y = self.use(self.layer, x, mask)
        return y, mask


def _nnx(make: Callable, use: Callable) -> Callable:
    return lambda: (Layer(make(nnx.Rngs(0)), use), X, None)


def _linen(module: linen.Module, use: Callable) -> Callable:
    def make() -> Any:
        params = use(lambda *a, **k: module.init(jax.random.key(0), *a, **k), X, MASK)
        return (
            lambda p, x, m: (
                use(lambda *a, **k: module.apply(p, *a, mutable=["batch_stats"], **k)[0], x, m),
                m,
            ),
            X,
            params,
        )

    return make


def _keras(make: Callable, use: Callable = lambda call, x, m: call(x, mask=m)) -> Callable:
    def made() -> Any:
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import keras

        layer = make(keras.layers)
        use(layer, X, MASK)
        fixed = [v.value for v in layer.non_trainable_variables]

        def function(params: Any, x: Any, mask: Any) -> Any:
            y = use(lambda *a, **k: layer.stateless_call(params, fixed, *a, **k)[0], x, mask)
            return y, (mask.any(1) if y.ndim == 2 else mask)

        return function, X, [v.value for v in layer.trainable_variables]

    return made


def _plain(fn: Callable) -> Callable:
    return lambda: (fn, X, None)


def _masked(x: Any, mask: Any, other: float = 0.0) -> Any:
    return jnp.where(mask[..., None], x, other)


def _ctc(x: Any, mask: Any) -> Any:
    labels, no = jnp.ones((3, 2), int), jnp.zeros((3, 2))
    return optax.ctc_loss(x, (~mask).astype(x.dtype), labels, no)


def _cross_entropy(x: Any, mask: Any) -> Any:
    labels = jnp.zeros(mask.shape, int)
    losses = optax.softmax_cross_entropy_with_integer_labels(x, labels)
    return jnp.where(mask, losses, 0).sum() / mask.sum()


def _dot_product(**how: Callable) -> Callable:
    def attend(x: Any, mask: Any) -> Any:
        options = {name: make(mask) for name, make in how.items()}
        return jax.nn.dot_product_attention(*[x[:, :, None]] * 3, **options)[:, :, 0], mask

    return attend


def subjects() -> Iterator[Subject]:
    """All of them."""
    steps = "mask=mask[..., None]"
    pairs = nnx.make_attention_mask
    flax: dict[str, Callable] = {
        "`Linear`": _nnx(lambda r: nnx.Linear(4, 4, rngs=r), lambda f, x, m: f(x)),
        "`LayerNorm`": _nnx(lambda r: nnx.LayerNorm(4, rngs=r), lambda f, x, m: f(x)),
        f"`LayerNorm({steps})`": _nnx(
            lambda r: nnx.LayerNorm(4, rngs=r), lambda f, x, m: f(x, mask=m[..., None])
        ),
        "`BatchNorm`": _nnx(lambda r: nnx.BatchNorm(4, rngs=r), lambda f, x, m: f(x)),
        f"`BatchNorm({steps})`": _nnx(
            lambda r: nnx.BatchNorm(4, rngs=r), lambda f, x, m: f(x, mask=m[..., None])
        ),
        "`Conv`": _nnx(lambda r: nnx.Conv(4, 4, (3,), rngs=r), lambda f, x, m: f(x)),
        "`Conv` of zeroed padding": _nnx(
            lambda r: nnx.Conv(4, 4, (3,), rngs=r), lambda f, x, m: f(_masked(x, m))
        ),
        "`RNN(LSTMCell)`, `seq_lengths=`": _nnx(
            lambda r: nnx.RNN(nnx.LSTMCell(4, 4, rngs=r)),
            lambda f, x, m: f(x, seq_lengths=m.sum(1)),
        ),
        "`Bidirectional(RNN, RNN)`, `seq_lengths=`": _nnx(
            lambda r: nnx.Bidirectional(
                *(nnx.RNN(nnx.GRUCell(4, 4, rngs=r)) for _ in range(2)), rngs=r
            ),
            lambda f, x, m: f(x, seq_lengths=m.sum(1)),
        ),
        "`MultiHeadAttention`": _nnx(
            lambda r: nnx.MultiHeadAttention(2, 4, decode=False, rngs=r), lambda f, x, m: f(x)
        ),
        "`MultiHeadAttention(mask=)`": _nnx(
            lambda r: nnx.MultiHeadAttention(2, 4, decode=False, rngs=r),
            lambda f, x, m: f(x, mask=pairs(m, m)),
        ),
        "`MultiHeadAttention(mask=)` of zeroed padding": _nnx(
            lambda r: nnx.MultiHeadAttention(2, 4, decode=False, rngs=r),
            lambda f, x, m: f(_masked(x, m), mask=pairs(m, m)),
        ),
    }
    for name, make in flax.items():
        yield Subject(name, "Flax NNX", make)
    of_linen: dict[str, Callable] = {
        "`Dense`": _linen(linen.Dense(4), lambda f, x, m: f(x)),
        f"`BatchNorm({steps})`": _linen(
            linen.BatchNorm(use_running_average=False), lambda f, x, m: f(x, mask=m[..., None])
        ),
        "`RNN(LSTMCell)`, `seq_lengths=`": _linen(
            linen.RNN(linen.LSTMCell(4)), lambda f, x, m: f(x, seq_lengths=m.sum(1))
        ),
        "`MultiHeadDotProductAttention(mask=)`": _linen(
            linen.MultiHeadDotProductAttention(2),
            lambda f, x, m: f(x, mask=linen.make_attention_mask(m, m)),
        ),
    }
    for name, make in of_linen.items():
        yield Subject(name, "Flax Linen", make)
    of_jax: dict[str, Callable] = {
        "`jnp.mean(where=)`": lambda x, m: (x.mean(1, where=m[..., None]), m.any(1)),
        "`x * mask`, summed, by the count": lambda x, m: (
            (x * m[..., None]).sum(1) / m.sum(1)[:, None],
            m.any(1),
        ),
        "`jnp.max` of `where(mask, x, -inf)`, under jit": lambda x, m: (
            jax.jit(lambda x: jnp.max(_masked(x, m, -jnp.inf), 1))(x),
            m.any(1),
        ),
        "`jax.nn.softmax(where=)`": lambda x, m: (jax.nn.softmax(x, 1, where=m[..., None]), m),
        "`dot_product_attention(mask=)`": _dot_product(mask=lambda m: m[:, None, None]),
        "`dot_product_attention(key_value_seq_lengths=)`": _dot_product(
            key_value_seq_lengths=lambda m: m.sum(1).astype(jnp.int32)
        ),
    }
    for name, fn in of_jax.items():
        yield Subject(name, "JAX", _plain(fn), "all" if "jnp.max" in name else "unproved")
    yield Subject("`ctc_loss`", "optax", _plain(_ctc))
    yield Subject(
        "`softmax_cross_entropy_with_integer_labels`, then `where`", "optax", _plain(_cross_entropy)
    )
    attend: Callable = lambda f, x, m: f(x, x, query_mask=m, value_mask=m)  # noqa: E731
    keras: dict[str, Callable] = {
        "`Dense`": _keras(lambda k: k.Dense(4), lambda f, x, m: f(x)),
        "`LSTM`": _keras(lambda k: k.LSTM(4, return_sequences=True)),
        "`GRU`, last state": _keras(lambda k: k.GRU(4)),
        "`Bidirectional(LSTM)`": _keras(
            lambda k: k.Bidirectional(k.LSTM(4, return_sequences=True))
        ),
        "`MultiHeadAttention`": _keras(lambda k: k.MultiHeadAttention(2, 2), attend),
        "`GlobalAveragePooling1D`": _keras(lambda k: k.GlobalAveragePooling1D()),
        "`GlobalMaxPooling1D`": _keras(
            lambda k: k.GlobalMaxPooling1D(), lambda f, x, m: f(x)
        ),
        "`Conv1D`": _keras(lambda k: k.Conv1D(4, 3, padding="same"), lambda f, x, m: f(x)),
        "`BatchNormalization`": _keras(
            lambda k: k.BatchNormalization(), lambda f, x, m: f(x, training=True, mask=m)
        ),
    }  # fmt: skip
    for name, make in keras.items():
        yield Subject(name, "Keras", make)
