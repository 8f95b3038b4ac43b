"""The LSTM against PyTorch, Keras and Flax, and what is particular to recurrences."""

import importlib.util

import jax
import jax.experimental
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests.golden import make_torch_lstm as golden
from tests.registry.recurrent import lstm_weights
from tests.x64 import enable_x64

MASK = np.arange(golden.TIME) < np.array(golden.LENGTHS)[:, None]


def direction(arrays, name):
    weights = jm.recurrent.LSTMWeights(*(arrays[f"{name}_{part}"] for part in ("w_x", "w_h", "b")))
    return weights, (arrays[f"{name}_h"], arrays[f"{name}_c"])


def ours(arrays):
    """What `golden.torch_result` computes, by jaxmask."""
    runs = {name: direction(arrays, name) for name in ("forward", "backward")}

    def loss(weights, x):
        outputs = {
            name: jm.recurrent.lstm(
                x, MASK, weights[name], runs[name][1], reverse=name == "backward"
            )
            for name in runs
        }
        y = jnp.concatenate([outputs[name][1][0] for name in runs], axis=-1)
        return jnp.sum(arrays["readout"] * y), (y, [outputs[name][0] for name in runs])

    weights = {name: run[0] for name, run in runs.items()}
    (_, (y, carries)), (g_weights, g_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
        weights, jnp.asarray(arrays["x"])
    )
    result = {"y": y, "grad_x": g_x}
    result["h"] = jnp.stack([carry.h for carry in carries])
    result["c"] = jnp.stack([carry.c for carry in carries])
    for name, gradient in g_weights.items():
        for part in ("w_x", "w_h", "b"):
            result[f"grad_{name}_{part}"] = getattr(gradient, part)
    return result


def assert_equal(result, expected):
    assert set(result) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_bilstm_is_that_of_pytorch():
    stored = dict(np.load(golden.PATH))
    expected = {k.removeprefix("torch_"): v for k, v in stored.items() if k.startswith("torch_")}
    assert_equal(ours(stored), expected)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_golden_values_are_those_of_pytorch_as_it_is():
    arrays = golden.inputs()
    assert_equal(ours(arrays), golden.torch_result(arrays))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("layout", ["right", "left", "holes"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_is_that_of_keras(layout, bidirectional):
    keras = pytest.importorskip("keras")
    arrays = golden.inputs()
    mask = {"right": MASK, "left": MASK[:, ::-1], "holes": np.roll(MASK, 2, axis=1)}[layout]
    layer = keras.layers.LSTM(golden.HIDDEN, return_sequences=True, zero_output_for_mask=True)
    if bidirectional:
        layer = keras.layers.Bidirectional(layer)
    layer.build((None, None, golden.FEATURE))
    names = ("forward", "backward") if bidirectional else ("forward",)
    rngs = nnx.Rngs(0)
    modules = [jm.nn.LSTM(golden.FEATURE, golden.HIDDEN, rngs=rngs) for _ in names]
    for module, name in zip(modules, names, strict=True):
        weights, _ = direction(arrays, name)
        module.w_x[...], module.w_h[...], module.b[...] = map(jnp.asarray, weights[:3])
    module = jm.nn.Bidirectional(*modules) if bidirectional else modules[0]
    flat = [leaf for name in names for leaf in direction(arrays, name)[0][:3]]
    readout = arrays["readout"][..., : 2 * golden.HIDDEN if bidirectional else golden.HIDDEN]

    def theirs(x):
        rest = [variable.value for variable in layer.non_trainable_variables]
        y, _ = layer.stateless_call(flat, rest, x, mask=jnp.asarray(mask))
        return jnp.sum(jnp.where(mask[..., None], readout * y, 0)), y

    def here(x):
        y, _ = module(x, mask)
        return jnp.sum(readout * y), y

    x = jnp.asarray(arrays["x"])
    (_, y_theirs), g_theirs = jax.value_and_grad(theirs, has_aux=True)(x)
    (_, y), g = jax.value_and_grad(here, has_aux=True)(x)
    np.testing.assert_allclose(y[mask], y_theirs[mask], atol=1e-5)
    np.testing.assert_allclose(g[mask], g_theirs[mask], atol=1e-5)


@pytest.mark.parametrize("cell", [nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell])
def test_rnn_of_a_cell_is_that_of_flax(cell):
    x = jnp.asarray(golden.inputs()["x"])
    cell = cell(golden.FEATURE, golden.HIDDEN, rngs=nnx.Rngs(0))
    expected = nnx.RNN(cell)(x, seq_lengths=jnp.asarray(golden.LENGTHS))
    y, _ = jm.nn.RNN(cell)(x, MASK)
    np.testing.assert_allclose(y[MASK], expected[MASK], atol=1e-6)


def test_chunks_with_the_carry_between_them_are_one_run():
    x, weights = jnp.asarray(golden.inputs()["x"]), lstm_weights()
    carry, (y, _) = jm.recurrent.lstm(x, MASK, weights)
    for cut in range(golden.TIME + 1):
        first, (y_1, _) = jm.recurrent.lstm(x[:, :cut], MASK[:, :cut], weights)
        last, (y_2, _) = jm.recurrent.lstm(x[:, cut:], MASK[:, cut:], weights, first)
        np.testing.assert_allclose(jnp.concatenate([y_1, y_2], axis=1), y, atol=1e-6)
        np.testing.assert_allclose(last.h, carry.h, atol=1e-6)
        np.testing.assert_allclose(last.c, carry.c, atol=1e-6)


def test_carry_of_an_empty_row_is_the_one_that_came_in():
    carry = (jnp.ones((2, 4)), 2 * jnp.ones((2, 4)))
    x = jnp.full((2, 3, 3), jnp.nan)
    out, (y, _) = jm.recurrent.lstm(x, jnp.zeros((2, 3), bool), lstm_weights(), carry)
    assert isinstance(out, jm.recurrent.LSTMCarry)
    np.testing.assert_array_equal(out.h, carry[0])
    np.testing.assert_array_equal(out.c, carry[1])
    assert not np.asarray(y).any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_keeps_a_float32_carry(dtype):
    weights = jax.tree.map(lambda a: a.astype(dtype), lstm_weights())
    x = jnp.asarray(golden.inputs()["x"], dtype)
    carry, (y, _) = jm.recurrent.lstm(x, MASK, weights)
    assert y.dtype == dtype
    assert carry.h.dtype == carry.c.dtype == jnp.float32
    given = jax.tree.map(lambda a: a.astype(dtype), carry)
    again, _ = jm.recurrent.lstm(x, MASK, weights, given)
    assert again.h.dtype == jnp.float32


def test_long_half_precision_run_does_not_drift():
    """A carry in bfloat16 would stop growing at 256; one in float32 counts on."""
    x = jnp.ones((1, 2000, 1), jnp.bfloat16)

    def count(total, x_t):
        return total + x_t.astype(total.dtype), x_t

    total, _ = jm.recurrent.scan(count, x, None, jnp.zeros((1, 1)))
    assert float(total[0, 0]) == 2000


def test_float64_where_it_is_enabled():
    # The older releases that jaxmask supports have it in another place.
    with enable_x64(True):
        x = jnp.asarray(golden.inputs()["x"], jnp.float64)
        weights = jax.tree.map(lambda a: a.astype(jnp.float64), lstm_weights())
        carry, (y, _) = jm.recurrent.lstm(x, MASK, weights)
        assert y.dtype == carry.h.dtype == jnp.float64


def test_segments_start_from_zeros_and_the_first_goes_on_from_the_carry():
    x, weights = jnp.asarray(golden.inputs()["x"])[:1], lstm_weights()
    ids = jnp.array([[1, 1, 2, 2, 0, 0]])
    carry = (jnp.ones((1, 4)), jnp.ones((1, 4)))
    _, (y, mask) = jm.recurrent.lstm(x, None, weights, carry, segments=ids)
    _, (first, _) = jm.recurrent.lstm(x[:, :2], None, weights, carry)
    last, (second, _) = jm.recurrent.lstm(x[:, 2:4], None, weights)
    np.testing.assert_allclose(y[:, :4], jnp.concatenate([first, second], axis=1), atol=1e-6)
    assert mask.tolist() == [[True] * 4 + [False] * 2]
    out, _ = jm.recurrent.lstm(x, jm.Segments(ids, 2), weights, carry)
    np.testing.assert_allclose(out.h, last.h, atol=1e-6)


def test_segments_twice_is_an_error():
    segments = jm.Segments(jnp.ones((1, 6), int), 1)
    with pytest.raises(jm.MaskError, match="came twice"):
        jm.recurrent.lstm(jnp.zeros((1, 6, 3)), segments, lstm_weights(), segments=segments)


def test_reset_carry_is_what_later_segments_start_from():
    def add(total, x):
        return total + x, total + x

    y = jm.recurrent.scan(
        add,
        jnp.ones((1, 4)),
        jm.Segments(jnp.array([[1, 1, 2, 2]]), 2),
        jnp.array([10.0]),
        reset_carry=jnp.array([100.0]),
    )[1][0]
    assert y.tolist() == [[11.0, 12.0, 101.0, 102.0]]


WEIGHTS = lstm_weights()
X = np.zeros((2, 6, 3), np.float32)
BAD = {
    "w_x": ({"weights": WEIGHTS._replace(w_x=WEIGHTS.w_x[:2])}, "weights.w_x"),
    "w_h": ({"weights": WEIGHTS._replace(w_h=WEIGHTS.w_h[:, :7])}, "weights.w_h"),
    "b": ({"weights": WEIGHTS._replace(b=WEIGHTS.b[:7])}, "weights.b"),
    "not weights": ({"weights": WEIGHTS.w_x}, "LSTMWeights"),
    "carry": ({"carry": (jnp.zeros((1, 4)), jnp.zeros((2, 4)))}, "carry.h"),
    "one carry": ({"carry": jnp.zeros((2, 4))}, "LSTMCarry"),
    "method": ({"method": "fast"}, "'auto', 'scan'"),
    "ids": ({"x": np.zeros((2, 6, 3), np.int32)}, "floating"),
    "rank": ({"x": np.zeros((2, 6), np.float32)}, r"\[batch, time, feature\]"),
    "segments": ({"segments": jnp.ones((2, 5), int)}, "[Ss]egments"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    changed, text = BAD[name]
    arguments = {"x": X, "mask": None, "weights": WEIGHTS, **changed}
    with pytest.raises((TypeError, ValueError), match=text):
        jax.eval_shape(lambda: jm.recurrent.lstm(**arguments))


def test_carry_without_a_batch_is_refused():
    with pytest.raises(ValueError, match="batch"):
        jm.recurrent.scan(lambda c, x: (c, x), X, None, jnp.zeros(3))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_exports_for_every_platform(platform):
    """Forward and gradient lower for processors that are not here; the batch may be symbolic."""
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, 6, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((batch, 6), bool)

    def step(weights, x, mask):
        return jax.grad(lambda w: jnp.sum(jm.recurrent.lstm(x, mask, w)[1][0]))(weights)

    exported = jax.export.export(jax.jit(step), platforms=[platform])(WEIGHTS, x, mask)
    assert jax.export.deserialize(exported.serialize()).platforms == (platform,)
