"""Masked functions under `skip_padding`, in groups of two lengths."""

import jax
import jax.numpy as jnp

import jaxmask as jm
from tests.registry.entry import Call, Entry, module, simple


def skipping(f, **options):
    """Groups at half of the time axis, and at all of it."""

    def call(x, mask, *rest):
        lengths = (max(1, x.shape[1] // 2),)
        return jm.skip_padding(f, lengths=lengths, groups=2, **options)(x, mask, *rest)

    return call


def layer(make) -> dict:
    """A module inside `nn.SkipPadding`, whose lengths follow the time axis."""
    fields = module(make)
    inner: Call = fields["call"]

    def f(x, mask, params):
        return inner(params, [x], [mask], None)[0]

    fields["call"] = lambda params, xs, masks, rows: [skipping(f)(xs[0], masks[0], params)]
    return fields


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
