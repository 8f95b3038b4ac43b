"""What a user writes; pyright (strict) and mypy must accept it, and know the types in it."""

from typing import assert_type

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxmask as jm


class Tagger(nnx.Module):
    def __init__(self, vocabulary: int, tags: int, *, rngs: nnx.Rngs) -> None:
        self.embed = jm.nn.Embed(vocabulary, 16, rngs=rngs)
        self.lstm = jm.nn.Bidirectional(
            jm.nn.LSTM(16, 32, rngs=rngs), jm.nn.LSTM(16, 32, rngs=rngs)
        )
        self.attention = jm.nn.MultiHeadAttention(4, 64, rngs=rngs)
        self.drop = jm.nn.Dropout(0.1, rngs=rngs)
        self.logits = nnx.Linear(64, tags, rngs=rngs)

    def __call__(
        self, ids: jax.Array, mask: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | jm.Segments | None]:
        x, out = self.embed(ids, mask)
        x, out = self.lstm(x, out)
        x, out = self.attention(x, out)
        x, out = self.drop(x, out)
        return self.logits(x), out


def loss(model: Tagger, ids: jax.Array, mask: jax.Array, tags: jax.Array) -> jax.Array:
    logits, out = model(ids, mask)
    per_step, out = jm.losses.softmax_cross_entropy_with_integer_labels(logits, out, tags)
    return jm.losses.reduce(per_step, out, by="step")


def train(model: Tagger, sentences: list[list[int]]) -> float:
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    x, mask = jm.pad_sequences(sentences)
    value, gradients = nnx.value_and_grad(loss)(
        model, jnp.asarray(x), jnp.asarray(mask), jnp.asarray(x)
    )
    optimizer.update(model, gradients)
    return float(value)


def running_sum(row: jax.Array) -> jax.Array:
    return jnp.cumsum(row, 0)


def functions(x: jax.Array, mask: jax.Array) -> jax.Array:
    weights = jm.recurrent.LSTMWeights(jnp.ones((3, 8)), jnp.ones((2, 8)), jnp.ones(8))
    carry, (y, y_mask) = jm.recurrent.lstm(x, mask, weights)
    assert_type(carry, jm.recurrent.LSTMCarry)
    pooled, _ = jm.pool.mean(y, y_mask)
    z, _ = jm.conv.conv1d(x, mask, jnp.ones((3, 3, 2)))
    s, _ = jm.ops.softmax(x, mask)
    flipped, _ = jm.ops.flip(s, mask)
    whole, _ = jm.ragged_vmap(running_sum)(x, mask)
    short, _ = jm.skip_padding(jm.ops.cumsum)(x, mask)
    report = jm.leak.check(jm.pool.mean, x, mask)
    assert_type(report.ok, bool)
    return pooled + carry.h + z.sum() + flipped.sum() + whole.sum() + short.sum()


def measure(logits: jax.Array, mask: jax.Array, labels: jax.Array) -> jax.Array:
    accuracy = jm.metrics.Accuracy.empty().update(logits, mask, labels)
    return accuracy.merge(accuracy).compute()
