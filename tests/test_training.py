"""Law of training: what stands in the padding, and how much of it, trains nothing.

Five steps of SGD of each module that draws noise or keeps statistics, compiled as users compile:
the same parameters and statistics to the bit with other garbage in the padding, and to rounding
with more padding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxmask as jm
from tests.optimised import jit

FEATURES, LENGTHS, STEPS = 4, np.array([5, 3, 1, 0]), 5
GARBAGE = (np.nan, np.inf, -1e30, 3.0)


def around(layer):
    """A layer with parameters on both sides of one that has none, or statistics of its own."""

    def make(rngs):
        return jm.nn.Sequential(
            nnx.Linear(FEATURES, FEATURES, rngs=rngs),
            layer(rngs),
            nnx.Linear(FEATURES, 2, rngs=rngs),
        )

    return make


def zoneout(rngs):
    return jm.nn.RNN(jm.nn.ZoneoutCell(nnx.GRUCell(4, 4, rngs=rngs), 0.5, rngs=rngs))


def stacked(rngs):
    layers = jm.nn.GRU(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
    return jm.nn.StackedRNN(*layers, dropout_rate=0.5, residual=True, rngs=rngs)


def decoder(rngs):
    block = jm.nn.TransformerDecoderBlock(2, 4, dropout_rate=0.3, rngs=rngs)
    return OfItself(block)


class OfItself(nnx.Module):
    """A decoder that reads what it writes, since it takes two pairs."""

    def __init__(self, block):
        self.block = block

    def __call__(self, x, mask):
        return self.block(x, mask, x, mask)


class OneRow(nnx.Module):
    """A plain module of one row with noise of its own."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(FEATURES, FEATURES, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, broadcast_dims=(0,), rngs=rngs)

    def __call__(self, x):
        return self.dropout(jax.nn.softmax(self.linear(x), axis=0) * x)


def noises(rngs):
    """One program for all of them: compiling is what these tests cost."""
    return jm.nn.Sequential(
        jm.nn.Dropout(0.3, rngs=rngs),
        jm.nn.SpatialDropout(0.3, rngs=rngs),
        nnx.Linear(FEATURES, FEATURES, rngs=rngs),
        jm.nn.GaussianNoise(0.5, rngs=rngs),
        nnx.Dropout(0.3, rngs=rngs),
        nnx.Linear(FEATURES, FEATURES, rngs=rngs),
        jm.nn.Residual(nnx.Dropout(0.3, rngs=rngs)),
    )


def spans(rngs):
    return jm.nn.Sequential(
        jm.nn.TimeMasking(3, num_masks=2, rngs=rngs),
        nnx.Linear(FEATURES, FEATURES, rngs=rngs),
        jm.nn.FeatureMasking(3, num_masks=2, rngs=rngs),
    )


def statistics(rngs):
    return jm.nn.Sequential(
        jm.nn.BatchNorm(4, momentum=0.5, rngs=rngs),
        jm.nn.SpectralNorm(nnx.Linear(4, 4, rngs=rngs), rngs=rngs),
    )


MODELS = {
    "noise": around(noises),
    "spans": around(spans),
    "statistics": around(statistics),
    "ZoneoutCell": around(zoneout),
    "StackedRNN": around(stacked),
    "TransformerEncoderBlock": around(
        lambda rngs: jm.nn.TransformerEncoderBlock(2, 4, dropout_rate=0.3, causal=True, rngs=rngs)
    ),
    "TransformerDecoderBlock": around(decoder),
    "RaggedVmap": around(lambda rngs: jm.nn.RaggedVmap(OneRow(rngs))),
}


def batch(time, garbage, start=0):
    """Rows that start at a step, of which only the padding is free, and a target a row."""
    step = np.arange(time) - start
    mask = (step >= 0) & (step < LENGTHS[:, None])
    x = np.full((len(LENGTHS), time, FEATURES), garbage, np.float32)
    for row, length in enumerate(LENGTHS):
        x[row, start : start + length] = np.random.default_rng(row).normal(size=(length, FEATURES))
    targets = np.random.default_rng(9).normal(size=(len(LENGTHS), 2)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(mask), jnp.asarray(targets)


def trainer(make):
    """`train(x, mask, targets)`: what five steps make of a model, noise and all, in one program."""
    graph, params, rest = nnx.split(make(nnx.Rngs(3)), nnx.Param, ...)
    optimiser = optax.sgd(0.1)

    def loss(params, rest, x, mask, targets):
        model = nnx.merge(graph, params, rest, copy=True)
        y, out = model(x, mask)
        pooled, rows = jm.pool.mean(jnp.tanh(y), out)
        error = jnp.where(rows[:, None], pooled - targets, 0)
        return jnp.sum(error**2), nnx.split(model, nnx.Param, ...)[2]

    def step(state, _):
        params, rest, momentum, *arrays = state
        gradients, rest = jax.grad(loss, has_aux=True)(params, rest, *arrays)
        updates, momentum = optimiser.update(gradients, momentum, params)
        return (optax.apply_updates(params, updates), rest, momentum, *arrays), None

    def train(x, mask, targets):
        state = (params, rest, optimiser.init(params), x, mask, targets)
        (after, statistics, *_), _ = jax.lax.scan(step, state, length=STEPS)
        return after, nnx.filter_state(statistics, nnx.BatchStat)

    return train, params


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", MODELS)
def test_padding_trains_nothing(name):
    function, before = trainer(MODELS[name])
    train = jit(function)
    clean = train(*batch(6, 0.0))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(clean)]
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    learned = zip(jax.tree.leaves(before), jax.tree.leaves(clean[0]), strict=True)
    assert any((np.asarray(old) != np.asarray(new)).any() for old, new in learned)
    for garbage in GARBAGE:
        other = train(*batch(6, garbage))
        for ours, theirs in zip(leaves, jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name}, {garbage}")
    wider = jax.jit(function)(*batch(11, np.nan, start=3))  # compared to rounding only
    for ours, theirs in zip(leaves, jax.tree.leaves(wider), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=f"{name}, wider")
