"""Converted models against Flax, which runs each row alone, without its padding."""

import itertools
import warnings

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from jaxmask.interop._conv import padding_of
from tests import flax_models as models
from tests.rows import mask_of

LENGTHS, TIME = (5, 2, 0), 5


def converted(model, params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jm.interop.InteropWarning)
        return jm.interop.from_flax(*model.source(params), causal=model.causal)


def alone(model, rows, readouts):
    """What Flax gives for each row, and the gradients in it and in the parameters."""

    def loss(params, x, readout):
        y = model.run(params, x)[0]
        return jnp.sum(y * readout[: y.shape[0], : y.shape[1]]), y

    grad = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    found = [grad(model.params, x[None], r) for x, r in zip(rows, readouts, strict=True)]
    summed = jax.tree.map(lambda *each: sum(each), *(grads[0] for grads, _ in found))
    return [y for _, y in found], [grads[1][0] for grads, _ in found], summed


def ours(module):
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def run(x, mask, readout):
        def loss(params, x):
            y, new = nnx.merge(graph, params, rest)(x, mask)
            rank = jnp.cumsum(new, axis=1) - 1
            picked = jnp.take_along_axis(readout, jnp.maximum(rank, 0)[..., None], axis=1)
            return jnp.sum(jnp.where(new[..., None], y * picked[..., : y.shape[-1]], 0)), (y, new)

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    return run, params


def inner(a, b):
    return sum(float(jnp.vdot(x, y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.mark.sampled(20)
@pytest.mark.parametrize("name", models.NAMES)
def test_a_converted_model_is_flax_on_each_row_alone(name):
    model, draw = models.draw(name), np.random.default_rng(0)
    rows = [draw.normal(size=(n, models.FEATURES)).astype(np.float32) for n in LENGTHS if n]
    readouts = draw.normal(size=(len(LENGTHS), 3 * TIME, 12)).astype(np.float32)
    expected, grads_x, grad = alone(model, rows, readouts[: len(rows)])
    made = converted(model, model.params)
    run, params = ours(made)
    # A conversion is linear in the parameters, so a direction there becomes one here.
    direction = models.random_like(model.params, draw)
    there = jax.tree.map(jnp.add, model.params, direction)
    here = nnx.state(converted(model, there), nnx.Param)
    here = jax.tree.map(jnp.subtract, here, params)
    close = {"rtol": 3e-4, "atol": 3e-5}
    for layout in model.layouts:
        mask = mask_of(LENGTHS, layout, TIME)
        x = np.full((*mask.shape, models.FEATURES), 77, np.float32)
        x[mask] = np.concatenate(rows)
        (sent, sent_x), (y, new) = run(x, mask, readouts)
        for row, value in enumerate(expected):
            np.testing.assert_allclose(y[row][np.asarray(new[row])], value, **close)
            np.testing.assert_allclose(sent_x[row][mask[row]], grads_x[row], **close)
        assert not new[2].any()
        assert not np.asarray(sent_x)[~mask].any()
        np.testing.assert_allclose(inner(sent, here), inner(grad, direction), rtol=1e-3, atol=1e-3)


def windows_of(padding, time, reach, stride):
    """How many windows `Conv1D` has."""

    def run(x):
        kernel = jnp.ones((reach + 1, 1, 1))
        return jm.conv.conv1d(x, None, kernel, padding=padding, strides=stride)[0]

    return jax.eval_shape(run, jax.ShapeDtypeStruct((1, time, 1), np.float32)).shape[1]


def test_a_named_padding_has_as_many_windows_as_the_numbers_it_stands_for():
    for low, high, reach, stride in itertools.product(range(4), range(4), range(4), (1, 2, 3)):
        made = padding_of(low, high, reach)
        for time in (2, 5, 6):
            expected = max(0, (time + low + high - reach - 1) // stride + 1)
            found = {windows_of(padding, time, reach, stride) for padding in (made, (low, high))}
            assert found == {expected}, (made, time, reach, stride)


@pytest.mark.parametrize("padding", ["CIRCULAR", "REFLECT", (2,), [(2, 1)]])
def test_rows_padded_at_their_own_ends(padding):
    """Two rows of other lengths, each as Flax convolves it alone."""
    source = nnx.Conv(3, 4, 4, strides=2, padding=padding, rngs=nnx.Rngs(0))
    x, mask = jm.pad_sequences([np.random.default_rng(n).normal(size=(n, 3)) for n in (4, 6)])
    y, y_mask = jm.interop.from_flax(source)(x.astype(np.float32), mask)
    for row, alone in enumerate(jm.unpad_sequences(x.astype(np.float32), mask)):
        expected = np.asarray(source(alone[None]))[0]
        np.testing.assert_allclose(np.asarray(y[row])[np.asarray(y_mask[row])], expected, atol=1e-5)


def test_ids_a_shared_layer_and_dropout():
    rngs = nnx.Rngs(0, dropout=1)
    linear = nnx.Linear(3, 3, rngs=rngs)
    source = nnx.Sequential(nnx.Embed(5, 3, rngs=rngs), linear, nnx.Dropout(0.5, rngs=rngs), linear)
    made = jm.interop.from_flax(source, rngs=nnx.Rngs(dropout=7))
    ids, mask = jm.pad_sequences([[1, 2], [3]])
    source.eval()
    np.testing.assert_allclose(made(ids, mask)[0][0], source(ids)[0], rtol=1e-5)
    assert made.layers[1] is made.layers[3]
    made.train()
    assert not np.allclose(made(ids, mask)[0][0], source(ids)[0])


def test_a_shared_layer_is_replaced_where_it_is_named():
    linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    source = nnx.Sequential(linear, linear, linear)
    for place in range(3):
        own = jm.nn.DropMask()
        made = jm.interop.from_flax(source, replace={f"layers.{place}": own}).layers
        assert made[place] is own
        others = [layer for at, layer in enumerate(made) if at != place]
        assert others[0] is others[1]
        assert others[0] is not own


def refused(source, *variables, match, **options):
    with pytest.raises(ValueError, match=match) as error:
        jm.interop.from_flax(source, *variables, **options)
    assert "Nothing was converted" in str(error.value)
    assert "(`batched=True` if it is written for `[batch, time, ...]`)" in str(error.value)
    assert not jm.interop.explain((source, *variables) if variables else source).ok


def test_what_is_not_supported_is_named_with_a_way_out():
    rngs = nnx.Rngs(0)

    class Mine(nnx.Module):
        def __call__(self, x):
            return x

    model = nnx.Sequential(nnx.Linear(3, 3, rngs=rngs), Mine(), lambda x: x)
    refused(model, match=r"`layers\.1` \(Mine\).*\n.*`layers\.2`.*\n.*Supported: BatchNorm")
    own = {"layers.1": jm.nn.DropMask(), "layers.2": jm.nn.Passthrough(lambda x: 2 * x)}
    made = jm.interop.from_flax(model, replace=own)
    assert [type(layer).__name__ for layer in made.layers[1:]] == ["DropMask", "Passthrough"]
    with pytest.raises(ValueError, match=r"`layers\.7`, which is not a layer of the model"):
        jm.interop.from_flax(model, replace=own | {"layers.7": jm.nn.DropMask()})
    half = nnx.Linear(3, 3, param_dtype=jnp.bfloat16, rngs=rngs)
    refused(half, match="` holds bfloat16")
    lower = nnx.Conv(3, 3, 3, padding="SAME_LOWER", rngs=rngs)
    refused(lower, match="`padding='SAME_LOWER'`")
    dense = linen.Sequential([linen.Dense(3)])
    refused(dense, {"params": {}}, match="`layers_0` .*have no 'kernel'")
    with pytest.raises(TypeError, match="pass its variables too"):
        jm.interop.from_flax(dense)
    for what in ({"w": 1}, "model.msgpack", None):
        with pytest.raises(TypeError, match="expected a module of Flax"):
            jm.interop.from_flax(what)
        with pytest.raises(TypeError, match="expected a model of"):
            jm.interop.explain(what)
    wrong = {"params": {"layers_0": {"kernel": np.ones((2, 5), np.float32)}}}
    with pytest.raises(ValueError, match=r"`layers_0` .*`kernel`: expected an array of shape"):
        jm.interop.from_flax(dense, wrong)


def test_deliberate_differences_are_said_once():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Conv(3, 4, 3, strides=2, rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.relu
    )
    with pytest.warns(jm.interop.InteropWarning) as caught:
        jm.interop.from_flax(model)
    (warning,) = caught
    assert "`layers.0` (nnx.Conv): padding SAME" in str(warning.message)
    assert "`layers.1` (nnx.BatchNorm): in training" in str(warning.message)
    assert warning.filename == __file__


def test_a_converted_model_trains_is_drawn_and_leaks_nothing():
    rngs = nnx.Rngs(0)
    source = nnx.Sequential(
        nnx.Bidirectional(*(nnx.RNN(nnx.GRUCell(3, 2, rngs=rngs)) for _ in range(2))),
        nnx.Linear(4, 2, rngs=rngs),
    )
    model = jm.interop.from_flax(source)
    x, mask = jm.pad_sequences(np.random.default_rng(0).normal(size=(2, 3, 3)), dtype=np.float32)
    mask = mask & mask_of((3, 1), "right", 3)
    assert jm.leak.check(model, x, mask).ok
    flow = str(jm.report.mask_flow(model, x, mask))
    assert all(name in flow for name in ("Bidirectional", "GRU", "Linear"))
    grads = nnx.grad(lambda model: jnp.sum(model(x, mask)[0] ** 2))(model)
    assert all(np.any(g) for g in jax.tree.leaves(grads))
