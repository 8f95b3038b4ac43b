"""Largest and smallest values, and where their gradients go in the program that users run."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from tests import optimised

BOTH = pytest.mark.parametrize("name", ["max", "min"])


def produced(p, h):
    """A normalisation with parameters, which XLA computes in several fusions."""
    mean = h.mean(-1, keepdims=True)
    deviation = jnp.sqrt((h * h).mean(-1, keepdims=True) - mean * mean + 1e-6)
    return (h - mean) / deviation * p["scale"] + p["bias"]


def masks_of(kind, seed):
    if kind == "packed":
        ids = np.sort(np.random.default_rng(seed).integers(1, 4, (5, 8)), axis=1)
        ids[:, 6:] = 0
        return jm.Segments(jnp.asarray(ids), 3)
    mask = np.random.default_rng(seed).random((5, 8)) < 0.7
    mask[0] = False
    return jnp.asarray(mask)


POOLS = {
    "max": jm.pool.max,
    "min": jm.pool.min,
    "GlobalMaxPool": jm.nn.GlobalMaxPool(),
    "GlobalMinPool": jm.nn.GlobalMinPool(),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("kind", ["mask", "packed", "none"])
def test_gradients_of_the_layer_before_are_those_of_float64(name, kind):
    def loss(p, h, mask):
        return jnp.sum(jnp.sin(POOLS[name](produced(p, h), mask)[0]))

    ours = optimised.jit(jax.grad(loss))
    for seed in range(6):
        r = np.random.default_rng(seed)
        h = r.normal(size=(5, 8, 5))
        p = {"scale": r.normal(size=5), "bias": r.normal(size=5)}
        mask = None if kind == "none" else masks_of(kind, seed)
        narrow = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (p, h))
        got = ours(*narrow, mask)
        with jax.enable_x64(True), jax.disable_jit():
            wide = jax.tree.map(jnp.asarray, (p, h))
            want = jax.grad(loss)(*wide, mask)
        for part in p:
            np.testing.assert_allclose(got[part], want[part], rtol=2e-4, atol=2e-5)


@BOTH
def test_the_first_of_a_tie_has_the_gradient(name):
    x = jnp.array([[5.0, 2.0, 2.0, 2.0]])
    mask = jnp.array([[False, False, True, True]])
    gradient = jax.grad(lambda x: getattr(jm.pool, name)(x, mask)[0].sum())(x)
    assert gradient.tolist() == [[0.0, 0.0, 1.0, 0.0]]


@BOTH
@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan, -0.0])
def test_padding_that_ties_has_none(name, value):
    """The identity of a maximum, which stands in the padding, may be a real value too."""
    x = jnp.full((2, 4), value)
    mask = jnp.array([[False, False, True, True], [False] * 4])
    y, pull = jax.vjp(lambda x: getattr(jm.pool, name)(x, mask)[0], x)
    assert np.array_equal(y, [value, 0], equal_nan=True)
    assert pull(jnp.ones(2))[0].tolist() == [[0.0, 0.0, 1.0, 0.0], [0.0] * 4]


@pytest.mark.sampled(2)
@BOTH
def test_it_has_all_derivatives(name):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 2)), jnp.float32)
    mask = jnp.array([[True, False, True, True], [False] * 4, [True] * 4])

    def f(x):
        return getattr(jm.pool, name)(jnp.sin(x), mask)[0] ** 2

    reverse = jax.jacrev(f)(x)
    np.testing.assert_allclose(jax.jacfwd(f)(x), reverse, rtol=1e-6)
    summed = lambda x: jnp.sum(f(x))  # noqa: E731
    hessian = jax.hessian(summed)(x)
    np.testing.assert_allclose(jax.jacrev(jax.jacrev(summed))(x), hessian, rtol=1e-5, atol=1e-6)
    picked = np.any(np.asarray(reverse) != 0, axis=(0, 1))
    assert np.array_equal(np.asarray(hessian).reshape(24, 24).diagonal() != 0, picked.ravel())
    batched = jax.vmap(jax.grad(summed))(jnp.stack([x, -x]))
    np.testing.assert_array_equal(batched[0], jax.grad(summed)(x))
    np.testing.assert_array_equal(batched[1], jax.grad(summed)(-x))


@BOTH
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int32, "float16", "bfloat16"])
def test_dtypes(name, dtype):
    r = np.random.default_rng(0)
    x = np.asarray(jnp.asarray(r.integers(0, 2 if dtype is bool else 100, (3, 5)), dtype))
    mask = np.array([[True, False, True, True, False], [False] * 5, [True] * 5])
    y, _ = getattr(jm.pool, name)(x, mask)
    assert y.dtype == x.dtype
    for b in (0, 2):
        assert y[b] == getattr(np, name)(x[b, mask[b]])
    assert not y[1]
    if jnp.issubdtype(x.dtype, jnp.floating):
        gradient = jax.grad(lambda x: getattr(jm.pool, name)(x, mask)[0].sum())(jnp.asarray(x))
        assert gradient.dtype == x.dtype
        assert np.sum(gradient, axis=1).tolist() == [1, 0, 1]


@BOTH
def test_no_steps_at_all(name):
    x, mask = jnp.zeros((2, 0, 3)), jnp.zeros((2, 0), bool)
    y, pull = jax.vjp(lambda x: getattr(jm.pool, name)(x, mask)[0], x)
    assert not y.any()
    assert pull(y)[0].shape == x.shape


@BOTH
def test_it_exports_for_any_time(name):
    def gradient(x, mask):
        return jax.grad(lambda x: getattr(jm.pool, name)(x, mask)[0].sum())(x)

    batch, time = jax.export.symbolic_shape("b, t")
    specs = (
        jax.ShapeDtypeStruct((batch, time, 2), "float32"),
        jax.ShapeDtypeStruct((batch, time), bool),
    )
    program = jax.export.export(jax.jit(gradient))(*specs)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7, 2)), jnp.float32)
    mask = jnp.arange(7) < jnp.array([[7], [3], [0]])
    np.testing.assert_array_equal(program.call(x, mask), gradient(x, mask))


@BOTH
def test_complex_numbers_have_no_order(name):
    for mask in (None, jnp.ones((1, 2), bool), jm.Segments(jnp.ones((1, 2), int), 1)):
        with pytest.raises(TypeError, match=rf"{name}: `x` must be real.*order"):
            getattr(jm.pool, name)(jnp.ones((1, 2), jnp.complex64), mask)


MERGES = pytest.mark.parametrize("name", ["maximum", "minimum"])


@MERGES
@pytest.mark.parametrize("rule", ["and", "or", "first"])
def test_gradients_before_a_merge_are_those_of_float64(name, rule):
    def loss(p, q, h, one, two):
        pairs = (produced(p, h), one), (produced(q, h), two), (jnp.tanh(h), None)
        return jnp.sum(jnp.sin(getattr(jm.merge, name)(*pairs, combine=rule)[0]))

    ours = optimised.jit(jax.grad(loss, argnums=(0, 1)))
    for seed in range(4):
        r = np.random.default_rng(seed)
        h = r.normal(size=(5, 8, 5))
        p, q = ({"scale": r.normal(size=5), "bias": r.normal(size=5)} for _ in range(2))
        one, two = masks_of("mask", seed), masks_of("mask", seed + 1)
        narrow = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (p, q, h))
        with jax.enable_x64(True), jax.disable_jit():
            want = jax.grad(loss, argnums=(0, 1))(*jax.tree.map(jnp.asarray, (p, q, h)), one, two)
        got = ours(*narrow, one, two)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@MERGES
def test_operands_that_nearly_tie_have_the_gradient_once(name):
    """All operands are equal but for their rounding, so which of them wins is for XLA to say."""

    def loss(p, h, weights):
        mean = h.mean(-1, keepdims=True)
        other = (h - mean) * jax.lax.rsqrt(((h - mean) ** 2).mean(-1, keepdims=True) + 1e-6)
        pairs = (produced(p[0], h), None), (other * p[1]["scale"] + p[1]["bias"], None)
        return jnp.sum(weights * getattr(jm.merge, name)(*pairs)[0])

    ours = optimised.jit(jax.grad(loss))
    for seed in range(4):
        r = np.random.default_rng(seed)
        h, weights = jnp.asarray(r.normal(size=(2, 5, 8, 5)), jnp.float32)
        one = {"scale": jnp.ones(5), "bias": jnp.ones(5)}
        first, second = ours([one, one], h, weights)
        total = first["bias"] + second["bias"]
        np.testing.assert_allclose(total, weights.sum((0, 1)), rtol=1e-4, atol=1e-4)


@MERGES
def test_the_first_operand_of_a_tie_has_the_gradient(name):
    x, low = jnp.array([[2.0, -jnp.inf, jnp.inf, 0.0]]), jnp.array([[True] * 4])
    f = getattr(jm.merge, name)
    ours = jax.grad(lambda *xs: f(*((x, low) for x in xs))[0].sum(), argnums=(0, 1, 2))(x, x, x)
    assert [g.tolist() for g in ours] == [[[1.0] * 4], [[0.0] * 4], [[0.0] * 4]]


@MERGES
def test_nan_of_any_operand_stays(name):
    x = jnp.array([[1.0, jnp.nan, 1.0, jnp.nan]]), jnp.array([[2.0, 2.0, jnp.nan, jnp.nan]])
    y, _ = getattr(jm.merge, name)(*((a, None) for a in x))
    assert np.array_equal(y, getattr(np, name)(*x), equal_nan=True)


@MERGES
def test_merged_complex_numbers_have_no_order(name):
    pair = jnp.ones((1, 2), jnp.complex64), None
    with pytest.raises(TypeError, match=rf"{name}: `x` must be real.*order"):
        getattr(jm.merge, name)(pair, pair)
