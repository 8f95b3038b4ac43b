"""Peepholes, clipped cells, projections, activations and recurrent dropout of recurrent layers."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from jaxmask.recurrent import ExtendedLSTMWeights
from tests.registry.recurrent import gru_weights, lstm_weights, simple_weights
from tests.test_tiled import assert_same

MASK = np.array([[1, 1, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0], [0] * 6], bool)
ENGINES = ("tiled", "dense", "pallas")
GOLDEN = Path(__file__).parent / "golden" / "torch_projection.npz"


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def poisoned(x):
    return np.where(MASK[..., None], x, np.nan).astype(np.float32)


def close(ours, theirs, tolerance=2e-5):
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=tolerance, atol=tolerance)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def tensorflow_lstm(weights, row, clip, act):
    """One unpadded row through TF1's `LSTMCell(use_peepholes, cell_clip, num_proj)`, float64."""
    w_x, w_h, b, w_c, w_p = (None if w is None else np.asarray(w, np.float64) for w in weights)
    h, c, out = np.zeros(len(w_h)), np.zeros(w_h.shape[1] // 4), []
    w_c = np.zeros((3, len(c))) if w_c is None else w_c
    for x in row:
        i, f, g, o = np.split(x @ w_x + h @ w_h + b, 4)
        c = sigmoid(f + w_c[1] * c) * c + sigmoid(i + w_c[0] * c) * act(g)
        c = c if clip is None else np.clip(c, -clip, clip)
        h = sigmoid(o + w_c[2] * c) * act(c)
        h = h if w_p is None else h @ w_p
        out.append(h)
    return np.stack(out), h, c


PEEPHOLES = 2 * draw((3, 4), 7)
VARIANTS = {
    "peepholes": ({"w_c": PEEPHOLES}, {}),
    "clip": ({}, {"cell_clip": 0.3}),
    "peepholes, clip, softsign": (
        {"w_c": PEEPHOLES},
        {"cell_clip": 0.4, "activation": "softsign"},
    ),
}
ACTS = {"tanh": np.tanh, "softsign": lambda x: x / (1 + abs(x))}


@pytest.mark.parametrize("method", ["scan", *ENGINES])
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_the_lstm_are_tensorflow_on_each_row_alone(name, method):
    more, options = VARIANTS[name]
    weights, x = ExtendedLSTMWeights(*lstm_weights())._replace(**more), draw((3, 6, 3))
    carry, (y, _) = jm.recurrent.lstm(poisoned(x), MASK, weights, method=method, **options)
    assert not np.asarray(y)[~MASK].any()
    for b in range(2):
        act = ACTS[options.get("activation", "tanh")]
        row, h, c = tensorflow_lstm(weights, x[b, MASK[b]], options.get("cell_clip"), act)
        close(y[b, MASK[b]], row)
        close(carry.h[b], h)
        close(carry.c[b], c)


def swish(x):
    return x * jax.nn.sigmoid(x)


CELLS = {
    "peepholes": (
        jm.recurrent.lstm,
        ExtendedLSTMWeights(*lstm_weights())._replace(w_c=jnp.asarray(PEEPHOLES)),
        {"cell_clip": 0.4, "gate_activation": "hard_sigmoid", "activation": swish},
    ),
    "gru": (jm.recurrent.gru, gru_weights(), {"activation": swish, "gate_activation": "softsign"}),
    "simple": (jm.recurrent.simple, simple_weights(), {"activation": "softsign"}),
}


@functools.partial(jax.jit, static_argnames=("cell", "method", "reverse"))
def run_and_pull(cell, x, weights, method, reverse):
    layer, _, options = CELLS[cell]

    def run(x, weights):
        carry, (y, _) = layer(x, MASK, weights, reverse=reverse, method=method, **options)
        return *jax.tree.leaves(carry), y

    y, pull = jax.vjp(run, x, weights)
    return y, pull(jax.tree.map(jnp.cos, y))


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_the_engine_are_those_of_the_scan(cell, method):
    x, weights = poisoned(draw((3, 6, 3))), CELLS[cell][1]
    reverse = method == "tiled"
    ours, theirs = (run_and_pull(cell, x, weights, m, reverse) for m in (method, "scan"))
    assert_same(ours, theirs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ours))


def test_second_derivatives_and_vmap_of_peepholes():
    layer, weights, options = CELLS["peepholes"]
    x = draw((2, 3, 6, 3))

    def total(peeps, x, method):
        own = weights._replace(w_c=peeps)
        return jnp.sum(jnp.sin(layer(x, MASK, own, method=method, **options)[1][0]))

    def slope(peeps, x, method):
        return jnp.sum(jax.grad(total)(peeps, x, method) ** 2)

    many = jnp.stack([weights.w_c, 2 * weights.w_c])
    ours, theirs = (
        jax.jit(jax.vmap(functools.partial(jax.grad(slope), method=method)))(many, x)
        for method in ("tiled", "scan")
    )
    close(ours, theirs, 1e-4)


def test_activations_are_keras():
    keras = pytest.importorskip("keras")
    x, weights = draw((3, 6, 3)), lstm_weights()
    theirs = keras.layers.LSTM(
        4, activation="softsign", recurrent_activation="hard_sigmoid", return_sequences=True
    )
    theirs.build(x.shape)
    theirs.set_weights([np.asarray(w) for w in weights[:3]])
    options = {"activation": "softsign", "gate_activation": "hard_sigmoid"}
    _, (y, _) = jm.recurrent.lstm(poisoned(x), MASK, weights, **options)
    for b in range(2):
        close(y[b, MASK[b]], np.asarray(theirs(x[b : b + 1, MASK[b]]))[0])


def test_a_recurrent_dropout_is_keras_with_the_same_noise():
    """Where its mask is ours; with the same features gone at each step of a row."""
    keras = pytest.importorskip("keras")
    x, weights, rate = draw((3, 6, 3)), lstm_weights(), 0.5
    options = {"recurrent_dropout_rate": rate, "key": jax.random.key(1)}
    _, (y, _) = jm.recurrent.lstm(poisoned(x), MASK, weights, **options)
    noise = jm.recurrent._arguments.Noise(rate, jax.random.key(1))
    factor = np.asarray(jm.recurrent._arguments.recurrent_dropout(noise, x, weights, "lstm"))
    assert set(np.unique(factor)) == {0, 2}
    assert (factor[0] != factor[1]).any()
    theirs = keras.layers.LSTM(4, recurrent_dropout=rate, return_sequences=True)
    theirs.build(x.shape)
    theirs.set_weights([np.asarray(w) for w in weights[:3]])
    for b in range(2):
        theirs.cell.get_recurrent_dropout_mask = lambda h, b=b: [factor[b : b + 1]] * 4
        close(y[b, MASK[b]], np.asarray(theirs(x[b : b + 1, MASK[b]], training=True))[0])


@pytest.mark.parametrize("layer", ["lstm", "gru", "simple"])
def test_a_recurrent_dropout_is_keyed_by_the_row(layer):
    weights = {"lstm": lstm_weights(), "gru": gru_weights(), "simple": simple_weights()}[layer]
    run = functools.partial(
        getattr(jm.recurrent, layer), weights=weights, recurrent_dropout_rate=0.4
    )
    x, order = poisoned(draw((3, 6, 3))), np.array([2, 0, 1])
    key = jax.random.key(0)
    _, (y, _) = run(x, MASK, key=key)
    _, (moved, _) = run(x[order], MASK[order], key=key, row_ids=order)
    close(moved, np.asarray(y)[order], 1e-6)
    wide = np.pad(x, ((0, 0), (2, 1), (0, 0))), np.pad(MASK, ((0, 0), (2, 1)))
    close(run(*wide, key=key)[1][0][:, 2:-1], y, 1e-6)
    _, (plain, _) = getattr(jm.recurrent, layer)(x, MASK, weights)
    assert (np.asarray(plain) != np.asarray(y)).any()


def test_a_projection_is_torch():
    """`torch.nn.LSTM(proj_size=)`, from `tests/golden/make_torch_projection.py`."""
    with np.load(GOLDEN) as stored:
        golden = dict(stored)
    weights = ExtendedLSTMWeights(
        golden["weight_ih"].T,
        golden["weight_hh"].T,
        golden["bias_ih"] + golden["bias_hh"],
        w_p=golden["weight_hr"].T,
    )
    mask = np.arange(golden["x"].shape[1]) < golden["lengths"][:, None]

    def total(x, weights):
        carry, (y, _) = jm.recurrent.lstm(x, mask, weights)
        return jnp.sum(jnp.sin(y)) + jnp.sum(carry.c), (carry, y)

    x = np.where(mask[..., None], golden["x"], np.nan).astype(np.float32)
    (by_x, by_weights), (carry, y) = jax.grad(total, (0, 1), has_aux=True)(x, weights)
    close(y, golden["y"])
    close(carry.h, golden["h"])
    close(carry.c, golden["c"])
    close(by_x, golden["d_x"])
    close(by_weights.w_p.T, golden["d_weight_hr"])
    close(by_weights.w_h.T, golden["d_weight_hh"])


def test_what_only_the_scan_has():
    explain = jm.recurrent.explain
    assert "second product" in explain(64, 256, 64, projection=True).reason
    assert "any row in any slot" in explain(64, 256, 64, recurrent_dropout=True).reason
    weights, x = ExtendedLSTMWeights(*lstm_weights())._replace(w_p=draw((4, 2))), draw((3, 6, 3))
    weights = weights._replace(w_h=weights.w_h[:2])
    carry, (y, _) = jm.recurrent.lstm(x, MASK, weights)
    assert (y.shape, carry.h.shape, carry.c.shape) == ((3, 6, 2), (3, 2), (3, 4))
    with pytest.raises(ValueError, match="second product"):
        jm.recurrent.lstm(x, MASK, weights, method="tiled")
    with pytest.raises(ValueError, match="any row in any slot"):
        jm.recurrent.simple(
            *(x, MASK, simple_weights()),
            recurrent_dropout_rate=0.5,
            key=jax.random.key(0),
            method="dense",
        )


def test_options_refuse():
    x, weights = draw((3, 6, 3)), ExtendedLSTMWeights(*lstm_weights())
    lstm = jm.recurrent.lstm
    for error, text, given, options in (
        (ValueError, "`activation` must be one of", weights, {"activation": "gelu"}),
        (TypeError, "`gate_activation` must be callable", weights, {"gate_activation": 3}),
        (ValueError, "`cell_clip` must be positive", weights, {"cell_clip": 0.0}),
        (ValueError, "random `key`", weights, {"recurrent_dropout_rate": 0.1}),
        (ValueError, r"`weights.w_c` must be \[3, hidden\]", weights._replace(w_c=x[0]), {}),
        (ValueError, r"`weights.w_p` must be", weights._replace(w_p=draw((3, 4))), {}),
        (ValueError, r"`carry.c` must be", weights, {"carry": (draw((3, 4)), draw((3, 5)))}),
    ):
        with pytest.raises(error, match=text):
            lstm(x, MASK, given, **options)


# --------------------------------------------------------------------------------- modules


def test_a_module_with_every_option_is_its_function():
    options = {"activation": "softsign", "cell_clip": 0.5}
    layer = jm.nn.LSTM(*(3, 4), peepholes=True, projected_features=2, **options, rngs=nnx.Rngs(0))
    layer.w_c[...] = jnp.asarray(PEEPHOLES)
    x = poisoned(draw((3, 6, 3)))
    held = layer.w_x, layer.w_h, layer.b, layer.w_c, layer.w_p
    weights = ExtendedLSTMWeights(*(w[...] for w in held))
    y, _ = layer(x, MASK)
    close(y, jm.recurrent.lstm(x, MASK, weights, **options)[1][0], 0)
    carry, (first, _) = layer.run(layer.initial_carry(3), x[:, :2], MASK[:, :2])
    _, (rest, _) = layer.run(carry, x[:, 2:], MASK[:, 2:])
    close(jnp.concatenate([first, rest], axis=1), y)
    gru = jm.nn.GRU(3, 4, activation="relu", gate_activation="hard_sigmoid", rngs=nnx.Rngs(0))
    assert gru(x, MASK)[0].shape == (3, 6, 4)
    with pytest.raises(TypeError, match="no gates"):
        jm.nn.SimpleRNN(3, 4, gate_activation="tanh", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="`activation` must be one of"):
        jm.nn.GRU(3, 4, activation="gelu", rngs=nnx.Rngs(0))


def test_a_recurrent_dropout_of_modules_follows_their_mode():
    rngs = nnx.Rngs(0)
    layers = [jm.nn.GRU(3, 4, recurrent_dropout_rate=0.5, rngs=rngs) for _ in range(2)]
    model, x = jm.nn.Bidirectional(*layers), poisoned(draw((3, 6, 3)))
    noisy, again = (model(x, MASK, rngs=jax.random.key(3))[0] for _ in range(2))
    close(noisy, again, 0)
    order = np.array([1, 2, 0])
    moved, _ = model(x[order], MASK[order], rngs=jax.random.key(3), row_ids=order)
    close(moved, np.asarray(noisy)[order], 1e-6)
    assert (np.asarray(model(x, MASK)[0]) != np.asarray(model(x, MASK)[0])).any()
    with pytest.raises(ValueError, match=r"`model.eval\(\)`"):
        layers[0].run(layers[0].initial_carry(3), x, MASK)
    quiet, _ = model(x, MASK, deterministic=True)
    model.eval()
    close(model(x, MASK)[0], quiet, 0)
    assert layers[0].run(layers[0].initial_carry(3), x, MASK)[1][0].shape == (3, 6, 4)


def test_no_conversion_drops_an_option():
    peeping = jm.nn.LSTM(3, 4, peepholes=True, cell_clip=1.0, rngs=nnx.Rngs(0))
    assert peeping.variations == ["peepholes", "cell_clip"]
    assert jm.nn.SimpleRNN(3, 4, activation="relu", rngs=nnx.Rngs(0)).variations == []
    for other in (peeping, jm.nn.GRU(3, 4, activation="relu", rngs=nnx.Rngs(0))):
        with pytest.raises(ValueError, match="not supported"):
            jm.interop.to_keras(other)
