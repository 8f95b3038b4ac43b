"""Metrics against torchmetrics on the real steps alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torchmetrics.functional")
from jaxmask import metrics  # noqa: E402

CLASSES = 4
SCORES = {
    "F1": theirs.classification.multiclass_f1_score,
    "IoU": theirs.classification.multiclass_jaccard_index,
    "Precision": theirs.classification.multiclass_precision,
    "Recall": theirs.classification.multiclass_recall,
}


def rows(seed):
    """A mask with holes, and ids and scores whose padding is no class and nan."""
    draw = np.random.default_rng(seed)
    mask = draw.random((6, 9)) < 0.6
    predictions, targets = draw.integers(0, CLASSES, (2, 6, 9))
    predictions = np.where(draw.random(mask.shape) < 0.4, targets, predictions)
    scores, values = np.round(draw.random((2, 6, 9)), 2).astype(np.float32)
    padding = {-100: (predictions, targets), np.nan: (scores, values)}
    for value, arrays in padding.items():
        for x in arrays:
            x[~mask] = value
    return mask, predictions, targets, scores, values


def real(x, mask):
    return torch.tensor(np.asarray(x)[mask])


def in_two_batches(metric, mask, *arrays):
    """Of both halves, merged."""
    one, other = (
        metric.update(arrays[0][part], mask[part], *(x[part] for x in arrays[1:]))
        for part in (slice(0, 2), slice(2, None))
    )
    return one.merge(other).compute()


@pytest.mark.parametrize("average", ["micro", "macro", "weighted", None])
@pytest.mark.parametrize("name", SCORES)
def test_scores_of_classes(name, average):
    for seed in range(5):
        mask, predictions, targets, *_ = rows(seed)
        metric = getattr(metrics, name).empty(CLASSES, average)
        found = in_two_batches(metric, mask, predictions, targets)
        expected = SCORES[name](
            real(predictions, mask), real(targets, mask), CLASSES, average=average or "none"
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_areas_of_curves():
    for seed in range(10):
        mask, _, targets, scores, _ = rows(seed)
        positive = np.where(mask, targets % 2, -1)
        for curve, function in (
            ("roc", theirs.classification.binary_auroc),
            ("pr", theirs.classification.binary_average_precision),
        ):
            found = in_two_batches(metrics.ExactAUC.empty(99, curve), mask, scores, positive)
            expected = function(real(scores, mask), real(positive, mask))
            np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_quantities():
    for seed in range(10):
        mask, *_, scores, values = rows(seed)
        values = values + 0.5
        for metric, function in (
            (metrics.MeanAbsoluteError, theirs.mean_absolute_error),
            (metrics.MeanSquaredError, theirs.mean_squared_error),
            (metrics.MeanAbsolutePercentageError, theirs.mean_absolute_percentage_error),
            (metrics.R2Score, theirs.r2_score),
        ):
            found = in_two_batches(metric.empty(), mask, scores, values)
            expected = function(real(scores, mask), real(values, mask))
            np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_perplexity_and_edit_distance():
    for seed in range(5):
        mask, predictions, targets, *_ = rows(seed)
        logits = np.random.default_rng(seed).normal(size=(*mask.shape, CLASSES))
        log_p = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))
        chosen = np.take_along_axis(np.asarray(log_p), np.where(mask, targets, 0)[..., None], 2)
        found = metrics.Perplexity.empty().update(-chosen[..., 0], mask).compute()
        expected = theirs.text.perplexity(
            torch.tensor(logits), torch.tensor(targets), ignore_index=-100
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        targets = np.where(mask, targets, 1)  # other steps of it are real below
        found, _ = metrics.edit_distance(predictions, mask, targets, mask[:, ::-1])
        texts = [
            ["".join(map(str, row[at])) for row, at in zip(ids, where, strict=True)]
            for ids, where in ((predictions, mask), (targets, mask[:, ::-1]))
        ]
        expected = [theirs.text.edit_distance(*pair) for pair in zip(*texts, strict=True)]
        np.testing.assert_array_equal(found, expected)
