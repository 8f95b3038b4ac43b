"""F1 of spans against stored scores of seqeval, and where padding lies."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask.metrics import SpanF1
from tests.golden import make_seqeval as golden

BIO = ["O", "B-X", "I-X", "B-Y", "I-Y"]


def scores(scheme, predictions, mask, targets):
    """What `golden.scores` gives, by jaxmask."""
    found, word = {}, None if scheme == "None" else scheme
    for average in golden.AVERAGES:
        kind = None if average == "None" else average
        metric = SpanF1.empty(golden.tags(scheme), kind, scheme=word)
        metric = metric.update(predictions, mask, targets)
        for name in golden.SCORES:
            y = metric.compute() if name == "f1" else getattr(metric, name)()
            found[f"{average} {name}"] = np.asarray(y)
    return found


@pytest.mark.parametrize("scheme", golden.SCHEMES)
def test_scores_are_those_of_seqeval_wherever_the_padding_lies(scheme):
    predictions, mask, targets = golden.rows(scheme, seed=0)
    predictions[~mask], targets[~mask] = -100, 99
    found = scores(scheme, predictions, mask, targets)
    stored = json.loads(golden.PATH.read_text(encoding="utf-8"))[scheme]
    assert found.keys() == stored.keys()
    for name, y in found.items():
        np.testing.assert_allclose(y, stored[name], rtol=1e-5, err_msg=name)


def test_packed_rows_batches_and_devices_give_what_one_pass_gives():
    tags = golden.tags("BIO")
    predictions, mask, targets = (x[:8] for x in golden.rows("BIO", seed=1))
    update = jax.jit(SpanF1.empty(tags).update)
    whole = update(predictions, mask, targets)
    # Two rows in one: a span that ends the first must not go on in the second.
    ids = np.where(mask, np.array([1, 2] * 4)[:, None], 0).reshape(4, 16).astype(np.int32)
    packed = update(predictions.reshape(4, 16), jm.Segments(ids, 2), targets.reshape(4, 16))
    jax.tree.map(np.testing.assert_array_equal, packed, whole)
    halves = [update(*(x[s::2] for x in (predictions, mask, targets))) for s in (0, 1)]
    jax.tree.map(np.testing.assert_array_equal, halves[0].merge(halves[1]), whole)
    stacked = (x.reshape(2, 4, 8) for x in (predictions, mask, targets))
    summed = jax.vmap(lambda *one: jax.lax.psum(update(*one), "i"), axis_name="i")(*stacked)
    np.testing.assert_array_equal(summed.counts.value()[0], whole.counts.value())


def test_logits_no_span_and_no_step():
    logits = jax.nn.one_hot(jnp.array([[1, 2, 0]]), 5)
    targets = np.array([[1, 2, 0]])
    assert SpanF1.empty(BIO).update(logits, None, targets).compute() == 1
    for average in ("micro", "macro", "weighted"):
        metric = SpanF1.empty(BIO, average)
        assert metric.compute() == metric.precision() == 0
        nothing = metric.update(0 * targets, None, 0 * targets)
        assert nothing.compute() == 0
        assert SpanF1.empty(BIO, average, zero_division=1).compute() == 1
    missed = SpanF1.empty(BIO, None).update(0 * targets, np.ones((1, 3), bool), targets)
    assert missed.compute().tolist() == [0, 0]


def test_what_is_no_tag_is_seen():
    mask, ids = np.array([[True, True, False]]), np.array([[1, 5, 5]])
    with pytest.raises(ValueError, match=r"SpanF1.update: `predictions` must lie in 0..4 at real"):
        SpanF1.empty(BIO).update(ids, mask, 0 * ids)
    found = jax.jit(lambda ids: SpanF1.empty(BIO).update(ids, mask, 0 * ids).compute())(ids)
    assert np.isnan(found)
    nan = np.full((1, 3, 5), np.nan, np.float32)
    assert np.isnan(SpanF1.empty(BIO).update(nan, mask, 0 * ids).compute())
    with pytest.raises(ValueError, match=r"SpanF1.empty: each of `tags` must .* one of B, I for"):
        SpanF1.empty(["O", "E-X"], scheme="BIO")
    with pytest.raises(ValueError, match=r"SpanF1.empty: each of `tags` must .* one of B, I, E, S"):
        SpanF1.empty(["O", "PER"])
    with pytest.raises(ValueError, match="`tags` must be distinct"):
        SpanF1.empty(["O", "O", "B-X"])
    with pytest.raises(ValueError, match=r"SpanF1.merge: both metrics must have the same `tags`"):
        SpanF1.empty(BIO).merge(SpanF1.empty(BIO[:3]))
    with pytest.raises(jm.MaskError, match=r"SpanF1.update: `mask` must have rank 2"):
        SpanF1.empty(BIO).update(0 * ids, np.array([True]), 0 * ids)
