"""Traps that guides to masking fall into: each test shows that jaxmask has not that one."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

import jaxmask as jm
from tests.guide import (
    LADDER,
    SENTENCE_MASK,
    SHORT,
    MyActivation,
    embed_and_lstm,
    flattens,
    growing_rows,
    mean_pools,
    my_sum,
    sentences,
    temporal_softmax,
)


def scores_and_mask():
    """Three rows of scores: one full, one padded, one empty."""
    x = jax.random.normal(jax.random.key(2), (3, 5, 1))
    return x, jm.masks.from_lengths(np.array([5, 3, 0]), time=5)


@temporal_softmax
def test_bug_softmax_divides_by_the_sum_of_logits(softmax):
    x, mask = scores_and_mask()
    np.testing.assert_allclose(jnp.sum(softmax(x, mask), axis=1)[:, 0], [1, 1, 0], atol=1e-6)
    # Logits that sum to 0 made it nan.
    balanced = softmax(jnp.array([[[2.0], [-2.0], [0.0]]]), jnp.array([[True, True, False]]))
    np.testing.assert_allclose(balanced[0, :2, 0], scipy.special.softmax([2.0, -2.0]), rtol=1e-6)


@temporal_softmax
def test_bug_softmax_crashes_without_a_mask(softmax):
    x, _ = scores_and_mask()
    np.testing.assert_allclose(softmax(x, None), scipy.special.softmax(x, axis=1), rtol=1e-5)


@temporal_softmax
def test_bug_softmax_overflows(softmax):
    x, mask = jnp.array([[[1000.0], [999.0], [1e30]]]), jnp.array([[True, True, False]])
    np.testing.assert_allclose(
        softmax(x, mask)[0, :2, 0], scipy.special.softmax([1000.0, 999.0]), rtol=1e-6
    )


@temporal_softmax
@pytest.mark.parametrize("padding", [0.0, np.nan, np.inf])
def test_bug_softmax_of_a_fully_masked_row_is_nan(softmax, padding):
    x, mask = scores_and_mask()
    x = jnp.where(mask[..., None], x, padding)
    weights, gradient = jax.value_and_grad(lambda x: jnp.sum(softmax(x, mask) ** 2))(x)
    assert not softmax(x, mask)[2].any()
    assert np.isfinite(weights)
    assert np.isfinite(gradient).all()
    assert not gradient[~mask].any()


def test_bug_softmax_over_the_feature_axis():
    x, mask = scores_and_mask()
    with pytest.raises(TypeError, match="axis"):
        jm.ops.softmax(x, mask, axis=-1)
    assert jm.ops.softmax(x, mask)[0].max() < 1  # over one feature, each would be 1


def test_bug_the_second_argument_is_no_mask():
    ids, mask = sentences()
    model = jm.nn.Sequential(*embed_and_lstm())
    with pytest.raises(TypeError, match="`mask` must be boolean"):
        model(ids, jax.random.uniform(jax.random.key(0), (3, 6, 1)))
    with pytest.raises(jm.MaskError, match="`mask` must have rank"):
        model(ids, mask[..., None])


def test_bug_a_misspelled_flag_or_parameter_changes_nothing_in_silence():
    class Flagged(MyActivation):
        support_masking = True
        supports_masking = True

    class Misspelled:
        def __call__(self, x, masks=None):
            return x, masks

    for layer in (Flagged(), Misspelled()):
        with pytest.raises(jm.MaskError, match=f"`{type(layer).__name__}`, got a mask"):
            jm.nn.Sequential(layer)(jnp.ones((3, 6, 4)), jnp.array(SENTENCE_MASK))


def test_bug_flatten_leaves_a_mask_that_does_not_match_the_data():
    def flatten_data_alone(x, mask):
        return x.reshape(x.shape[0], -1), mask

    x, mask = jnp.ones((4, 4, 3)), jnp.array(LADDER)
    with pytest.raises(jm.MaskError, match=r"`flatten_data_alone`, returned a mask of shape"):
        jm.nn.Sequential(flatten_data_alone)(x, mask)
    y, flat = jm.nn.Flatten()(x, mask)
    assert flat.shape == y.shape == (4, 12)
    assert flat[0].tolist() == [True] * 3 + [False] * 9


@flattens
def test_bug_sum_knows_its_shapes_by_heart(flatten):
    model = jm.nn.Sequential(flatten, jm.nn.Consume(my_sum))
    for batch, time, features in ((4, 4, 3), (2, 5, 1), (1, 3, 7)):
        mask = jnp.arange(time) < jnp.arange(1, batch + 1)[:, None]
        y, _ = model(jnp.ones((batch, time, features)), mask)
        assert y.tolist() == [features * (row + 1) for row in range(batch)]


@mean_pools
def test_bug_mean_of_a_fully_masked_row_is_nan(pool):
    x, mask = growing_rows(), jnp.array(LADDER).at[1].set(False)
    y, row_mask = pool(x, mask)
    assert y.tolist() == [[10, 10], [0, 0], [20, 20], [25, 25]]
    assert row_mask.tolist() == [True, False, True, True]
    gradient = jax.grad(lambda x: jnp.sum(pool(x, mask)[0]))(x)
    assert not gradient[1].any()
    np.testing.assert_allclose(jnp.sum(gradient, axis=1)[0], [1, 1])


def test_bug_five_mask_rows_for_four_samples():
    mask = jnp.array([*LADDER, LADDER[0]])
    with pytest.raises(jm.MaskError, match=r"\(4, 4\), got \(5, 4\)"):
        jm.pool.mean(growing_rows(), mask)


def test_bug_a_misspelled_build_leaves_a_layer_without_weights():
    embed, lstm = embed_and_lstm()
    assert embed.embedding.shape == (5000, 16)
    assert [w.shape for w in (lstm.w_x, lstm.w_h, lstm.b)] == [(16, 128), (32, 128), (128,)]


@mean_pools
@pytest.mark.parametrize("padding", [7.0, 1e30, np.nan, np.inf])
def test_bug_zeroing_the_padding_is_left_to_the_user(pool, padding):
    x, mask = growing_rows(), jnp.array(LADDER)
    dirty = jnp.where(mask[..., None], x, padding)
    np.testing.assert_array_equal(pool(dirty, mask)[0], pool(x, mask)[0])


def test_bug_a_mask_is_compared_with_none():
    pool = jax.jit(jm.pool.mean)  # `mask == None` on a traced array has no truth value
    x = growing_rows()
    assert pool(x, jnp.array(LADDER))[0][0].tolist() == [10, 10]
    assert pool(x, None)[1] is None


def test_bug_a_layer_that_does_not_know_masks_only_warns():
    def centre(x):
        return x - jnp.mean(x, axis=1, keepdims=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so that only an error can stop it
        with pytest.raises(jm.MaskError, match="function `centre`, got a mask"):
            jm.nn.Sequential(jm.nn.Masking(), centre)(growing_rows())
    y, mask = jm.nn.Sequential(centre)(growing_rows())  # without a mask nothing is wrong
    assert y.shape == (4, 4, 2)
    assert mask is None


def test_bug_a_mask_has_the_shape_of_its_input():
    x = growing_rows()
    with pytest.raises(jm.MaskError, match="A mask marks steps, not features"):
        jm.pool.mean(x, x != 0)
    for layer, given in ((jm.nn.Masking(), x), (embed_and_lstm()[0], jnp.ones((4, 4), int))):
        assert layer(given)[1].shape == (4, 4)


@pytest.mark.parametrize("polarity", ["mask", "paddings"])
def test_bug_true_is_said_to_mean_padding(polarity):
    x, mask = growing_rows(), jnp.array(LADDER)
    if polarity == "paddings":  # where 1 does mean padding, it says so by name
        mask = jm.masks.from_paddings(jm.masks.to_paddings(mask))
    changed = jnp.where(mask[..., None], x, -1)
    np.testing.assert_array_equal(jm.pool.min(x, mask)[0], jm.pool.min(changed, mask)[0])
    assert jm.pool.min(x, mask)[0][:, 0].tolist() == [10, 10, 10, 10]


def test_bug_masking_is_said_to_zero_single_values():
    x = jnp.array([[[4.0, 1.0], [4.0, 4.0], [2.0, 4.0]]])
    y, mask = jm.nn.Masking(4.0)(x)
    assert mask.tolist() == [[True, False, True]]
    assert y.tolist() == [[[4, 1], [0, 0], [2, 4]]]


def test_bug_masking_of_ids_is_a_trap_in_two_dimensions():
    ids, _ = jm.pad_sequences(SHORT)
    ids = ids.astype(np.float32)
    _, row_mask = jm.nn.Masking()(ids)  # one bit a row, since the last axis is features
    with pytest.raises(jm.MaskError, match="a row mask is what pooling returns"):
        jm.pool.mean(ids, row_mask)
    assert jm.masks.from_values(ids).sum(axis=1).tolist() == [3, 2, 4]


class Residual(nnx.Module):
    """A subclass with a nested stack, an operator and raw functions between its layers."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.stack = jm.nn.Sequential(
            jm.nn.Sequential(nnx.Linear(2, 2, rngs=rngs), nnx.relu), jm.nn.LSTM(2, 2, rngs=rngs)
        )
        self.pool = jm.nn.GlobalMeanPool()

    def __call__(self, x, mask=None):
        h, mask = self.stack(x, mask)
        return self.pool(jnp.tanh(x / 40 + h), mask)


def test_bug_masks_are_said_to_stop_inside_a_subclass():
    model = jm.nn.Sequential(jm.nn.Masking(), Residual())
    x, mask = growing_rows(), jnp.array(LADDER)
    y, row_mask = model(x)
    assert row_mask.tolist() == [True] * 4
    for row, length in enumerate((1, 2, 3, 4)):
        alone, _ = model.layers[1](x[row : row + 1, :length])
        np.testing.assert_allclose(y[row], alone[0], atol=1e-6)
    appended = jm.shape.pad(x, mask, (0, 3))
    np.testing.assert_allclose(Residual()(*appended)[0], y, atol=1e-6)
