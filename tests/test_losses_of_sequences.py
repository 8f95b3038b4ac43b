"""Cross entropy of sequence-to-sequence models, losses of rows, and contrastive losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmask as jm
from jaxmask import losses
from tests.losses import MASK

ITEMS = np.array([True, False, True, True, False, True])


def vectors(seed, rows=len(ITEMS), real=ITEMS):
    x = np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)
    return np.where(real[:, None], x, np.nan)


def ids_and_logits(classes=5):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*MASK.shape, classes)).astype(np.float32)
    targets = rng.integers(0, classes, MASK.shape)
    logits[~MASK], targets[~MASK] = np.nan, -100
    return logits, targets


# ------------------------------------------------------------------- sequence to sequence


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_seq2seq_agrees_with_optax(smoothing):
    logits, targets = ids_and_logits()
    found, _ = losses.seq2seq_cross_entropy(
        logits, MASK, targets, label_smoothing=smoothing, z_loss=0.01
    )
    real, ids = logits[MASK], targets[MASK]
    smooth = optax.losses.smooth_labels(jax.nn.one_hot(ids, 5), smoothing)
    expected = optax.losses.softmax_cross_entropy(real, smooth)
    expected += 0.01 * jax.nn.logsumexp(real, axis=-1) ** 2
    np.testing.assert_allclose(found[MASK], expected, rtol=1e-5)


def test_seq2seq_agrees_with_pytorch_and_so_do_its_gradients():
    torch = pytest.importorskip("torch")
    logits, targets = ids_and_logits()

    def total(x):
        return losses.reduce(*losses.seq2seq_cross_entropy(x, MASK, targets, label_smoothing=0.2))

    value, gradient = jax.value_and_grad(total)(logits)
    theirs = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        theirs.reshape(-1, 5), torch.tensor(targets).reshape(-1), label_smoothing=0.2
    )
    loss.backward()
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient[MASK], theirs.grad.numpy()[MASK], rtol=1e-4, atol=1e-6)


def test_seq2seq_takes_classes_that_are_ruled_out_and_adds_up_in_float32():
    logits = np.array([[[0.0, -np.inf, 0.0]]], np.float32)
    found, _ = losses.seq2seq_cross_entropy(logits, None, np.array([[2]]))
    np.testing.assert_allclose(found, [[np.log(2)]], rtol=1e-6)
    half, _ = losses.seq2seq_cross_entropy(jnp.asarray(logits, jnp.bfloat16), None, np.array([[2]]))
    assert half.dtype == jnp.float32


def test_seq2seq_refuses_what_it_cannot_read():
    logits, targets = ids_and_logits()
    with pytest.raises(ValueError, match="`label_smoothing` must be at least 0 and below 1"):
        losses.seq2seq_cross_entropy(logits, MASK, targets, label_smoothing=1.0)
    with pytest.raises(TypeError, match="`z_loss` must be a Python number"):
        losses.seq2seq_cross_entropy(logits, MASK, targets, z_loss=jnp.ones(()))
    with pytest.raises(ValueError, match="`targets` must be the shape of `logits` without"):
        losses.seq2seq_cross_entropy(logits, MASK, targets[:, :2])
    with pytest.raises(TypeError, match="`logits` must be floating"):
        losses.seq2seq_cross_entropy(np.zeros(logits.shape, int), MASK, targets)


# --------------------------------------------------------------------------- whole rows


@pytest.mark.parametrize("weighted", [False, True])
def test_ranking_softmax_loss_is_that_of_optax_of_each_row_alone(weighted):
    rng = np.random.default_rng(0)
    scores, relevance, weights = rng.normal(size=(3, *MASK.shape)).astype(np.float32)
    weights = weights if weighted else np.ones_like(weights)
    poisoned = [np.where(MASK, x, np.nan) for x in (scores, relevance, weights)]
    options = {"weights": poisoned[2]} if weighted else {}
    found, row_mask = losses.ranking_softmax_loss(poisoned[0], MASK, poisoned[1], **options)
    assert row_mask.tolist() == [True, True, True, False]
    for row, real in enumerate(MASK[:3]):
        alone = [x[row][real] for x in (scores, relevance)]
        expected = optax.losses.ranking_softmax_loss(*alone, weights=weights[row][real])
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)
    assert found[3] == 0


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("options", [{}, {"alpha": 0.3, "beta": 0.7, "ignore_background": True}])
def test_dice_loss_is_that_of_optax_of_each_row_alone(classes, options):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*MASK.shape, 2, classes)).astype(np.float32)
    targets = rng.integers(0, 2, logits.shape)
    logits[~MASK], targets[~MASK] = np.nan, -100
    found, row_mask = losses.dice_loss(logits, MASK, targets, **options)
    assert row_mask.tolist() == [True, True, True, False]
    for row, real in enumerate(MASK[:3]):
        expected = optax.losses.dice_loss(
            logits[row][real][None], targets[row][real][None], **options
        )
        np.testing.assert_allclose(found[row], expected[0], rtol=1e-5)
    assert found[3] == 0


def test_losses_of_rows_refuse_what_they_cannot_read():
    x = np.zeros((*MASK.shape, 2), np.float32)
    with pytest.raises(ValueError, match=r"`logits` must be \[batch, time\]"):
        losses.ranking_softmax_loss(x, MASK, x)
    with pytest.raises(ValueError, match="`weights` must be the shape of `logits`"):
        losses.ranking_softmax_loss(x[..., 0], MASK, x[..., 0], weights=x[:, 0])
    with pytest.raises(ValueError, match=r"`logits` must be \[batch, time, ..., classes\]"):
        losses.dice_loss(x[..., 0], MASK, x[..., 0])
    with pytest.raises(ValueError, match="`targets` must be the shape of `logits`"):
        losses.dice_loss(x, MASK, x[..., 0])


# -------------------------------------------------------------------------- contrastive


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_info_nce_is_cross_entropy_over_the_real_rows_only(similarity):
    torch = pytest.importorskip("torch")
    queries, keys = vectors(0), vectors(1)

    def total(q, k):
        per_item, mask = losses.info_nce(q, ITEMS, k, 0.5, similarity=similarity)
        assert mask.tolist() == ITEMS.tolist()
        return jnp.sum(per_item), per_item

    gradient, found = jax.grad(total, argnums=(0, 1), has_aux=True)(queries, keys)
    q, k = (torch.tensor(x[ITEMS], requires_grad=True) for x in (queries, keys))
    a, b = (torch.nn.functional.normalize(x) if similarity == "cosine" else x for x in (q, k))
    expected = torch.nn.functional.cross_entropy(
        a @ b.T / 0.5, torch.arange(len(q)), reduction="none"
    )
    expected.sum().backward()
    np.testing.assert_allclose(found[ITEMS], expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(gradient, (q, k), strict=True):
        np.testing.assert_allclose(ours[ITEMS], theirs.grad.numpy(), rtol=1e-4, atol=1e-5)
        assert not np.asarray(ours)[~ITEMS].any()


def test_info_nce_of_steps_is_that_of_all_real_steps_as_rows():
    x, y = vectors(0).reshape(2, 3, 3), vectors(1).reshape(2, 3, 3)
    of_rows, _ = losses.info_nce(vectors(0), ITEMS, vectors(1))
    mask = ITEMS.reshape(2, 3)
    of_steps, _ = losses.info_nce(x, mask, y)
    np.testing.assert_allclose(of_steps.ravel(), of_rows, rtol=1e-6)
    packed, same = losses.info_nce(x, jm.Segments(jnp.asarray(mask, jnp.int32), 1), y)
    assert isinstance(same, jm.Segments)
    np.testing.assert_array_equal(packed, of_steps)


def test_ntxent_is_that_of_optax_over_the_real_rows():
    x, labels = vectors(0), np.array([3, 3, 7, 7, 7, 3])  # real: 3, 7, 7, 3
    found, mask = losses.ntxent(x, ITEMS, labels, 0.5)
    assert mask.tolist() == ITEMS.tolist()
    expected = optax.losses.ntxent(jnp.asarray(x[ITEMS]), jnp.asarray(labels[ITEMS]), 0.5)
    np.testing.assert_allclose(losses.reduce(found, mask), expected, rtol=1e-5)


def test_an_item_without_a_positive_has_no_loss_and_is_still_a_negative():
    x = vectors(0, 4, np.ones(4, bool))
    labels = np.array([1, 1, 2, 9])
    found, mask = losses.ntxent(x, np.array([True, True, True, False]), labels, 1.0)
    assert mask.tolist() == [True, True, False, False]
    assert not np.asarray(found)[2:].any()
    without, _ = losses.ntxent(x, np.array([True, True, False, False]), labels, 1.0)
    assert np.all(found[:2] > without[:2])
    alone, mask = losses.ntxent(x, np.array([True, False, False, False]), labels)
    assert not np.asarray(alone).any()
    assert not np.asarray(mask).any()


def test_a_vector_of_zeros_has_a_finite_loss_and_gradient():
    x = np.zeros((2, 3), np.float32)
    for loss in (
        lambda x: jnp.sum(losses.info_nce(x, None, x)[0]),
        lambda x: jnp.sum(losses.ntxent(x, None, np.array([1, 1]))[0]),
    ):
        value, gradient = jax.value_and_grad(loss)(x)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_half_precision_does_not_narrow_targets_and_weights():
    x, mask = jnp.zeros((1, 2), jnp.float16), np.ones((1, 2), bool)
    large = np.full((1, 2), 1e5, np.float32)  # infinite in float16
    found, _ = losses.ranking_softmax_loss(x, mask, np.ones((1, 2)), weights=large)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [2e5 * np.log(2)], rtol=1e-6)
    for function, shape in ((losses.ranking_softmax_loss, (1, 2)), (losses.dice_loss, (1, 2, 1))):
        with pytest.raises(TypeError, match="`targets` must be real numbers"):
            function(jnp.zeros(shape), mask, np.ones(shape, complex))


def test_triplet_margin_loss_is_that_of_optax_of_each_row_alone():
    rng = np.random.default_rng(0)
    real = [rng.normal(size=(*MASK.shape, 3)).astype(np.float32) for _ in range(3)]
    anchors, positives, negatives = (np.where(MASK[..., None], x, np.nan) for x in real)
    found, _ = losses.triplet_margin_loss(anchors, MASK, positives, negatives, margin=0.4)
    for row, steps in enumerate(MASK[:3]):
        expected = optax.losses.triplet_margin_loss(*(x[row][steps] for x in real), margin=0.4)
        np.testing.assert_allclose(found[row][steps], expected, rtol=1e-5, atol=1e-6)
    assert not np.asarray(found)[~MASK].any()


def test_contrastive_losses_refuse_what_they_cannot_read():
    x, labels = vectors(0), np.zeros(6, np.int32)
    with pytest.raises(ValueError, match="info_nce: `similarity` must be one of"):
        losses.info_nce(x, ITEMS, x, similarity="euclid")
    with pytest.raises(ValueError, match="info_nce: `keys` must be the shape of `queries`"):
        losses.info_nce(x, ITEMS, x[:3])
    with pytest.raises(ValueError, match="info_nce: `temperature` must be one number"):
        losses.info_nce(x, ITEMS, x, np.ones(3))
    with pytest.raises(ValueError, match="info_nce: `queries` must have one feature axis"):
        losses.info_nce(x[..., None], ITEMS, x[..., None])
    with pytest.raises(ValueError, match="ntxent: `labels` must be the shape of"):
        losses.ntxent(x, ITEMS, labels[:3])
    with pytest.raises(TypeError, match="ntxent: `labels` must be integer"):
        losses.ntxent(x, ITEMS, x[:, 0])
    with pytest.raises(ValueError, match="triplet_margin_loss: `norm_degree` must be even"):
        losses.triplet_margin_loss(x, ITEMS, x, x, norm_degree=3)
    with pytest.raises(ValueError, match="`negatives` must be the shape of `anchors`"):
        losses.triplet_margin_loss(x, ITEMS, x, x[:3])


def test_an_empty_row_leaves_the_gradients_of_options_of_dice_alone():
    logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)[[[0, 1, 1], [0, 0, 0]]]
    mask = np.array([[True, True, True], [False, False, False]])

    @functools.partial(jax.grad, argnums=(0, 1))
    def slopes(alpha, weights, logits, mask):
        options = {"smooth": 0.0, "alpha": alpha, "class_weights": weights}
        return jnp.sum(losses.dice_loss(logits, mask, targets[: len(logits)], **options)[0])

    found = slopes(0.3, np.ones(4, np.float32), logits, mask)
    alone = slopes(0.3, np.ones(4, np.float32), logits[:1], mask[:1])
    for slope, expected in zip(found, alone, strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_options_of_dice_go_by_row():
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(size=(3, 4, 3)).astype(np.float32), np.ones((3, 4), bool)
    mask[1, 2:] = mask[2] = False
    targets = np.eye(3)[rng.integers(0, 3, (3, 4))]
    for name in ("smooth", "alpha", "beta"):
        by_row = np.array([0.2, 0.9, np.nan], np.float32)  # batch = classes
        y, _ = losses.dice_loss(logits, mask, targets, **{name: by_row})
        for row in range(2):
            one, _ = losses.dice_loss(
                logits[[row]], mask[[row]], targets[[row]], **{name: float(by_row[row])}
            )
            np.testing.assert_allclose(y[row], one[0], rtol=1e-6)
        gradient = jax.grad(
            lambda v, name=name: jnp.sum(losses.dice_loss(logits, mask, targets, **{name: v})[0])
        )(by_row)
        assert np.isfinite(gradient).all()
        with pytest.raises(ValueError, match=f"dice_loss: `{name}` must be one number, or have"):
            losses.dice_loss(logits[:2], mask[:2], targets[:2], **{name: np.ones(3)})
