"""Variances, standard deviations and statistics pooling, against NumPy on the row alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm

MASK = np.array([[1, 1, 1, 1, 0], [0, 1, 0, 1, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
X = np.where(MASK[..., None], np.random.default_rng(0).normal(3, 2, (4, 5, 3)), np.nan)
X = X.astype(np.float32)


@pytest.mark.parametrize("ddof", [0, 1])
def test_rows_agree_with_numpy(ddof):
    var, rows = jm.pool.var(X, MASK, ddof=ddof)
    std, _ = jm.pool.std(X, MASK, ddof=ddof)
    both, _ = jm.pool.statistics(X, MASK, ddof=ddof)
    assert rows.tolist() == [True, True, True, False]
    for row in range(4):
        alone = X[row, MASK[row]].astype(np.float64)
        if len(alone) <= ddof:
            assert not np.any(var[row])
            assert not np.any(std[row])
            continue
        np.testing.assert_allclose(var[row], alone.var(0, ddof=ddof), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(std[row], alone.std(0, ddof=ddof), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(both[row, :3], alone.mean(0), rtol=1e-5)
        np.testing.assert_allclose(both[row, 3:], std[row], rtol=1e-6)


def test_equal_steps_have_no_gradient_and_large_ones_cancel_nothing():
    slope = jax.grad(lambda x: jnp.sum(jm.pool.std(x, None)[0]))(jnp.full((1, 3, 2), 0.1))
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() < 1
    far = 4096 + np.arange(4.0, dtype=np.float32)[None, :, None]
    np.testing.assert_allclose(jm.pool.var(far, None)[0], [[1.25]], rtol=1e-6)
    assert jm.pool.std(np.arange(4)[None], None)[0].dtype == jnp.float32
    assert jm.pool.std(far.astype(jnp.bfloat16), None)[0].dtype == jnp.bfloat16


def test_segments_have_statistics_of_their_own():
    segments = jm.Segments(np.array([[1, 1, 2, 2, 2]], np.int32), 2)
    x = np.arange(10.0, dtype=np.float32).reshape(1, 5, 2) ** 2
    y, rows = jm.pool.statistics(x, segments)
    assert rows.tolist() == [True, True]
    for found, alone in zip(y, (x[0, :2], x[0, 2:]), strict=True):
        np.testing.assert_allclose(found, [*alone.mean(0), *alone.std(0)], rtol=1e-5)


def test_bad_calls():
    with pytest.raises(ValueError, match="feature axis"):
        jm.pool.statistics(X[..., 0], MASK)
    with pytest.raises(ValueError, match="`ddof` must be at least 0"):
        jm.pool.var(X, MASK, ddof=-1)
    with pytest.raises(TypeError, match="must be real"):
        jm.pool.std(X.astype(complex), MASK)
