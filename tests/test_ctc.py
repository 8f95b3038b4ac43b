"""CTC."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmask as jm
from jaxmask import losses
from tests.losses import log_softmax, poisoned


def cost_by_enumeration(logits, labels, blank):
    """-log of the probability of all alignments that spell the labels, one by one."""
    log_p = log_softmax(logits)
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        spelled = [token for token, _ in itertools.groupby(path) if token != blank]
        if spelled == list(labels):
            total += np.exp(sum(log_p[t, k] for t, k in enumerate(path)))
    return -np.log(total)


ctc = jax.jit(losses.ctc_loss, static_argnames="blank_id")


def ctc_inputs(blank):
    rng = np.random.default_rng(blank)
    logits = rng.normal(size=(6, 5, 3)).astype(np.float32)
    one, two = [k for k in range(3) if k != blank]
    labels = np.array([[one, two], [one, one], [two, 9], [9, one], [9, 9], [one, two]], np.int32)
    label_mask = np.array([[1, 1], [1, 1], [1, 0], [0, 1], [0, 0], [1, 1]], bool)
    mask = np.array(
        [
            [1, 1, 1, 1, 1],
            [1, 1, 1, 1, 0],
            [0, 0, 1, 1, 1],
            [1, 0, 1, 0, 1],
            [1, 1, 0, 0, 0],
            [0, 0, 0, 0, 0],
        ],
        bool,
    )
    return logits, mask, labels, label_mask


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_adds_up_all_alignments_of_the_real_frames(blank):
    logits, mask, labels, label_mask = ctc_inputs(blank)
    cost, row_mask = ctc(logits, mask, labels, label_mask, blank_id=blank)
    assert row_mask.tolist() == [True] * 5 + [False]
    for row in range(5):
        frames, spelled = logits[row][mask[row]], labels[row][label_mask[row]]
        np.testing.assert_allclose(
            cost[row], cost_by_enumeration(frames, spelled, blank), rtol=1e-5
        )
    assert cost[5] == 0


def test_ctc_gradients_are_those_of_the_row_alone_and_blind_to_padding():
    logits, mask, labels, label_mask = ctc_inputs(0)

    @jax.jit
    def value_and_gradient(logits, labels):
        def total(x):
            cost, _ = losses.ctc_loss(x, mask, labels, label_mask)
            return jnp.sum(cost), cost

        return jax.value_and_grad(total, has_aux=True)(logits)

    clean = value_and_gradient(poisoned(logits, mask, "zero"), poisoned(labels, label_mask, "zero"))
    for how in ("nan", "inf", "-inf", "huge"):
        dirty = value_and_gradient(poisoned(logits, mask, how), poisoned(labels, label_mask, how))
        jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    _, gradient = clean
    assert np.all(np.asarray(gradient)[~mask] == 0)

    @jax.jit
    @jax.grad
    def alone(frames, spelled):
        return optax.losses.ctc_loss(
            frames[None], jnp.zeros((1, 3)), spelled[None], jnp.zeros((1, 1))
        )[0]

    for row in (2, 3):  # padded on the left, and with holes
        expected = alone(logits[row][mask[row]], labels[row][label_mask[row]])
        np.testing.assert_allclose(gradient[row][mask[row]], expected, rtol=1e-4, atol=1e-5)


def test_ctc_without_masks_frames_or_labels():
    logits = np.zeros((2, 3, 4), np.float32)
    labels = np.ones((2, 1), np.int32)
    cost, row_mask = ctc(logits, None, labels, None)
    assert row_mask is None
    np.testing.assert_allclose(cost, cost_by_enumeration(logits[0], [1], 0), rtol=1e-6)

    silence, _ = ctc(logits, None, labels[:, :0], None)
    np.testing.assert_allclose(silence, 3 * np.log(4), rtol=1e-6)

    no_time = np.zeros((2, 0), bool)
    cost, row_mask = losses.ctc_loss(logits[:, :0], no_time, labels, None)
    assert (cost.tolist(), row_mask.tolist()) == ([0, 0], [False, False])


def test_ctc_labels_that_cannot_fit_cost_much_but_stay_finite():
    logits = np.zeros((2, 2, 4), np.float32)
    labels = np.array([[1, 2, 3], [1, 1, 0]], np.int32)
    label_mask = np.array([[1, 1, 1], [1, 1, 0]], bool)  # equal labels need a blank between

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_and_cost(x):
        cost, _ = losses.ctc_loss(x, None, labels, label_mask)
        return jnp.sum(cost), cost

    gradient, cost = gradient_and_cost(logits)
    assert np.all((cost >= 1e5) & (cost < 1e6))
    assert np.all(np.isfinite(gradient))


def test_ctc_of_a_class_that_is_ruled_out_is_that_without_it():
    logits, mask, labels, label_mask = ctc_inputs(0)
    labels = np.where(label_mask, 1, labels)
    ruled_out = np.where(mask[..., None] & (np.arange(3) == 2), -np.inf, logits)
    without = np.delete(logits, 2, axis=2)

    def cost(x):
        return jnp.sum(losses.ctc_loss(x, mask, labels, label_mask)[0])

    ours, theirs = (jax.value_and_grad(cost)(x) for x in (ruled_out, without))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    np.testing.assert_allclose(np.delete(ours[1], 2, axis=2), theirs[1], atol=1e-6)
    assert not ours[1][..., 2].any()


def test_ctc_in_half_precision_adds_up_in_float32():
    logits, mask, labels, label_mask = ctc_inputs(0)
    cost, _ = ctc(jnp.asarray(logits, jnp.bfloat16), mask, labels, label_mask)
    rounded = jnp.asarray(logits, jnp.bfloat16).astype(jnp.float32)
    assert cost.dtype == jnp.float32
    np.testing.assert_allclose(cost, ctc(rounded, mask, labels, label_mask)[0], rtol=1e-6)


def test_ctc_refuses_what_it_cannot_read():
    logits, mask, labels, label_mask = ctc_inputs(0)
    with pytest.raises(ValueError, match="ctc_loss: `blank_id` must be at least 0"):
        losses.ctc_loss(logits, mask, labels, label_mask, blank_id=-1)
    with pytest.raises(ValueError, match="ctc_loss: `blank_id` must be one of the 3 classes"):
        losses.ctc_loss(logits, mask, labels, label_mask, blank_id=3)
    with pytest.raises(ValueError, match="ctc_loss: `logits` must be"):
        losses.ctc_loss(logits[..., 0], mask, labels, label_mask)
    with pytest.raises(ValueError, match="ctc_loss: `labels` must be"):
        losses.ctc_loss(logits, mask, labels[:2], label_mask[:2])
    with pytest.raises(TypeError, match="ctc_loss: `labels` must be integer"):
        losses.ctc_loss(logits, mask, labels.astype(np.float32), label_mask)
    with pytest.raises(TypeError, match="ctc_loss: `logits` must be floating"):
        losses.ctc_loss(logits.astype(np.int32), mask, labels, label_mask)
    with pytest.raises(jm.MaskError, match=r"ctc_loss: `mask` must have .* axes of `logits`"):
        losses.ctc_loss(logits, mask[:, :2], labels, label_mask)
    with pytest.raises(jm.MaskError, match=r"ctc_loss: `mask` must have .* axes of `labels`"):
        losses.ctc_loss(logits, mask, labels, mask)
    with pytest.raises(jm.MaskError, match="Segments"):
        losses.ctc_loss(logits, jm.Segments(mask.astype(np.int32), 1), labels, label_mask)
