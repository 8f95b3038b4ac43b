"""Metrics as pytrees, and the edit distance."""

import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

import jaxmask as jm
from jaxmask import losses, metrics
from tests.x64 import enable_x64

ALL = [metrics.Mean, metrics.Accuracy, metrics.Perplexity, metrics.TokenErrorRate]
RATIOS = [metrics.Mean, metrics.Perplexity]

# Rows of one batch: full, padded right, with a hole, empty.
MASK = np.array([[1, 1, 1], [1, 0, 0], [1, 0, 1], [0, 0, 0]], bool)


def updated(metric, seed, time=3):
    """The metric after one batch, of whichever kind it is."""
    rng = np.random.default_rng(seed)
    mask = rng.random((4, time)) < 0.6
    values = np.where(mask, rng.random((4, time)), np.nan).astype(np.float32)
    ids, other = rng.integers(0, 3, (2, 4, time)).astype(np.int32)
    if isinstance(metric, metrics.TokenErrorRate):
        return metric.update(ids, mask, other, mask[:, ::-1])
    if isinstance(metric, metrics.Accuracy):
        return metric.update(ids, mask, other)
    return metric.update(values, mask)


def exactly(compensated):
    """The sum in one number of 64 bits."""
    return float(compensated.high) + float(compensated.low)


# ------------------------------------------------------------------- what all metrics are


@pytest.mark.parametrize("kind", ALL)
def test_an_empty_metric_computes_zero(kind):
    assert kind.empty().compute() == 0
    assert kind.empty().merge(kind.empty()).compute() == 0
    assert kind.empty().compute().dtype == jnp.float32


@pytest.mark.parametrize("kind", ALL)
def test_merging_is_seeing_all_batches_at_once(kind):
    batches = [updated(kind.empty(), seed) for seed in range(3)]
    in_turn = kind.empty()
    for seed in range(3):
        in_turn = updated(in_turn, seed)
    merged = batches[2].merge(batches[0].merge(batches[1]))
    assert exactly(merged.count) == exactly(in_turn.count) > 0
    np.testing.assert_allclose(exactly(merged.total), exactly(in_turn.total), rtol=1e-12)
    jax.tree.map(
        np.testing.assert_array_equal, batches[0].merge(batches[1]), batches[1].merge(batches[0])
    )
    jax.tree.map(np.testing.assert_array_equal, in_turn.merge(kind.empty()), in_turn)


@pytest.mark.parametrize("kind", ALL)
def test_metrics_are_jitted_scanned_and_donated(kind):
    eager = updated(updated(kind.empty(), 0), 0)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(metric):
        return updated(metric, 0)

    jitted = step(step(kind.empty()))
    scanned, seen = jax.jit(
        lambda metric: jax.lax.scan(
            lambda m, _: (updated(m, 0), m.compute()), metric, None, length=2
        )
    )(kind.empty())
    for found in (jitted, scanned):
        assert isinstance(found, kind)
        np.testing.assert_allclose(found.compute(), eager.compute(), rtol=1e-6)
        assert exactly(found.count) == exactly(eager.count)
    assert seen[0] == 0
    assert jax.tree.structure(scanned) == jax.tree.structure(kind.empty())
    assert {(x.shape, str(x.dtype)) for x in jax.tree.leaves(scanned)} == {((), "float32")}


@pytest.mark.parametrize("kind", ALL)
def test_metrics_do_not_change_in_place_and_do_not_mix(kind):
    metric = kind.empty()
    after = updated(metric, 0)
    assert exactly(metric.count) == 0 < exactly(after.count)
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.total = metric.count
    other = ALL[ALL.index(kind) - 1]
    with pytest.raises(TypeError, match=f"{kind.__name__}.merge: expected another"):
        metric.merge(other.empty())


def test_psum_merges_the_metrics_of_devices():
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    mask = np.array([[[1, 1, 1], [1, 1, 0]], [[0, 0, 0], [0, 0, 1]]], bool)

    def on_a_device(values, mask):
        metric = jm.metrics.Mean.empty().update(values, mask)
        return jax.lax.psum(metric, "device").compute()

    found = jax.vmap(on_a_device, axis_name="device")(values, mask)
    np.testing.assert_allclose(found, [values[mask].mean()] * 2, rtol=1e-6)


# ----------------------------------------------------------------------- sums that last


def test_a_hundred_million_tokens_are_counted_one_by_one():
    tokens = np.ones((100, 1000), np.float32)
    million = metrics.Mean.empty()
    for _ in range(10):
        million = million.update(tokens, None)
    metric = metrics.Mean.empty()
    for _ in range(100):
        metric = metric.merge(million)
    assert exactly(metric.count) == 1e8

    @jax.jit
    def one_by_one(metric):
        def step(metric, _):
            return metric.update(jnp.full((1, 1), 1001.0), None), None

        return jax.lax.scan(step, metric, None, length=1001)[0]

    after = one_by_one(metric)
    assert np.float32(1e8) + np.float32(1) == np.float32(1e8)  # a plain sum would stand still
    assert exactly(after.count) == 1e8 + 1001
    assert exactly(after.total) == 1e8 + 1001 * 1001
    np.testing.assert_allclose(after.compute(), (1e8 + 1001**2) / (1e8 + 1001), rtol=2e-7)


def test_small_values_are_not_swallowed_by_a_large_total():
    metric = metrics.Mean.empty().update(np.array([1e9], np.float32), None)

    @jax.jit
    def tenths(metric):
        def step(metric, _):
            return metric.update(jnp.full((1,), 0.1), None), None

        return jax.lax.scan(step, metric, None, length=10_000)[0]

    assert abs(exactly(tenths(metric).total) - (1e9 + 1000)) < 1e-2


def test_an_infinite_value_makes_an_infinite_mean_not_nan():
    values = np.array([[1.0, np.inf, 2.0]], np.float32)
    for kind in RATIOS:
        metric = kind.empty().update(values, None)
        assert metric.compute() == jnp.inf
        assert metric.update(values, np.array([[True, False, True]])).compute() == jnp.inf
        assert kind.empty().merge(metric).compute() == jnp.inf


# ----------------------------------------------------------------------------- Mean


def test_batches_count_by_their_real_steps_whatever_their_length():
    # Keras gives 2.0: it weighs a batch by the share of its steps that is real.
    metric = metrics.Mean.empty().update(np.array([[1.0]], np.float32), np.array([[True]]))
    values = np.array([[3.0, 3.0, 3.0, 3.0, np.nan, np.nan]], np.float32)
    metric = metric.update(values, np.array([[True] * 4 + [False] * 2]))
    assert metric.compute() == np.float32(2.6)


def test_mean_is_the_weighted_mean_of_all_real_steps():
    rng = np.random.default_rng(0)
    metric, total, count = metrics.Mean.empty(), 0.0, 0.0
    for time in (1, 3, 7):
        mask = rng.random((4, time)) < 0.5
        values = rng.normal(size=(4, time)).astype(np.float32)
        weights = rng.uniform(1, 2, (4, time)).astype(np.float32)
        total += np.sum(values[mask].astype(np.float64) * weights[mask])
        count += np.sum(weights[mask], dtype=np.float64)
        values[~mask] = weights[~mask] = np.nan
        metric = metric.update(values, mask, weights)
    np.testing.assert_allclose(metric.compute(), total / count, rtol=1e-6)


def test_mean_takes_features_row_masks_segments_and_weights_of_rows():
    values = np.array([[[1.0, 3.0], [9.0, 9.0]], [[4.0, 6.0], [7.0, 7.0]]], np.float32)
    mask = np.array([[True, False], [True, True]])
    update = metrics.Mean.empty().update
    assert update(values, mask).compute() == np.float32(14 / 3)
    assert update(values, jm.Segments(mask.astype(np.int32), 1)).compute() == np.float32(14 / 3)
    assert update(values[:, 0], np.array([True, False])).compute() == 2.0
    assert update(values, mask, np.array([4.0, 1.0], np.float32)).compute() == np.float32(20 / 6)
    with pytest.raises(ValueError, match=r"Mean.update: `weights` must be"):
        update(values, mask, np.ones((3,), np.float32))
    with pytest.raises(jm.MaskError, match=r"Mean.update: `mask` must have the shape"):
        update(values, mask[:, :1])


@pytest.mark.parametrize("kind", RATIOS)
def test_a_batch_of_padding_changes_nothing(kind):
    metric = updated(kind.empty(), 1)
    nan = np.full((2, 3), np.nan, np.float32)
    after = (
        metric.update(nan, np.zeros((2, 3), bool)).update(nan[:, :0], None).update(nan[:0], None)
    )
    jax.tree.map(np.testing.assert_array_equal, after, metric)


# ------------------------------------------------------------------ Accuracy, Perplexity


def test_accuracy_counts_right_steps_from_ids_and_from_logits():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(*MASK.shape, 3)).astype(np.float32)
    targets = rng.integers(0, 3, MASK.shape)
    right = real = 0
    for row, step in zip(*np.nonzero(MASK), strict=True):
        real += 1
        scores = logits[row, step].tolist()
        right += scores.index(max(scores)) == targets[row, step]
    assert 0 < right < real
    ids = logits.argmax(-1)
    logits[~MASK], ids[~MASK], targets[~MASK] = np.nan, -100, -100
    for predictions in (logits, ids):
        metric = metrics.Accuracy.empty().update(predictions, MASK, targets)
        assert (exactly(metric.total), exactly(metric.count)) == (right, real)
        assert metric.compute() == np.float32(right / real)


def test_accuracy_takes_row_masks_segments_booleans_and_several_targets_a_step():
    update = metrics.Accuracy.empty().update
    scores = np.array([[0.0, 1.0], [5.0, 2.0], [np.nan, np.nan]], np.float32)
    rows = np.array([True, True, False])
    assert update(scores, rows, np.array([1, 1, 0])).compute() == 0.5
    assert update(scores > 1, rows, scores > 3).compute() == 0.75
    ids = np.array([[1, 2, 3]])
    segments = jm.Segments(jnp.array([[1, 2, 0]]), max_segments=2)
    assert update(ids, segments, np.array([[1, 0, 3]])).compute() == 0.5
    assert update(ids, None, ids).compute() == 1.0


def test_a_diverged_model_is_not_right_about_class_0():
    """Which is what `argmax` makes of nan."""
    logits = np.array([[[np.nan, np.nan], [np.nan, 5.0], [5.0, 2.0]]], np.float32)
    targets = np.array([[0, 1, 0]])
    for metric in (metrics.Accuracy.empty(), metrics.TopKAccuracy.empty(1)):
        np.testing.assert_allclose(metric.update(logits, None, targets).compute(), 1 / 3)
    matrix = metrics.ConfusionMatrix.empty(2)
    assert np.isnan(matrix.update(logits, None, targets).compute()).all()
    assert matrix.update(logits[:, 2:], None, targets[:, 2:]).compute()[0, 0] == 1


def test_an_id_beyond_32_bits_is_not_another_class():
    with enable_x64(True):
        targets, logits = jnp.array([[2**32 + 1]]), jnp.array([[[0.0, 1.0]]])
        for metric in (metrics.TopKAccuracy.empty(2), metrics.ConfusionMatrix.empty(2)):
            with pytest.raises(ValueError, match=r"update: `targets` must lie in 0..1"):
                metric.update(logits, None, targets)
            update = jax.jit(lambda t, metric=metric: metric.update(logits, None, t).compute())
            assert np.isnan(update(targets)).all()


def test_accuracy_does_not_guess():
    update = metrics.Accuracy.empty().update
    ids = np.zeros((4, 3), np.int32)
    with pytest.raises(ValueError, match=r"Accuracy.update: `targets` must be the shape of"):
        update(ids, MASK, ids[:, :1])
    with pytest.raises(ValueError, match=r"Accuracy.update: `targets` must be the shape of"):
        update(np.zeros((4, 2, 5), np.float32), MASK, ids)
    with pytest.raises(ValueError, match=r"Accuracy.update: `targets` must be the shape of"):
        update(ids, MASK, np.zeros((4, 3, 5), np.int32))
    with pytest.raises(TypeError, match=r"Accuracy.update: `predictions` must be class ids"):
        update(np.zeros((4, 3), np.float32), MASK, ids)
    with pytest.raises(TypeError, match=r"Accuracy.update: `predictions` must be floating"):
        update(np.zeros((4, 3, 5), np.int32), MASK, ids)
    with pytest.raises(TypeError, match=r"Accuracy.update: `targets` must be class ids"):
        update(ids, MASK, ids.astype(np.float32))
    with pytest.raises(jm.MaskError, match=r"Accuracy.update: `mask` must have the shape"):
        update(ids, MASK.T, ids)


def test_perplexity_is_the_exponential_of_the_mean_over_all_tokens():
    rng = np.random.default_rng(0)
    metric, costs = metrics.Perplexity.empty(), []
    for share, time in ((0.3, 5), (0.9, 5)):
        mask = rng.random((4, time)) < share
        logits = rng.normal(size=(4, time, 3)).astype(np.float32)
        targets = rng.integers(0, 3, (4, time))
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        costs += [-np.log(p[b, t, targets[b, t]]) for b, t in zip(*np.nonzero(mask), strict=True)]
        logits[~mask], targets[~mask] = np.nan, -100
        pair = losses.softmax_cross_entropy_with_integer_labels(logits, mask, targets)
        metric = metric.update(*pair)
    np.testing.assert_allclose(metric.compute(), np.exp(np.mean(costs)), rtol=1e-5)


# ---------------------------------------------------------------------- edit distance


def levenshtein(a, b):
    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        if a[i - 1] == b[j - 1]:
            return distance(i - 1, j - 1)
        return 1 + min(distance(i - 1, j), distance(i, j - 1), distance(i - 1, j - 1))

    return distance(len(a), len(b))


def padded(time):
    """Ids and a mask with padding anywhere, garbage in it, three rows."""
    return st.tuples(
        hnp.arrays(np.int32, (3, time), elements=st.integers(0, 2)),
        hnp.arrays(np.bool_, (3, time)),
    )


jitted_distance = jax.jit(metrics.edit_distance)


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(padded(6), padded(5))
def test_edit_distance_is_that_of_levenshtein(prediction, target):
    distance, row_mask = jitted_distance(*prediction, *target)
    ids, mask = prediction
    target_ids, target_mask = target
    for row in range(3):
        a, b = ids[row][mask[row]].tolist(), target_ids[row][target_mask[row]].tolist()
        assert distance[row] == levenshtein(a, b)
        assert row_mask[row] == bool(a or b)
    assert distance.dtype == jnp.int32


def test_edit_distance_of_words_everyone_knows():
    words = [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("", "", 0), ("ab", "ab", 0)]
    for one, other, expected in words:
        a, b = (
            np.array([[ord(c) for c in word]], np.int32).reshape(1, -1) for word in (one, other)
        )
        distance, row_mask = metrics.edit_distance(a, None, b, None)
        assert (distance.tolist(), row_mask) == ([expected], None)


def test_rows_that_are_empty_on_one_side_or_on_both():
    ids = np.full((3, 4), 7, np.int32)
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool)
    target_mask = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], bool)
    distance, row_mask = metrics.edit_distance(ids, mask, ids, target_mask)
    assert (distance.tolist(), row_mask.tolist()) == ([2, 3, 0], [True, True, False])
    distance, row_mask = metrics.edit_distance(ids, mask, ids, None)
    assert (distance.tolist(), row_mask.tolist()) == ([2, 4, 4], [True, True, True])

    metric = metrics.TokenErrorRate.empty().update(ids, mask, ids, target_mask)
    assert (exactly(metric.total), exactly(metric.count)) == (5, 3)
    assert metric.compute() == np.float32(5 / 3)


def test_token_error_rate_is_all_edits_over_all_target_tokens():
    rng = np.random.default_rng(0)
    metric, edits, tokens = metrics.TokenErrorRate.empty(), 0, 0
    for time in (4, 6):
        ids, targets = rng.integers(0, 3, (2, 3, time)).astype(np.int32)
        mask, target_mask = rng.random((2, 3, time)) < 0.7
        for row in range(3):
            spoken = targets[row][target_mask[row]].tolist()
            edits += levenshtein(ids[row][mask[row]].tolist(), spoken)
            tokens += len(spoken)
        metric = metric.update(ids, mask, targets, target_mask)
    assert metric.compute() == np.float32(edits) / np.float32(tokens)


def test_edits_without_a_target_token_are_an_infinite_rate_not_a_perfect_one():
    ids = np.ones((1, 2), np.int32)
    nothing = np.zeros((1, 2), bool)
    assert metrics.TokenErrorRate.empty().update(ids, None, ids, nothing).compute() == jnp.inf
    assert metrics.TokenErrorRate.empty().update(ids, nothing, ids, nothing).compute() == 0


@pytest.mark.parametrize(
    ("function", "where"),
    [
        (metrics.edit_distance, "edit_distance"),
        (metrics.TokenErrorRate.empty().update, "TokenErrorRate.update"),
    ],
)
def test_edit_distance_refuses_what_it_cannot_read(function, where):
    ids = np.ones((4, 3), np.int32)
    with pytest.raises(ValueError, match=f"{where}: `predictions` and `targets` must have one"):
        function(ids, MASK, ids[:2], None)
    with pytest.raises(ValueError, match=f"{where}: `targets` must be of rank 2"):
        function(ids, MASK, ids[..., None], None)
    with pytest.raises(TypeError, match=f"{where}: `predictions` must be integer ids"):
        function(ids.astype(np.float32), MASK, ids, None)
    with pytest.raises(jm.MaskError, match=f"{where}: `mask` must have .* axes of `predictions`"):
        function(ids, MASK[:, :1], ids, None)
    with pytest.raises(
        jm.MaskError, match=f"{where}: `target_mask` must have .* axes of `targets`"
    ):
        function(ids, MASK, ids, MASK[:, :1])
    with pytest.raises(jm.MaskError, match=f"{where}: .* `Segments`"):
        function(ids, jm.Segments(MASK.astype(np.int32), 1), ids, None)
