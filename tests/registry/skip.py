"""Masked functions under `skip_padding`, in groups of two lengths."""

import jax
import jax.numpy as jnp
from flax import nnx

import jaxmask as jm
from tests.registry.entry import Entry, simple


def skipping(f, **options):
    """Groups at half of the time axis, and at all of it."""

    def call(x, mask, *rest):
        lengths = (max(1, x.shape[1] // 2),)
        return jm.skip_padding(f, lengths=lengths, groups=2, **options)(x, mask, *rest)

    return call


def layer(make) -> dict:
    """A module inside `nn.SkipPadding`, whose lengths follow the time axis."""
    graph, params = nnx.split(make(nnx.Rngs(0)))

    def call(params, xs, masks, rows):
        inside = nnx.merge(graph, params)
        lengths = (max(1, xs[0].shape[1] // 2),)
        return [jm.nn.SkipPadding(inside, lengths=lengths, groups=2)(xs[0], masks[0])]

    return {"call": call, "params": params}


WEIGHTS = jm.recurrent.LSTMWeights(
    *(
        0.5 * jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(3, 8), (2, 8)])
    ),
    jnp.linspace(-1, 1, 8),
)
ENTRIES = [
    Entry("skip_padding:mean", simple(skipping(jm.pool.mean))),
    Entry(
        "skip_padding:lstm",
        lambda weights, xs, masks, rows: [
            skipping(jm.recurrent.lstm)(xs[0], masks[0], weights)[1]  # without the carry
        ],
        params=WEIGHTS,
    ),
    Entry(
        "nn.SkipPadding",
        **layer(lambda rngs: jm.nn.TransformerEncoderBlock(1, 3, 4, rngs=rngs)),
    ),
]
NOT_MASKED: dict[str, str] = {}
