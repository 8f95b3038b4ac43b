"""Recurrences."""

from typing import Any

import jax
import jax.numpy as jnp

import jaxmask as jm
from tests.registry.entry import Call, Entry, Input, recurrent


def lstm_weights(feature: int = 3, hidden: int = 4) -> jm.recurrent.LSTMWeights:
    keys = jax.random.split(jax.random.key(3), 3)
    shapes = (feature, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)
    return jm.recurrent.LSTMWeights(
        *(0.5 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    )


def lstm(**options: Any) -> Call:
    return recurrent(lambda weights, x, mask: jm.recurrent.lstm(x, mask, weights, **options))


def gru_like(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    # log and sqrt: what a zero in the padding would turn into nan gradients.
    carry = carry + jnp.log1p(jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True)))
    return carry, (carry * x).astype(x.dtype)


ENTRIES = [
    Entry("recurrent.lstm", lstm(), params=lstm_weights()),
    Entry("recurrent.lstm:reverse", lstm(reverse=True), params=lstm_weights()),
    Entry(
        "recurrent.scan",
        recurrent(
            lambda params, x, mask: jm.recurrent.scan(gru_like, x, mask, jnp.zeros((x.shape[0], 1)))
        ),
        (Input(kind="positive"),),
    ),
]

NOT_MASKED = {
    "recurrent.LSTMCarry": "a container",
    "recurrent.LSTMWeights": "a container",
    "recurrent.lstm_cell": "one step, no mask",
    "recurrent.zero_carry": "makes a carry",
}
