"""Transducer loss and soft-DTW against every alignment, counted one by one in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask import losses
from tests.golden import make_torchaudio_rnnt as golden
from tests.losses import log_softmax, poisoned

# Frames and labels: padded right, left, with a hole, no label, no frame, full.
FRAMES = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 1], [0, 1, 1, 0], [0] * 4, [1] * 4], bool)
LABELS = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1]], bool)
DRAW = np.random.default_rng(0)
LOGITS = DRAW.normal(size=(6, 4, 4, 5)).astype(np.float32)
IDS = DRAW.integers(1, 5, LABELS.shape)
X, Y = (DRAW.normal(size=(6, n, 2)).astype(np.float32) for n in (4, 3))
STATES = np.concatenate([np.ones((6, 1), bool), LABELS], axis=1)
CELLS = FRAMES[:, :, None] & STATES[:, None]


def every_transducer_path(logits, labels):
    """Total probability of all orders of blanks and labels that end with a blank."""
    log_p, (time, states, _) = log_softmax(logits), logits.shape
    total = 0.0
    for places in itertools.combinations(range(time + states - 2), states - 1):
        t = u = 0
        score = 0.0
        for move in range(time + states - 2):
            if move in places:
                score, u = score + log_p[t, u, labels[u]], u + 1
            else:
                score, t = score + log_p[t, u, 0], t + 1
        total += np.exp(score + log_p[t, u, 0])
    return -np.log(total)


def every_warping(x, y, gamma):
    """Soft minimum of the costs of all monotone paths."""
    cost = ((x[:, None].astype(float) - y[None].astype(float)) ** 2).sum(-1)

    def paths(i, j):
        if (i, j) == (len(x) - 1, len(y) - 1):
            return [cost[i, j]]
        moves = [(i + 1, j), (i, j + 1), (i + 1, j + 1)]
        inside = [(a, b) for a, b in moves if a < len(x) and b < len(y)]
        return [cost[i, j] + rest for move in inside for rest in paths(*move)]

    costs = np.array(paths(0, 0))
    return costs.min() - gamma * np.log(np.sum(np.exp((costs.min() - costs) / gamma)))


def transducer(logits, ids):
    return losses.rnnt_loss(logits, FRAMES, ids, LABELS)[0]


def warped(x, y, gamma=0.7):
    return losses.soft_dtw(x, FRAMES, y, LABELS, gamma=gamma)[0]


def slopes(f, x, step=1e-4):
    """Central differences of `f(x)` in float64."""
    found = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.astype(float)
            moved[place] += sign * step
            ends.append(f(moved))
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


def test_transducer_loss_is_the_sum_over_every_alignment():
    y, pull = jax.vjp(jax.jit(lambda x: transducer(x, IDS)), LOGITS)
    (gradient,) = pull(jnp.ones(6))
    for row in range(6):
        cells = LOGITS[row][FRAMES[row]][:, STATES[row]]
        labels = IDS[row][LABELS[row]]
        if not len(cells):
            assert y[row] == 0
            continue
        np.testing.assert_allclose(y[row], every_transducer_path(cells, labels), rtol=1e-5)
        if row in (2, 3):  # a hole in both; no label
            expected = slopes(lambda x, labels=labels: every_transducer_path(x, labels), cells)
            found = np.asarray(gradient)[row][FRAMES[row]][:, STATES[row]]
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.asarray(gradient)[~CELLS].any()
    row_mask = losses.rnnt_loss(LOGITS, FRAMES, IDS, LABELS)[1]
    np.testing.assert_array_equal(row_mask, FRAMES.any(axis=1))
    assert losses.rnnt_loss(LOGITS, None, IDS, None)[1] is None


@jax.jit
def transducer_of(logits, mask, ids, label_mask):
    """Losses of all rows, and the gradient of their sum."""

    def cost(logits):
        return losses.rnnt_loss(logits, mask, ids, label_mask, blank_id=golden.BLANK)[0]

    loss, pull = jax.vjp(cost, logits)
    return {"loss": loss, "gradient": pull(jnp.ones_like(loss))[0]}


def test_transducer_loss_is_torchaudio():
    with np.load(golden.PATH) as stored:
        for name, y in transducer_of(*golden.cases(0)).items():
            np.testing.assert_allclose(y, stored[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_soft_dtw_is_the_soft_minimum_over_every_warping():
    run = jax.jit(warped)
    y, pull = jax.vjp(run, X, Y)
    of_x, of_y = pull(jnp.ones(6))
    for row in range(6):
        x, target = X[row][FRAMES[row]], Y[row][LABELS[row]]
        if not len(x) or not len(target):
            assert y[row] == 0
            continue
        np.testing.assert_allclose(y[row], every_warping(x, target, 0.7), rtol=1e-5)
        if row == 2:
            expected = slopes(lambda x, target=target: every_warping(x, target, 0.7), x)
            np.testing.assert_allclose(of_x[row][FRAMES[row]], expected, atol=1e-5)
            expected = slopes(lambda target, x=x: every_warping(x, target, 0.7), target)
            np.testing.assert_allclose(of_y[row][LABELS[row]], expected, atol=1e-5)
    assert not np.asarray(of_x)[~FRAMES].any()
    np.testing.assert_array_equal(
        losses.soft_dtw(X, FRAMES, Y, LABELS)[1], FRAMES.any(axis=1) & LABELS.any(axis=1)
    )
    # Nearly the hard minimum.
    hard = run(X, Y, 1e-3)
    np.testing.assert_allclose(hard[5], every_warping(X[5], Y[5], 1e-3), rtol=1e-5)


def test_garbage_in_the_padding_changes_no_bit():
    @jax.jit
    def both(logits, ids, x, y):
        def total(logits, x, y):
            return jnp.sum(transducer(logits, ids)) + jnp.sum(warped(x, y))

        return jax.value_and_grad(total, argnums=(0, 1, 2))(logits, x, y)

    clean = both(LOGITS, IDS, X, Y)
    for how in ("nan", "inf", "huge"):
        dirty = both(
            poisoned(LOGITS, CELLS, how),
            poisoned(IDS, LABELS, how),
            poisoned(X, FRAMES, how),
            poisoned(Y, LABELS, how),
        )
        jax.tree.map(np.testing.assert_array_equal, dirty, clean)


def test_long_rows_keep_their_digits():
    """Against the recursion in float64; the scores of 450 steps lie near -400."""
    logits = DRAW.normal(size=(1, 300, 151, 3)).astype(np.float32)
    ids = DRAW.integers(1, 3, (1, 150))
    log_p = log_softmax(logits[0])
    alpha = np.full((300, 151), -np.inf)
    alpha[0, 0] = 0
    for t, u in itertools.product(range(300), range(151)):
        if t:
            alpha[t, u] = np.logaddexp(alpha[t, u], alpha[t - 1, u] + log_p[t - 1, u, 0])
        if u:
            one = alpha[t, u - 1] + log_p[t, u - 1, ids[0, u - 1]]
            alpha[t, u] = np.logaddexp(alpha[t, u], one)
    expected = -(alpha[-1, -1] + log_p[-1, -1, 0])
    np.testing.assert_allclose(losses.rnnt_loss(logits, None, ids, None)[0], [expected], rtol=2e-6)


def test_what_has_no_alignment_costs_infinity_and_teaches_nothing():
    ruled_out = LOGITS.copy()
    ruled_out[5, 3, 3, 0] = -np.inf  # the last blank
    y, pull = jax.vjp(jax.jit(lambda x: transducer(x, IDS)), ruled_out)
    assert y[5] == np.inf
    assert np.isfinite(np.asarray(y)[:5]).all()
    (gradient,) = pull(jnp.ones(6))
    assert np.isfinite(np.asarray(gradient)[:5]).all()
    assert not np.asarray(gradient)[5].any()


def test_shapes_and_ids_that_are_wrong_are_refused():
    with pytest.raises(ValueError, match=r"rnnt_loss: `labels` must be \[batch, label\] and"):
        losses.rnnt_loss(LOGITS[:, :, :3], FRAMES, IDS, LABELS)
    with pytest.raises(ValueError, match=r"rnnt_loss: `labels` must lie in 0..4 and not be 0"):
        losses.rnnt_loss(LOGITS, FRAMES, 0 * IDS, LABELS)
    nan = jax.jit(lambda ids: transducer(LOGITS, ids))(0 * IDS)
    np.testing.assert_array_equal(np.isnan(nan), LABELS.any(axis=1) & FRAMES.any(axis=1))
    with pytest.raises(ValueError, match="`blank_id` must be one of the 5 classes, got 5"):
        losses.rnnt_loss(LOGITS, FRAMES, IDS, LABELS, blank_id=5)
    with pytest.raises(ValueError, match="soft_dtw: `predictions` and `targets` must have one b"):
        losses.soft_dtw(X, FRAMES, Y[..., :1], LABELS)
    segments = jm.Segments(FRAMES.astype(np.int32), 1)
    with pytest.raises(jm.MaskError, match="cannot respect `Segments`"):
        losses.soft_dtw(X, segments, Y, LABELS)
    empty = losses.soft_dtw(X[:, :0], FRAMES[:, :0], Y, LABELS)
    assert not empty[0].any()
    assert not empty[1].any()
    assert not losses.rnnt_loss(LOGITS[:, :0], FRAMES[:, :0], IDS, LABELS)[0].any()


def test_losses_that_compare_steps_or_items_export_for_any_size():
    batch, time, other = jax.export.symbolic_shape("batch, time, other")

    def both(x, mask, y, other_mask):
        cost, pull = jax.vjp(lambda x: losses.soft_dtw(x, mask, y, other_mask)[0], x)
        return cost, pull(jnp.ones_like(cost)), losses.circle_loss(x, mask, mask.astype(int))

    shapes = (batch, time), (batch, other)
    specs = [
        spec
        for shape in shapes
        for spec in (
            jax.ShapeDtypeStruct((*shape, 2), np.float32),
            jax.ShapeDtypeStruct(shape, bool),
        )
    ]
    program = jax.export.export(jax.jit(both))(*specs)
    found, expected = program.call(X, FRAMES, Y, LABELS), jax.jit(both)(X, FRAMES, Y, LABELS)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
