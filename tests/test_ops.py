"""Primitives against SciPy and NumPy on each unpadded row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmask as jm

ORACLES = {
    "softmax": (jm.ops.softmax, lambda row: scipy.special.softmax(row, axis=0)),
    "log_softmax": (jm.ops.log_softmax, lambda row: scipy.special.log_softmax(row, axis=0)),
    "logsumexp": (jm.ops.logsumexp, lambda row: scipy.special.logsumexp(row, axis=0)),
    "cumsum": (jm.ops.cumsum, lambda row: np.cumsum(row, axis=0)),
    "flip": (jm.ops.flip, lambda row: row[::-1]),
    "compact": (jm.ops.compact, lambda row: row),
    "shift 1": (lambda x, m: jm.ops.shift(x, m, 1, value=5), lambda r: np.r_[[5.0], r[:-1]]),
    "shift -2": (
        lambda x, m: jm.ops.shift(x, m, -2, value=5),
        lambda r: np.r_[r[2:], [5.0] * min(2, len(r))],
    ),
    "mean": (jm.pool.mean, lambda row: row.mean(axis=0)),
    "sum": (jm.pool.sum, lambda row: row.sum(axis=0)),
    "max": (jm.pool.max, lambda row: row.max(axis=0)),
    "min": (jm.pool.min, lambda row: row.min(axis=0)),
    "first": (jm.pool.first, lambda row: row[0]),
    "last": (jm.pool.last, lambda row: row[-1]),
}
TIME = 4
VALUES = st.one_of(
    st.floats(-30, 30, width=32), st.sampled_from([0.0, 1e4, -1e4, np.float32(3e38)])
)
RAGGED = st.lists(
    st.tuples(
        st.lists(VALUES, min_size=TIME, max_size=TIME),
        st.lists(st.booleans(), min_size=TIME, max_size=TIME),
    ),
    min_size=3,
    max_size=3,
)


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=25)
@given(RAGGED)
def test_against_the_row_alone(name, rows):
    ours, oracle = ORACLES[name]
    x = np.array([values for values, _ in rows], np.float32)
    mask = np.array([bits for _, bits in rows])
    y, out = jax.jit(ours)(np.where(mask, x, np.nan).astype(np.float32), mask)
    y, out = np.asarray(y), np.asarray(out)
    with np.errstate(all="ignore"):
        for b in range(len(x)):
            real = x[b, mask[b]]
            if not len(real):
                assert not out[b].any()
                assert not y[b].any()
                continue
            expected = oracle(real).astype(np.float32)
            result = y[b] if out.ndim == 1 else y[b, out[b]]
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_infinities_at_real_steps_stay():
    """A finite identity must not win over them."""
    x = jnp.array([[-jnp.inf, -jnp.inf, 5.0], [jnp.inf, 1.0, 7.0]])
    mask = jnp.array([[True, True, False], [True, True, False]])
    assert jm.pool.max(x, mask)[0].tolist() == [-np.inf, np.inf]
    assert jm.pool.min(-x, mask)[0].tolist() == [np.inf, -np.inf]
    assert jm.ops.logsumexp(x, mask)[0].tolist() == [-np.inf, np.inf]
    soft = jm.ops.softmax(jnp.array([[-jnp.inf, 0.0, 9.0]]), mask[:1])[0]
    assert soft.tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize("name", ["max", "min", "sum", "mean", "first", "last"])
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, bool])
def test_integers_and_booleans(name, dtype):
    x = np.array([[1, 0, 1], [3, 9, 7]]).astype(dtype)
    mask = np.array([[True, True, False], [False, False, False]])
    y, _ = getattr(jm.pool, name)(x, mask)
    expected = {"mean": 0.5, "last": 0, "min": 0}.get(name, 1)
    assert y.tolist() == [expected, 0]


def test_a_nan_at_a_real_step_stays_in_its_row():
    x = jnp.array([[[jnp.nan], [1.0]], [[2.0], [3.0]]])
    mask = jnp.ones((2, 2), bool)
    for function in (jm.ops.softmax, jm.ops.cumsum, jm.pool.mean, jm.pool.max, jm.pool.sum):
        y, _ = function(x, mask)
        assert np.isnan(np.asarray(y[0])).any()
        assert np.isfinite(np.asarray(y[1])).all()


def test_a_nan_at_a_real_step_stays_in_its_segment():
    x = jnp.array([[jnp.nan, 1.0, 2.0, 3.0, 4.0]])
    segments = jm.Segments(jnp.array([[1, 1, 2, 2, 0]]), 2)
    for function in (jm.ops.softmax, jm.ops.log_softmax, jm.ops.cumsum, jm.ops.flip):
        y, _ = function(x, segments)
        assert np.isnan(np.asarray(y[0, :2])).any()
        assert np.isfinite(np.asarray(y[0, 2:4])).all()
        assert float(y[0, 4]) == 0
    for function in (jm.pool.mean, jm.pool.max, jm.pool.sum, jm.ops.logsumexp):
        y, _ = function(x, segments)
        assert np.isnan(np.asarray(y)).tolist() == [True, False]


def test_sums_in_half_precision_neither_stall_nor_overflow():
    ones, mask = jnp.ones((1, 4000), jnp.bfloat16), jnp.ones((1, 4000), bool)
    assert float(jm.pool.mean(ones, mask)[0][0]) == 1
    assert float(jm.ops.cumsum(ones, mask)[0][0, -1]) == 4000
    large = jnp.full((1, 4000), 6e4, jnp.float16)
    assert float(jm.pool.mean(large, mask)[0][0]) == pytest.approx(6e4, rel=1e-3)


def shown(x, mask, fill=None):
    """What `each_step` shows its function."""
    seen = []
    jm.ops.each_step(lambda x: seen.append(x) or x, x, mask, fill=fill)
    return seen[0]


def test_each_step_shows_another_row_then_a_constant():
    x = jnp.array([[9.0, 4.0], [8.0, 7.0]])
    mask = jnp.array([[False, True], [False, False]])
    assert shown(x, mask).tolist() == [[4.0, 4.0], [4.0, 4.0]]
    empty = jnp.zeros((2, 2), bool)
    assert shown(x, empty).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert shown(x, empty, 3).tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert shown(x.astype(int), empty).tolist() == [[0, 0], [0, 0]]


def test_copies_that_each_step_shows_carry_no_gradient():
    x, mask = jnp.array([[4.0, 9.0]]), jnp.array([[True, False]])
    assert jax.grad(lambda x: shown(x, mask).sum())(x).tolist() == [[1.0, 0.0]]


# Batch and time have one size, so NumPy's broadcasting would lay a value by row along time.
BY_ROW = np.array([10.0, 20.0, 30.0], np.float32)
BY_STEP = np.arange(9, dtype=np.float32).reshape(3, 3)


@pytest.mark.parametrize("features", [(), (3,)])
@pytest.mark.parametrize("by", ["number", "row", "step", "value"])
def test_a_value_is_spread_by_its_leading_axes(by, features):
    shape = (3, 3, *features)
    value = {"number": 7.0, "row": BY_ROW, "step": BY_STEP, "value": np.random.rand(*shape)}[by]
    value = jnp.asarray(value, jnp.float32)
    full = np.broadcast_to(np.reshape(value, value.shape + (1,) * (len(shape) - value.ndim)), shape)
    x, mask = jnp.full(shape, -1.0), jnp.array([[True, True, False]] * 3)
    assert np.array_equal(jm.ops.fill(x, mask, value)[0][:, 2], full[:, 2])
    assert np.array_equal(jm.ops.shift(x, mask, value=value)[0][:, 0], full[:, 0])
    none = jnp.zeros((3, 3), bool)
    assert np.array_equal(shown(x, none, value), full)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, mask, value: jm.ops.fill(x, mask, value),
        lambda x, mask, value: jm.ops.shift(x, mask, value=value),
        lambda x, mask, value: jm.ops.each_step(jnp.sqrt, x, mask, fill=value),
    ],
)
@pytest.mark.parametrize("shape", [(1,), (4,), (2, 1), (3, 2), (1, 1, 4), (3, 4), (2, 3, 4, 1)])
def test_a_value_of_another_shape_is_refused(call, shape):
    x = jnp.zeros((2, 3, 4))
    for mask in (None, jnp.ones((2, 3), bool)):
        with pytest.raises(ValueError, match=r"`(value|fill)` must be one number.*by row"):
            call(x, mask, jnp.zeros(shape))


ONE_NUMBER = {
    "epsilon": [
        lambda x, mask, a: jm.norm.layer(x, mask, epsilon=a),
        lambda x, mask, a: jm.norm.rms(x, mask, epsilon=a),
        lambda x, mask, a: jm.norm.group(x, mask, 1, epsilon=a),
        lambda x, mask, a: jm.norm.instance(x, mask, epsilon=a),
        lambda x, mask, a: jm.norm.standardize(x, mask, epsilon=a),
        lambda x, mask, a: jm.norm.batch(x, mask, epsilon=a),
    ],
    "scale": [
        lambda x, mask, a: jm.attention.attend(
            *(x[:, :, None], mask, x[:, :, None], x[:, :, None], mask), scale=a
        )
    ],
    "dropout_rate": [
        lambda x, mask, a: jm.random.dropout(x, mask, jax.random.key(0), a),
        lambda x, mask, a: jm.random.spatial_dropout(x, mask, jax.random.key(0), a),
    ],
    "stddev": [lambda x, mask, a: jm.random.gaussian_noise(x, mask, jax.random.key(0), a)],
}


@pytest.mark.parametrize(
    ("name", "call"), [(name, call) for name, calls in ONE_NUMBER.items() for call in calls]
)
def test_what_is_one_number_is_not_spread(name, call):
    """All axes have one size, so that any array would broadcast."""
    with pytest.raises(ValueError, match=f"`{name}` must be one number"):
        call(jnp.ones((3, 3, 3)), jnp.ones((3, 3), bool), jnp.full(3, 0.5))


def test_each_step_refuses_what_changes_time():
    x, mask = jnp.ones((2, 4, 3)), jnp.ones((2, 4), bool)
    with pytest.raises(jm.MaskError, match="axes of the mask"):
        jm.ops.each_step(lambda x: x[:, ::2], x, mask)


def test_a_pair_in_the_place_of_an_array_is_named():
    pair = (jnp.ones((1, 2)), jnp.ones((1, 2), bool))
    with pytest.raises(TypeError, match="unpack"):
        jm.pool.mean(pair, None)
    with pytest.raises(TypeError, match="pad_sequences"):
        jm.pool.mean([[1.0]], None)
