"""What Keras does in silence where a mask meets its layers, and what is right.

Each test runs Keras 3 on the JAX backend as a user would, states what comes out, and then asks
jaxmask for the same. What Keras gives is pinned to the version it was seen in.
"""

import warnings

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm

SEEN_IN = "3.15.1"
ROW = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
MASK = np.array([[True, True, False, False], [True, True, True, True]])


def keras_gives(condition: bool) -> None:
    """What this version of Keras is known to do; another version may have been mended."""
    assert condition or keras.__version__ != SEEN_IN


def padded(value: float = 9.0) -> np.ndarray:
    return np.where(MASK[..., None], ROW, np.float32(value))


def lstm_weights() -> jm.recurrent.LSTMWeights:
    draw = np.random.default_rng(1)
    shapes = ((3, 8), (2, 8), (8,))
    return jm.recurrent.LSTMWeights(*(draw.normal(size=s).astype(np.float32) for s in shapes))


def test_an_initial_state_does_not_switch_the_mask_off():
    """Keras fills in `mask` only if there is one tensor argument, so `initial_state` loses it."""
    weights = lstm_weights()
    h, c = np.full((2, 2), 0.3, np.float32), np.full((2, 2), -0.2, np.float32)
    layer = keras.layers.LSTM(2)
    masked = keras.layers.Masking(9.0)(padded())
    layer(masked)
    layer.set_weights(list(weights))
    right, (_, _) = jm.recurrent.lstm(padded(), MASK, weights, (h, c))
    alone, _ = jm.recurrent.lstm(ROW[:1, :2], None, weights, (h[:1], c[:1]))
    keras_gives(not np.allclose(layer(masked, initial_state=[h, c])[0], alone.h[0], atol=1e-3))
    np.testing.assert_allclose(layer(padded(), mask=MASK, initial_state=[h, c]), right.h, atol=1e-6)
    np.testing.assert_allclose(right.h[0], alone.h[0], atol=1e-6)


def test_post_norm_keeps_the_mask_for_the_loss():
    """Keras's attention erases the mask of its own input, so the residual sum has none."""
    embedded = keras.layers.Masking(9.0)(padded())
    attended = keras.layers.MultiHeadAttention(1, 3)(embedded, embedded)
    summed = keras.layers.Add()([embedded, attended])
    keras_gives(getattr(summed, "_keras_mask", None) is None)
    block = jm.nn.TransformerEncoderBlock(1, 4, 8, norm_first=False, rngs=nnx.Rngs(0))
    x = np.pad(padded(), ((0, 0), (0, 0), (0, 1)))
    y, mask = block(x, MASK)
    np.testing.assert_array_equal(mask, MASK)
    per_step, mask = jm.losses.squared_error(y, mask, jnp.zeros_like(y))
    masked_mean = np.mean(np.asarray(per_step)[MASK])
    np.testing.assert_allclose(jm.losses.reduce(per_step, mask), masked_mean, rtol=1e-6)


def test_a_residual_sum_keeps_its_mask():
    """Keras moves masks in `Layer.__call__` alone: `h + e` has none, without a word."""
    x = keras.layers.Masking(9.0)(padded())
    keras_gives(getattr(x + x, "_keras_mask", None) is None)
    y, mask = jm.merge.add((padded(), MASK), (padded(), MASK))
    np.testing.assert_array_equal(mask, MASK)
    np.testing.assert_allclose(np.asarray(y)[MASK], 2 * ROW[MASK])


def test_a_mask_belongs_to_a_value_and_not_to_an_object():
    """Keras keeps masks by `id`: Reshape says that it destroys the mask, and it stays."""
    x = keras.layers.Masking(9.0)(padded())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same = keras.layers.Reshape((4, 3))(x)
    keras_gives(same is x and same._keras_mask is not None)
    y, mask = jm.shape.reshape(padded(), MASK, (3, 1))
    assert y.shape == (2, 4, 3, 1)
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_padding_cannot_poison_the_gradient_of_a_weight(poison):
    """Keras selects after the step has run, so a nan in the padding is in every weight gradient."""
    weights = lstm_weights()
    layer = keras.layers.LSTM(2)
    layer.build((2, 4, 3))

    def keras_loss(trainable):
        state = [v.value for v in layer.non_trainable_variables]
        h, _ = layer.stateless_call(trainable, state, padded(poison), mask=MASK)
        return jnp.sum(h)

    trainable = [jnp.asarray(w) for w in weights]
    spoiled = jax.grad(keras_loss)(trainable)
    if np.isnan(poison):
        keras_gives(bool(np.isnan(spoiled[0]).any()))

    def loss(weights, x):
        carry, _ = jm.recurrent.lstm(x, MASK, weights)
        return jnp.sum(carry.h)

    for ours, clean in zip(
        jax.grad(loss)(weights, padded(poison)), jax.grad(loss)(weights, padded(0)), strict=True
    ):
        np.testing.assert_array_equal(ours, clean)


def test_a_row_without_a_step_has_one_answer():
    """Keras gives nan, the mean of everything, or 0 for a fully masked row; here it is 0."""
    empty = np.array([[False] * 4, [True] * 4])
    pooled = keras.layers.GlobalAveragePooling1D()(ROW, mask=empty)
    keras_gives(bool(np.isnan(pooled[0]).all()))
    q = ROW[:, :, None]
    uniform = keras.ops.dot_product_attention(q, q, q, mask=empty[:, None, None])
    keras_gives(np.allclose(uniform[0, 0, 0], ROW[0].mean(0), atol=1e-5))
    answers = [
        jm.pool.mean(ROW, empty),
        jm.pool.max(ROW, empty),
        jm.ops.softmax(ROW, empty),
        jm.attention.attend(q, empty, q, q, empty),
        jm.attention.attend(q, empty, q, q, empty, dropout_rate=0.5, key=jax.random.key(0)),
    ]
    for y, mask in answers:
        assert not np.asarray(y)[0].any()
        assert not np.asarray(mask)[0].any()
        assert np.isfinite(y).all()


def test_precision_counts_real_steps():
    """Every confusion metric of Keras ignores the mask."""
    targets, mask = np.array([[1, 1, 0, 0]]), np.array([[True, True, False, True]])
    scores = keras.layers.Dense(1, bias_initializer=keras.initializers.Constant(0.7))
    scores.build((1, 4, 1))
    scores.kernel.assign([[1.0]])
    x = np.array([[[0.1], [0.2], [9.0], [-0.6]]], np.float32)
    predictions = scores(keras.layers.Masking(9.0)(x))  # 0.7 at the step that is padding
    metric = keras.metrics.Precision()
    metric.update_state(targets[..., None], predictions)
    keras_gives(np.isclose(metric.result(), 2 / 3))
    positive = np.asarray(predictions)[..., 0] > 0.5
    ours = jm.metrics.Precision.empty().update(positive, mask, targets).compute()
    np.testing.assert_allclose(ours, 1.0)


def test_a_metric_weighs_batches_by_their_real_steps():
    """Keras weighs a batch by real steps over padded steps, so a short batch counts double."""
    first, second = np.array([[1.0, 1.0]]), np.array([[3.0, 3.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0]])
    metric = keras.metrics.MeanMetricWrapper(lambda y_true, y_pred: y_pred[..., 0])
    for values in (first, second):
        metric.update_state(values, keras.layers.Masking(0.0)(values[..., None]))
    keras_gives(np.isclose(metric.result(), (1 * 1 + 3 * 0.5) / 1.5))
    ours = jm.metrics.Mean.empty()
    for values, count in ((first, 2), (second, 4)):
        ours = ours.update(values.astype(np.float32), np.arange(values.shape[1])[None] < count)
    np.testing.assert_allclose(ours.compute(), 14 / 6, rtol=1e-6)


def test_a_weight_for_each_row_is_no_weight_for_each_column():
    """With batch = time, Keras applies a `[batch]` sample weight column by column."""
    per_step = np.array([[1.0, 1.0], [5.0, 5.0]], np.float32)
    weight = np.array([1.0, 0.0], np.float32)

    class Values(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return y_pred

    keras_sum = Values(reduction="sum")(per_step, per_step, sample_weight=weight)
    keras_gives(np.isclose(keras_sum, 6.0))
    mask = np.ones((2, 2), bool)
    np.testing.assert_allclose(jm.losses.reduce(per_step, mask, weight, by="sum"), 2.0)
    by_step = weight[None].repeat(2, 0)
    np.testing.assert_allclose(jm.losses.reduce(per_step, mask, by_step, by="sum"), 6.0)


def test_ctc_takes_a_mask():
    """Keras multiplies the loss of a row, `[batch]`, by a mask `[batch, time]`, and fails."""
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4, 5)).astype(np.float32))
    labels = np.array([[1, 0], [2, 3]])
    with_mask = keras.layers.Masking()(logits)
    with pytest.raises(Exception, match=r"(?i)shape|broadcast|rank|dimension"):
        keras.losses.CTC()(labels, with_mask)
    loss, row_mask = jm.losses.ctc_loss(logits, MASK, labels, labels > 0)
    alone, _ = jm.losses.ctc_loss(logits[:1, :2], None, labels[:1, :1], None)
    np.testing.assert_allclose(loss[0], alone[0], rtol=1e-5)
    assert row_mask.tolist() == [True, True]


def test_a_reversed_layer_returns_the_mask_of_its_outputs():
    """Keras's `go_backwards` reverses the outputs and not the mask, so what follows skips them."""
    weights = lstm_weights()
    layer = keras.layers.LSTM(
        2, return_sequences=True, go_backwards=True, zero_output_for_mask=True
    )
    y = layer(keras.layers.Masking(9.0)(padded()))
    real = np.abs(np.asarray(y)).sum(-1) > 0
    keras_gives(not np.array_equal(real, np.asarray(y._keras_mask)))
    _, (ours, mask) = jm.recurrent.lstm(padded(), MASK, weights, reverse=True)
    np.testing.assert_array_equal(np.abs(ours).sum(-1) > 0, mask)


def test_the_last_step_of_a_padded_row_is_not_zero():
    """Keras's `zero_output_for_mask` zeroes the final output of a right-padded row."""
    layer = keras.layers.LSTM(2, zero_output_for_mask=True)
    y = layer(padded(), mask=MASK)
    keras_gives(not np.asarray(y)[0].any())
    last, row_mask = jm.nn.LSTM(3, 2, return_sequences=False, rngs=nnx.Rngs(0))(padded(), MASK)
    assert np.asarray(last)[0].any()
    assert row_mask.tolist() == [True, True]


def test_a_convolutional_recurrence_takes_a_mask():
    """A mask on Keras's ConvLSTM1D crashes on JAX: rank 2 against a state of rank 4."""
    frames = np.random.default_rng(3).normal(size=(2, 4, 5, 3)).astype(np.float32)
    with pytest.raises(Exception, match=r"(?i)shape|broadcast|rank|dimension"):
        keras.layers.ConvLSTM1D(2, 3)(frames, mask=MASK)
    layer = jm.nn.RNN(jm.nn.ConvLSTMCell(3, 2, (3,), rngs=nnx.Rngs(0)))
    y, _ = layer(frames, MASK)
    alone, _ = layer(frames[:1, :2])
    np.testing.assert_allclose(y[0, :2], alone[0], atol=1e-6)
    assert not np.asarray(y)[0, 2:].any()


def test_one_program_serves_every_mask():
    """A mask turns off each fast path of Keras on JAX; here the lengths are data of one program."""
    weights, traces = lstm_weights(), []

    @jax.jit
    def run(x, mask):
        traces.append(None)
        return jm.recurrent.lstm(x, mask, weights)

    for lengths in ([4, 4], [2, 4], [0, 1], [0, 0]):
        run(ROW, jm.masks.from_lengths(np.array(lengths), 4))
    assert len(traces) == 1


def test_softmax_after_an_embedding():
    """Keras's Softmax wants its mask to broadcast from the right, and refuses one of steps."""
    ids = np.array([[1, 2, 0, 0]])
    embedded = keras.layers.Embedding(5, 3, mask_zero=True)(ids)
    with pytest.raises(Exception, match=r"(?i)shape|broadcast|rank|mask"):
        keras.layers.Softmax()(embedded)
    y, mask = jm.nn.Embed(5, 3, mask_zero=True, rngs=nnx.Rngs(0))(ids)
    weights, _ = jm.ops.softmax(y, mask)
    np.testing.assert_allclose(np.asarray(weights).sum(1), 1, rtol=1e-6)
    assert not np.asarray(weights)[:, 2:].any()


def test_batch_norm_of_one_feature():
    """Keras's batch normalisation squeezes a mask away where there is one feature, and crashes."""
    x = padded()[..., :1]
    with pytest.raises(Exception, match=r"(?i)shape|squeeze|rank|dimension|axis"):
        keras.layers.BatchNormalization()(x, training=True, mask=MASK)
    layer = jm.nn.BatchNorm(1, use_running_average=False, rngs=nnx.Rngs(0))
    y, _ = layer(x, MASK)
    real = np.asarray(y)[MASK]
    np.testing.assert_allclose(real.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(real.std(), 1, atol=1e-3)


def test_a_query_mask_that_is_given_counts():
    """Keras's attention overwrites an explicit `query_mask` by what the tensor carries."""
    q = ROW[:, :, None]
    y, mask = jm.attention.attend(q, MASK, q, q, None)
    np.testing.assert_array_equal(mask, MASK)
    assert not np.asarray(y)[~MASK].any()
