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


def by_alpha_and_beta(logits, labels, blank=0):
    """The cost of one row and its gradient, in float64: the two recursions of Graves et al."""
    log_p = log_softmax(logits)
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    fresh = np.zeros(len(states), bool)
    fresh[3::2] = labels[1:] != labels[:-1]

    def pass_over(scores, skips):
        alpha = np.full((len(scores), len(states)), -np.inf)
        alpha[0, :2] = scores[0, :2]
        for t in range(1, len(scores)):
            stay = alpha[t - 1]
            one, two = np.r_[-np.inf, stay[:-1]], np.r_[-np.inf, -np.inf, stay[:-2]]
            both = np.logaddexp(np.logaddexp(stay, one), np.where(skips, two, -np.inf))
            alpha[t] = both + scores[t]
        return alpha

    scores = log_p[:, states]
    skips_back = np.r_[False, False, fresh[2:][::-1]]
    alpha = pass_over(scores, fresh)
    beta = pass_over(scores[::-1, ::-1], skips_back)[::-1, ::-1]
    cost = -np.logaddexp(alpha[-1, -1], alpha[-1, -2])
    share = np.exp(alpha + beta - scores + cost)
    return cost, np.exp(log_p) - share @ (states[:, None] == np.arange(log_p.shape[1]))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("scale", "blank_logit"), [(1, 0), (3, 0), (1, 5)])
def test_ctc_of_six_thousand_frames_has_exact_gradients(scale, blank_logit):
    rng = np.random.default_rng(scale + blank_logit)
    logits = (scale * rng.normal(size=(6000, 8))).astype(np.float32)
    logits[:, 0] += blank_logit
    labels = rng.integers(1, 8, 300)
    expected, expected_gradient = by_alpha_and_beta(logits, labels)
    cost, gradient = jax.jit(
        jax.value_and_grad(lambda x: losses.ctc_loss(x[None], None, labels[None], None)[0][0])
    )(logits)
    np.testing.assert_allclose(cost, expected, rtol=2e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=3e-4)


def test_ctc_is_never_below_zero_and_is_not_cut_off():
    sure = losses.ctc_loss(np.array([[[0.0, 17.0], [0.0, 17.0]]]), None, np.array([[1]]), None)
    assert 0 <= sure[0][0] < 1e-6
    # The label is certain at the second frame, and on either side it does not matter.
    certain = np.random.default_rng(0).normal(size=(500, 3, 2)).astype(np.float32)
    certain[:, 1] += [-40, 40]
    cost, _ = losses.ctc_loss(certain, None, np.ones((500, 1), int), None)
    assert np.all((cost >= 0) & (cost < 1e-5))

    far = np.full((20, 3), [5000, 0, -5000], np.float32)
    labels = np.array([1, 2] * 10)  # as many as frames: one alignment
    cost, _ = losses.ctc_loss(far[None], None, labels[None], None)
    assert cost[0] == 150_000
    far = np.tile(far, (2, 1))
    cost, _ = losses.ctc_loss(far[None], None, labels[None], None)
    np.testing.assert_allclose(cost[0], by_alpha_and_beta(far, labels)[0], rtol=1e-7)


def rows_without_an_alignment():
    """More labels than frames, a repeat too many, a class ruled out; and one that fits."""
    logits = np.zeros((4, 3, 4), np.float32)
    logits[2, :, 3] = -np.inf
    mask = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 1, 1]], bool)
    labels = np.array([[1, 2, 3], [2, 2, 0], [1, 3, 0], [2, 2, 0]], np.int32)
    label_mask = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 0]], bool)
    return logits, mask, labels, label_mask


@pytest.mark.sampled(2)
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_ctc_rows_without_an_alignment_cost_inf_or_are_left_out(zero_infinity):
    logits, mask, labels, label_mask = rows_without_an_alignment()

    def total(x):
        cost, row_mask = losses.ctc_loss(x, mask, labels, label_mask, zero_infinity=zero_infinity)
        return jnp.sum(cost), (cost, row_mask)

    gradient, (cost, row_mask) = jax.jit(jax.grad(total, has_aux=True))(logits)
    expected, expected_gradient = by_alpha_and_beta(logits[3], labels[3, :2])
    assert np.all(cost[:3] == (0 if zero_infinity else np.inf))
    assert row_mask.tolist() == [not zero_infinity] * 3 + [True]
    np.testing.assert_allclose(cost[3], expected, rtol=1e-6)
    assert not gradient[:3].any()
    np.testing.assert_allclose(gradient[3], expected_gradient, atol=1e-6)

    along = jnp.ones_like(logits).at[..., 1].set(2)
    _, slope = jax.jvp(lambda x: total(x)[1][0], (logits,), (along,))
    np.testing.assert_allclose(slope, [0, 0, 0, np.vdot(along[3], expected_gradient)], atol=1e-6)
    second = jax.jit(jax.grad(lambda x: jnp.vdot(jax.grad(lambda z: total(z)[0])(x), along)))
    assert np.isfinite(second(logits)).all()


def test_ctc_labels_that_are_no_class_are_refused_or_nan():
    logits, mask, labels, label_mask = ctc_inputs(0)
    clean, _ = ctc(logits, mask, labels, label_mask)
    for wrong in (-1, -100, 3, 2**31 - 1, 0):  # 0 is the blank
        spoiled = np.where(np.arange(6)[:, None] == 2, wrong, labels).astype(np.int32)
        with pytest.raises(ValueError, match=r"ctc_loss: `labels` must lie in 0..2 and not be 0"):
            losses.ctc_loss(logits, mask, spoiled, label_mask)

        @jax.jit
        @functools.partial(jax.grad, has_aux=True)
        def gradient_and_cost(x, labels):
            cost, _ = losses.ctc_loss(x, mask, labels, label_mask)
            return jnp.sum(cost), cost

        gradient, cost = gradient_and_cost(logits, spoiled)
        assert np.isnan(cost).tolist() == [False, False, True, False, False, False]
        np.testing.assert_array_equal(np.delete(cost, 2), np.delete(clean, 2))
        assert np.isfinite(gradient).all()
        assert not gradient[2].any()


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
    with pytest.raises(jm.MaskError, match=r"ctc_loss: `label_mask` must have .* axes of `labels`"):
        losses.ctc_loss(logits, mask, labels, mask)
    with pytest.raises(jm.MaskError, match="Segments"):
        losses.ctc_loss(logits, jm.Segments(mask.astype(np.int32), 1), labels, label_mask)
