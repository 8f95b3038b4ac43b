"""Under `jax_enable_x64`, what is float64 outside is float64 within."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.extend import core

import jaxmask as jm
from tests.registry import REGISTRY

FAMILIES = ("pool", "ops", "shape", "merge", "attention", "norm", "random", "recurrent", "nn")
# Built as float32: the carry of a cell written for the registry, and statistics that are stored.
BUILT = ("nn.RaggedVmap", "nn.BatchNorm", "nn.SpectralNorm")
ENTRIES = [e for e in REGISTRY if e.name.split(".")[0] in FAMILIES and e.name not in BUILT]
MASK = np.arange(5) < np.array([[5], [3]])


def arguments(spec, seed):
    draw, shape = np.random.default_rng(seed), (2, 5, *spec.features)
    made = {
        "ids": lambda: draw.integers(1, spec.high, shape),
        "sign": lambda: draw.choice([-1.0, 1.0], shape),
        "probability": lambda: draw.dirichlet(np.ones(shape[-1]), shape[:-1]),
        "positive": lambda: 0.5 + draw.random(shape),
    }
    return jnp.asarray(made.get(spec.kind, lambda: draw.normal(size=shape))())


def narrowed(jaxpr):
    """Every cast of float64 to something narrower."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "convert_element_type":
            before, after = equation.invars[0].aval, equation.outvars[0].aval
            if before.dtype == jnp.float64 and after.dtype in (jnp.float32, jnp.bfloat16):
                yield str(equation)
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda v: isinstance(v, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
                yield from narrowed(getattr(value, "jaxpr", value))


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_nothing_is_narrowed_on_the_way(entry):
    with jax.enable_x64(True):
        xs = [arguments(spec, seed) for seed, spec in enumerate(entry.inputs)]
        masks = [jnp.asarray(MASK)] * (max(spec.mask for spec in entry.inputs) + 1)
        params = jax.tree.map(
            lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a,
            entry.params,
        )
        call = lambda params, xs: [y for y, _ in entry.call(params, xs, masks, np.arange(2))]  # noqa: E731
        assert not list(narrowed(jax.make_jaxpr(call)(params, xs).jaxpr))


def rows_alone(function, *arrays):
    """The oracle on each row's real steps, zeros in the padding."""
    out = np.zeros_like(arrays[0])
    for b, real in enumerate(MASK):
        out[b, real] = function(*(array[b, real] for array in arrays))
    return out


def softmax_attention(q, k, v):
    logits = np.einsum("thd,shd->hts", q, k) / np.sqrt(q.shape[-1])
    return np.einsum("hts,shd->thd", scipy.special.softmax(logits, axis=-1), v)


def turned(x):
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None, None] * 10000.0 ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    turns = a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)
    return np.concatenate(turns, axis=-1)


def spread(x, axis):
    centred = x - x.mean(axis, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis, keepdims=True) + 1e-6)


ORACLES = {
    "attend": (lambda q, k, v, m: jm.attention.attend(q, m, k, v, m), softmax_attention),
    "attend_cached": (
        lambda q, k, v, m: jm.attention.attend_cached(
            jm.attention.empty_cache(2, 5, kv_heads=2, head_features=4), q, k, v, m
        )[1],
        lambda q, k, v: np.stack(
            [softmax_attention(q[: t + 1], k[: t + 1], v[: t + 1])[-1] for t in range(len(q))]
        ),
    ),
    "rotary": (lambda x, m: jm.attention.rotary(x, m), turned),
    "layer": (lambda x, m: jm.norm.layer(x, m), lambda x: spread(x, -1)),
    "instance": (lambda x, m: jm.norm.instance(x, m), lambda x: spread(x, (0, 1))),
    "softmax": (lambda x, m: jm.ops.softmax(x, m), lambda x: scipy.special.softmax(x, axis=0)),
    "cumsum": (lambda x, m: jm.ops.cumsum(x, m), lambda x: x.cumsum(0)),
}


@pytest.mark.parametrize("name", ORACLES)
def test_values_are_those_of_numpy_in_float64(name):
    function, oracle = ORACLES[name]
    count = function.__code__.co_argcount - 1
    arrays = np.random.default_rng(0).normal(size=(count, 2, 5, 2, 4))
    with jax.enable_x64(True):
        y = np.asarray(function(*map(jnp.asarray, arrays), jnp.asarray(MASK))[0])
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, rows_alone(oracle, *arrays), rtol=0, atol=1e-12)


def test_statistics_are_as_wide_as_the_parameters():
    from flax import nnx

    with jax.enable_x64(True):
        norm = jm.nn.BatchNorm(3, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        linear = nnx.Linear(3, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        spectral = jm.nn.SpectralNorm(linear, rngs=nnx.Rngs(0))
        assert norm.mean.dtype == norm.var.dtype == spectral.u[0].dtype == jnp.float64
        assert jm.attention.sinusoids(jnp.arange(3), 4).dtype == jnp.float64
    assert jm.attention.sinusoids(jnp.arange(3), 4).dtype == jnp.float32
