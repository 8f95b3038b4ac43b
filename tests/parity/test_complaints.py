"""What users of Keras, PyTorch and JAX have asked for where rows are padded, one test each.

The name of the thread that asked stands in each docstring.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

import jaxmask as jm

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(3, 5, 4)).astype(np.float32)
LENGTHS = np.array([5, 2, 0])
MASK = np.arange(5) < LENGTHS[:, None]


def lstm(**options) -> jm.nn.LSTM:
    return jm.nn.LSTM(4, 3, rngs=nnx.Rngs(0), **options)


def poisoned(value: float = np.nan) -> np.ndarray:
    return np.where(MASK[..., None], X, np.float32(value))


# ------------------------------------------------------- masks that are lost, and false alarms


def test_nested_models_keep_the_mask():
    """keras-team/keras#18417."""
    inner = jm.nn.Sequential(lstm(), nnx.Linear(3, 4, rngs=nnx.Rngs(1)))
    _, mask = jm.nn.Sequential(jm.nn.Sequential(inner), lstm())(X, MASK)
    np.testing.assert_array_equal(mask, MASK)


def test_a_layer_of_several_inputs_gets_every_mask():
    """keras-team/keras#19311: a custom layer of several inputs got `mask=None`."""
    _, mask = jm.merge.add((X, MASK), (X, MASK))
    np.testing.assert_array_equal(mask, MASK)
    layer = jm.nn.CrossAttention(1, 4, rngs=nnx.Rngs(0))
    with_memory, _ = layer(X, MASK, poisoned(), MASK)
    assert np.isfinite(with_memory).all()
    np.testing.assert_array_equal(with_memory, layer(X, MASK, poisoned(7), MASK)[0])


def test_no_alarm_where_nothing_is_lost():
    """keras-team/keras#20455: attention warned that it would destroy a mask that it kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, mask = jm.nn.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0))(X, MASK)
    np.testing.assert_array_equal(mask, MASK)


def test_what_cannot_take_a_mask_is_an_error():
    """tensorflow/tensorflow#33260: silence where Flatten or a pooling follows a mask."""
    pooled, row_mask = jm.nn.Sequential(jm.nn.Masking(), jm.nn.GlobalMaxPool())(X, MASK)
    assert row_mask.tolist() == [True, True, False]
    np.testing.assert_allclose(pooled[1], X[1, :2].max(0))
    with pytest.raises(jm.MaskError, match="mask"):
        jm.nn.Sequential(lambda x: x.reshape(3, -1))(X, MASK)


def test_documents_hand_masks_to_the_layer_inside():
    """keras-team/keras#4786: TimeDistributed gave the inner recurrence no mask."""
    documents = np.stack([poisoned(), poisoned()], axis=1)
    masks = np.stack([MASK, MASK], axis=1)
    layer = lstm(return_sequences=False)
    y, row_mask = jm.nn.TimeDistributed(layer)(documents, masks)
    last, alone_mask = layer(X, MASK)
    np.testing.assert_allclose(y[:, 1], last, atol=1e-6)
    np.testing.assert_array_equal(row_mask[:, 1], alone_mask)


@pytest.mark.parametrize("shape", [(3, 1), (1, 5), (3, 4), (5, 3), (3, 5, 4)])
def test_a_mask_of_another_shape_is_refused(shape):
    """keras-team/keras#22037: a mask of the wrong shape was broadcast in silence."""
    for function in (jm.pool.mean, jm.ops.softmax, lstm()):
        with pytest.raises(jm.MaskError, match="mask"):
            function(X, np.ones(shape, bool))


# ------------------------------------------------------------------------ losses and metrics


def test_the_mean_loss_divides_by_real_steps():
    """keras-team/keras#3086: it divided by padded time; and the softmax counted padding."""
    per_step, mask = jm.losses.squared_error(poisoned(), MASK, np.zeros_like(X))
    np.testing.assert_allclose(jm.losses.reduce(per_step, mask), np.mean(X[MASK] ** 2), rtol=1e-6)
    weights, _ = jm.ops.softmax(poisoned(), MASK)
    np.testing.assert_allclose(weights[1, :2], scipy.special.softmax(X[1, :2], axis=0), rtol=1e-5)


def test_a_loss_and_the_same_metric_agree():
    """tensorflow/tensorflow#34491: loss and metric differed under a mask."""
    per_step, mask = jm.losses.squared_error(X, MASK, np.zeros_like(X))
    metric = jm.metrics.MeanSquaredError.empty().update(X, MASK, np.zeros_like(X))
    loss = jm.losses.reduce(per_step, mask)
    np.testing.assert_allclose(metric.compute(), loss, rtol=1e-6)
    mean = jm.metrics.Mean.empty().update(per_step, mask)
    np.testing.assert_allclose(mean.compute(), loss, rtol=1e-6)


def test_metrics_in_a_compiled_step_honour_the_mask():
    """tensorflow/tensorflow#40002: compiled metrics stopped honouring masks."""

    @jax.jit
    def step(metric, x, mask):
        return metric.update(x, mask)

    metric = step(jm.metrics.Mean.empty(), poisoned()[..., 0], MASK)
    np.testing.assert_allclose(metric.compute(), X[MASK][:, 0].mean(), rtol=1e-5)


def test_accuracy_counts_real_steps():
    """keras-team/keras#5572: accuracy counted padding."""
    targets = X.argmax(-1)
    targets[0, 0] = (targets[0, 0] + 1) % 4
    accuracy = jm.metrics.Accuracy.empty().update(poisoned(), MASK, targets).compute()
    np.testing.assert_allclose(accuracy, 6 / 7, rtol=1e-6)


def test_precision_of_one_class_takes_a_mask():
    """keras-team/keras#16271: a mask broke `Precision(class_id=...)`."""
    targets = DRAW.integers(0, 4, (3, 5))
    predictions = X.argmax(-1)
    metric = jm.metrics.Precision.empty().update(predictions == 2, MASK, targets == 2)
    chosen = (predictions == 2) & MASK
    right = chosen & (targets == 2)
    np.testing.assert_allclose(metric.compute(), right.sum() / max(chosen.sum(), 1), rtol=1e-6)


def test_huge_values_at_padded_targets():
    """keras-team/keras#6825: a mask that multiplies turned them into a nan loss."""

    def loss(predictions, targets):
        per_step, mask = jm.losses.squared_error(predictions, MASK, targets)
        return jm.losses.reduce(per_step, mask)

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(poisoned(1e38)), poisoned(-1e38))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


# ------------------------------------------------------------------------- speed and shapes


@pytest.mark.parametrize("lengths", [(5, 3, 1), (5, 5, 5), (1, 0, 0), (0, 0, 0)])
def test_any_lengths_run(lengths):
    """tensorflow/tensorflow#33148 and #43103: such rows died in the fast kernel."""
    mask = jm.masks.from_lengths(np.array(lengths), 5)
    last, _ = lstm(return_sequences=False)(X, mask)
    for row, length in enumerate(lengths):
        alone, _ = lstm(return_sequences=False)(X[row : row + 1, :length])
        np.testing.assert_allclose(last[row], alone[0], atol=1e-6)


def test_new_lengths_do_not_recompile():
    """jax-ml/jax#2521, keras-team/keras#12950: a bounded set of shapes, and data inside them."""
    rows = [X[0, :1].repeat(n, axis=0) for n in DRAW.integers(1, 40, 200)]
    traces = []

    @jax.jit
    def run(x, mask):
        traces.append(x.shape)
        return jm.pool.mean(x, mask)

    for x, mask, _ in jm.bucket_batches(rows, 8, boundaries=(10, 20, 40)):
        run(x, mask)
    assert len(traces) <= 3


# -------------------------------------------------------------------------- rows without a step


def test_attention_of_an_empty_row_has_no_nan():
    """pytorch/pytorch#41508: nan in values and gradients of fully masked rows."""
    layer = jm.nn.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0))

    def loss(x):
        return jnp.sum(layer(x, MASK)[0] ** 2)

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(poisoned(0)))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[2].any()


def test_sequences_of_no_steps_are_sequences():
    """pytorch/pytorch#11514: packing refused them."""
    padded, mask = jm.pad_sequences([np.zeros((0, 4), np.float32), X[0]])
    y, mask = lstm()(padded, mask)
    assert not np.asarray(y)[0].any()
    assert [len(row) for row in jm.unpad_sequences(np.asarray(y), np.asarray(mask))] == [0, 5]


def test_softmax_of_a_fully_masked_row_is_zero():
    """keras-team/keras#21123: uniform in one place, 0 in another."""
    weights, mask = jm.ops.softmax(X, MASK)
    log_weights, _ = jm.ops.log_softmax(X, MASK)
    assert not np.asarray(weights)[2].any()
    assert not np.asarray(log_weights)[2].any()
    assert not np.asarray(mask)[2].any()


def test_the_gradient_of_a_masked_softmax_is_finite():
    """jax-ml/jax#17117: nan gradients of `softmax(where=mask)` with large masked logits."""
    x = jnp.asarray(poisoned(1e38))
    gradient = jax.grad(lambda x: jnp.sum(jm.ops.softmax(x, MASK)[0] ** 2))(x)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[~MASK].any()


# -------------------------------------------------------------------- recurrences, both ways


def test_the_final_output_is_that_of_the_last_real_step():
    """keras-team/keras#17596: `zero_output_for_mask` zeroed it."""
    y, _ = lstm()(X, MASK)
    last, row_mask = lstm(return_sequences=False)(X, MASK)
    np.testing.assert_allclose(last[1], y[1, 1])
    assert not np.asarray(y)[~MASK].any()
    assert row_mask.tolist() == [True, True, False]


def test_no_stale_values_stand_in_the_padding():
    """keras-team/keras#7695: the forward half of Bidirectional repeated its last value."""
    layer = jm.nn.Bidirectional(lstm(), lstm())
    y, _ = layer(poisoned(), MASK)
    assert not np.asarray(y)[~MASK].any()
    np.testing.assert_allclose(y[1, :2], layer(X[1:2, :2])[0][0], atol=1e-6)


def test_a_recurrence_passes_over_holes():
    """google/flax#3507: only `seq_lengths`, no holes."""
    mask = np.array([[True, False, True, True, False]] * 3)
    y, _ = jm.nn.RNN(nnx.GRUCell(4, 3, rngs=nnx.Rngs(0)))(X, mask)
    alone, _ = jm.nn.RNN(nnx.GRUCell(4, 3, rngs=nnx.Rngs(0)))(X[:, [0, 2, 3]])
    np.testing.assert_allclose(y[:, [0, 2, 3]], alone, atol=1e-6)
    assert not np.asarray(y)[~mask].any()


# ----------------------------------------------------------------- layers that are no recurrences


@pytest.mark.parametrize("padding", ["same", "causal", "valid"])
def test_a_convolution_does_not_see_padding(padding):
    """keras-team/keras#12475: asked for since 2015."""
    layer = jm.nn.Conv1D(4, 2, 3, padding=padding, rngs=nnx.Rngs(0))
    y, mask = layer(poisoned(), MASK)
    full, _ = layer(X[:1])
    np.testing.assert_allclose(
        jm.unpad_sequences(np.asarray(y), np.asarray(mask))[0], full[0], atol=1e-6
    )
    if padding != "valid":
        np.testing.assert_allclose(y[1, :2], layer(X[1:2, :2])[0][0], atol=1e-6)


def test_pooling_flatten_and_norms_leave_padding_out():
    """keras-team/keras#3777, pytorch/pytorch#81985, google/flax#3508."""
    np.testing.assert_allclose(jm.pool.mean(poisoned(), MASK)[0][1], X[1, :2].mean(0), rtol=1e-5)
    flat, mask = jm.shape.flatten(poisoned(), MASK)
    np.testing.assert_allclose(np.asarray(flat)[1][np.asarray(mask)[1]], X[1, :2].ravel())
    instance, _ = jm.norm.instance(poisoned(), MASK)
    alone, _ = jm.norm.instance(X[1:2, :2], None)
    np.testing.assert_allclose(instance[1, :2], alone[0], rtol=1e-4, atol=1e-5)
    batch = jm.nn.BatchNorm(4, use_running_average=False, rngs=nnx.Rngs(0))
    real = np.asarray(batch(poisoned(), MASK)[0])[MASK]
    np.testing.assert_allclose(real.mean(0), 0, atol=1e-5)
