"""Streaming through `Sequential`: which layers stream, which refuse, and what carries hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm

X = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
MASK = np.array([[1, 1, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]], bool)


def rngs():
    return nnx.Rngs(0)


def in_chunks(model, x, mask, size):
    carry, ys, masks = model.initial_carry(len(x)), [], []
    for start in range(0, x.shape[1], size):
        part = None if mask is None else mask[:, start : start + size]
        carry, (y, out) = model.run(carry, x[:, start : start + size], part)
        ys.append(y)
        masks.append(out)
    return jnp.concatenate(ys, axis=1), masks


@pytest.mark.sampled(3)
@pytest.mark.parametrize("mask", [None, MASK], ids=["none", "mask"])
@pytest.mark.parametrize("size", [1, 4])
def test_a_stack_of_causal_layers_in_chunks_is_one_call(size, mask):
    model = jm.nn.Sequential(
        jm.nn.Masking(0.0),
        nnx.Linear(3, 4, rngs=rngs()),
        jm.nn.StackedRNN(jm.nn.GRU(4, 4, rngs=rngs()), jm.nn.MinGRU(4, 4, rngs=rngs())),
        nnx.gelu,
        jm.nn.Passthrough(lambda x: x - jnp.mean(x, axis=-1, keepdims=True)),
        jm.nn.RNN(nnx.LSTMCell(4, 2, rngs=rngs())),
        jm.nn.Upsample(2),
        jm.nn.DropMask(),
    )
    whole, _ = model(X, mask)
    y, masks = in_chunks(model, X, mask, size)
    np.testing.assert_allclose(y, whole, atol=1e-6)
    assert masks == [None] * len(masks)


def test_a_carry_has_one_entry_a_layer():
    model = jm.nn.Sequential(
        nnx.Linear(3, 4, rngs=rngs()),
        jm.nn.LSTM(4, 5, rngs=rngs()),
        jm.nn.Sequential(jnp.tanh, jm.nn.GRU(5, 2, rngs=rngs())),
    )
    carry = model.initial_carry(2)
    shapes = jax.tree.map(jnp.shape, carry, is_leaf=lambda leaf: isinstance(leaf, jax.Array))
    assert shapes == ((), ((2, 5), (2, 5)), ((), (2, 2)))
    after, (_, mask) = model.run(carry, X, MASK)
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    np.testing.assert_array_equal(mask, MASK)
    for wrong in (carry[:2], list(carry), None):
        with pytest.raises(ValueError, match="one entry for each of the 3 layers"):
            model.run(wrong, X, MASK)


def refused():
    lstm, gru = jm.nn.LSTM(3, 3, rngs=rngs()), jm.nn.GRU(3, 3, rngs=rngs())
    return {
        "pool": jm.nn.GlobalMeanPool(),
        "last": jm.nn.LastStep(),
        "flip": jm.nn.Flip(),
        "flatten": jm.nn.Flatten(),
        "crop": jm.nn.Crop((1, 0)),
        "pad": jm.nn.Pad((1, 0)),
        "bidirectional": jm.nn.Bidirectional(lstm, gru),
        "stack of both directions": jm.nn.StackedRNN(jm.nn.Bidirectional(lstm, gru, "sum")),
        "reverse": jm.nn.GRU(3, 3, reverse=True, rngs=rngs()),
        "last only": jm.nn.MinGRU(3, 3, return_sequences=False, rngs=rngs()),
        "consume": jm.nn.Consume(lambda x, mask: x),
        "a function of the user": lambda x, mask: (jnp.cumsum(x, axis=1), mask),
        "inside": jm.nn.Sequential(jm.nn.Flip()),
    }


@pytest.mark.parametrize("name", refused())
def test_a_layer_that_is_not_causal_is_named_with_its_position(name):
    layer = refused()[name]
    model = jm.nn.Sequential(jnp.tanh, layer)
    at = {"inside": "layer 0, `Flip`", "stack of both directions": "layer 0, `Bidirectional`"}
    kind = "function" if callable(layer) and not isinstance(layer, nnx.Module) else ""
    text = at.get(name, f"layer 1, {kind or f'`{type(layer).__name__}`'}")
    with pytest.raises(jm.MaskError, match=text):
        model.initial_carry(2)
    with pytest.raises(jm.MaskError, match=text):
        model.run(((), ((),)), X, MASK)


@pytest.mark.parametrize("mask", [None, MASK], ids=["none", "mask"])
def test_a_layer_of_flax_that_mixes_steps_does_not_stream(mask):
    for layer in (
        nnx.LayerNorm(3, reduction_axes=(1, 2), rngs=rngs()),
        nnx.BatchNorm(3, rngs=rngs()),
        nnx.LinearGeneral((6, 3), 2, axis=(1, 2), rngs=rngs()),
    ):
        model = jm.nn.Sequential(layer)
        with pytest.raises(jm.MaskError, match=r"layer 0, .* mix the steps of a chunk"):
            model.run(model.initial_carry(2), X, mask)
    model = jm.nn.Sequential(nnx.BatchNorm(3, use_running_average=True, rngs=rngs()))
    np.testing.assert_allclose(in_chunks(model, X, mask, 4)[0], model(X, mask)[0], atol=1e-6)


def test_the_users_table_and_protocol_stream():
    class Total(nnx.Module):
        """A running sum, with the protocol and no base class."""

        def __call__(self, x, mask=None):
            return self.run(self.initial_carry(len(x)), x, mask)[1]

        def initial_carry(self, batch):
            return jnp.zeros((batch, 3))

        def run(self, carry, x, mask=None):
            y, mask = jm.ops.cumsum(x, mask)
            total = carry[:, None] + y
            return carry + jm.ops.fill(x, mask)[0].sum(1), jm.ops.fill(total, mask)

    class Double:
        def __call__(self, x):
            return 2 * x

    class Own:
        per_step = True

        def __call__(self, x, mask):
            return jm.ops.fill(x + 1, mask)

    jm.nn.register(Double, jm.nn.Passthrough)
    model = jm.nn.Sequential(Double(), Own(), Total())
    y, masks = in_chunks(model, X, MASK, 2)
    np.testing.assert_allclose(y, model(X, MASK)[0], atol=1e-5)
    np.testing.assert_array_equal(jnp.concatenate(masks, axis=1), MASK)

    class Broken(Total):
        def run(self, carry, x, mask=None):
            return carry, x

    with pytest.raises(jm.MaskError, match="must return a pair"):
        jm.nn.Sequential(Broken()).run((jnp.zeros((2, 3)),), X, MASK)


def test_a_jitted_step_carries_on_under_a_scan():
    model = jm.nn.Sequential(jm.nn.LSTM(3, 4, rngs=rngs()), nnx.Linear(4, 2, rngs=rngs()))

    def step(carry, inputs):
        x_t, mask_t = inputs
        carry, (y, _) = model.run(carry, x_t[:, None], mask_t[:, None])
        return carry, y[:, 0]

    _, y = jax.jit(lambda x, mask: jax.lax.scan(step, model.initial_carry(2), (x, mask)))(
        X.swapaxes(0, 1), MASK.T
    )
    np.testing.assert_allclose(y.swapaxes(0, 1), model(X, MASK)[0], atol=1e-6)
