"""Values that are missing one by one: `where=` in losses and metrics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask import losses, metrics
from tests.losses import MASK, poisoned

sk = pytest.importorskip("sklearn.metrics")

DRAW = np.random.default_rng(0)
SHAPE = (*MASK.shape, 3)
PREDICTIONS, REAL_TARGETS = DRAW.normal(size=(2, *SHAPE)).astype(np.float32)
WHERE = DRAW.random(SHAPE) < 0.6
WHERE[0, 0] = False  # a real step of which nothing is there
WHERE[:, 1] = True  # each feature is there twice at least
SEEN = WHERE & MASK[..., None]
LOSSES = {
    "squared_error": {},
    "l2_loss": {},
    "huber_loss": {"delta": np.full(SHAPE, 0.7, np.float32)},
    "log_cosh": {},
    "absolute_error": {},
    "quantile_loss": {"quantile": 0.3},
    "poisson_nll_loss": {"full": True},
    "hinge_loss": {},
    "sigmoid_binary_cross_entropy": {},
    "sigmoid_focal_loss": {},
}


def targets_of(name):
    if "sigmoid" in name:
        return (REAL_TARGETS > 0).astype(np.int32)
    return np.abs(REAL_TARGETS) if "poisson" in name else REAL_TARGETS


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_missing_changes_no_bit_and_the_mean_is_that_of_what_is_there(name):
    loss = functools.partial(getattr(losses, name), **LOSSES[name])

    @jax.jit
    def mean(predictions, targets, where):
        y, mask = loss(predictions, MASK, targets, where=where)
        return losses.reduce(y, mask, where=where), y

    run = jax.value_and_grad(mean, has_aux=True)
    clean = run(PREDICTIONS, targets_of(name), WHERE)
    dirty = run(*(poisoned(x, SEEN, "nan") for x in (PREDICTIONS, targets_of(name))), WHERE)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    (found, y), gradient = clean
    whole, _ = loss(PREDICTIONS, MASK, targets_of(name))
    np.testing.assert_allclose(found, np.asarray(whole)[SEEN].mean(), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(y)[SEEN], np.asarray(whole)[SEEN], rtol=1e-6)
    assert not np.asarray(y)[~SEEN].any()
    assert not np.asarray(gradient)[~SEEN].any()


def relative(predictions, targets, weights):
    """Its gradients are nan where a target is 0, or is the prediction."""
    return weights[..., None] * jnp.sqrt(jnp.abs(predictions / targets - 1))


def test_a_lifted_loss_takes_where():
    weights = np.arange(1, 13, dtype=np.float32).reshape(MASK.shape)

    @jax.jit
    def run(predictions, targets, weights, where):
        def cost(predictions, targets, weights):
            return losses.lift(relative)(predictions, MASK, targets, weights, where=where)[0]

        y, pull = jax.vjp(cost, predictions, targets, weights)
        return y, pull(jnp.ones_like(y))

    for how in ("nan", "zero"):
        dirty = (poisoned(x, SEEN, how) for x in (PREDICTIONS, REAL_TARGETS))
        y, slopes = run(*dirty, poisoned(weights, MASK, how), WHERE)
        expected = relative(PREDICTIONS, REAL_TARGETS, weights)
        np.testing.assert_allclose(y, np.where(SEEN, expected, 0), rtol=1e-5)
        by_hand = jax.grad(
            lambda *xs: jnp.sum(jnp.where(SEEN, relative(*xs), 0)), argnums=(0, 1, 2)
        )(PREDICTIONS, REAL_TARGETS, weights)
        for slope, theirs in zip(slopes, by_hand, strict=True):
            np.testing.assert_allclose(slope, theirs, rtol=1e-4, atol=1e-6)
    whole = losses.lift(jnp.subtract)(PREDICTIONS, None, REAL_TARGETS, where=WHERE)
    np.testing.assert_allclose(whole[0], np.where(WHERE, PREDICTIONS - REAL_TARGETS, 0), rtol=1e-6)
    with pytest.raises(ValueError, match="`where` goes with a loss that gives one value for each"):
        losses.lift(lambda p, t: jnp.sum(p - t, -1))(PREDICTIONS, MASK, REAL_TARGETS, where=WHERE)
    with pytest.raises(ValueError, match=r"lift\(subtract\).*`where` must be .*one bool for each"):
        losses.lift(jnp.subtract)(PREDICTIONS, MASK, REAL_TARGETS, where=WHERE[..., 0])


def test_nothing_missing_is_the_same_as_no_where():
    y, mask = losses.squared_error(PREDICTIONS, MASK, REAL_TARGETS)
    for by in ("step", "row", "sum"):
        all_there = losses.reduce(y, mask, by=by, where=np.ones(SHAPE, bool))
        np.testing.assert_allclose(all_there, losses.reduce(y, mask, by=by), rtol=1e-6)
    np.testing.assert_allclose(
        losses.reduce(y, mask, by="row", where=WHERE),
        np.mean([np.asarray(y)[b][SEEN[b]].mean() for b in range(3)]),
        rtol=1e-6,
    )
    assert losses.reduce(y, mask, where=np.zeros(SHAPE, bool)) == 0
    # A row of which nothing is there does not count.
    first = WHERE & (np.arange(4) == 0)[:, None, None]
    by_row, by_step = (losses.reduce(y, mask, by=by, where=first) for by in ("row", "step"))
    np.testing.assert_allclose(by_row, by_step, rtol=1e-6)
    rows = losses.squared_error(
        PREDICTIONS[:, 0], MASK[:, 0], REAL_TARGETS[:, 0], where=WHERE[:, 0]
    )
    here = WHERE[:, 0] & MASK[:, :1]
    expected = np.asarray(y)[:, 0][here].mean()
    np.testing.assert_allclose(losses.reduce(*rows, where=WHERE[:, 0]), expected, rtol=1e-6)


def test_metrics_count_what_is_there():
    said, true = PREDICTIONS.astype(float)[SEEN], REAL_TARGETS.astype(float)[SEEN]
    dirty = [poisoned(x, SEEN, "nan") for x in (PREDICTIONS, REAL_TARGETS)]
    for kind, theirs in {
        metrics.MeanSquaredError: sk.mean_squared_error,
        metrics.RootMeanSquaredError: sk.root_mean_squared_error,
        metrics.MeanAbsoluteError: sk.mean_absolute_error,
        metrics.MeanAbsolutePercentageError: sk.mean_absolute_percentage_error,
    }.items():
        found = kind.empty().update(dirty[0], MASK, dirty[1], where=WHERE).compute()
        np.testing.assert_allclose(found, theirs(true, said), rtol=1e-5)
    mean = metrics.Mean.empty().update(dirty[0], MASK, where=WHERE).compute()
    np.testing.assert_allclose(mean, said.mean(), rtol=1e-4, atol=1e-6)
    r2 = metrics.R2Score.empty((3,)).update(dirty[0], MASK, dirty[1], where=WHERE).compute()
    by_output = [
        sk.r2_score(REAL_TARGETS[..., k][SEEN[..., k]], PREDICTIONS[..., k][SEEN[..., k]])
        for k in range(3)
    ]
    np.testing.assert_allclose(r2, np.mean(by_output), rtol=1e-5)


def test_metrics_of_classes_and_scores_count_what_is_there():
    ids, labels = DRAW.integers(0, 3, (2, *SHAPE))
    dirty = [poisoned(x, SEEN, "nan") for x in (ids, labels)]
    for metric, theirs in (
        (metrics.ConfusionMatrix.empty(3), sk.confusion_matrix),
        (metrics.Accuracy.empty(), sk.accuracy_score),
        (metrics.Accuracy.empty(3, "macro"), sk.balanced_accuracy_score),
    ):
        found = metric.update(dirty[0], MASK, dirty[1], where=WHERE).compute()
        np.testing.assert_allclose(found, theirs(labels[SEEN], ids[SEEN]), rtol=1e-6)
    scores = np.round(DRAW.random(SHAPE), 1).astype(np.float32)
    binary = poisoned(labels % 2, SEEN, "nan")
    for metric in (metrics.AUC.empty(10), metrics.ExactAUC.empty(60)):
        found = metric.update(poisoned(scores, SEEN, "nan"), MASK, binary, where=WHERE).compute()
        np.testing.assert_allclose(found, sk.roc_auc_score(binary[SEEN], scores[SEEN]), rtol=1e-5)


def test_a_where_of_another_shape_or_dtype_is_refused():
    for bad in (WHERE[..., 0], WHERE[:1], WHERE[..., :1]):
        with pytest.raises(ValueError, match="squared_error: `where` must be one bool for each"):
            losses.squared_error(PREDICTIONS, MASK, REAL_TARGETS, where=bad)
        with pytest.raises(ValueError, match="reduce: `where` must be one bool for each value"):
            losses.reduce(PREDICTIONS, MASK, where=bad)
    with pytest.raises(TypeError, match=r"Mean.update: `where` must be boolean"):
        metrics.Mean.empty().update(PREDICTIONS, MASK, where=WHERE.astype(np.float32))
    ids = WHERE.astype(np.int32)
    with pytest.raises(ValueError, match=r"F1.update: `where` must be one bool for each value"):
        metrics.F1.empty().update(ids, MASK, ids, where=WHERE[..., 0])
    assert jm.losses.squared_error(PREDICTIONS, None, REAL_TARGETS, where=WHERE)[1] is None
