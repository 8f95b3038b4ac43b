"""Linear recurrences against a loop over the unpadded row, and gated ones against their papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm

BATCH, TIME, FEATURE = 3, 7, 2
HOLES = np.array([[1, 0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 1, 0, 0], [0] * 7], bool)
RIGHT = np.arange(TIME) < np.array([7, 3, 0])[:, None]
SHAPE = (BATCH, TIME, FEATURE)


def coefficients(dtype, seed=0):
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=SHAPE), draw.normal(size=SHAPE)
    if np.issubdtype(dtype, np.complexfloating):
        a, b = a + 1j * draw.normal(size=SHAPE), b + 1j * draw.normal(size=SHAPE)
    return a.astype(dtype), b.astype(dtype)


def loop(a, b, h, reverse=False):
    """One unpadded row, step by step, in twice the precision."""
    wide = np.result_type(a.dtype, b.dtype, np.float64)
    h, y = h.astype(wide), np.zeros(a.shape, wide)
    for t in range(len(a))[:: -1 if reverse else 1]:
        h = a[t].astype(wide) * h + b[t]
        y[t] = h
    return h, y


def spoiled(x, mask):
    return np.where(mask[..., None], x, np.nan).astype(x.dtype)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mask", [RIGHT, RIGHT[:, ::-1], HOLES], ids=["right", "left", "holes"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_is_the_loop_over_the_row_alone(dtype, mask, reverse):
    a, b = coefficients(dtype)
    start = coefficients(dtype, 1)[0][:, 0]
    carry, (h, out) = jm.recurrent.linear(
        spoiled(b, mask), mask, spoiled(a, mask), start, reverse=reverse
    )
    assert h.dtype == carry.dtype == dtype
    np.testing.assert_array_equal(out, mask)
    assert not np.asarray(h)[~mask].any()
    for row in range(BATCH):
        last, y = loop(a[row, mask[row]], b[row, mask[row]], start[row], reverse)
        np.testing.assert_allclose(h[row, mask[row]], y, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(carry[row], last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_gradients_are_those_of_a_plain_scan(dtype):
    a, b = coefficients(dtype)
    start = coefficients(dtype, 1)[0][:, 0]

    def by_scan(a, b, start):
        def step(h, ab):
            h = ab[0] * h + ab[1]
            return h, h

        h, y = jax.lax.scan(step, start, (a.swapaxes(0, 1), b.swapaxes(0, 1)))
        return jnp.sum(jnp.abs(y) ** 2) + jnp.sum(jnp.abs(h) ** 2)

    def ours(a, b, start):
        h, (y, _) = jm.recurrent.linear(b, None, a, start)
        return jnp.sum(jnp.abs(y) ** 2) + jnp.sum(jnp.abs(h) ** 2)

    arguments = tuple(map(jnp.asarray, (a, b, start)))
    for mine, theirs in zip(
        jax.grad(ours, (0, 1, 2))(*arguments), jax.grad(by_scan, (0, 1, 2))(*arguments), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3)


def test_real_coefficients_and_a_complex_state_meet():
    a, _ = coefficients(np.float32)
    _, b = coefficients(np.complex64)
    carry, (h, _) = jm.recurrent.linear(b, None, a)
    assert h.dtype == carry.dtype == jnp.complex64
    np.testing.assert_allclose(h[0], loop(a[0], b[0], b[0, 0] * 0)[1], rtol=1e-4, atol=1e-4)


def test_a_long_half_precision_run_does_not_drift():
    ones = jnp.ones((1, 2000, 1), jnp.bfloat16)
    carry, (h, _) = jm.recurrent.linear(ones, None, ones)
    assert (h.dtype, carry.dtype, float(carry[0, 0])) == (jnp.bfloat16, jnp.float32, 2000)


@pytest.mark.parametrize("reverse", [False, True])
def test_segments_start_from_zeros_and_the_first_met_goes_on_from_the_carry(reverse):
    a, b = coefficients(np.float32)
    ids = np.array([[1, 1, 0, 2, 2, 2, 0]] * BATCH)
    start = np.ones((BATCH, FEATURE), np.float32)
    carry, (h, mask) = jm.recurrent.linear(b, None, a, start, segments=ids, reverse=reverse)
    np.testing.assert_array_equal(mask, ids > 0)
    order = (2, 1) if reverse else (1, 2)
    state = start[0]
    for segment in order:
        real = ids[0] == segment
        last, y = loop(a[0, real], b[0, real], state, reverse)
        np.testing.assert_allclose(h[0, real], y, rtol=1e-5, atol=1e-5)
        state = 0 * state
    np.testing.assert_allclose(carry[0], last, rtol=1e-5, atol=1e-5)


OVERFLOWING = {
    "from zero": (np.full(300, 2.0), np.arange(300) == 299),
    "from tiny": (np.array([1.0, 1e30, 1e30, 0.5]), np.array([1e-30, 0.0, 0.0, 1.0])),
    "past a zero": (np.array([0.5, 1e30, 1e30, 0.0, 0.5]), np.array([0.0, 0.0, 0.0, 1.0, 1.0])),
    "up and down": (np.array([1e-30, 1e30, 1e30, 1e-30] * 3), np.array([1, 0, 0, -1] * 3) * 1e-30),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", OVERFLOWING)
def test_a_product_that_overflows_spoils_no_finite_state(name, reverse):
    """The state is that of the loop, though `a` multiplies to inf, also for rows beside it."""
    a, b = (np.asarray(z, np.float32) for z in OVERFLOWING[name])
    h, expected = np.float64(0), []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        expected.append(h)
    x, y, order = np.stack([a, a[::-1] * 0 + 0.5]), np.stack([b, b]), slice(None, None, -1)
    x, y = (z[:, order] if reverse else z for z in (x, y))
    run = jax.jit(lambda a, b: jm.recurrent.linear(b, None, a, reverse=reverse)[1][0])
    ours = np.asarray(run(x, y))[0]
    np.testing.assert_allclose(ours[order] if reverse else ours, expected, rtol=1e-5)
    # A mapped axis has one answer to whether a product overflows: no `select` of both ways.
    mapped = jax.vmap(jax.vmap(run))(*(np.stack([[z] * 2] * 3) for z in (x, y)))
    np.testing.assert_array_equal(mapped[2, 1], run(x, y))
    text = str(jax.make_jaxpr(jax.vmap(jax.vmap(run)))(*(np.stack([[z] * 2] * 3) for z in (x, y))))
    assert "cond[" in text


def test_steps_one_by_one_have_the_gradients_of_all_at_once():
    """A segment whose product overflows sends its row the other way, and changes no other row."""
    draw = np.random.default_rng(3)
    a, b = (draw.uniform(-1, 1, (2, 9, 3)).astype(np.float32) for _ in range(2))
    segments = jm.Segments(jnp.array([[1, 1, 1, 2, 2, 0, 3, 3, 0]] * 2), 3)

    def total(a, b):
        h = jm.recurrent.linear(b, segments, a)[1][0]
        return jnp.sum(jnp.sin(h[:, 3:])), h[:, 3:]

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    (_, base), gradients = run(a, b)
    loud = a.copy()
    loud[0, :3] = 1e20
    (_, y), others = run(loud, b)
    for ours, theirs in zip((y, *others), (base, *gradients), strict=True):
        np.testing.assert_array_equal(ours[1], theirs[1])
        np.testing.assert_allclose(ours[0, -6:], theirs[0, -6:], atol=1e-6)


def test_a_nan_in_one_segment_reaches_no_other_value_or_gradient():
    a, b = map(jnp.asarray, coefficients(np.float32))
    ids = jnp.array([[1, 1, 1, 2, 2, 2, 2]] * BATCH)

    def second(a, b):
        return jnp.sum(jm.recurrent.linear(b, jm.Segments(ids, 2), a)[1][0][:, 3:] ** 2)

    clean = jax.grad(second, (0, 1))(a, b)
    for bad in (np.nan, np.inf):
        grads = jax.grad(second, (0, 1))(a.at[:, 1].set(bad), b.at[:, 0].set(bad))
        for mine, theirs in zip(grads, clean, strict=True):
            np.testing.assert_allclose(mine[:, 3:], theirs[:, 3:], rtol=1e-6)
            assert np.isfinite(mine[:, 3:]).all()


A, B = coefficients(np.float32)
BAD = {
    "shape": ({"decay": A[:, :, :1]}, "`decay`.*shape"),
    "decay": ({"decay": A.astype(np.int32)}, "`decay` must be floating or complex"),
    "x": ({"x": B.astype(np.int32)}, "`x` must be floating or complex"),
    "carry": ({"carry": np.zeros((BATCH, 1), np.float32)}, r"carry.*\[batch, feature"),
    "carry of integers": ({"carry": np.zeros((BATCH, FEATURE), np.int32)}, "`carry` must be float"),
    "complex carry": ({"carry": np.zeros((BATCH, FEATURE), np.complex64)}, "or complex where"),
    "resets": ({"resets": np.zeros((BATCH, 1), bool)}, "resets"),
    "mask": ({"mask": RIGHT[:, :1]}, "mask"),
    "twice": (
        {"mask": jm.Segments(jnp.ones((BATCH, TIME), int), 1), "segments": np.ones((BATCH, TIME))},
        "twice",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    changed, text = BAD[name]
    arguments = {"x": B, "mask": None, "decay": A, **changed}
    with pytest.raises((TypeError, ValueError), match=text):
        jax.eval_shape(lambda: jm.recurrent.linear(**arguments))


# ------------------------------------------------------------------------------ modules


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def affine(x, linear):
    kernel, bias = (np.asarray(p[...], np.float64) for p in (linear.kernel, linear.bias))
    return x @ kernel + bias


def min_gru(layer, x, h):
    z = sigmoid(affine(x, layer.update))
    return (1 - z) * h + z * affine(x, layer.candidate)


def min_lstm(layer, x, h):
    f, i = sigmoid(affine(x, layer.forget)), sigmoid(affine(x, layer.input))
    return f / (f + i) * h + i / (f + i) * affine(x, layer.candidate)


def rg_lru(layer, x, h):
    r, i = sigmoid(affine(x, layer.recurrence)), sigmoid(affine(x, layer.input))
    a = sigmoid(np.asarray(layer.decay[...], np.float64)) ** (8 * r)
    return a * h + np.sqrt(1 - a**2) * (i * x)


MODULES = {
    "MinGRU": (lambda **o: jm.nn.MinGRU(3, 4, rngs=nnx.Rngs(0), **o), min_gru),
    "MinLSTM": (lambda **o: jm.nn.MinLSTM(3, 4, rngs=nnx.Rngs(0), **o), min_lstm),
    "RGLRU": (lambda **o: jm.nn.RGLRU(3, rngs=nnx.Rngs(0), **o), rg_lru),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_module_is_its_paper_step_by_step(name, reverse):
    make, step = MODULES[name]
    layer = make(reverse=reverse)
    for parameter in jax.tree.leaves(nnx.state(layer, nnx.Param)):
        assert parameter.dtype == jnp.float32
    x = np.random.default_rng(0).normal(size=(BATCH, TIME, 3)).astype(np.float32)
    y, _ = layer(np.where(HOLES[..., None], x, np.nan), HOLES)
    last, row_mask = make(reverse=reverse, return_sequences=False)(x, HOLES)
    assert row_mask.tolist() == [True, True, False]
    for row in range(2):
        h, expected = np.zeros(layer.hidden_features), []
        steps = x[row, HOLES[row]].astype(np.float64)
        for x_t in steps[:: -1 if reverse else 1]:
            h = step(layer, x_t, h)
            expected.append(h)
        expected = np.stack(expected)[:: -1 if reverse else 1]
        np.testing.assert_allclose(y[row, HOLES[row]], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(last[row], h, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_gates_that_round_to_0_or_1_leave_finite_gradients(name):
    layer = MODULES[name][0]()
    x = jnp.asarray([[[1e4, -1e4, 1e4], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]]])

    def total(layer, x):
        return jnp.sum(layer(x)[0] ** 2) / 1e8

    for gradient in jax.tree.leaves(nnx.grad(total, argnums=(0, 1))(layer, x)):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", MODULES)
def test_other_features_are_named(name):
    layer = MODULES[name][0]()
    for wrong in (np.zeros((2, 3, 9), np.float32), np.zeros((2, 9), np.float32)):
        with pytest.raises(ValueError, match=r"`x` must be \[batch, time, in_features"):
            layer(wrong)


def test_the_decay_starts_slow():
    layer = jm.nn.RGLRU(1000, rngs=nnx.Rngs(0))
    full = np.asarray(jax.nn.sigmoid(layer.decay[...])) ** 8
    assert full.min() >= 0.899
    assert full.max() <= 0.9991
    assert 0.94 < full.mean() < 0.96


def test_half_precision_modules_keep_their_dtype_and_a_float32_carry():
    for name in MODULES:
        layer = MODULES[name][0](dtype=jnp.bfloat16)
        x = jnp.ones((2, 3, 3), jnp.bfloat16)
        carry, (y, _) = layer.run(layer.initial_carry(2), x)
        assert (y.dtype, carry.dtype) == (jnp.bfloat16, jnp.float32)
    with pytest.raises(TypeError, match="floating"):
        jm.nn.MinGRU(3, 4, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 3), int))
