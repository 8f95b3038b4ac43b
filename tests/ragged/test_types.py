"""Row functions of other dtypes, and under the strict settings of JAX."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from tests.ragged.alone import weigh
from tests.ragged.programs import PROGRAMS

LENGTHS = (5, 1, 3)
X = np.random.default_rng(0).normal(size=(3, 5, 3))
MASK = np.arange(5) < np.array(LENGTHS)[:, None]


def assert_rows(f, x, mask, rtol):
    y, _ = jax.jit(jm.ragged_vmap(f))(x, mask)
    for b, n in enumerate(mask.sum(1)):
        alone = jax.tree.leaves(f(jnp.asarray(x[b, :n])))
        for ours, theirs in zip(jax.tree.leaves(y), alone, strict=True):
            assert ours.dtype == theirs.dtype
            inside = ours[b][tuple(map(slice, theirs.shape))]
            np.testing.assert_allclose(
                np.asarray(inside, np.float64), np.asarray(theirs, np.float64), rtol=rtol
            )


WIDE = {
    "softmax": lambda x: jax.nn.softmax(x @ x.T) @ x,
    "scan": lambda x: jax.lax.scan(lambda c, v: (jnp.tanh(c + v), c), jnp.zeros(3), x),
    "extremes": lambda x: (x.max(0), x.argmin(0), jax.lax.cummax(x, 0), jnp.median(x, axis=0)),
    "running": lambda x: (jnp.cumsum(x, 0), jax.lax.cumlogsumexp(x, 0, reverse=True), x[::-1]),
    "noise": lambda x: jax.random.normal(jax.random.key(0), x.shape),
    "sample": lambda x: jax.random.categorical(jax.random.key(1), x[:, 0]),
    "lengths": lambda x: x.sum(0) / x.shape[0] + jnp.sqrt(x.shape[0]),
    "solved": lambda x: jnp.linalg.solve(x @ x.T + jnp.eye(x.shape[0]), x),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", WIDE)
def test_float64(name):
    with jax.enable_x64(True):
        assert_rows(WIDE[name], X, MASK, 1e-12)


def test_gradients_of_float64():
    def f(row):
        return jnp.max(jnp.round(row), 0) + jnp.logaddexp(row, 0.1).mean(0) + row.max(0)

    def ties(row):  # thirds, which float32 would round
        return (row - jax.lax.stop_gradient(row)).max(0)

    with jax.enable_x64(True):
        for function in (f, ties):
            ours = jax.grad(lambda x, g=function: weigh(jm.ragged_vmap(g)(x, MASK)[0]))(X)
            scale = weigh_of_rows(function)
            for b, n in enumerate(LENGTHS):
                np.testing.assert_allclose(ours[b, :n], scale[b], rtol=1e-12, atol=1e-14)


def weigh_of_rows(f):
    """The gradient of each row alone, by the weight that its result has in the batch."""

    def total(rows):
        return weigh(jnp.stack([f(row) for row in rows]))

    return jax.grad(total)([jnp.asarray(X[b, :n]) for b, n in enumerate(LENGTHS)])


NARROW = {
    "sums": lambda x: (x.sum(0), jnp.cumsum(x, 0), x.prod(0)),
    "extremes": lambda x: (x.max(0), x.min(0), x.argmax(0), x.argmin(0), jax.lax.cummax(x, 0)),
    "orders": lambda x: (jnp.sort(x, 0), jnp.argsort(x, 0), jax.lax.top_k(x.T, 1)),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint32"])
@pytest.mark.parametrize("name", NARROW)
def test_narrow_types(name, dtype):
    if dtype == "bool" and name in ("extremes", "orders"):
        pytest.skip("no order of booleans in JAX")
    high = 2 if dtype == "bool" else 120
    x = np.random.default_rng(1).integers(0, high, (3, 90, 2)).astype(dtype)
    x[:, 0] = np.iinfo(dtype).min if np.dtype(dtype).kind == "i" else 0  # the identity itself
    assert_rows(NARROW[name], x, np.arange(90) < np.array([[90], [1], [40]]), 0)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_narrow_indices_of_a_long_row(dtype):
    x = np.random.default_rng(0).integers(0, 100, (2, 300)).astype(dtype)
    read = lambda x: (jnp.take(x, x, mode="clip"), jnp.take(x, x), jax.ops.segment_sum(x, x, 200))  # noqa: E731
    assert_rows(read, x, np.arange(300) < np.array([[300], [180]]), 0)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_large_values(dtype):
    x = jnp.asarray(300 + X * 5, dtype)
    f = lambda x: (x.mean(0), x.var(0), jax.nn.logsumexp(x, 0), jax.nn.softmax(x, 0), x.max(0))  # noqa: E731
    assert_rows(f, x, MASK, 1e-2)
    long = jnp.full((1, 4096, 60), 60, dtype)
    y, _ = jm.ragged_vmap(lambda x: x.mean(0))(long, np.arange(4096)[None] < 3000)
    np.testing.assert_allclose(np.asarray(y, np.float32), 60, rtol=1e-2)


def test_places_outside_of_a_row_are_those_of_the_row_alone():
    """In the batch they would lie in the padding."""
    places = jnp.array([-1, -2, 4, 7, -7])
    read = lambda x: (x[places], x.at[places].get(mode="clip"), jnp.take(x, places, 0))  # noqa: E731
    x = X.astype(np.float32)
    assert_rows(read, x, MASK, 0)
    assert_rows(lambda x: x.at[places].add(1.0), x, MASK, 1e-6)


STRICT = {
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_enable_checks": True,
    "jax_check_tracer_leaks": True,
}
CAREFUL = (
    "calls.custom_jvp",
    "calls.custom_vjp",
    "calls.random_across",
    "calls.sample_of_the_steps",
    "contractions.diagonal",
    "control.bilstm",
    "indexing.add_steps_to_slots",
    "reductions.max",
)


@pytest.fixture
def strict():
    before = {name: getattr(jax.config, name) for name in STRICT}
    for name, value in STRICT.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", CAREFUL)
def test_strict_settings(strict, name):
    row, x = PROGRAMS[name], X.astype(np.float32)
    w = [np.eye(3, dtype=np.float32)] * ("w" in inspect.signature(row.f).parameters)
    g = jm.ragged_vmap(row.f, (0, *[None] * len(w)), min_length=row.min_length)

    def loss(x, mask, *w):
        y, _ = g(jnp.abs(x), mask, *w)
        floats = [v for v in jax.tree.leaves(y) if jnp.issubdtype(v.dtype, jnp.floating)]
        return sum(map(jnp.sum, floats), jnp.float32(0))

    jax.make_jaxpr(jax.grad(loss))(x, MASK, *w)
