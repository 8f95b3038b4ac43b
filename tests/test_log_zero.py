"""Logarithms of 0: 0 log 0 is 0, what is possible and ruled out costs inf, and nothing is nan.

A class that is ruled out (logit or log probability -inf, target 0) counts as if it were not there,
which is the oracle: the same loss of the other classes alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(1, 3, 4)).astype(np.float32)
P = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
OTHER = RNG.dirichlet(np.ones(4), (1, 3)).astype(np.float32)
IDS = np.array([[0, 1, 0]], np.int32)
CHAIN = RNG.normal(size=(4, 4)).astype(np.float32)
GONE = 2  # the class that is ruled out; in lists and rows of time, the step
FOCAL = {"alpha": 0.3, "gamma": 1.5}


def of(name, **options):
    return functools.partial(getattr(losses, name), **options)


def ranking(scores, mask, relevance):
    return losses.ranking_softmax_loss(scores[..., 0], mask, relevance[..., 0])


# The loss, its predictions and targets, the axis of what is ruled out, and what that is called in
# the predictions and in the targets. Log targets are -inf; ids have nothing to rule out.
CASES = {
    "softmax_cross_entropy": (of("softmax_cross_entropy"), LOGITS, OTHER, 2, 0),
    "safe_softmax_cross_entropy": (of("safe_softmax_cross_entropy"), LOGITS, OTHER, 2, 0),
    "kl_divergence": (of("kl_divergence"), np.log(P), OTHER, 2, 0),
    "kl_divergence_with_log_targets": (
        of("kl_divergence_with_log_targets"),
        np.log(P),
        np.log(OTHER),
        2,
        -np.inf,
    ),
    "integer labels": (of("softmax_cross_entropy_with_integer_labels"), LOGITS, IDS, 2, None),
    "seq2seq": (of("seq2seq_cross_entropy", z_loss=0.1), LOGITS, IDS, 2, None),
    "ranking": (ranking, LOGITS[..., :1], OTHER[..., :1], 1, 0),
    "dice_loss": (of("dice_loss", ignore_background=False), LOGITS, OTHER, None, 0),
}


def derivatives(loss, predictions, targets):
    """The value, its slope along ones, the gradients, and the gradients of a sum of those."""
    floats = (predictions,) if targets.dtype.kind == "i" else (predictions, targets)

    def total(*floats):
        y, _ = loss(floats[0], None, floats[1] if len(floats) > 1 else targets)
        return jnp.vdot(jnp.cos(jnp.arange(y.size)).reshape(y.shape), y)

    every = tuple(range(len(floats)))

    def slope(*floats):
        gradients = jax.grad(total, every)(*floats)
        return sum(jnp.vdot(jnp.cos(jnp.arange(g.size)).reshape(g.shape), g) for g in gradients)

    def run(*floats):
        ones = tuple(map(jnp.ones_like, floats))
        first = jax.grad(total, every)(*floats)
        return *jax.jvp(total, floats, ones), first, jax.grad(slope, every)(*floats)

    return jax.jit(run)(*floats)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3]])
@pytest.mark.parametrize("also_in_predictions", [True, False])
def test_what_is_ruled_out_counts_as_if_it_were_not_there(name, also_in_predictions):
    loss, predictions, targets, axis, zero = CASES[name]
    if zero is None and not also_in_predictions:
        return
    at = np.s_[:, :, GONE] if axis == 2 else np.s_[:, GONE]
    predictions, targets = predictions.copy(), targets.copy()
    if zero is not None:
        targets[at] = zero
    if also_in_predictions:
        predictions[at] = -np.inf
    found = derivatives(loss, predictions, targets)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    if not also_in_predictions:  # the class has a share of the softmax then
        return
    others = [np.delete(x, GONE, axis) if x.ndim > axis else x for x in (predictions, targets)]
    expected = derivatives(loss, *others)
    for ours, theirs in zip(found[2], expected[2], strict=True):
        np.testing.assert_allclose(np.delete(ours, GONE, axis), theirs, 1e-5, 1e-6)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    assert not np.asarray(found[2][0])[at].any()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3]])
def test_what_is_possible_and_ruled_out_costs_inf(name):
    loss, predictions, targets, axis, _ = CASES[name]
    predictions, targets = predictions.copy(), targets.copy()
    predictions[:, 1, 1 if axis == 2 else 0] = -np.inf  # the target of the ids too
    value, _, first, _ = derivatives(loss, predictions, targets)
    y, _ = loss(predictions, None, targets)
    assert np.asarray(y).ravel()[1 % np.size(y)] == np.inf
    assert np.isinf(value)
    assert not np.isnan(first[0]).any()


def test_a_target_that_underflows_still_is_possible():
    log_p, log_q = np.array([[[0.0, -np.inf]]]), np.array([[[0.0, -300.0]]])
    y, _ = losses.kl_divergence_with_log_targets(
        jnp.asarray(log_p, jnp.float32), None, jnp.asarray(log_q, jnp.float32)
    )
    assert y[0, 0] == np.inf
    finite = jnp.asarray(np.maximum(log_p, -1000), jnp.float32)
    y, _ = losses.kl_divergence_with_log_targets(finite, None, jnp.asarray(log_q, jnp.float32))
    np.testing.assert_allclose(y, 0, atol=1e-30)


BINARY = {
    "cross entropy": of("sigmoid_binary_cross_entropy"),
    "focal": of("sigmoid_focal_loss", **FOCAL),
    "focal, gamma 0.5": of("sigmoid_focal_loss", gamma=0.5),
    "focal, gamma 0": of("sigmoid_focal_loss", gamma=0.0),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", BINARY)
def test_sure_logits_cost_nothing_or_inf(name):
    logits = np.array([[[np.inf], [-np.inf], [np.inf], [-np.inf], [np.inf], [0.3]]], np.float32)
    targets = np.array([[[1], [0], [0], [1], [0.5], [1]]], np.float32)
    y, _ = BINARY[name](logits, None, targets)
    assert y.ravel()[:5].tolist() == [0, 0, np.inf, np.inf, np.inf]

    def total(x, t):
        return jnp.sum(BINARY[name](x, None, t)[0])

    near = np.clip(logits, -60, 60)
    ours, far = (jax.grad(total)(x, targets) for x in (logits, near))
    np.testing.assert_allclose(ours, far, rtol=1e-5, atol=1e-6)
    by_logits, by_targets = jax.grad(total, (0, 1))(logits[:, :2], targets[:, :2])
    assert not by_logits.any()
    assert np.isfinite(by_targets).all()
    _, slope = jax.jvp(lambda x: total(x, targets), (logits,), (np.ones_like(logits),))
    assert not np.isnan(slope)
    second = jax.grad(lambda x: jnp.sum(jax.grad(total)(x, targets)))(logits)
    assert not np.isnan(second).any()


def test_sure_scores_of_a_margin():
    scores = np.array([[np.inf, -np.inf], [-np.inf, np.inf]], np.float32)
    targets = np.array([[1, -1], [1, -1]], np.int32)
    assert losses.hinge_loss(scores, None, targets)[0].tolist() == [[0, 0], [np.inf, np.inf]]
    gradient = jax.grad(lambda x: jnp.sum(losses.hinge_loss(x, None, targets)[0]))(scores)
    assert gradient.tolist() == [[0, 0], [-1, 1]]


def test_an_infinite_error_has_the_gradient_of_a_large_one():
    predictions, targets = np.array([[np.inf, -np.inf]], np.float32), np.zeros((1, 2), np.float32)
    for name, slope in (("huber_loss", 0.7), ("log_cosh", 1)):
        options = {"delta": 0.7} if name == "huber_loss" else {}
        loss = of(name, **options)
        assert np.isposinf(loss(predictions, None, targets)[0]).all()
        gradient = jax.grad(lambda x, loss=loss: jnp.sum(loss(x, None, targets)[0]))(predictions)
        np.testing.assert_allclose(gradient, [[slope, -slope]], rtol=1e-6)


@functools.partial(jax.jit, static_argnums=3)
def of_chain(logits, weights, tags, second):
    """The cost, its gradients, its slope, the gradient of a gradient, marginals and best path."""

    def total(x, w):
        return losses.crf(x, None, tags, w)[0][0]

    cost, gradients = jax.value_and_grad(total, (0, 1))(logits, weights)
    marginals, _ = jm.decoding.crf_marginals(logits, None, weights)
    best, _ = jm.decoding.viterbi(logits, None, weights)
    if not second:
        return (cost, *gradients, marginals), best
    _, slope = jax.jvp(lambda x: total(x, weights), (logits,), (jnp.ones_like(logits),))
    again = jax.grad(lambda x: jnp.sum(jax.grad(total)(x, weights)[0, 1:]))(logits)
    return (cost, *gradients, marginals, slope, again), best


def test_a_tag_that_is_ruled_out_by_crf():
    tags, fewer_tags = np.array([[0, 1, 3]], np.int32), np.array([[0, 1, 2]], np.int32)
    logits, weights = LOGITS.copy(), CHAIN.copy()
    logits[..., GONE] = -np.inf
    weights[GONE] = weights[:, GONE] = -np.inf
    fewer = np.delete(logits, GONE, 2), np.delete(np.delete(CHAIN, GONE, 0), GONE, 1)
    (cost, by_x, by_w, marginals), best = of_chain(*fewer, fewer_tags, False)
    for x, w in ((logits, CHAIN), (LOGITS, weights), (logits, weights)):
        found, path = of_chain(x, w, tags, True)
        assert all(np.isfinite(leaf).all() for leaf in found)
        np.testing.assert_allclose(found[0], cost, rtol=1e-5)
        np.testing.assert_allclose(np.delete(found[1], GONE, 2), by_x, atol=1e-6)
        ours = np.delete(np.delete(found[2], GONE, 0), GONE, 1)
        np.testing.assert_allclose(ours, by_w, atol=1e-6)
        np.testing.assert_allclose(np.delete(found[3], GONE, 2), marginals, atol=1e-6)
        assert not found[3][..., GONE].any()
        assert path.tolist() == np.delete(np.arange(4), GONE)[best].tolist()


def test_tags_that_crf_rules_out_cost_inf():
    logits = np.tile(LOGITS, (3, 1, 1))
    logits[0, 1, 1] = -np.inf  # the tag of the row
    logits[1, 1] = -np.inf  # no path is left
    tags = np.array([[0, 1, 3]] * 3, np.int32)

    def total(x):
        y, _ = losses.crf(x, None, tags, CHAIN)
        return jnp.sum(y), y

    gradient, y = jax.jit(jax.grad(total, has_aux=True))(logits)
    assert np.isinf(y).tolist() == [True, True, False]
    assert np.isfinite(gradient).all()
    assert not gradient[1].any()
    marginals, _ = jm.decoding.crf_marginals(logits, None, CHAIN)
    assert np.isnan(marginals[1]).all()
    assert np.isfinite(marginals[::2]).all()


def test_decoders_leave_out_what_is_ruled_out():
    logits = 0.1 * RNG.normal(size=(2, 4, 4)).astype(np.float32)
    logits[..., GONE] = -np.inf
    fewer = np.delete(logits, GONE, 2)
    names = np.delete(np.arange(4), GONE)
    for decode in (jm.decoding.ctc_greedy, functools.partial(jm.decoding.ctc_beam, beam_size=200)):
        ours, mask = decode(logits, None)
        theirs, same = decode(fewer, None)
        np.testing.assert_array_equal(mask, same)
        np.testing.assert_array_equal(ours, np.where(mask, names[theirs], 0))


def test_beam_leaves_out_what_is_ruled_out():
    table = np.log(
        np.array([[0, 0, 1], [0.4, 0.6, 0], [0.2, 0.8, 0]]),
        where=np.array([[0, 0, 1], [1, 1, 0], [1, 1, 0]], bool),
        out=np.full((3, 3), -np.inf),
    )
    table = jnp.asarray(table, jnp.float32)

    def step(carry, ids):
        return carry, table[ids]

    for size in (1, 9):
        ids, mask = jm.decoding.beam(
            step, (), np.array([0]), None, max_length=3, end_id=0, beam_size=size
        )
        assert ids[mask].tolist() == [2, 1, 1]
