"""Conditional random fields against all paths, one by one."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import logsumexp

import jaxmask as jm

# One row each: full, padded left, with holes, one step, empty.
MASK = np.array([[1, 1, 1, 1], [0, 0, 1, 1], [1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
TAGS = 3


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*MASK.shape, TAGS)).astype(np.float32)
    tags = rng.integers(0, TAGS, MASK.shape).astype(np.int32)
    logits[~MASK], tags[~MASK] = np.nan, -100
    weights = {
        "transitions": rng.normal(size=(TAGS, TAGS)).astype(np.float32),
        "start": rng.normal(size=TAGS).astype(np.float32),
        "end": rng.normal(size=TAGS).astype(np.float32),
    }
    return logits, tags, weights


def score(steps, path, transitions, start, end):
    """By the definition, for one unpadded row."""
    total = start[path[0]] + end[path[-1]]
    total += sum(step[tag] for step, tag in zip(steps, path, strict=True))
    return total + sum(transitions[a, b] for a, b in itertools.pairwise(path))


def all_paths(steps):
    return list(itertools.product(range(TAGS), repeat=len(steps)))


def rows():
    return [row for row in range(len(MASK)) if MASK[row].any()]


def test_the_loss_is_that_of_all_paths_of_the_unpadded_row():
    logits, tags, weights = drawn()
    found, row_mask = jax.jit(jm.losses.crf)(logits, MASK, tags, **weights)
    assert row_mask.tolist() == [True, True, True, True, False]
    for row in rows():
        steps = logits[row][MASK[row]]
        scores = [score(steps, path, **weights) for path in all_paths(steps)]
        right = score(steps, tags[row][MASK[row]], **weights)
        np.testing.assert_allclose(found[row], logsumexp(scores) - right, rtol=1e-4, atol=1e-5)
    assert found[4] == 0


def test_the_best_path_is_the_best_of_all():
    for seed in range(5):
        logits, _, weights = drawn(seed)
        found, mask = jax.jit(jm.decoding.viterbi)(logits, MASK, **weights)
        np.testing.assert_array_equal(mask, MASK)
        assert found.dtype == jnp.int32
        for row in rows():
            steps = logits[row][MASK[row]]
            best = max(all_paths(steps), key=lambda path: score(steps, path, **weights))
            assert tuple(found[row][MASK[row]].tolist()) == best
        assert not np.asarray(found)[~MASK].any()


def test_the_n_best_paths_are_the_best_of_all():
    logits, _, weights = drawn(1)
    run = jax.jit(functools.partial(jm.decoding.viterbi, n_best=5, **weights))
    (found, mask), (scores, there) = run(logits, MASK)
    assert np.asarray(there).sum(1).tolist() == [5, 5, 5, TAGS, 0]
    assert not np.asarray(found)[~np.asarray(mask)].any()
    for row in rows():
        steps = logits[row][MASK[row]]
        paths = sorted(all_paths(steps), key=lambda path: -score(steps, path, **weights))[:5]
        for i, path in enumerate(paths):
            assert tuple(found[row, i][MASK[row]].tolist()) == path
            np.testing.assert_allclose(scores[row, i], score(steps, path, **weights), rtol=1e-5)
    one, _ = jm.decoding.viterbi(logits, MASK, **weights)
    np.testing.assert_array_equal(one, found[:, 0])


def test_the_n_best_paths_of_packed_sequences():
    logits, _, weights = drawn(1)
    ids = np.array([[1, 1, 2, 2], [0, 0, 2, 2]], np.int32)
    run = jax.jit(functools.partial(jm.decoding.viterbi, n_best=4, **weights))
    (found, mask), (scores, there) = run(logits[:2], jm.Segments(ids, 2))
    assert np.asarray(there).tolist() == [[True] * 4, [True] * 4, [False] * 4, [True] * 4]
    for row, number in ((0, 1), (0, 2), (1, 2)):
        mine = ids[row] == number
        steps = logits[row, mine]
        paths = sorted(all_paths(steps), key=lambda path: -score(steps, path, **weights))[:4]
        assert [tuple(path) for path in np.asarray(found)[row][:, mine].tolist()] == paths
        expected = [score(steps, path, **weights) for path in paths]
        np.testing.assert_allclose(scores[2 * row + number - 1], expected, rtol=1e-5)
    np.testing.assert_array_equal(mask, np.repeat((ids > 0)[:, None], 4, axis=1))
    (none, _), (no_score, _) = run(logits[:0], jm.Segments(ids[:0], 2))
    assert none.shape == (0, 4, 4)
    assert no_score.shape == (0, 4)


@pytest.mark.parametrize("forbidden", [False, True])
def test_forward_and_backward_are_sums_over_all_paths(forbidden):
    logits, _, weights = drawn(2)
    if forbidden:  # from left to right only
        weights["transitions"][np.tril_indices(TAGS, -1)] = -np.inf
        weights["start"][1:] = -np.inf
    found = jm.decoding.forward_backward(logits, MASK, **weights)
    log_z, row_mask = jm.losses.crf_log_partition(logits, MASK, **weights)
    assert row_mask.tolist() == found.log_likelihood[1].tolist() == [True] * 4 + [False]
    np.testing.assert_allclose(found.log_likelihood[0], log_z, rtol=1e-6)
    none = {name: np.zeros(TAGS) for name in ("start", "end")}
    tags = range(TAGS)

    def total(steps, last, first, **ends):
        """Over the paths of these steps, whose ends are the tags given."""
        paths = [p for p in all_paths(steps) if p[-1] in last and p[0] in first]
        return logsumexp([score(steps, p, **(weights | ends)) for p in paths])

    for row in rows():
        steps = logits[row][MASK[row]].astype(np.float64)
        forward, backward, smoothed = (
            np.asarray(pair[0])[row][MASK[row]]
            for pair in (found.forward, found.backward, found.smoothed)
        )
        np.testing.assert_allclose(log_z[row], total(steps, tags, tags), rtol=1e-5)
        for t, k in itertools.product(range(len(steps)), tags):
            before = total(steps[: t + 1], [k], tags, end=none["end"])
            after = total(steps[t:], tags, [k], start=none["start"]) - steps[t][k]
            np.testing.assert_allclose(forward[t, k], before, rtol=1e-5)
            np.testing.assert_allclose(backward[t, k], after, rtol=1e-5, atol=1e-5)
            share = np.exp(before + after - total(steps, tags, tags))
            np.testing.assert_allclose(smoothed[t, k], share, rtol=1e-4, atol=1e-6)
    marginals, _ = jm.decoding.crf_marginals(logits, MASK, **weights)
    np.testing.assert_allclose(found.smoothed[0], marginals, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_the_log_partition_counts_transitions():
    logits, _, weights = drawn(3)

    def total(transitions):
        given = weights | {"transitions": transitions}
        return jnp.sum(jm.losses.crf_log_partition(logits[:3], MASK[:3], **given)[0])

    counts = np.zeros((TAGS, TAGS))
    for row in range(3):
        steps = logits[row][MASK[row]].astype(np.float64)
        paths = all_paths(steps)
        scores = np.array([score(steps, path, **weights) for path in paths])
        for path, p in zip(paths, np.exp(scores - logsumexp(scores)), strict=True):
            for pair in itertools.pairwise(path):
                counts[pair] += p
    np.testing.assert_allclose(jax.grad(total)(weights["transitions"]), counts, rtol=1e-4)


def test_a_row_that_is_impossible_is_nan():
    logits, _, weights = drawn()
    logits[1, 2] = -np.inf
    found = jm.decoding.forward_backward(logits, MASK, **weights)
    assert np.isneginf(found.log_likelihood[0]).tolist() == [False, True, False, False, False]
    assert np.isnan(found.smoothed[0]).any((1, 2)).tolist() == [False, True, False, False, False]
    with pytest.raises(ValueError, match="forward_backward: `log_likelihoods` must be"):
        jm.decoding.forward_backward(logits[..., 0], MASK, **weights)


def test_marginals_are_shares_of_all_paths():
    logits, _, weights = drawn()
    found, _ = jm.decoding.crf_marginals(logits, MASK, **weights)
    for row in rows():
        steps = logits[row][MASK[row]]
        paths = all_paths(steps)
        scores = np.array([score(steps, path, **weights) for path in paths])
        p = np.exp(scores - logsumexp(scores))
        for t in range(len(steps)):
            expected = [sum(p[[path[t] == k for path in paths]]) for k in range(TAGS)]
            np.testing.assert_allclose(found[row][MASK[row]][t], expected, rtol=1e-4, atol=1e-6)


def test_without_start_and_end_they_are_zero():
    logits, tags, weights = drawn()
    zeros = np.zeros(TAGS, np.float32)
    for function, arguments in ((jm.losses.crf, (tags,)), (jm.decoding.viterbi, ())):
        bare, _ = function(logits, MASK, *arguments, weights["transitions"])
        full, _ = function(logits, MASK, *arguments, weights["transitions"], start=zeros, end=zeros)
        np.testing.assert_array_equal(bare, full)


def test_a_transition_that_is_forbidden_is_not_taken():
    logits, *_ = drawn()
    transitions = np.where(np.eye(TAGS, dtype=bool), 0, -1e4).astype(np.float32)
    tags, _ = jm.decoding.viterbi(logits, MASK, transitions)
    for row in rows():
        assert len(set(np.asarray(tags)[row][MASK[row]].tolist())) == 1
    value, gradient = jax.value_and_grad(
        lambda x: jnp.sum(jm.losses.crf(x, MASK, tags, transitions)[0])
    )(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_a_tag_that_is_ruled_out_by_infinity_is_not_taken():
    """From left to right only: after the first step nothing leads to the last tag."""
    logits, _, weights = drawn()
    allowed = np.triu(np.ones((TAGS, TAGS), bool)) & ~np.eye(TAGS, k=2, dtype=bool)
    ruled = {
        "transitions": np.where(allowed, weights["transitions"], -np.inf),
        "start": np.array([0, -np.inf, -np.inf], np.float32),
    }
    large = {name: np.maximum(value, -1e4) for name, value in ruled.items()}
    tags = np.asarray(jm.decoding.viterbi(logits, MASK, **large)[0])

    def loss(weights):
        return jnp.sum(jm.losses.crf(logits, MASK, tags, **weights)[0])

    ours, theirs = (jax.value_and_grad(loss)(given) for given in (ruled, large))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)
    ours, theirs = (jm.decoding.crf_marginals(logits, MASK, **w)[0] for w in (ruled, large))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_module_learns_to_follow_transitions():
    logits, tags, weights = drawn()
    crf = jm.nn.CRF(TAGS, rngs=nnx.Rngs(0))
    for name, value in weights.items():
        getattr(crf, name)[...] = jnp.asarray(value)
    ours, _ = crf.loss(logits, MASK, tags)
    np.testing.assert_array_equal(ours, jm.losses.crf(logits, MASK, tags, **weights)[0])
    np.testing.assert_array_equal(
        crf(logits, MASK)[0], jm.decoding.viterbi(logits, MASK, **weights)[0]
    )
    np.testing.assert_array_equal(
        crf.marginals(logits, MASK)[0], jm.decoding.crf_marginals(logits, MASK, **weights)[0]
    )
    several = jm.decoding.viterbi(logits, MASK, **weights, n_best=2)
    jax.tree.map(np.testing.assert_array_equal, crf.n_best(logits, MASK, 2), several)
    gradient = nnx.grad(lambda crf: jnp.sum(crf.loss(logits, MASK, tags)[0]))(crf)
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


def test_crf_refuses_what_it_cannot_read():
    logits, tags, weights = drawn()
    with pytest.raises(ValueError, match=r"crf: `transitions` must be \[tags, tags\] = \(3, 3\)"):
        jm.losses.crf(logits, MASK, tags, weights["start"])
    with pytest.raises(ValueError, match=r"crf: `end` must be \[tags\] = \(3,\)"):
        jm.losses.crf(logits, MASK, tags, weights["transitions"], end=weights["transitions"])
    with pytest.raises(ValueError, match=r"viterbi: `logits` must be \[batch, time, tags\]"):
        jm.decoding.viterbi(logits[..., 0], MASK, weights["transitions"])
    with pytest.raises(TypeError, match="crf: `tags` must be integer"):
        jm.losses.crf(logits, MASK, logits[..., 0], weights["transitions"])
    with pytest.raises(ValueError, match=r"crf: `tags` must be \[batch, time\]"):
        jm.losses.crf(logits, MASK, tags[:, :2], weights["transitions"])
    with pytest.raises(ValueError, match="CRF: `num_tags` must be at least 1"):
        jm.nn.CRF(0, rngs=nnx.Rngs(0))


def test_a_tag_that_is_none_is_refused_or_nan():
    logits = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]], bool)
    tags = np.where(mask, 1, -100)
    weights = np.zeros((2, 2), np.float32)

    def total(x, tags, mask=mask):
        y, _ = jm.losses.crf(x, mask, tags, weights)
        return jnp.sum(y), y

    run = jax.jit(jax.grad(total, has_aux=True))
    _, clean = run(logits, tags)
    for wrong in (-1, -100, 2):
        spoiled = tags.copy()
        spoiled[1, 1] = wrong
        with pytest.raises(ValueError, match=r"crf: `tags` must lie in 0..1 at real steps"):
            total(logits, spoiled)
        gradient, y = run(logits, spoiled)
        assert np.isnan(y).tolist() == [False, True, False]
        np.testing.assert_array_equal(y[::2], clean[::2])
        assert np.isfinite(gradient).all()
