"""Recurrences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from tests.registry.entry import Call, Entry, Input, recurrent

SHAPES = {
    jm.recurrent.LSTMWeights: lambda feature, hidden: (
        (feature, 4 * hidden),
        (hidden, 4 * hidden),
        (4 * hidden,),
    ),
    jm.recurrent.GRUWeights: lambda feature, hidden: (
        (feature, 3 * hidden),
        (hidden, 3 * hidden),
        (2, 3 * hidden),
    ),
    jm.recurrent.SimpleWeights: lambda feature, hidden: (
        (feature, hidden),
        (hidden, hidden),
        (hidden,),
    ),
}


def weights_of(kind: type, feature: int = 3, hidden: int = 4) -> Any:
    draw = np.random.default_rng(3)  # NumPy's, since JAX's compiles a program for each shape
    shapes = SHAPES[kind](feature, hidden)
    return kind(*(jnp.asarray(0.5 * draw.normal(size=shape), np.float32) for shape in shapes))


def lstm_weights(feature: int = 3, hidden: int = 4) -> jm.recurrent.LSTMWeights:
    return weights_of(jm.recurrent.LSTMWeights, feature, hidden)


def gru_weights(feature: int = 3, hidden: int = 4) -> jm.recurrent.GRUWeights:
    return weights_of(jm.recurrent.GRUWeights, feature, hidden)


def simple_weights(feature: int = 3, hidden: int = 4) -> jm.recurrent.SimpleWeights:
    return weights_of(jm.recurrent.SimpleWeights, feature, hidden)


def one_bias(weights: jm.recurrent.GRUWeights) -> jm.recurrent.GRUWeights:
    return weights._replace(b=weights.b[0])


def layer(name: str, **options: Any) -> Call:
    return recurrent(
        lambda weights, x, mask: getattr(jm.recurrent, name)(x, mask, weights, **options)
    )


UNROLLED = jm.recurrent.Choice("dense", unroll=3)  # as on a GPU


def peeping_weights() -> jm.recurrent.ExtendedLSTMWeights:
    draw = np.random.default_rng(5)
    w_c = jnp.asarray(draw.normal(size=(3, 4)), np.float32)
    return jm.recurrent.ExtendedLSTMWeights(*lstm_weights(), w_c=w_c)


def projected_weights() -> jm.recurrent.ExtendedLSTMWeights:
    draw, weights = np.random.default_rng(5), peeping_weights()
    w_p = jnp.asarray(draw.normal(size=(4, 2)), np.float32)
    return weights._replace(w_h=weights.w_h[:2], w_p=w_p)


def with_noise(weights: Any, xs: list, masks: list, rows: Any) -> list:
    """A projection, and a recurrent dropout, which stays with a row."""
    noise = {"recurrent_dropout_rate": 0.4, "key": jax.random.key(0), "row_ids": rows}
    carry, pair = jm.recurrent.lstm(xs[0], masks[0], weights, **noise)
    return [pair, *((leaf, None) for leaf in carry)]


def gru_like(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    # log and sqrt: what a zero in the padding would turn into nan gradients.
    carry = carry + jnp.log1p(jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True)))
    return carry, (carry * x).astype(x.dtype)


ENTRIES = [
    Entry("recurrent.lstm", layer("lstm"), params=lstm_weights()),
    Entry(
        "recurrent.lstm:tiled,reverse",
        layer("lstm", method="tiled", reverse=True),
        params=lstm_weights(),
    ),
    Entry(
        "recurrent.lstm:tiled,peepholes",
        layer("lstm", method="tiled", cell_clip=0.5, activation="softsign"),
        params=peeping_weights(),
    ),
    Entry(
        "recurrent.lstm:projection,dropout",
        with_noise,
        params=projected_weights(),
        exempt={"segments": "noise is keyed by the row, which a packed sequence changes"},
    ),
    Entry("recurrent.gru:tiled", layer("gru", method="tiled"), params=gru_weights()),
    Entry(
        "recurrent.simple:tiled,relu",
        layer("simple", method="tiled", activation="relu"),
        params=simple_weights(),
    ),
    Entry(
        "recurrent.lstm:dense,reverse",
        layer("lstm", method="dense", reverse=True),
        params=lstm_weights(),
    ),
    Entry("recurrent.gru:dense", layer("gru", method="dense"), params=gru_weights()),
    Entry(
        "recurrent.lstm:dense,unrolled",
        layer("lstm", method=UNROLLED),
        params=lstm_weights(),
    ),
    Entry(
        "recurrent.gru:dense,unrolled,reverse",
        layer("gru", method=UNROLLED, reverse=True),
        params=gru_weights(),
    ),
    Entry(
        "recurrent.lstm:pallas",
        layer("lstm", method="pallas"),
        params=lstm_weights(),
        exempt={"lowers": "a kernel lowers for one platform at a time; test_tiled tries each"},
    ),
    Entry("recurrent.lstm:reverse", layer("lstm", reverse=True), params=lstm_weights()),
    Entry("recurrent.gru", layer("gru"), params=gru_weights()),
    Entry(
        "recurrent.gru:reset_before,reverse",
        layer("gru", reset_after=False, reverse=True),
        params=one_bias(gru_weights()),
    ),
    Entry("recurrent.simple", layer("simple"), params=simple_weights()),
    Entry(
        "recurrent.scan",
        recurrent(
            lambda params, x, mask: jm.recurrent.scan(gru_like, x, mask, jnp.zeros((x.shape[0], 1)))
        ),
        (Input(kind="positive"),),
    ),
]

NOT_MASKED = {
    "recurrent.Choice": "a container",
    "recurrent.ExtendedLSTMWeights": "a container",
    "recurrent.GRUWeights": "a container",
    "recurrent.LSTMCarry": "a container",
    "recurrent.LSTMWeights": "a container",
    "recurrent.SimpleWeights": "a container",
    "recurrent.explain": "tells which method runs",
    "recurrent.gru_cell": "one step, no mask",
    "recurrent.lstm_cell": "one step, no mask",
    "recurrent.simple_cell": "one step, no mask",
    "recurrent.zero_carry": "makes a carry",
}
