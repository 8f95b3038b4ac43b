"""Metrics of counts against scikit-learn, over batches of any length and over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask import metrics

sk = pytest.importorskip("sklearn.metrics")

CLASSES = 4
EVERY = {
    "matrix": metrics.ConfusionMatrix.empty(CLASSES),
    **{
        f"{kind.__name__}:{average}": kind.empty(2 if average == "binary" else CLASSES, average)
        for kind in (metrics.Precision, metrics.Recall, metrics.F1, metrics.IoU)
        for average in ("binary", "macro", "micro", "weighted", None)
    },
    "FBeta:macro": metrics.FBeta.empty(CLASSES, "macro", beta=2.0),
    "accuracy:macro": metrics.Accuracy.empty(CLASSES, "macro"),
    "accuracy:None": metrics.Accuracy.empty(CLASSES, None),
    "roc": metrics.AUC.empty(20),
    "pr": metrics.AUC.empty(20, "pr"),
    "top": metrics.TopKAccuracy.empty(2),
    "exact:roc": metrics.ExactAUC.empty(60),
    "exact:pr": metrics.ExactAUC.empty(60, "pr"),
    "squares": metrics.MeanSquaredError.empty(),
    "rmse": metrics.RootMeanSquaredError.empty(),
    "mae": metrics.MeanAbsoluteError.empty(),
    "mape": metrics.MeanAbsolutePercentageError.empty(),
    "r2": metrics.R2Score.empty(),
}
QUANTITIES = ("squares", "rmse", "mae", "mape", "r2")
SK_SCORES = {
    "Precision": sk.precision_score,
    "Recall": sk.recall_score,
    "F1": sk.f1_score,
    "IoU": sk.jaccard_score,
    "FBeta": functools.partial(sk.fbeta_score, beta=2.0),
}


def batch(name, seed, time=5):
    """Predictions, mask and targets, with garbage in the padding."""
    rng = np.random.default_rng(seed)
    mask = rng.random((4, time)) < 0.7
    mask[-1] = False
    if name in QUANTITIES:
        return tuple(
            x if x.dtype == bool else np.where(mask, x, np.nan).astype(np.float32)
            for x in (rng.normal(size=mask.shape), mask, rng.normal(size=mask.shape))
        )
    of_scores = name.removeprefix("exact:") in ("roc", "pr")
    classes = 2 if "binary" in name or of_scores else CLASSES
    targets = np.where(mask, rng.integers(0, classes, mask.shape), -100)
    if name == "top":
        logits = rng.normal(size=(*mask.shape, classes)).astype(np.float32)
        return np.where(mask[..., None], logits, np.nan), mask, targets
    if of_scores:
        scores = rng.integers(0, 21, mask.shape).astype(np.float32) / 20
        return np.where(mask, scores, np.nan), mask, targets
    return np.where(mask, rng.integers(0, classes, mask.shape), 10**9), mask, targets


def expected(name, batches):
    """Of the real steps of all batches at once."""
    real = [(p[m], t[m]) for p, m, t in batches]
    p, t = (np.concatenate(parts) for parts in zip(*real, strict=True))
    kind, _, average = name.partition(":")
    average = None if average == "None" else average
    if kind in SK_SCORES:
        options = {"labels": range(CLASSES)} if average is None else {}
        return SK_SCORES[kind](t, p, average=average, zero_division=0, **options)
    if kind == "accuracy":
        return (
            sk.balanced_accuracy_score(t, p)
            if average
            else sk.recall_score(t, p, labels=range(CLASSES), average=None)
        )
    return {
        "matrix": lambda: sk.confusion_matrix(t, p, labels=range(CLASSES)),
        "roc": lambda: sk.roc_auc_score(t, p),
        "pr": lambda: sk.average_precision_score(t, p),
        "top": lambda: sk.top_k_accuracy_score(t, p, k=2, labels=range(CLASSES)),
        "squares": lambda: sk.mean_squared_error(t, p),
        "rmse": lambda: sk.root_mean_squared_error(t, p),
        "mae": lambda: sk.mean_absolute_error(t, p),
        "mape": lambda: sk.mean_absolute_percentage_error(t, p),
        "r2": lambda: sk.r2_score(t, p),
    }[name.removeprefix("exact:")]()


def value(metric):
    return np.asarray(metric.compute())


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", EVERY)
def test_batches_of_any_length_merge_into_what_scikit_learn_gives_for_all_at_once(name):
    batches = [batch(name, seed, time) for seed, time in enumerate((5, 1, 9))]
    in_turn = EVERY[name]
    for one in batches:
        in_turn = in_turn.update(*one)
    np.testing.assert_allclose(value(in_turn), expected(name, batches), rtol=1e-5)
    apart = [jax.jit(EVERY[name].update)(*one) for one in batches]
    merged = apart[2].merge(apart[0].merge(apart[1]))
    np.testing.assert_allclose(value(merged), value(in_turn), rtol=1e-6)
    of_batches = np.mean([value(metric) for metric in apart], axis=0)
    assert not np.allclose(of_batches, value(in_turn))  # else a mean of means would pass too


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", EVERY)
def test_psum_merges_the_metrics_of_devices(name):
    batches = [batch(name, seed) for seed in range(3)]

    @functools.partial(jax.vmap, axis_name="device")
    def on_a_device(*one):
        metric = EVERY[name].update(*one)
        if isinstance(metric, metrics.ExactAUC):
            return metric.gather("device").compute()
        return jax.lax.psum(metric, "device").compute()

    found = on_a_device(*(np.stack(parts) for parts in zip(*batches, strict=True)))
    for of_a_device in found:
        np.testing.assert_allclose(of_a_device, expected(name, batches), rtol=1e-5)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", EVERY)
def test_nothing_counted_is_zero_and_a_batch_of_padding_changes_nothing(name):
    empty = EVERY[name]
    assert not value(empty).any()
    predictions, mask, targets = batch(name, 0)
    metric = empty.update(predictions, mask, targets)
    after = metric.update(predictions, np.zeros_like(mask), targets)
    jax.tree.map(np.testing.assert_array_equal, after, metric)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", EVERY)
def test_metrics_are_scanned_and_donated(name):
    one = batch(name, 0)

    @functools.partial(jax.jit, donate_argnums=0)
    def twice(metric):
        return jax.lax.scan(lambda m, _: (m.update(*one), None), metric, None, length=2)[0]

    found = twice(jax.tree.map(jnp.copy, EVERY[name]))
    eager = EVERY[name].update(*one).update(*one)
    np.testing.assert_allclose(value(found), value(eager), rtol=1e-6)
    assert jax.tree.structure(found) == jax.tree.structure(EVERY[name])


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", EVERY)
def test_other_kinds_and_other_options_do_not_merge(name):
    metric = EVERY[name]
    other = EVERY["top" if name != "top" else "roc"]
    with pytest.raises(TypeError, match=f"{type(metric).__name__}.merge: expected another"):
        metric.merge(other)


def test_options_must_agree_to_merge():
    with pytest.raises(ValueError, match="must have the same `k`, got 2 and 3"):
        metrics.TopKAccuracy.empty(2).merge(metrics.TopKAccuracy.empty(3))
    with pytest.raises(ValueError, match="must have the same `average`"):
        metrics.F1.empty(3, "macro").merge(metrics.F1.empty(3, "micro"))
    with pytest.raises(ValueError, match="must have the same `num_classes`, got 3 and 4"):
        metrics.ConfusionMatrix.empty(3).merge(metrics.ConfusionMatrix.empty(4))
    with pytest.raises(ValueError, match="must have the same `resolution`, got 20 and 30"):
        metrics.AUC.empty(20).merge(metrics.AUC.empty(30))
    with pytest.raises(ValueError, match="must have the same `curve`"):
        metrics.AUC.empty(20).merge(metrics.AUC.empty(20, "pr"))


def test_what_can_be_counted_nowhere_is_seen():
    mask = np.array([[True, True, False]])
    metric = metrics.F1.empty(3, "macro")
    for bad in (3, -1, -100):
        ids = np.array([[0, bad, bad]])
        for name, pair in (("predictions", (ids, 0 * ids)), ("targets", (0 * ids, ids))):
            with pytest.raises(ValueError, match=f"F1.update: `{name}` must lie in 0..2 at real"):
                metric.update(pair[0], mask, pair[1])
            assert np.isnan(jax.jit(lambda p, t: metric.update(p, mask, t).compute())(*pair))
            clean = np.where(mask & (pair[0] == 0) & (pair[1] == 0), mask, False)
            metric.update(pair[0], clean, pair[1])
    for bad in (1.5, -0.1, np.nan):
        scores = np.array([[0.5, bad, bad]], np.float32)
        assert np.isnan(metrics.AUC.empty().update(scores, mask, np.array([[0, 1, 1]])).compute())


def test_logits_segments_row_masks_and_no_mask():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3, CLASSES)).astype(np.float32)
    targets = rng.integers(0, CLASSES, (4, 3))
    metric = metrics.ConfusionMatrix.empty(CLASSES)
    whole = sk.confusion_matrix(targets.ravel(), logits.argmax(-1).ravel(), labels=range(CLASSES))
    np.testing.assert_array_equal(metric.update(logits, None, targets).compute(), whole)
    segments = jm.Segments(jnp.array([[1, 2, 0]] * 4), 2)
    packed = metric.update(logits, segments, targets).compute()
    masked = metric.update(logits, np.array([[True, True, False]] * 4), targets).compute()
    np.testing.assert_array_equal(packed, masked)
    rows = metric.update(logits, np.array([True, False, True, True]), targets).compute()
    assert rows.sum() == 9
    top = metrics.TopKAccuracy.empty(1).update(logits, None, targets)
    np.testing.assert_array_equal(
        top.compute(), metrics.Accuracy.empty().update(logits, None, targets).compute()
    )


def test_ties_go_to_the_first_class():
    logits, targets = np.zeros((1, 3, 3), np.float32), np.array([[0, 1, 2]])
    for k, right in ((1, 1), (2, 2), (3, 3), (9, 3)):
        metric = metrics.TopKAccuracy.empty(k).update(logits, None, targets)
        np.testing.assert_allclose(metric.compute(), right / 3, rtol=1e-6)
    nan = np.full((1, 1, 3), np.nan, np.float32)
    assert metrics.TopKAccuracy.empty(2).update(nan, None, targets[:, :1]).compute() == 0


def test_weights_of_squares_are_those_of_the_mean():
    predictions, mask, targets = batch("squares", 0)
    weights = np.random.default_rng(1).uniform(1, 2, mask.shape).astype(np.float32)
    found = metrics.MeanSquaredError.empty().update(predictions, mask, targets, weights).compute()
    theirs = sk.mean_squared_error(targets[mask], predictions[mask], sample_weight=weights[mask])
    np.testing.assert_allclose(found, theirs, rtol=1e-5)


def test_scores_between_the_levels_are_those_of_the_rounded_ones():
    rng = np.random.default_rng(0)
    scores, targets = rng.random((1, 200)).astype(np.float32), rng.integers(0, 2, (1, 200))
    for curve, theirs in (("roc", sk.roc_auc_score), ("pr", sk.average_precision_score)):
        even = np.round(scores * 50) / np.float32(50)
        found = metrics.AUC.empty(50, curve).update(even, None, targets).compute()
        np.testing.assert_allclose(found, theirs(targets[0], even[0]), rtol=1e-5)
        fine = metrics.AUC.empty(10**5, curve).update(scores, None, targets).compute()
        np.testing.assert_allclose(fine, theirs(targets[0], scores[0]), rtol=1e-4)


@pytest.mark.parametrize("top", [1e-3, 1e-7])
def test_auc_ranks_rare_positives_of_small_scores(top):
    rng = np.random.default_rng(0)
    targets = rng.random((1, 200_000)) < 1e-4
    scores = rng.beta(1 + targets, 3, targets.shape).astype(np.float32) * np.float32(top)
    for s, t in ((scores, targets), (1 - scores, ~targets)):
        if top == 1e-7 and s is not scores:  # float32 does not tell these from 1
            continue
        for curve, theirs in (("roc", sk.roc_auc_score), ("pr", sk.average_precision_score)):
            found = metrics.AUC.empty(curve=curve).update(s, None, t).compute()
            rtol = 5e-4 if curve == "roc" else 1e-2  # a tie at the very top counts much in "pr"
            np.testing.assert_allclose(found, theirs(t[0], s[0]), rtol=rtol)


def test_auc_of_answers_that_are_no_answers():
    scores, targets = np.array([[0.5, 0.2, 0.7]], np.float32), np.array([[1, 0, -100]])
    update = metrics.AUC.empty().update
    with pytest.raises(ValueError, match=r"AUC.update: `targets` must lie in 0..1 at real steps"):
        update(scores, None, targets)
    assert np.isnan(jax.jit(lambda t: update(scores, None, t).compute())(targets))
    assert update(scores, targets >= 0, targets).compute() == 1


def test_metrics_of_counts_refuse_what_they_cannot_read():
    ids, mask = np.zeros((2, 3), np.int32), np.ones((2, 3), bool)
    scores = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"Precision.empty: `average` of 3 classes must be"):
        metrics.Precision.empty(3)
    with pytest.raises(ValueError, match=r"Recall.empty: `average` must be one of"):
        metrics.Recall.empty(3, "samples")
    with pytest.raises(ValueError, match="must have 4 classes along the last axis"):
        metrics.ConfusionMatrix.empty(4).update(np.zeros((2, 3, 5), np.float32), mask, ids)
    with pytest.raises(TypeError, match=r"F1.update: `predictions` must be class ids"):
        metrics.F1.empty().update(scores, mask, ids)
    with pytest.raises(jm.MaskError, match=r"F1.update: `mask` must have the shape"):
        metrics.F1.empty().update(ids, mask.T, ids)
    with pytest.raises(TypeError, match=r"AUC.update: `targets` must be 0 or 1"):
        metrics.AUC.empty().update(scores, mask, scores)
    with pytest.raises(ValueError, match=r"AUC.update: `targets` must be the shape of"):
        metrics.AUC.empty().update(scores, mask, ids[:, :1])
    with pytest.raises(ValueError, match=r"AUC.empty: `curve` must be one of 'roc', 'pr'"):
        metrics.AUC.empty(curve="det")
    with pytest.raises(ValueError, match=r"TopKAccuracy.update: `targets` must be the shape of"):
        metrics.TopKAccuracy.empty().update(scores, mask, ids)
    with pytest.raises(ValueError, match="`k` must be at least 1"):
        metrics.TopKAccuracy.empty(0)
    with pytest.raises(ValueError, match="squared_error: `targets` must be the shape of"):
        metrics.MeanSquaredError.empty().update(scores, mask, scores[:, :1])
