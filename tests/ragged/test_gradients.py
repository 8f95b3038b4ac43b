"""Gradients in what computes the row, in the program that XLA compiles for users.

The oracle is the same function of padded arrays in float64, op by op.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from tests import optimised

SEEDS = 12
FILL = jnp.inf


def norm(x, p):
    mean = x.mean(-1, keepdims=True)
    variance = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0)
    return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * p["scale"]) + p["bias"]


def masked_mean(x, mask):
    return jnp.where(mask, x, 0).sum(1) / mask.sum(1)


# A function of a row, and the same of a batch and its mask.
FUNCTIONS = {
    "max": (lambda x: x.max(0), lambda x, m: jnp.where(m, x, -FILL).max(1)),
    "min": (lambda x: x.min(0), lambda x, m: jnp.where(m, x, FILL).min(1)),
    "max of all": (lambda x: x.max(), lambda x, m: jnp.where(m, x, -FILL).max((1, 2))),
    "max of features": (
        lambda x: (x.max(1, keepdims=True) - x).mean(0),
        lambda x, m: masked_mean(x.max(2, keepdims=True) - x, m),
    ),
    "max of relu": (
        lambda x: jax.nn.relu(x).max(0) + jnp.maximum(x, 0.3).min(0),
        lambda x, m: (
            jnp.where(m, jnp.where(x > 0, x, 0), -FILL).max(1)
            + jnp.where(m, jnp.where(x > 0.3, x, 0.3), FILL).min(1)
        ),
    ),
    "median": (
        lambda x: jnp.median(x, axis=0),
        lambda x, m: jnp.nanmedian(jnp.where(m, x, jnp.nan), axis=1),
    ),
    "logsumexp": (
        lambda x: jax.nn.logsumexp(x, 0),
        lambda x, m: jax.nn.logsumexp(jnp.where(m, x, -FILL), 1),
    ),
    "running max": (
        lambda x: jax.lax.cummax(x, 0).mean(0),
        lambda x, m: masked_mean(jax.lax.cummax(x, 1), m),
    ),
    "greatest of a window": (
        lambda x: (
            jax.lax.reduce_window(x, -FILL, jax.lax.max, (2, 1), (1, 1), "VALID").sum(0) + x[0]
        ),
        lambda x, m: (
            jnp.where(m[:, 1:], jnp.where(x[:, 1:] > x[:, :-1], x[:, 1:], x[:, :-1]), 0).sum(1)
            + x[:, 0]
        ),
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_behind_a_norm(name):
    of_row, of_batch = FUNCTIONS[name]
    g = jm.ragged_vmap(lambda x, p: of_row(norm(x, p)), (0, None))

    def ours(p, x, mask):
        return jnp.sin(g(x, mask, p)[0]).sum()

    def oracle(p, x, mask):
        return jnp.sin(of_batch(norm(x, p), mask[..., None])).sum()

    gradient = optimised.jit(jax.grad(ours))
    for seed in range(SEEDS):
        draw = np.random.default_rng(seed)
        x = draw.normal(size=(5, 8, 5)).astype(np.float32)
        mask = np.arange(8) < draw.integers(1, 9, (5, 1))
        p = {name: draw.normal(size=5).astype(np.float32) for name in ("scale", "bias")}
        found = gradient(p, x, mask)
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (p, x))
            expected = jax.grad(oracle)(*wide, mask)
        for key, leaf in expected.items():
            np.testing.assert_allclose(found[key], leaf, rtol=1e-3, atol=1e-3, err_msg=f"{seed}")


def gradient_of(f, x, mask, dtype=np.float32):
    x = jnp.asarray(x, dtype)
    return np.asarray(jax.grad(lambda x: jm.ragged_vmap(f)(x, mask)[0].sum())(x), np.float32)


@pytest.mark.parametrize("sign", [1, -1])
def test_equal_extremes_share_the_gradient(sign):
    x = sign * np.array([[3.0, 1.0, 3.0, 3.0], [2.0, 2.0, 9.0, 9.0]])
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)
    f = jnp.max if sign == 1 else jnp.min
    expected = [[0.5, 0, 0.5, 0], [0.5, 0.5, 0, 0]]
    np.testing.assert_array_equal(gradient_of(f, x, mask), expected)


@pytest.mark.parametrize("f", [jnp.max, jnp.min])
def test_padding_has_no_part_where_a_row_is_infinite(f):
    """The identity of a maximum equals each value of such a row."""
    infinite = -np.inf if f is jnp.max else np.inf
    x, mask = np.full((2, 4), infinite), np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    np.testing.assert_array_equal(gradient_of(f, x, mask), [[0.5, 0.5, 0, 0], [0.25] * 4])


def test_many_equal_maxima_in_half_precision():
    x, mask = np.ones((1, 6000)), np.arange(6000)[None] < 5000
    found = gradient_of(jnp.max, x, mask, jnp.bfloat16)
    np.testing.assert_allclose(found, np.where(mask, 1 / 5000, 0), rtol=1e-2)


def test_second_derivatives_of_a_maximum():
    x = np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 7.0]], np.float32)
    mask = np.array([[1, 1, 1], [1, 1, 0]], bool)
    f = lambda x: jm.ragged_vmap(lambda row: jnp.max(row**3))(x, mask)[0].sum()  # noqa: E731
    for derivative in (jax.hessian, lambda f: jax.jacrev(jax.jacrev(f))):
        second = np.asarray(derivative(f)(x)).reshape(6, 6)
        np.testing.assert_allclose(second, np.diag([0, 18, 0, 12, 0, 0]), rtol=1e-5)
