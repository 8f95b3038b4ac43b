"""Averages, chosen classes, exact areas and missing values, against scikit-learn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask import metrics

sk = pytest.importorskip("sklearn.metrics")

SCORES = {
    metrics.Precision: sk.precision_score,
    metrics.Recall: sk.recall_score,
    metrics.F1: sk.f1_score,
}
# Class 3 is never predicted, 4 never true, 5 neither; of 0 none is right.
TARGETS = np.array([[0, 1, 1, 2, 3, 3, 2, 0]])
PREDICTIONS = np.array([[1, 1, 2, 2, 1, 4, 2, 4]])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", [metrics.F1, metrics.Precision, metrics.Recall])
def test_classes_averages_and_zero_division_are_those_of_scikit_learn(kind):
    compared = 0
    for classes, average, zero in itertools.product(
        ((0, 1, 2, 3, 4, 5), (1, 2), (3, 5), (5,), (4, 1)),
        ("micro", "macro", "weighted", None),
        (0.0, 1.0, np.nan),
    ):
        metric = kind.empty(6, average, classes=classes, zero_division=zero)
        found = metric.update(PREDICTIONS, None, TARGETS).compute()
        theirs = SCORES[kind](
            TARGETS[0], PREDICTIONS[0], labels=classes, average=average, zero_division=zero
        )
        np.testing.assert_allclose(found, theirs, rtol=1e-6, err_msg=f"{classes} {average} {zero}")
        compared += 1
    assert compared == 60


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
def test_without_classes_those_count_that_occur(average):
    for kind, theirs in SCORES.items():
        found = kind.empty(6, average).update(PREDICTIONS, None, TARGETS).compute()
        expected = theirs(TARGETS[0], PREDICTIONS[0], average=average, zero_division=0)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_bad_id_is_not_left_out_of_an_average_as_an_undefined_class_is():
    metric = metrics.F1.empty(6, "macro", zero_division=np.nan)
    bad = jax.jit(lambda p: metric.update(p, None, TARGETS).compute())(PREDICTIONS + 3)
    assert np.isnan(bad)
    jax.tree.map(np.testing.assert_array_equal, metric, metric.merge(metric))


def test_accuracy_of_classes():
    update = metrics.Accuracy.empty(6, None, zero_division=1.0).update
    found = update(PREDICTIONS, None, TARGETS).compute()
    np.testing.assert_allclose(found, [0, 0.5, 1, 0, 1, 1])
    one = metrics.Accuracy.empty(6, None, classes=(1, 2))
    no_class = jax.jit(lambda ids: one.update(ids, None, ids).compute())(np.array([[1, 2, 6]]))
    assert np.isnan(no_class).all()
    some = metrics.Accuracy.empty(6, "micro", classes=(1, 2)).update(PREDICTIONS, None, TARGETS)
    assert some.compute() == 0.75
    with pytest.raises(ValueError, match=r"Accuracy.empty: `average`, `classes` and .* need"):
        metrics.Accuracy.empty(average="macro")
    with pytest.raises(ValueError, match=r"F1.empty: `classes` must be different ids below 3"):
        metrics.F1.empty(3, "macro", classes=(1, 3))
    with pytest.raises(ValueError, match=r"F1.empty: `zero_division` must be one of"):
        metrics.F1.empty(3, "macro", zero_division=0.5)
    with pytest.raises(ValueError, match=r"FBeta.empty: `beta` must be above 0"):
        metrics.FBeta.empty(beta=0.0)


# ------------------------------------------------------------------------------ exact areas


@pytest.mark.parametrize("curve", ["roc", "pr"])
def test_exact_areas_of_any_scores_with_ties_and_infinities(curve):
    theirs = {"roc": sk.roc_auc_score, "pr": sk.average_precision_score}[curve]
    draw = np.random.default_rng(0)
    update = jax.jit(lambda m, *one: m.update(*one))
    for trial in range(12):
        scores = draw.normal(size=(4, 8)).astype(np.float32) * 10.0 ** draw.integers(-9, 9)
        scores = np.round(scores, 1) if trial % 2 else scores
        mask, targets = draw.random((4, 8)) < 0.7, draw.integers(0, 2, (4, 8))
        targets[mask.nonzero()[0][:1], mask.nonzero()[1][:1]] = 1
        metric = update(metrics.ExactAUC.empty(70, curve), scores, mask, targets)
        again = update(metric, -scores, mask, targets)
        both = np.concatenate([scores[mask], -scores[mask]]), np.tile(targets[mask], 2)
        if 0 < targets[mask].sum() < mask.sum():
            expected = theirs(targets[mask], scores[mask])
            np.testing.assert_allclose(metric.compute(), expected, rtol=1e-5)
            np.testing.assert_allclose(again.compute(), theirs(both[1], both[0]), rtol=1e-5)
    extreme = np.array([[np.inf, 0.0, -0.0, -np.inf]], np.float32)
    found = metrics.ExactAUC.empty(4, curve).update(extreme, None, np.array([[1, 1, 0, 0]]))
    expected = theirs([1, 1, 0, 0], [3, 2, 2, 1])
    np.testing.assert_allclose(found.compute(), expected, rtol=1e-6)


def test_what_does_not_fit_and_what_is_no_score_is_nan_and_never_lost():
    scores, targets = np.array([[0.1, 0.9, 0.5]], np.float32), np.array([[0, 1, 1]])
    full = metrics.ExactAUC.empty(3).update(scores, None, targets)
    assert full.compute() == 1
    over = full.update(scores[:, :1], None, targets[:, :1])
    assert np.isnan(over.compute())
    assert int(over.count) == 4
    assert np.isnan(full.merge(full).compute())
    assert np.isnan(metrics.ExactAUC.empty(99).merge(over).compute())
    assert metrics.ExactAUC.empty(99).merge(full).merge(full).compute() == 1
    nan = np.array([[0.1, np.nan, 0.5]], np.float32)
    assert np.isnan(metrics.ExactAUC.empty(3).update(nan, None, targets).compute())
    assert metrics.ExactAUC.empty(3).update(nan, ~np.isnan(nan), targets).compute() == 1
    sums = jax.tree.map(lambda x: x.astype(jnp.float32) * 2, full)
    assert np.isnan(sums.compute())


# ----------------------------------------------------------------------------- quantities


def test_r2_of_targets_far_from_zero_and_of_several_outputs():
    draw = np.random.default_rng(0)
    targets = (1e4 + draw.normal(size=(8, 50, 2))).astype(np.float32)
    predictions = (targets + 0.3 * draw.normal(size=targets.shape)).astype(np.float32)
    weights = draw.uniform(0.5, 2, (8, 50)).astype(np.float32)
    mask = draw.random((8, 50)) < 0.8
    metric = metrics.R2Score.empty((2,))
    for rows in (slice(0, 3), slice(3, 8)):
        part = (x[rows] for x in (predictions, mask, targets, weights))
        metric = jax.jit(lambda m, *one: m.update(*one))(metric, *part)
    expected = sk.r2_score(
        targets[mask].astype(float), predictions[mask].astype(float), sample_weight=weights[mask]
    )
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-5)
    constant = np.full((1, 7), 0.1, np.float32)
    for off, score in ((0, 1), (0.5, 0)):
        found = metrics.R2Score.empty().update(constant + np.float32(off), None, constant)
        assert found.compute() == score  # as in scikit-learn where its mean is exact
    assert metrics.R2Score.empty().compute() == 0
    with pytest.raises(ValueError, match=r"R2Score.update: `predictions` must be \[batch, time, o"):
        metrics.R2Score.empty().update(predictions, mask, targets)


def test_bits_per_byte_by_hand():
    nats = np.array([[2.0, 4.0, np.nan], [1.0, np.nan, np.nan]], np.float32)
    sizes = np.array([[1, 4, 99], [2, -1, -1]])
    mask = ~np.isnan(nats)
    metric = metrics.BitsPerByte.empty().update(nats, mask, sizes)
    np.testing.assert_allclose(metric.compute(), 7 / 7 / np.log(2), rtol=1e-6)
    segments = jm.Segments(mask.astype(np.int32), 1)
    assert metrics.BitsPerByte.empty().update(nats, segments, sizes).compute() == metric.compute()
    assert metrics.BitsPerByte.empty().compute() == 0
    assert metrics.BitsPerByte.empty().update(nats, mask, 0 * sizes).compute() == np.inf
    with pytest.raises(TypeError, match="`num_bytes` must be integers"):
        metrics.BitsPerByte.empty().update(nats, mask, nats)
    with pytest.raises(ValueError, match="`num_bytes` must be the shape of `per_step`"):
        metrics.BitsPerByte.empty().update(nats, mask, sizes[0])
