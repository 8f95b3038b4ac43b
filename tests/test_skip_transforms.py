"""`skip_padding` inside and around what JAX, Linen and NNX make of functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import jaxmask as jm

MASK = np.arange(6) < np.array([[6], [2], [0], [1]])
X = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
skip = functools.partial(jm.skip_padding, lengths=(2, 6), groups=4)


def running(x, mask):
    y, mask = jm.ops.cumsum(jnp.sin(jm.ops.fill(x, mask)[0]), mask)
    return y * y, mask


def wrapped(layer):
    return jm.nn.SkipPadding(layer, lengths=(2, 6), groups=4)


def assert_same(ours, theirs, tolerance=1e-5):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        wide = (np.asarray(x, np.complex128) for x in (a, b))
        np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "f",
    [jax.checkpoint(skip(running)), skip(jax.checkpoint(running))],
    ids=["around", "inside"],
)
def test_checkpoint(f):
    def slope(f):
        return jax.jit(jax.grad(lambda x: jnp.sum(f(x, MASK)[0] ** 2)))(X)

    assert_same(slope(f), slope(running))


@pytest.mark.parametrize("dtype", ["complex64", "int8", "bool", "bfloat16"])
def test_dtypes(dtype):
    function = running if dtype == "bfloat16" else jm.ops.flip
    x = jnp.asarray(4 * X, dtype)
    assert_same(jax.jit(skip(function))(x, MASK), jax.jit(function)(x, MASK), 2e-2)


def test_no_row_and_a_donated_buffer():
    y, mask = jax.jit(skip(running), donate_argnums=0)(jnp.zeros((0, 6, 3)), MASK[:0])
    assert y.shape == (0, 6, 3)
    assert mask.shape == (0, 6)


def test_linen_variables_get_gradients():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x, mask):
            return running(linen.Dense(2)(x), mask)

    model = Model()
    variables = model.init(jax.random.key(0), X, MASK)

    def of_variables(f):
        return jax.jit(jax.grad(lambda v: jnp.sum(f(v)[0])))(variables)

    plain = of_variables(lambda v: model.apply(v, X, MASK))
    closed_over = of_variables(lambda v: skip(lambda x, m: model.apply(v, x, m))(X, MASK))
    given = skip(lambda x, m, v: model.apply(v, x, m), rest=("shared",))
    assert_same(closed_over, plain)
    assert_same(of_variables(lambda v: given(X, MASK, v)), plain)


def test_an_optimizer_takes_the_same_steps():
    def losses(wrap):
        model = wrap(jm.nn.LSTM(3, 2, method="scan", rngs=nnx.Rngs(0)))
        optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer):
            loss, slopes = nnx.value_and_grad(lambda m: jnp.sum(m(X, MASK)[0] ** 2))(model)
            optimizer.update(model, slopes)
            return loss

        return [step(model, optimizer) for _ in range(3)]

    ours, plain = losses(wrapped), losses(lambda layer: layer)
    assert_same(ours, plain)
    assert plain[0] > plain[1] > plain[2]


def test_layers_of_a_scan():
    def run(wrap):
        @nnx.split_rngs(splits=2)
        @nnx.vmap(axis_size=2)
        def make(rngs):
            return wrap(jm.nn.LSTM(3, 3, method="scan", rngs=rngs))

        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def through(layers, x):
            return layers(x, MASK)[0]

        return nnx.jit(through)(make(nnx.Rngs(0)), X)

    assert_same(run(wrapped), run(lambda layer: layer))
