"""Cells and stacks for `RNN` against Keras, their papers and the layers one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests.test_recurrent import BATCH, FEATURE, HIDDEN, HOLES, MASK, TIME, X

# ------------------------------------------------------------------------------- cells


def layer_norm(x, norm):
    bias = 0 if norm.bias is None else np.asarray(norm.bias[...], np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.epsilon)
    return x * np.asarray(norm.scale[...], np.float64) + bias


def test_layer_norm_lstm_is_its_equations():
    cell = jm.nn.LayerNormLSTMCell(FEATURE, HIDDEN, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(2)
    for norm in (cell.norm_x, cell.norm_h, cell.norm_c):
        norm.scale[...] = jnp.asarray(draw.normal(size=norm.scale.shape), jnp.float32)
    cell.norm_h.bias[...] = jnp.asarray(draw.normal(size=cell.norm_h.bias.shape), jnp.float32)
    h = c = np.zeros((1, HIDDEN))
    expected = []
    for x in X[0].astype(np.float64):
        products = (
            layer_norm(np.asarray(a) @ np.asarray(w.kernel[...], np.float64), norm)
            for a, w, norm in ((x[None], cell.w_x, cell.norm_x), (h, cell.w_h, cell.norm_h))
        )
        i, f, g, o = np.split(sum(products), 4, axis=-1)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(layer_norm(c, cell.norm_c))
        expected.append(h[0])
    y, _ = jm.nn.RNN(cell)(X, MASK)
    np.testing.assert_allclose(y[0], np.stack(expected), atol=2e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_conv_lstm_is_that_of_keras(padding):
    keras = pytest.importorskip("keras")
    x = np.random.default_rng(3).normal(size=(2, 4, 7, 3)).astype(np.float32)
    theirs = keras.layers.ConvLSTM1D(5, 3, padding=padding.lower(), return_sequences=True)
    theirs.build(x.shape)
    cell = jm.nn.ConvLSTMCell(3, 5, (3,), padding=padding, rngs=nnx.Rngs(0))
    cell.conv_x.bias[...] = jnp.linspace(-1, 1, 20)
    theirs.set_weights([cell.conv_x.kernel[...], cell.conv_h.kernel[...], cell.conv_x.bias[...]])
    layer = jm.nn.RNN(cell)
    y, _ = layer(x)
    np.testing.assert_allclose(y, np.asarray(theirs(x)), atol=1e-5)
    carry = layer.initial_carry(2, x.shape[2:])
    carry, (first, _) = layer.run(carry, x[:, :1])
    _, (rest, _) = layer.run(carry, x[:, 1:])
    np.testing.assert_allclose(jnp.concatenate([first, rest], axis=1), y, atol=1e-6)


def test_conv_lstm_asks_for_what_it_cannot_know():
    layer = jm.nn.RNN(jm.nn.ConvLSTMCell(3, 5, (3,), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="initial_carry\\(batch, feature_shape\\)"):
        layer.initial_carry(2)
    with pytest.raises(ValueError, match="spatial axes"):
        layer(jnp.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match="'SAME', 'VALID'"):
        jm.nn.ConvLSTMCell(3, 5, (3,), padding="CAUSAL", rngs=nnx.Rngs(0))


def test_a_row_that_does_not_fit_its_cell_is_named():
    layer = jm.nn.RNN(nnx.LSTMCell(FEATURE, HIDDEN, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"RNN: `x` must be \[batch, time, feature"):
        layer(X[..., 0], MASK)
    with pytest.raises(ValueError, match=f"RNN: `LSTMCell` takes {FEATURE} features"):
        layer(np.concatenate([X, X], axis=-1), MASK)


def test_a_cell_of_the_user_needs_nothing_but_the_protocol():
    class Leaky(nnx.Module):
        def __init__(self):
            self.in_features = FEATURE

        def initialize_carry(self, input_shape, rngs):
            return jnp.zeros(input_shape)

        def __call__(self, carry, x):
            carry = 0.5 * carry + x
            return carry, carry

    y, _ = jm.nn.RNN(Leaky())(X, HOLES)
    alone, _ = jm.nn.RNN(Leaky())(X[:1, HOLES[0]])
    np.testing.assert_allclose(y[0, HOLES[0]], alone[0], atol=1e-6)


# ----------------------------------------------------------------------------- zone-out


def zoneout(rate, rngs=None):
    rngs = nnx.Rngs(0) if rngs is None else rngs
    return jm.nn.RNN(jm.nn.ZoneoutCell(nnx.GRUCell(FEATURE, HIDDEN, rngs=rngs), rate, rngs=rngs))


def test_zoneout_in_eval_mode_is_the_expectation():
    layer = zoneout(0.3)
    layer.eval()
    y, _ = layer(X)
    h, expected = jnp.zeros((BATCH, HIDDEN)), []
    for t in range(TIME):
        h = 0.3 * h + 0.7 * layer.cell.cell(h, X[:, t])[0]
        expected.append(h)
    np.testing.assert_allclose(y, jnp.stack(expected, axis=1), atol=1e-6)


def test_zoneout_keeps_features_of_the_state_as_often_as_its_rate():
    layer = zoneout(0.25)
    y, _ = layer(np.random.default_rng(0).normal(size=(40, 50, FEATURE)).astype(np.float32))
    kept = np.asarray(y[:, 1:] == y[:, :-1]).mean()
    assert 0.22 < kept < 0.28
    assert np.asarray(zoneout(1.0)(X)[0] == 0).all()
    plain = jm.nn.RNN(layer.cell.cell)
    np.testing.assert_allclose(zoneout(0.0)(X)[0], plain(X)[0], atol=1e-6)


def test_zoneout_draws_the_same_whatever_the_padding_and_the_chunks():
    base, _ = zoneout(0.5)(X[:1])
    wide = np.full((1, TIME + 3, FEATURE), np.nan, np.float32)
    mask = np.ones((1, TIME + 3), bool)
    mask[:, [0, 3, 8]] = False
    wide[mask] = X[0]
    y, _ = zoneout(0.5)(wide, mask)
    np.testing.assert_allclose(y[mask], base[0], atol=1e-6)
    layer = zoneout(0.5)
    carry, (first, _) = layer.run(layer.initial_carry(1), X[:1, :2])
    _, (second, _) = layer.run(carry, X[:1, 2:])
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), base, atol=1e-6)


def starts_of(segments_or_resets):
    """The three ways to say that a row of one and the same step starts anew twice."""
    if segments_or_resets == "segments":
        return {"mask": jm.Segments(jnp.array([[1] * 4 + [2] * 4 + [3] * 4]), 3)}
    resets = np.zeros((1, 12), bool)
    resets[:, [4, 8]] = True
    return {"resets": resets}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("starts", ["segments", "resets"])
def test_zoneout_draws_anew_in_every_segment_and_episode(starts, reverse):
    x = np.broadcast_to(X[:1, :1], (1, 12, FEATURE))
    layer = zoneout(0.5)
    y, _ = layer(x, reverse=reverse, **starts_of(starts))
    first, second, third = np.split(np.asarray(y), 3, axis=1)
    for a, b in ((first, second), (second, third), (first, third)):
        assert np.abs(a - b).max() > 1e-3
    # Every one of them still starts from zeros.
    layer.eval()
    y, _ = layer(x, reverse=reverse, **starts_of(starts))
    np.testing.assert_allclose(y[:, 4:8], y[:, :4], atol=1e-6)


def test_zoneout_with_resets_draws_the_same_whatever_the_padding_and_the_chunks():
    x = np.concatenate([X[:1]] * 2, axis=1)
    time = x.shape[1]
    resets = np.zeros((1, time), bool)
    resets[:, [2, time - 1]] = True
    base, _ = zoneout(0.5)(x, resets=resets)
    mask = np.ones((1, time + 2), bool)
    mask[:, [0, 3]] = False
    wide, wide_resets = np.full((1, time + 2, FEATURE), np.nan, np.float32), np.zeros_like(mask)
    wide[mask], wide_resets[mask] = x[0], resets[0]
    y, _ = zoneout(0.5)(wide, mask, resets=wide_resets)
    np.testing.assert_allclose(y[mask], base[0], atol=1e-6)
    layer, pieces = zoneout(0.5), []
    carry = layer.initial_carry(1)
    for cut in (slice(0, 1), slice(1, 4), slice(4, time)):
        carry, (y, _) = layer.run(carry, x[:, cut], resets=resets[:, cut])
        pieces.append(y)
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), base, atol=1e-6)
    assert carry.rank.tolist() == [time]


def test_zoneout_draws_anew_at_every_call_and_trains():
    layer = zoneout(0.5)

    @nnx.jit
    def gradient(layer):
        return nnx.grad(lambda layer: jnp.sum(layer(X, MASK)[0] ** 2))(layer)

    first, second = jax.tree.leaves(gradient(layer)), jax.tree.leaves(gradient(layer))
    assert all(np.isfinite(leaf).all() for leaf in first)
    assert any(np.abs(a - b).max() > 1e-6 for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_zoneout_reaches_the_output_that_a_cell_casts(dtype):
    rngs = nnx.Rngs(0)
    for cell, x in (
        (jm.nn.LayerNormLSTMCell(FEATURE, HIDDEN, rngs=rngs), X),
        (jm.nn.ConvLSTMCell(FEATURE, HIDDEN, (3,), rngs=rngs), np.stack([X] * 4, axis=2)),
    ):
        frozen = jm.nn.RNN(jm.nn.ZoneoutCell(cell, (1.0, 0.0), rngs=rngs))
        y, _ = frozen(jnp.asarray(x, dtype), MASK)
        assert y.dtype == dtype
        assert not np.asarray(y).any()


def test_zoneout_rates_are_checked():
    with pytest.raises(ValueError, match="within 0 and 1"):
        zoneout((0.1, 1.5))
    with pytest.raises(ValueError, match="each of the 1 arrays"):
        zoneout((0.1, 0.2))(X)
    assert not np.asarray(zoneout(np.float32(1))(X)[0]).any()


# ------------------------------------------------------------------------------- stacks


def test_stack_is_its_layers_one_after_the_other():
    rngs = nnx.Rngs(0)
    layers = [
        jm.nn.GRU(FEATURE, HIDDEN, rngs=rngs),
        jm.nn.LSTM(HIDDEN, HIDDEN, rngs=rngs),
        jm.nn.SimpleRNN(HIDDEN, 2, rngs=rngs),
    ]
    y = X
    for position, layer in enumerate(layers):
        before, (y, _) = y, layer(y, MASK)
        y = y + before if position == 1 else y
    stack = jm.nn.StackedRNN(*layers, residual=True)
    np.testing.assert_allclose(stack(X, MASK)[0], y, atol=1e-6)
    bidirectional = jm.nn.Bidirectional(layers[0], jm.nn.GRU(FEATURE, HIDDEN, rngs=rngs), "sum")
    last = jm.nn.LSTM(HIDDEN, HIDDEN, return_sequences=False, rngs=rngs)
    pooled, row_mask = jm.nn.StackedRNN(bidirectional, last)(X, MASK)
    assert pooled.shape == (BATCH, HIDDEN)
    assert row_mask.tolist() == [True, True, False]


class Ones(jm.nn.GRU):
    """Gives ones, so that what dropout makes of them shows."""

    def __call__(self, x, mask=None, **options):
        y, mask = super().__call__(x, mask, **options)
        return jm.ops.fill(jnp.ones_like(y), mask)


def test_a_shortcut_leaves_nothing_in_padding_that_a_layer_made():
    attention = jm.nn.MultiHeadAttention(1, FEATURE, causal=True, max_length=2, rngs=nnx.Rngs(0))
    stack = jm.nn.StackedRNN(attention, residual=True)
    _, (y, mask) = stack.run(stack.initial_carry(BATCH), X, None)
    assert mask[0].tolist() == [True, True] + [False] * (TIME - 2)
    assert np.asarray(y[:, :2]).any()
    assert not np.asarray(y[:, 2:]).any()


class Same(jm.nn.GRU):
    def __call__(self, x, mask=None, **options):
        return x, mask


def dropping(variational):
    rngs = nnx.Rngs(0)
    first, second = Ones(FEATURE, 16, rngs=rngs), Same(16, 16, rngs=rngs)
    return jm.nn.StackedRNN(first, second, dropout_rate=0.5, variational=variational, rngs=rngs)


@pytest.mark.parametrize("variational", [False, True])
def test_dropout_between_layers(variational):
    y, _ = dropping(variational)(X, MASK)
    y = np.asarray(y)
    assert set(np.unique(y[MASK])) == {0, 2}
    assert not y[~MASK].any()
    is_fixed = (y[0] == y[0, :1]).all()
    assert is_fixed == variational
    assert (y[0, 0] != y[1, 0]).any()
    wide, _ = dropping(variational)(
        np.pad(X, ((0, 0), (2, 0), (0, 0))), np.pad(MASK, ((0, 0), (2, 0)))
    )
    np.testing.assert_array_equal(wide[:, 2:], y)
    stack = dropping(variational)
    stack.eval()
    assert (np.asarray(stack(X, MASK)[0])[MASK] == 1).all()


def test_stack_takes_what_sequential_takes_in_a_call_and_in_a_stream():
    class Foreign:
        def __call__(self, x):
            return 2 * x

    jm.nn.register(Foreign, jm.nn.Passthrough)
    rngs = nnx.Rngs(0)
    gru, dense = jm.nn.GRU(FEATURE, HIDDEN, rngs=rngs), nnx.Linear(HIDDEN, 2, rngs=rngs)
    stack = jm.nn.StackedRNN(gru, Foreign(), dense)
    expected, _ = jm.nn.Sequential(gru, Foreign(), dense)(X, MASK)
    y, mask = stack(X, MASK)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_array_equal(mask, MASK)
    _, (streamed, _) = stack.run(stack.initial_carry(BATCH), X, MASK)
    np.testing.assert_allclose(streamed, expected, atol=1e-6)
    resets = np.arange(TIME) == np.full((BATCH, 1), 2)
    once, _ = gru(X, MASK, resets=resets)
    again, _ = jm.nn.Sequential(Foreign(), dense)(once, MASK)
    np.testing.assert_allclose(stack(X, MASK, resets=resets)[0], again, atol=1e-6)


def test_a_stack_does_not_lose_resets_in_silence():
    attention = jm.nn.MultiHeadAttention(1, FEATURE, causal=True, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="resets"):
        jm.nn.StackedRNN(attention)(X, MASK, resets=MASK)


def test_stack_refuses_what_it_cannot_be():
    gru = jm.nn.GRU(FEATURE, HIDDEN, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="at least one layer"):
        jm.nn.StackedRNN()
    with pytest.raises(ValueError, match="rngs"):
        jm.nn.StackedRNN(gru, dropout_rate=0.1)
    with pytest.raises(ValueError, match="from 0 to below 1"):
        jm.nn.StackedRNN(gru, dropout_rate=1.1, rngs=nnx.Rngs(0))


def test_a_part_of_the_carry_may_go_on_where_a_sequence_starts():
    def cell(carry, x):
        total, count = carry
        return (total + x, count + 1), (total + x, count)

    x, resets = jnp.ones((1, 4)), jnp.array([[False, False, True, False]])
    carry = jnp.zeros(1), jnp.zeros(1)
    _, (y, _) = jm.recurrent.scan(
        cell, x, None, carry, resets=resets, reset_carry=(jnp.full(1, 5.0), None)
    )
    assert [a.tolist() for a in y] == [[[1.0, 2.0, 6.0, 7.0]], [[0.0, 1.0, 2.0, 3.0]]]
    with pytest.raises(ValueError, match="reset_carry"):
        jm.recurrent.scan(cell, x, None, carry, resets=resets, reset_carry=(None,))
