"""Flax's layers, called on one row as their documentation calls them: exact, or a named error."""

import subprocess
import sys

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxmask as jm
from tests.ragged.alone import weigh

LENGTHS = (5, 1, 0, 3)
TIME, FEATURES = 5, 4


class Block(nnx.Module):
    """A transformer block with a token of its own, by someone who never heard of masks."""

    def __init__(self, rngs):
        self.token = nnx.Param(jax.random.normal(rngs.params(), (1, FEATURES)))
        self.norm = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, FEATURES, decode=False, rngs=rngs)
        self.mlp = nnx.Linear(FEATURES, FEATURES, rngs=rngs)

    def __call__(self, x):
        x = jnp.concatenate([self.token[...], x])
        x = x + self.attention(self.norm(x))
        return (x + nnx.gelu(self.mlp(x)))[0]


class Pool(nnx.Module):
    def __init__(self, pool, **options):
        self.pool, self.options = pool, options

    def __call__(self, x):
        return self.pool(x, (2,), **self.options)


def rnn(cell, rngs, **options):
    return nnx.RNN(cell(FEATURES, 3, rngs=rngs), **options)


NNX = {
    "Linear": lambda r: nnx.Linear(FEATURES, 3, rngs=r),
    "LinearGeneral": lambda r: nnx.LinearGeneral(FEATURES, (2, 3), rngs=r),
    "Einsum": lambda r: nnx.Einsum("td,de->te", (FEATURES, 3), rngs=r),
    "LoRA": lambda r: nnx.LoRA(FEATURES, 2, 3, rngs=r),
    "PReLU": lambda r: nnx.PReLU(),
    "LayerNorm": lambda r: nnx.LayerNorm(FEATURES, rngs=r),
    "RMSNorm": lambda r: nnx.RMSNorm(FEATURES, rngs=r),
    "GroupNorm": lambda r: nnx.GroupNorm(FEATURES, 2, epsilon=1e-2, rngs=r),
    "InstanceNorm": lambda r: nnx.InstanceNorm(FEATURES, epsilon=1e-2, rngs=r),
    "BatchNorm, running": lambda r: nnx.BatchNorm(FEATURES, use_running_average=True, rngs=r),
    "Dropout, off": lambda r: nnx.Dropout(0.5, deterministic=True, rngs=r),
    "Conv": lambda r: nnx.Conv(FEATURES, 3, (3,), rngs=r),
    "Conv, causal": lambda r: nnx.Conv(FEATURES, 3, (3,), padding="CAUSAL", rngs=r),
    "Conv, stride": lambda r: nnx.Conv(FEATURES, 3, (3,), strides=2, rngs=r),
    "ConvTranspose": lambda r: nnx.ConvTranspose(FEATURES, 3, (3,), strides=2, rngs=r),
    "MultiHeadAttention": lambda r: nnx.MultiHeadAttention(2, FEATURES, decode=False, rngs=r),
    "RNN of LSTM": lambda r: rnn(nnx.LSTMCell, r),
    "RNN of OptimizedLSTM": lambda r: rnn(nnx.OptimizedLSTMCell, r),
    "RNN of GRU, reverse": lambda r: rnn(nnx.GRUCell, r, reverse=True, keep_order=True),
    "Bidirectional": lambda r: nnx.Bidirectional(rnn(nnx.LSTMCell, r), rnn(nnx.GRUCell, r)),
    "max_pool": lambda r: Pool(nnx.max_pool, padding="SAME"),
    "avg_pool": lambda r: Pool(nnx.avg_pool, strides=(2,), padding="SAME"),
    "Sequential": lambda r: nnx.Sequential(
        nnx.Linear(FEATURES, 4, rngs=r), nnx.relu, nnx.LayerNorm(4, rngs=r)
    ),
    "a block": Block,
}
REFUSED = {
    "Conv, circular": (
        lambda r: nnx.Conv(FEATURES, 3, (3,), padding="CIRCULAR", rngs=r),
        jm.ragged.RaggedTraceError,
        r"jnp\.concatenate",
    ),
    "BatchNorm, training": (
        lambda r: nnx.BatchNorm(FEATURES, rngs=r),
        ValueError,
        "the module changes .*mean.*jm.nn.BatchNorm",
    ),
    "WeightNorm": (
        lambda r: nnx.WeightNorm(nnx.Linear(FEATURES, 3, rngs=r), rngs=r),
        ValueError,
        "the module changes .*kernel",
    ),
}


@pytest.fixture
def batch():
    x = np.random.default_rng(0).normal(size=(4, TIME, FEATURES)).astype(np.float32)
    mask = np.arange(TIME) < np.array(LENGTHS)[:, None]
    x[~mask] = np.nan
    return x, mask


def assert_exact(run, alone, params, x, mask):
    """Values, and gradients in the input and the parameters."""

    def ours(params, x):
        y, real = run(params, x, mask)
        return jnp.sum(jax.vmap(weigh)(y)), (y, real)

    def theirs(params, x):
        rows = [alone(params, x[b, :n]) for b, n in enumerate(LENGTHS) if n]
        return sum(map(weigh, rows)), rows

    both = [jax.jit(jax.grad(f, (0, 1), has_aux=True))(params, x) for f in (ours, theirs)]
    (gradients, (y, _)), (expected, rows) = both
    for b, row in zip((b for b, n in enumerate(LENGTHS) if n), rows, strict=True):
        place = tuple(slice(0, size) for size in row.shape)
        np.testing.assert_allclose(y[b][place], row, rtol=2e-5, atol=2e-5)
    assert not np.any(y[2])
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert np.all(np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", NNX)
def test_nnx_layers_are_exact(name, batch):
    graph, params, rest = nnx.split(NNX[name](nnx.Rngs(0)), nnx.Param, ...)

    def merged(params):
        return nnx.merge(graph, params, rest, copy=True)

    run = lambda params, x, mask: jm.ragged_vmap(merged(params))(x, mask)  # noqa: E731
    assert_exact(run, lambda params, row: merged(params)(row), params, *batch)


@pytest.mark.parametrize("name", REFUSED)
def test_nnx_layers_that_are_refused(name, batch):
    if not hasattr(nnx, name.partition(",")[0]):
        pytest.skip(f"this Flax has no {name}")
    make, kind, text = REFUSED[name]
    with pytest.raises(kind, match=text):
        jm.ragged_vmap(make(nnx.Rngs(0)))(*batch)


LINEN = {
    "Dense": linen.Dense(3),
    "LayerNorm": linen.LayerNorm(),
    "Conv": linen.Conv(3, (3,)),
    "attention": linen.MultiHeadDotProductAttention(2),
    "RNN": linen.RNN(linen.LSTMCell(3)),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", LINEN)
def test_linen_layers_are_exact(name, batch):
    layer = LINEN[name]
    params = layer.init(jax.random.key(0), jnp.ones((TIME, FEATURES)))
    g = jm.ragged_vmap(lambda row, params: layer.apply(params, row), (0, None))
    run = lambda params, x, mask: g(x, mask, params)  # noqa: E731
    assert_exact(run, lambda params, row: layer.apply(params, row), params, *batch)


def test_dropout_draws_for_each_row_and_advances(batch):
    x, mask = batch
    layer = jm.nn.RaggedVmap(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    first, second = layer(x, mask)[0], layer(x, mask)[0]
    kept = np.asarray(first) != 0
    assert np.any(kept[0, :3] != kept[3, :3])
    assert np.any(kept != (np.asarray(second) != 0))
    padded = np.pad(x, ((0, 0), (0, 4), (0, 0)))
    again = jm.nn.RaggedVmap(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    wide, _ = again(padded, np.pad(mask, ((0, 0), (0, 4))))
    np.testing.assert_array_equal(wide[:, :TIME], first)


@pytest.mark.skipif(flax.__version__ == "0.12.0", reason="Flax notices at the next use only")
def test_a_random_stream_cannot_advance_under_jit(batch):
    layer = jm.nn.RaggedVmap(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"nnx\.jit"):
        jax.jit(lambda x, m: layer(x, m))(*batch)
    nnx.jit(lambda layer, x, m: layer(x, m))(layer, *batch)


@pytest.mark.exhaustive
def test_ragged_in_a_sequential(batch):
    rngs = nnx.Rngs(0)
    block = Block(rngs)
    model = jm.nn.Sequential(jm.nn.RaggedVmap(block), nnx.Linear(FEATURES, 2, rngs=rngs))
    y, row_mask = model(*batch)
    assert row_mask.tolist() == [True, True, False, True]
    expected = model.layers[1](block(batch[0][3, :3]))
    np.testing.assert_allclose(y[3], expected, rtol=1e-5)


@pytest.mark.exhaustive
def test_check_of_a_module(batch):
    assert jm.nn.RaggedVmap(Block(nnx.Rngs(0))).check(*batch).ok


def test_a_function_of_a_row_in_a_stack(batch):
    model = jm.nn.Sequential(
        jm.nn.RaggedVmap(lambda row: row.mean(axis=0)), nnx.Linear(FEATURES, 2, rngs=nnx.Rngs(0))
    )
    y, row_mask = model(*batch)
    expected = model.layers[1](jm.pool.mean(*batch)[0])
    np.testing.assert_allclose(y[row_mask], expected[row_mask], rtol=1e-5)


def test_ragged_refuses_what_is_no_layer():
    with pytest.raises(TypeError, match="must be callable"):
        jm.nn.RaggedVmap(3)


class OfBatches(nnx.Module):
    """Written for `[batch, time, feature]`."""

    def __init__(self, rngs):
        self.out = nnx.Linear(FEATURES, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(x.mean(axis=1))


def test_a_model_written_for_batches(batch):
    model = OfBatches(nnx.Rngs(0))
    layer = jm.nn.RaggedVmap(model)
    for call in (layer, layer.check):
        with pytest.raises(TypeError) as raised:
            call(*batch)
        notes = [note for note in raised.value.__notes__ if "model written for batches" in note]
        assert len(notes) == 1
        assert "`batched=True`" in notes[0]
    layer = jm.nn.RaggedVmap(model, batched=True)
    y, _ = layer(*batch)
    np.testing.assert_allclose(y[0], model(batch[0][:1])[0], atol=1e-6)
    assert layer.check(*batch).ok


class OfTwoBatches(nnx.Module):
    def __call__(self, x, weights):
        return {"mean": x["of"].mean(axis=1) @ weights, "sum": x["of"].sum(axis=1)}


def test_a_model_of_batches_with_trees_and_an_argument_that_rows_share(batch):
    x, mask = batch
    weights = jnp.arange(FEATURES * 2.0).reshape(FEATURES, 2)
    layer = jm.nn.RaggedVmap(OfTwoBatches(), ({"of": 0}, None), batched=True)
    y, _ = layer({"of": x}, mask, weights)
    for row, n in enumerate(np.asarray(mask).sum(1)):
        if n:
            alone = np.asarray(x[row, :n], np.float64)
            np.testing.assert_allclose(y["mean"][row], alone.mean(0) @ weights, rtol=1e-5)
            np.testing.assert_allclose(y["sum"][row], alone.sum(0), rtol=1e-5)


@pytest.mark.parametrize(
    "over_batches",
    [lambda x: x.mean(axis=1), lambda x: x[:, -1], lambda x: x.max(axis=1)],
    ids=["mean", "last", "max"],
)
def test_numbers_of_steps_with_features_are_a_warning(over_batches, batch):
    """What a function of batches gives of a row, whose steps it takes for rows."""
    x, mask = batch
    with pytest.warns(
        UserWarning, match=r"pass `batched=True`; if it is meant for one row"
    ) as told:
        jm.nn.RaggedVmap(over_batches)(x, mask)
    assert told[0].filename == __file__
    y, marks = jm.nn.RaggedVmap(over_batches, batched=False)(x, mask)
    assert y.shape == marks.shape == mask.shape
    y, _ = jm.nn.RaggedVmap(over_batches, batched=True)(x, mask)
    np.testing.assert_allclose(y[0], over_batches(x[:1, : int(mask[0].sum())])[0], atol=1e-6)
    per_step = jm.nn.RaggedVmap(lambda row: row.mean(axis=0, keepdims=True) * jnp.ones_like(row))
    assert per_step(x, mask)[0].shape == x.shape
    assert jm.nn.RaggedVmap(jnp.cumsum)(x[..., 0], mask)[0].shape == mask.shape  # no features


def test_a_model_of_batches_must_return_a_batch(batch):
    with pytest.raises(ValueError, match=r"must return a batch of one row, \[1, ...\], got shape"):
        jm.nn.RaggedVmap(lambda x: x.mean(), batched=True)(*batch)
    with pytest.raises(TypeError, match="`batched`"):
        jm.nn.RaggedVmap(lambda x: x, batched="yes")


def test_a_module_is_recognised_before_anything_of_nn_is_used():
    code = (
        "import jaxmask as jm; from flax import nnx; "
        "layer = jm.ragged_vmap(nnx.Dropout(0.5, rngs=nnx.Rngs(0))); "
        "assert type(layer) is jm.nn.RaggedVmap, type(layer)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
