"""GRU, simple recurrence, resets, cells and stacks against other libraries and the row alone."""

import itertools
import os
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests.registry.recurrent import gru_weights, lstm_weights, one_bias, simple_weights
from tests.x64 import enable_x64

BATCH, TIME, FEATURE, HIDDEN = 3, 6, 3, 4
MASK = np.arange(TIME) < np.array([6, 3, 0])[:, None]
HOLES = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]], bool)
X = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURE)).astype(np.float32)
READOUT = np.random.default_rng(1).normal(size=(BATCH, TIME, HIDDEN)).astype(np.float32)


def swapped(array):
    """Exchange the first two of three gates: r, z, n and z, r, n."""
    first, second, third = jnp.split(jnp.asarray(array), 3, axis=-1)
    return jnp.concatenate([second, first, third], axis=-1)


def to_keras(weights):
    """The variables of a Keras layer with these weights, in its order."""
    return [swapped(a) if isinstance(weights, jm.recurrent.GRUWeights) else a for a in weights[:3]]


def value_and_gradient(run, x):
    def total(x):
        y = run(x)
        return jnp.sum(READOUT * y), y

    (_, y), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(x))
    return np.asarray(y), np.asarray(gradient)


RUNS = {
    "gru": (jm.recurrent.gru, gru_weights(), {}),
    "gru, reset before": (jm.recurrent.gru, one_bias(gru_weights()), {"reset_after": False}),
    "simple": (jm.recurrent.simple, simple_weights(), {}),
    "simple, relu": (jm.recurrent.simple, simple_weights(), {"activation": "relu"}),
}


def keras_layer(name):
    keras = pytest.importorskip("keras")
    options = {"return_sequences": True}
    if name.startswith("gru"):
        return keras.layers.GRU(HIDDEN, reset_after=name == "gru", **options)
    return keras.layers.SimpleRNN(
        HIDDEN, activation="relu" if "relu" in name else "tanh", **options
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("mask", [MASK, MASK[:, ::-1], HOLES], ids=["right", "left", "holes"])
@pytest.mark.parametrize("name", RUNS)
def test_is_that_of_keras(name, mask):
    function, weights, options = RUNS[name]
    layer = keras_layer(name)
    layer.build((None, None, FEATURE))

    def theirs(x):
        rest = [variable.value for variable in layer.non_trainable_variables]
        y, _ = layer.stateless_call(to_keras(weights), rest, x, mask=jnp.asarray(mask))
        return jnp.where(mask[..., None], y, 0)

    def ours(x):
        return function(x, mask, weights, **options)[1][0]

    for here, there in zip(value_and_gradient(ours, X), value_and_gradient(theirs, X), strict=True):
        np.testing.assert_allclose(here[mask], there[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gru", "simple", "simple, relu"])
def test_is_that_of_pytorch(name):
    torch = pytest.importorskip("torch")
    function, weights, options = RUNS[name]
    if name == "gru":
        layer = torch.nn.GRU(FEATURE, HIDDEN, batch_first=True)
        biases = weights.b
    else:
        layer = torch.nn.RNN(
            FEATURE, HIDDEN, batch_first=True, nonlinearity=options.get("activation", "tanh")
        )
        biases = (weights.b, jnp.zeros_like(weights.b))
    arrays = (weights.w_x.T, weights.w_h.T, *biases)
    with torch.no_grad():
        for parameter, array in zip(layer.parameters(), arrays, strict=True):
            parameter.copy_(torch.tensor(np.asarray(array)))
    x = torch.tensor(X[:1], requires_grad=True)
    y, last = layer(x)
    (y * torch.tensor(READOUT[:1])).sum().backward()
    carry, (mine, _) = function(X[:1], None, weights, **options)
    gradient = jax.grad(
        lambda x: jnp.sum(READOUT[:1] * function(x, None, weights, **options)[1][0])
    )(jnp.asarray(X[:1]))
    np.testing.assert_allclose(mine, y.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(carry, last[0].detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-5)


def test_gru_is_that_of_flax():
    cell = nnx.GRUCell(FEATURE, HIDDEN, rngs=nnx.Rngs(0))
    cell.dense_i.bias[...] = jnp.linspace(-1, 1, 3 * HIDDEN)
    weights = jm.recurrent.GRUWeights(
        cell.dense_i.kernel[...], cell.dense_h.kernel[...], cell.dense_i.bias[...]
    )
    expected = nnx.RNN(cell)(jnp.asarray(X), seq_lengths=jnp.array([6, 3, 0]))
    _, (y, _) = jm.recurrent.gru(X, MASK, weights)
    np.testing.assert_allclose(y[MASK], expected[MASK], atol=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", RUNS)
def test_chunks_with_the_carry_between_them_are_one_run(name):
    function, weights, options = RUNS[name]
    carry, (y, _) = function(X, MASK, weights, **options)
    for cut in range(TIME + 1):
        held, (y_1, _) = function(X[:, :cut], MASK[:, :cut], weights, **options)
        last, (y_2, _) = function(X[:, cut:], MASK[:, cut:], weights, held, **options)
        np.testing.assert_allclose(jnp.concatenate([y_1, y_2], axis=1), y, atol=1e-6)
        np.testing.assert_allclose(last, carry, atol=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_carry_is_float32_and_that_of_an_empty_row_the_one_that_came_in(name):
    function, weights, options = RUNS[name]
    weights = jax.tree.map(lambda a: a.astype(jnp.bfloat16), weights)
    given = jnp.full((BATCH, HIDDEN), 0.5, jnp.bfloat16)
    carry, (y, _) = function(jnp.asarray(X, jnp.bfloat16), MASK, weights, given, **options)
    assert (y.dtype, carry.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(carry[2], np.full(HIDDEN, 0.5))
    assert not np.asarray(y[2], np.float32).any()


GRU, SIMPLE = gru_weights(), simple_weights()
BAD = {
    "w_x": ("gru", {"weights": GRU._replace(w_x=GRU.w_x[:2])}, r"weights.w_x.*\[feature, 3\*hid"),
    "w_h": ("gru", {"weights": GRU._replace(w_h=GRU.w_h[:, :7])}, "weights.w_h"),
    "b": ("gru", {"weights": GRU._replace(b=GRU.b[:, :7])}, r"weights.b.*\[2, 3\*hidden\]"),
    "two biases": ("gru", {"weights": GRU, "reset_after": False}, "weights.b"),
    "not weights": ("gru", {"weights": GRU.w_x}, "GRUWeights"),
    "carry": ("gru", {"carry": jnp.zeros((1, HIDDEN))}, r"carry.*\[batch, hidden\]"),
    "pair": ("gru", {"carry": (jnp.zeros((3, HIDDEN)),) * 2}, "carry"),
    "ids": ("gru", {"x": np.zeros((3, 6, 3), np.int32)}, "floating"),
    "rank": ("gru", {"x": np.zeros((3, 6), np.float32)}, r"\[batch, time, feature\]"),
    "method": ("gru", {"method": "fast"}, "'auto', 'scan'"),
    "resets shape": ("gru", {"resets": np.zeros((3, 5), bool)}, "resets"),
    "resets dtype": ("gru", {"resets": np.zeros((3, 6), np.int32)}, "resets.*boolean"),
    "simple w_h": ("simple", {"weights": SIMPLE._replace(w_h=SIMPLE.w_h[:2])}, r"\[hidden, hid"),
    "activation": ("simple", {"activation": "gelu"}, "'tanh', 'relu'"),
    "simple method": ("simple", {"method": "fast"}, "'auto', 'scan'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    function, changed, text = BAD[name]
    weights = GRU if function == "gru" else SIMPLE
    arguments = {"x": X, "mask": None, "weights": weights, **changed}
    with pytest.raises((TypeError, ValueError), match=text):
        jax.eval_shape(lambda: getattr(jm.recurrent, function)(**arguments))


def test_weights_are_exported_with_a_symbolic_batch():
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, TIME, FEATURE), jnp.float32)
    mask = jax.ShapeDtypeStruct((batch, TIME), bool)
    for function, weights in ((jm.recurrent.gru, GRU), (jm.recurrent.simple, SIMPLE)):
        step = jax.jit(lambda w, x, mask, f=function: f(x, mask, w)[1][0])
        exported = jax.export.export(step)(weights, x, mask)
        again = jax.export.deserialize(exported.serialize())
        np.testing.assert_allclose(again.call(weights, X, MASK), step(weights, X, MASK), atol=1e-6)


# ----------------------------------------------------------------------------- resets

RESETS = np.array([[0, 0, 1, 0, 0, 1], [1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0]], bool)
LAYERS = {
    "lstm": lambda x, mask, **o: jm.recurrent.lstm(x, mask, lstm_weights(), **o),
    "gru": lambda x, mask, **o: jm.recurrent.gru(x, mask, GRU, **o),
    "simple": lambda x, mask, **o: jm.recurrent.simple(x, mask, SIMPLE, **o),
    "scan": lambda x, mask, **o: jm.recurrent.scan(
        lambda c, x: (c + x, c + x), x, mask, o.pop("carry", jnp.zeros((len(x), FEATURE))), **o
    ),
    "linear": lambda x, mask, **o: jm.recurrent.linear(x, mask, jnp.cos(x), **o),
}


def episodes(resets):
    """The bounds of the episodes of a row: a reset stands at the first step of one."""
    bounds = sorted({0, *np.flatnonzero(resets), TIME})
    return itertools.pairwise(bounds)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mask", [None, MASK, HOLES], ids=["none", "right", "holes"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_episode_after_a_reset_is_that_episode_alone(name, mask, reverse):
    run = LAYERS[name]
    _, (y, _) = run(X, mask, reverse=reverse, resets=RESETS)
    for row in range(BATCH):
        for start, end in episodes(RESETS[row]):
            part = None if mask is None else mask[row : row + 1, start:end]
            _, (alone, _) = run(X[row : row + 1, start:end], part, reverse=reverse)
            np.testing.assert_allclose(y[row, start:end], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_a_reset_clears_the_carry_that_comes_in_and_one_at_a_masked_step_counts(name):
    run = LAYERS[name]
    carry, _ = run(X, None)
    at_first = np.eye(1, TIME, 0, dtype=bool).repeat(BATCH, 0)
    _, (anew, _) = run(X, None)
    _, (y, _) = run(X, None, carry=carry, resets=at_first)
    np.testing.assert_allclose(y, anew, atol=1e-6)
    hole = np.ones((BATCH, TIME), bool)
    hole[:, 2] = False
    in_hole, after = (np.eye(1, TIME, k, dtype=bool).repeat(BATCH, 0) for k in (2, 3))
    _, (y, _) = run(X, hole, resets=in_hole)
    _, (expected, _) = run(X, hole, resets=after)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    at_end = np.eye(1, TIME, TIME - 1, dtype=bool).repeat(BATCH, 0)
    last, _ = run(X, ~at_end, resets=at_end)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(last))


@pytest.mark.parametrize("name", LAYERS)
def test_resets_and_segments_go_together(name):
    run = LAYERS[name]
    ids = jnp.array([[1, 1, 1, 2, 2, 2]] * BATCH)
    only = np.eye(1, TIME, 1, dtype=bool).repeat(BATCH, 0)
    both = only | np.eye(1, TIME, 3, dtype=bool)
    for reverse in (False, True):
        _, (y, _) = run(X, jm.Segments(ids, 2), resets=only, reverse=reverse)
        _, (expected, _) = run(X, None, resets=both, reverse=reverse)
        np.testing.assert_allclose(y, expected, atol=1e-6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", LAYERS)
def test_a_nan_before_a_reset_stays_in_its_episode(name):
    x = X.copy()
    x[:, 1] = np.nan
    resets = np.eye(1, TIME, 3, dtype=bool).repeat(BATCH, 0)

    def after(x):
        y = LAYERS[name](x, None, resets=resets)[1][0]
        return jnp.sum(y[:, 3:] ** 2)

    gradient = np.asarray(jax.grad(after)(jnp.asarray(x)))
    assert np.isfinite(after(x))
    assert np.isfinite(gradient[:, 3:]).all()
    assert gradient[:, 3:].any()


def test_a_nan_in_one_row_reaches_no_gradient_of_a_row_without_a_step():
    """Such a row borrows its filler from another, and passes its carry on."""
    layer = jm.nn.RNN(nnx.GRUCell(FEATURE, HIDDEN, rngs=nnx.Rngs(0)))
    x, mask = np.full((2, 1, FEATURE), np.nan, np.float32), np.array([[True], [False]])
    _, pull = jax.vjp(lambda carry: layer.run(carry, x, mask)[0], layer.initial_carry(2))
    (gradient,) = pull(jnp.ones((2, HIDDEN)))
    np.testing.assert_array_equal(gradient[1], np.ones(HIDDEN))


def test_both_directions_stop_at_a_reset():
    rngs = nnx.Rngs(0)
    layer = jm.nn.Bidirectional(
        jm.nn.GRU(FEATURE, HIDDEN, rngs=rngs), jm.nn.LSTM(FEATURE, HIDDEN, rngs=rngs)
    )
    y, _ = layer(X, HOLES, resets=RESETS)
    for start, end in episodes(RESETS[0]):
        alone, _ = layer(X[:1, start:end], HOLES[:1, start:end])
        np.testing.assert_allclose(y[0, start:end], alone[0], atol=1e-5)
    foreign = jm.nn.Bidirectional(layer.forward, jm.nn.Sequential(layer.forward))
    with pytest.raises(ValueError, match="resets"):
        foreign(X, HOLES, resets=RESETS)


def test_modules_take_resets_and_start_an_episode_from_the_initial_carry():
    class Ones(nnx.GRUCell):
        def initialize_carry(self, input_shape, rngs=None, carry_init=None):
            return jnp.ones((*input_shape[:-1], self.hidden_features))

    for layer in (
        jm.nn.GRU(FEATURE, HIDDEN, rngs=nnx.Rngs(0)),
        jm.nn.RNN(Ones(FEATURE, HIDDEN, rngs=nnx.Rngs(0))),
        jm.nn.MinGRU(FEATURE, HIDDEN, rngs=nnx.Rngs(0)),
        jm.nn.StackedRNN(jm.nn.LSTM(FEATURE, HIDDEN, rngs=nnx.Rngs(0))),
    ):
        y, _ = layer(X, MASK, resets=RESETS)
        for start, end in episodes(RESETS[0]):
            alone, _ = layer(X[:1, start:end])
            np.testing.assert_allclose(y[0, start:end], alone[0], atol=1e-5)


# ------------------------------------------------------------------------- bidirectional


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave", None])
def test_bidirectional_is_forward_and_backward_of_the_row_alone(merge):
    rngs = nnx.Rngs(0)
    forward, backward = jm.nn.GRU(FEATURE, HIDDEN, rngs=rngs), jm.nn.GRU(FEATURE, HIDDEN, rngs=rngs)
    y, _ = jm.nn.Bidirectional(forward, backward, merge)(
        np.where(HOLES[..., None], X, np.nan), HOLES
    )
    for row in range(2):
        alone = X[row : row + 1, HOLES[row]]
        a = np.asarray(forward(alone)[0][0])
        b = np.asarray(backward(alone[:, ::-1])[0][0])[::-1]
        expected = {
            "concat": np.concatenate([a, b], axis=-1),
            "sum": a + b,
            "mul": a * b,
            "ave": (a + b) / 2,
            None: (a, b),
        }[merge]
        mine = jax.tree.map(lambda part, row=row: np.asarray(part)[row, HOLES[row]], y)
        jax.tree.map(lambda m, e: np.testing.assert_allclose(m, e, atol=1e-6), mine, expected)


@pytest.mark.parametrize("mask", [None, np.ones((2, 4), bool)], ids=["none", "full"])
def test_a_backward_layer_that_makes_padding_keeps_its_steps_in_place(mask):
    x = np.random.default_rng(1).normal(size=(2, 4, FEATURE)).astype(np.float32)
    x[0, 1] = x[1, 2:] = 0
    masking = jm.nn.Masking()
    gru = [jm.nn.GRU(FEATURE, HIDDEN, rngs=nnx.Rngs(seed)) for seed in range(2)]
    foreign = [jm.nn.Sequential(masking, layer) for layer in gru]
    (forward, backward), out = jm.nn.Bidirectional(*foreign, merge=None)(x, mask)
    masked = masking(x, mask)
    np.testing.assert_array_equal(out, masked[1])
    np.testing.assert_allclose(forward, gru[0](*masked)[0], atol=1e-6)
    np.testing.assert_allclose(backward, gru[1](*masked, reverse=True)[0], atol=1e-6)


def test_a_mask_that_only_the_backward_layer_makes_comes_out():
    x = np.random.default_rng(1).normal(size=(2, 4, FEATURE)).astype(np.float32)
    x[0, 1] = 0
    rngs = nnx.Rngs(0)
    forward, inner = jm.nn.GRU(FEATURE, HIDDEN, rngs=rngs), jm.nn.GRU(FEATURE, HIDDEN, rngs=rngs)
    noise = jm.nn.Dropout(0.5, rngs=rngs)
    backward = jm.nn.Sequential(noise, jm.nn.Masking(), inner)
    backward.eval()
    y, out = jax.jit(jm.nn.Bidirectional(forward, backward))(x)
    assert out.tolist() == [[True, False, True, True], [True] * 4]
    assert not np.asarray(y[0, 1]).any()
    # To ask what a layer makes draws nothing from its streams.
    backward.train()
    before = noise.rngs.count[...]
    _, out = jm.nn.Bidirectional(forward, jm.nn.Sequential(noise, inner))(x)
    assert out is None
    assert noise.rngs.count[...] == before + 1
    # A function is no module that could be copied, so its mask is taken as it comes.
    _, out = jm.nn.Bidirectional(forward, lambda x, mask: inner(*noise(x, mask)))(x)
    assert np.asarray(out).all()


def test_a_step_that_one_direction_loses_is_padding_of_both():
    x = np.random.default_rng(1).normal(size=(2, 4, FEATURE)).astype(np.float32)
    x[0, 1] = 0
    full, rngs = np.ones((2, 4), bool), nnx.Rngs(0)
    forward, inner = jm.nn.GRU(FEATURE, HIDDEN, rngs=rngs), jm.nn.GRU(FEATURE, HIDDEN, rngs=rngs)
    backward = jm.nn.Sequential(jm.nn.Masking(), inner)
    ids = jm.Segments(np.array([[1, 1, 1, 2], [1, 1, 2, 2]]), 2)
    for mask in (full, ids):
        y, out = jm.nn.Bidirectional(forward, backward)(x, mask)
        assert jm.masks.as_bool(out).tolist() == [[True, False, True, True], [True] * 4]
        assert not np.asarray(y[0, 1]).any()
    dropped = jm.nn.Bidirectional(jm.nn.Sequential(jm.nn.DropMask(), forward), inner, "sum")
    np.testing.assert_array_equal(dropped(X, HOLES)[1], HOLES)


# ---------------------------------------------------------------------------- any cell


@pytest.mark.parametrize("mask", [None, MASK], ids=["none", "mask"])
def test_a_half_precision_cell_keeps_a_float32_carry(mask):
    layer = jm.nn.RNN(nnx.SimpleCell(FEATURE, HIDDEN, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    carry, (y, _) = layer.run(layer.initial_carry(BATCH), X, mask)
    assert (carry.dtype, y.dtype) == (jnp.float32, jnp.bfloat16)


def test_a_float64_row_goes_through_any_cell():
    with enable_x64(True):
        x = jnp.asarray(X, jnp.float64)
        layer = jm.nn.RNN(nnx.GRUCell(FEATURE, HIDDEN, rngs=nnx.Rngs(0)))
        y, _ = layer(x, MASK)
        assert y.dtype == jnp.float64
        np.testing.assert_allclose(y, layer(x.astype(jnp.float32), MASK)[0], atol=1e-5)
        assert layer(x, MASK, resets=RESETS)[0].dtype == jnp.float64


def test_a_reset_carry_is_not_broadcast():
    carry = jnp.zeros((BATCH, FEATURE))
    for wrong in (jnp.zeros(BATCH), jnp.zeros((1, FEATURE)), 0.0, (carry,)):
        with pytest.raises(ValueError, match="`reset_carry` must be"):
            jm.recurrent.scan(add, X, MASK, carry, resets=RESETS, reset_carry=wrong)


def add(total, x):
    return total + x, total + x


# ------------------------------------------------------------------------------- meshes

ON_A_MESH = """
from unittest import mock
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import jaxmask as jm
from tests.registry.recurrent import gru_weights, lstm_weights

x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5, 3)), jnp.float32).at[:, 3:].set(jnp.nan)
mask = jnp.arange(5) < jnp.array([3, 2, 1, 0, 3, 3, 3, 3])[:, None]
mesh = Mesh(np.array(jax.devices()), ("data",))
rows = P("data")


def add(total, x):
    return total + x, total + x


runs = {
    "lstm": lambda w, x, mask: jm.recurrent.lstm(x, mask, w[0]),
    "gru": lambda w, x, mask: jm.recurrent.gru(x, mask, w[1], reverse=True),
    "tiled lstm": lambda w, x, mask: jm.recurrent.lstm(x, mask, w[0], method="tiled"),
    "dense gru": lambda w, x, mask: jm.recurrent.gru(x, mask, w[1], method="dense"),
    "tiled gru": lambda w, x, mask: jm.recurrent.gru(x, mask, w[1], method="tiled"),
    "scan": lambda w, x, mask: jm.recurrent.scan(add, x, mask, jnp.zeros((len(x), 3))),
    "linear": lambda w, x, mask: jm.recurrent.linear(x, mask, x),
}
weights = lstm_weights(), gru_weights()
for name, run in runs.items():
    on_mesh = jax.shard_map(
        run, mesh=mesh, in_specs=(P(), rows, rows), out_specs=rows, check_vma=True
    )
    for ours, theirs in zip(
        jax.tree.leaves(jax.jit(on_mesh)(weights, x, mask)),
        jax.tree.leaves(run(weights, x, mask)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=name)


def check_rows_stay(program):
    for moves in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert moves not in program, moves


def check_slope(method):
    def loss(w, x, mask):
        return jnp.sum(jm.recurrent.lstm(x, mask, w, method=method)[1][0])

    slope = jax.jit(
        jax.shard_map(
            jax.grad(loss), mesh=mesh, in_specs=(P(), rows, rows), out_specs=P(), check_vma=True
        )
    )
    ours, theirs = slope(weights[0], x, mask), jax.grad(loss)(weights[0], x, mask)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)
    program = slope.lower(weights[0], x, mask).compile().as_text()
    assert "all-reduce" in program
    check_rows_stay(program)


check_slope("scan")
check_slope("tiled")
check_slope("dense")


def as_on_a_gpu():
    # Under a mesh without `shard_map`, rows stay where they are there too.

    def loss(w, x):
        carry, (y, _) = jm.recurrent.lstm(x, mask, w)
        return jnp.sum(y) + jnp.sum(carry.c)

    with mock.patch.object(jax, "default_backend", lambda: "gpu"), jax.set_mesh(mesh):
        assert jm.recurrent.explain(len(x), x.shape[1], 4).method == "dense"
        spread = jax.device_put(x, NamedSharding(mesh, rows))
        slope = jax.jit(jax.grad(loss, (0, 1))).lower(weights[0], spread).compile()
    ours, theirs = slope(weights[0], spread), jax.grad(loss, (0, 1))(weights[0], x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)
    check_rows_stay(slope.as_text())


as_on_a_gpu()
print("equal")
"""


@pytest.mark.exhaustive
def test_on_a_mesh():
    """Results and gradients on four devices are those on one, and only gradients are reduced.

    With its checks on, `shard_map` needs a zero carry that varies; four devices need a process.
    """
    xla = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    flags = {"XLA_FLAGS": xla, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", ON_A_MESH],
        env={**os.environ, **flags, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p) or "."},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "equal", done.stderr
