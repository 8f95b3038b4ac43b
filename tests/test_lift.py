"""Masked losses of losses that know nothing of masks; those of optax are in test_losses.py."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmask as jm
from jaxmask import losses
from tests.losses import MASK, poisoned


def relative_error(predictions, targets, weights, *, scale):
    """Its gradients are nan where the targets or weights are 0, or targets are predictions."""
    error = jnp.linalg.norm(predictions - targets, axis=-1) / jnp.linalg.norm(targets, axis=-1)
    return scale * jnp.sqrt(weights) * error


def inputs():
    rng = np.random.default_rng(0)
    predictions, targets = rng.normal(size=(2, *MASK.shape, 5)).astype(np.float32)
    return predictions, targets, rng.uniform(0.5, 2, MASK.shape).astype(np.float32)


def total_and_gradients(arrays, mask, scale):
    def total(arrays, scale):
        predictions, targets, weights = arrays
        y, _ = losses.lift(relative_error)(predictions, mask, targets, weights, scale=scale)
        return jnp.sum(y), y

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(arrays, scale)


@pytest.mark.parametrize("how", ["nan", "inf", "zero"])
def test_further_arrays_and_options_are_those_of_each_row_alone(how):
    arrays = inputs()
    found = total_and_gradients([poisoned(x, MASK, how) for x in arrays], MASK, 1.5)
    (_, y), (gradients, by_scale) = found
    slopes = []
    for row, real in enumerate(MASK[:3]):
        alone = [x[row][real] for x in arrays]
        np.testing.assert_allclose(y[row][real], relative_error(*alone, scale=1.5), rtol=1e-6)
        expected, slope = jax.grad(
            lambda xs, scale: jnp.sum(relative_error(*xs, scale=scale)), (0, 1)
        )(alone, 1.5)
        slopes.append(slope)
        for ours, theirs in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(ours[row][real], theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_scale, sum(slopes), rtol=1e-5)
    for array in (y, *gradients):
        assert not np.asarray(array)[~MASK].any()


def test_the_loss_never_sees_padding():
    seen = []

    def loss(predictions, targets):
        seen.extend((predictions, targets))
        return predictions - targets

    predictions, targets = np.arange(12.0).reshape(4, 3), np.arange(12).reshape(4, 3) % 5
    losses.lift(loss)(poisoned(predictions, MASK, "nan"), MASK, poisoned(targets, MASK, "nan"))
    # The first real step of the row, or of the first row that has one.
    step = np.array([[0, 1, 0], [4, 4, 5], [6, 6, 8], [0, 0, 0]])
    np.testing.assert_array_equal(seen[0], predictions.ravel()[step])
    np.testing.assert_array_equal(seen[1], targets.ravel()[step])


def test_segments_and_row_masks_pass():
    predictions, targets, _ = inputs()
    loss = losses.lift(optax.losses.cosine_distance)
    segments = jm.Segments(jnp.array([[1, 1, 2], [0, 1, 1], [1, 0, 2], [0, 0, 0]]), 2)
    y, same = loss(predictions, segments, targets)
    np.testing.assert_array_equal(same.ids, segments.ids)
    np.testing.assert_array_equal(y, loss(predictions, segments.ids > 0, targets)[0])
    rows, row_mask = loss(predictions[:, 0], MASK[:, 0], targets[:, 0])
    assert (rows.shape, row_mask.tolist()) == ((4,), MASK[:, 0].tolist())
    every, none = loss(predictions, None, targets)
    assert none is None
    np.testing.assert_array_equal(every, optax.losses.cosine_distance(predictions, targets))


def test_what_a_loss_of_optax_is_made_of_is_lifted():
    loss = losses.lift(optax.losses.make_fenchel_young_loss(jax.nn.logsumexp))
    logits, ids = inputs()[0], np.array([[0, 1, -1], [-1, 2, 0], [1, -1, 2], [-1, -1, -1]])
    y, _ = loss(logits, MASK, jax.nn.one_hot(ids, 5))
    expected, _ = losses.softmax_cross_entropy_with_integer_labels(logits, MASK, ids)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_lift_refuses_what_is_no_value_for_each_step():
    predictions, targets, weights = inputs()
    with pytest.raises(TypeError, match="lift: `loss` must be callable, got str"):
        losses.lift("hinge")
    loss = losses.lift(optax.losses.squared_error)
    where = r"lift\(squared_error\)"
    for bad in (targets[:1], targets[:, :1], targets[:, 0], targets[0]):
        with pytest.raises(ValueError, match=f"{where}: `targets` must begin with the axes"):
            loss(predictions, MASK, bad)
    with pytest.raises(jm.MaskError, match=f"{where}: `mask` must have the shape"):
        loss(predictions, MASK.T, targets)
    with pytest.raises(TypeError, match=f"{where}: `mask` must be boolean"):
        loss(predictions, MASK.astype(np.float32), targets)
    with pytest.raises(TypeError, match=f"{where}: `predictions` must be an array"):
        loss((predictions, MASK), MASK, targets)
    with pytest.raises(TypeError, match=r"lift\(relative_error\): `arrays\[0\]` must be"):
        losses.lift(relative_error)(predictions, MASK, targets, 2.0, scale=1)
    with pytest.raises(ValueError, match=r"`arrays\[0\]` must begin .* goes by keyword"):
        losses.lift(relative_error)(predictions, MASK, targets, weights[0], scale=1)


@pytest.mark.parametrize(
    ("of_result", "error"),
    [
        (jnp.mean, ValueError),
        (lambda y: jnp.sum(y, axis=(1, 2)), ValueError),
        (lambda y: y[:, :2], ValueError),
        (lambda y: (y, None), TypeError),
    ],
)
def test_lift_refuses_a_loss_that_reduces_or_gives_no_array(of_result, error):
    predictions, targets, _ = inputs()

    def loss(predictions, targets):
        return of_result((predictions - targets) ** 2)

    with pytest.raises(error, match=r"lift\(loss\): the loss must give"):
        losses.lift(loss)(predictions, MASK, targets)


def test_lift_refuses_targets_that_broadcast():
    # Where batch and time have one size, NumPy's rules make a table of all pairs of rows.
    predictions, row_mask = np.zeros((3, 1), np.float32), np.ones(3, bool)
    loss = losses.lift(lambda predictions, targets: (predictions - targets) ** 2)
    with pytest.raises(ValueError, match="must not broadcast"):
        loss(predictions, row_mask, predictions[:, 0])
    with pytest.raises(ValueError, match="must not broadcast"):
        loss(np.zeros((3, 3, 1), np.float32), np.ones((3, 3), bool), np.zeros((3, 3)))
