"""From per-step values to one number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from jaxmask import losses
from tests.losses import MASK, poisoned


def reduced_by_hand(per_step, mask, weights, by):
    """Plain Python over the real steps; `weights` None, a list a row, or a number a row."""
    rows = []
    for row, real in enumerate(mask):
        steps = []
        for t in np.flatnonzero(real):
            weight = 1.0
            if weights is not None:
                weight = float(weights[row][t] if weights.ndim == 2 else weights[row])
            steps.append((weight, float(np.mean(per_step[row][t]))))
        if steps:
            rows.append(steps)
    total = sum(w * y for steps in rows for w, y in steps)
    if by == "sum":
        return total
    if by == "step":
        return total / sum(w for steps in rows for w, _ in steps)
    means = [sum(w * y for w, y in steps) / sum(w for w, _ in steps) for steps in rows]
    of_rows = [1.0] * len(rows)
    if weights is not None and weights.ndim == 1:
        of_rows = [steps[0][0] for steps in rows]
    return sum(w * m for w, m in zip(of_rows, means, strict=True)) / sum(of_rows)


def weights_like(mask, kind):
    rng = np.random.default_rng(3)
    shape = {"none": None, "rows": mask.shape[:1], "steps": mask.shape}[kind]
    return None if shape is None else rng.uniform(0.5, 2, shape).astype(np.float32)


@pytest.mark.parametrize("by", ["step", "row", "sum"])
@pytest.mark.parametrize("kind", ["none", "rows", "steps"])
@pytest.mark.parametrize("features", [(), (3,)])
def test_reduce_agrees_with_plain_python(by, kind, features):
    per_step = np.random.default_rng(0).normal(size=(*MASK.shape, *features)).astype(np.float32)
    weights = weights_like(MASK, kind)
    expected = reduced_by_hand(per_step, MASK, weights, by)
    found = losses.reduce(per_step, MASK, weights, by)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (found.shape, found.dtype) == ((), jnp.float32)
    jitted = jax.jit(losses.reduce, static_argnames="by")(per_step, MASK, weights, by=by)
    np.testing.assert_allclose(jitted, expected, rtol=1e-5)

    everywhere = np.ones_like(MASK)
    np.testing.assert_allclose(
        losses.reduce(per_step, None, weights, by),
        reduced_by_hand(per_step, everywhere, weights, by),
        rtol=1e-5,
    )
    if by != "sum":
        total, count = losses.sum_and_count(per_step, MASK, weights, by)
        np.testing.assert_allclose(total / count, expected, rtol=1e-5)


@pytest.mark.parametrize("by", ["step", "row", "sum"])
@pytest.mark.parametrize("kind", ["none", "rows", "steps"])
def test_nan_in_the_padding_of_losses_and_weights_changes_no_bit(by, kind):
    per_step = np.random.default_rng(1).normal(size=MASK.shape).astype(np.float32)
    weights = weights_like(MASK, kind)

    def value_and_gradients(how):
        losses_ = poisoned(per_step, MASK, how)
        if weights is None:
            return jax.value_and_grad(losses.reduce)(losses_, MASK, None, by)
        real = MASK if weights.ndim == 2 else MASK.any(1)
        weights_ = poisoned(weights, real, how)
        return jax.value_and_grad(losses.reduce, argnums=(0, 2))(losses_, MASK, weights_, by)

    clean = value_and_gradients("zero")
    assert np.all(np.asarray(jax.tree.leaves(clean)[1])[~MASK] == 0)
    for how in ("nan", "inf", "huge"):
        jax.tree.map(np.testing.assert_array_equal, clean, value_and_gradients(how))


@pytest.mark.parametrize("by", ["step", "row", "sum"])
def test_nothing_to_count_is_zero_with_zero_gradients(by):
    nothing = np.zeros((2, 3), bool)
    bad = np.full((2, 3), np.nan, np.float32)
    value, gradients = jax.value_and_grad(losses.reduce, argnums=(0, 2))(bad, nothing, bad, by)
    assert value == 0
    for gradient in gradients:
        assert np.all(np.asarray(gradient) == 0)
    zero_weights = np.zeros((2, 3), np.float32)
    ones = np.ones((2, 3), np.float32)
    value, gradient = jax.value_and_grad(losses.reduce)(ones, ones.astype(bool), zero_weights, by)
    assert value == 0
    assert np.all(np.isfinite(gradient))
    assert losses.reduce(ones[:, :0], np.zeros((2, 0), bool), by=by) == 0
    assert losses.reduce(ones[:0], np.zeros((0, 3), bool), by=by) == 0


def test_a_row_of_zero_weights_does_not_count_by_row():
    per_step = np.array([[1.0, 3.0], [8.0, 8.0]], np.float32)
    weights = np.array([[1.0, 3.0], [0.0, 0.0]], np.float32)
    assert losses.reduce(per_step, None, weights, "row") == 2.5


def test_weights_of_rows_weigh_rows_also_where_batch_equals_time():
    # Keras gives 10 here: it takes a weight a row for a weight a column where the sizes agree.
    per_step = np.array([[2.0, 3.0], [8.0, 7.0]], np.float32)
    mask = np.ones((2, 2), bool)
    rows = np.array([1.0, 0.0], np.float32)
    assert losses.reduce(per_step, mask, rows, "sum") == 5.0
    assert losses.reduce(per_step, mask, rows, "step") == 2.5
    assert losses.reduce(per_step, mask, rows, "row") == 2.5
    assert losses.reduce(per_step, mask, np.array([[1.0, 0.0]] * 2, np.float32), "sum") == 10.0


def test_rows_are_segments_where_segments_stand_in_the_masks_place():
    per_step = np.array([[1.0, 1.0, 1.0, 5.0, np.nan], [7.0, np.nan, 2.0, 4.0, 0.0]], np.float32)
    ids = np.array([[1, 1, 1, 2, 0], [1, 0, 2, 2, 2]], np.int32)
    segments = jm.Segments(jnp.asarray(ids), max_segments=3)
    assert losses.reduce(per_step, segments, by="step") == np.float32(21 / 8)
    assert losses.reduce(per_step, segments, by="row") == (1 + 5 + 7 + 2) / 4
    weights = np.array([2.0, 1.0], np.float32)  # of the packed rows
    assert losses.reduce(per_step, segments, weights, "row") == np.float32((2 + 10 + 7 + 2) / 6)
    total, count = losses.sum_and_count(per_step, segments, by="row")
    assert (float(total), float(count)) == (15.0, 4.0)


def test_rows_of_a_row_mask_count_alike_by_step_and_by_row():
    per_row = np.array([[1.0, 3.0], [np.nan, np.nan], [6.0, 8.0]], np.float32)
    row_mask = np.array([True, False, True])
    weights = np.array([3.0, np.nan, 1.0], np.float32)
    for by in ("step", "row"):
        assert losses.reduce(per_row, row_mask, by=by) == 4.5
        assert losses.reduce(per_row, row_mask, weights, by) == (3 * 2 + 7) / 4
    assert losses.reduce(per_row, row_mask, by="sum") == 9.0
    assert losses.reduce(per_row[:, 0][::2], None, by="sum") == 7.0


def test_totals_and_counts_of_devices_add_up_to_the_whole_batch():
    per_step = np.random.default_rng(4).normal(size=(4, 3)).astype(np.float32)

    def on_a_device(y, m):
        total, count = losses.sum_and_count(y, m)
        return jax.lax.psum(total, "device") / jax.lax.psum(count, "device")

    halves = per_step.reshape(2, 2, 3), MASK.reshape(2, 2, 3)
    found = jax.jit(jax.vmap(on_a_device, axis_name="device"))(*halves)
    whole = per_step[MASK].mean()
    np.testing.assert_allclose(found, [whole, whole], rtol=1e-5)
    of_halves = [y[m].mean() for y, m in zip(*halves, strict=True)]
    assert abs(np.mean(of_halves) - whole) > 1e-2  # else the mean of means would pass too


def test_half_precision_is_added_up_in_float32_and_integers_are_counted():
    ones = jnp.ones((1, 1001), jnp.bfloat16)  # 1001 is no bfloat16
    total, count = losses.sum_and_count(ones, None)
    assert (float(total), float(count), total.dtype) == (1001.0, 1001.0, jnp.float32)
    right = np.array([[True, False, True]])
    assert losses.reduce(right, np.array([[True, True, False]])) == 0.5
    assert losses.reduce(right.astype(np.int32), None) == np.float32(2 / 3)


def test_reduce_refuses_what_it_cannot_read():
    per_step = np.zeros((2, 3), np.float32)
    mask = np.ones((2, 3), bool)
    with pytest.raises(ValueError, match="reduce: `by` must be one of 'step', 'row', 'sum'"):
        losses.reduce(per_step, mask, by="mean")
    with pytest.raises(ValueError, match='sum_and_count: `by` must be "step" or "row"'):
        losses.sum_and_count(per_step, mask, by="sum")
    with pytest.raises(ValueError, match="sum_and_count: `by` must be one of"):
        losses.sum_and_count(per_step, mask, by="batch")
    for shape, expected in [((3,), r"\[batch\] = \(2,\)"), ((2, 1), r"\[batch, time\] = \(2, 3\)")]:
        with pytest.raises(ValueError, match=f"reduce: `weights` must be {expected}"):
            losses.reduce(per_step, mask, np.ones(shape, np.float32))
    with pytest.raises(ValueError, match=r"reduce: `weights` must be \[batch, time\]"):
        losses.reduce(per_step[..., None], mask, np.ones((2, 3, 1), np.float32))
    with pytest.raises(ValueError, match=r"reduce: `weights` must be \[batch\]"):
        losses.reduce(per_step, mask[:, 0], np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"reduce: `weights` must be \[batch, time\]"):
        losses.reduce(per_step, mask, np.float32(2))
    with pytest.raises(TypeError, match="reduce: `per_step` must be real numbers"):
        losses.reduce(per_step.astype(np.complex64), mask)
    with pytest.raises(TypeError, match="reduce: `weights` must be real numbers"):
        losses.reduce(per_step, mask, per_step.astype(np.complex64))
    with pytest.raises(jm.MaskError, match="reduce: `mask` must have the shape"):
        losses.reduce(per_step, mask[:, :2])
    with pytest.raises(TypeError, match="unpack it"):
        losses.reduce((per_step, mask), None)
