"""What guides to masking teach with Keras, as a JAX user writes it.

The listed values are those of the guides. Where Keras computes the same thing it is run beside.
"""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx
from jax import export

import jaxmask as jm
from tests.guide import (
    LADDER,
    SENTENCE_MASK,
    SENTENCES,
    SHORT,
    MyActivation,
    embed_and_lstm,
    flattens,
    growing_rows,
    mean_pools,
    my_sum,
    sentences,
    temporal_softmax,
    tiled_sentences,
)


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def each_row_alone(model, ids):
    """What a model gives for the real ids of every row by themselves."""
    return jnp.concatenate([model(row[row != 0][None])[0] for row in np.asarray(ids)])


# -------------------------------------------------------------------- padding and making masks


@pytest.mark.parametrize("order", [1, -1])
def test_s01_pad_sequences_returns_the_mask_with_the_rectangle(order, keras):
    padded, mask = jm.pad_sequences(SENTENCES[::order], padding="post")
    expected = [
        [711, 632, 71, 0, 0, 0],
        [73, 8, 3215, 55, 927, 0],
        [83, 91, 1, 645, 1253, 927],
    ]
    assert padded.tolist() == expected[::order]
    assert mask.tolist() == SENTENCE_MASK[::order]
    np.testing.assert_array_equal(
        padded, keras.utils.pad_sequences(SENTENCES[::order], padding="post")
    )


def test_s02_pad_sequences_of_python_ints_is_int32():
    padded, mask = jm.pad_sequences(SHORT, padding="post")
    assert padded.tolist() == [[1, 2, 3, 0], [4, 5, 0, 0], [1, 4, 8, 19]]
    assert padded.dtype == np.int32
    assert mask.sum(axis=1).tolist() == [3, 2, 4]


def test_s03_embed_makes_the_mask_from_zeros(keras):
    ids, _ = sentences()
    embed, _ = embed_and_lstm()
    y, mask = embed(ids)
    assert mask.tolist() == SENTENCE_MASK
    theirs = keras.layers.Embedding(5000, 16, mask_zero=True)
    theirs.build()
    theirs.set_weights([np.asarray(embed.embedding[...])])
    np.testing.assert_array_equal(mask, theirs.compute_mask(ids))
    np.testing.assert_array_equal(y[mask], theirs(ids)[mask])
    assert not y[~mask].any()


def test_s04_masking_makes_the_mask_from_zeros(keras):
    x = tiled_sentences()
    y, mask = jm.nn.Masking()(x)
    assert mask.tolist() == SENTENCE_MASK
    theirs = keras.layers.Masking()
    np.testing.assert_array_equal(y, theirs(x))
    np.testing.assert_array_equal(mask, theirs.compute_mask(x))


def test_s05_masking_of_a_table_gives_a_row_mask():
    x, _ = jm.pad_sequences(SHORT)
    y, mask = jm.nn.Masking(0.0)(x)
    assert y.tolist() == x.tolist()
    assert mask.tolist() == [True, True, True]


def test_s06_masking_finds_any_value_and_zeroes_its_steps():
    x, _ = jm.pad_sequences(SHORT)
    x = jnp.tile(x[..., None], (1, 1, 5)).astype(jnp.float32)
    y, mask = jm.nn.Masking(4.0)(x)
    assert mask.tolist() == [[True] * 4, [False, True, True, True], [True, False, True, True]]
    assert y[..., 0].tolist() == [[1, 2, 3, 0], [0, 5, 0, 0], [1, 0, 8, 19]]


# ----------------------------------------------------------------------------- carrying masks


def test_s07_sequential_carries_the_mask_to_the_lstm(keras):
    ids, _ = sentences()
    embed, lstm = embed_and_lstm()
    y, row_mask = jm.nn.Sequential(embed, lstm)(ids)
    assert row_mask.tolist() == [True, True, True]
    theirs = keras.Sequential(
        [keras.layers.Embedding(5000, 16, mask_zero=True), keras.layers.LSTM(32)]
    )
    theirs.build((None, None))
    theirs.set_weights([np.asarray(w[...]) for w in (embed.embedding, lstm.w_x, lstm.w_h, lstm.b)])
    np.testing.assert_allclose(y, theirs(ids), atol=1e-6)


def test_s07_the_functional_form_is_a_function():
    ids, _ = sentences()
    embed, lstm = embed_and_lstm()

    @jax.jit
    def model(ids):
        x, mask = embed(ids)
        return lstm(x, mask)

    y, row_mask = model(ids)
    np.testing.assert_allclose(y, jm.nn.Sequential(embed, lstm)(ids)[0], atol=1e-6)
    assert row_mask.tolist() == [True, True, True]


@pytest.mark.parametrize("shape", [(3, 6), (1, 9), (5, 2)])
def test_s07_one_model_takes_every_shape_under_jit(shape):
    ids = jax.random.randint(jax.random.key(0), shape, 0, 3)  # zeros anywhere: holes too
    model = nnx.jit(jm.nn.Sequential(*embed_and_lstm()))
    y, row_mask = model(ids)
    np.testing.assert_allclose(y, each_row_alone(model, ids), atol=1e-6)
    assert row_mask.tolist() == np.any(ids, axis=1).tolist()


def test_s07_batch_and_time_may_be_symbols():
    shape = export.symbolic_shape("batch, time")
    y, row_mask = jax.eval_shape(
        jm.nn.Sequential(*embed_and_lstm()), jax.ShapeDtypeStruct(shape, jnp.int32)
    )
    assert y.shape == (shape[0], 32)
    assert (row_mask.shape, row_mask.dtype) == (shape[:1], bool)


class MyLayer(nnx.Module):
    """Hands the mask over itself, where `Sequential` would do it."""

    def __init__(self):
        self.embed, self.lstm = embed_and_lstm()

    def __call__(self, ids, mask=None):
        x, _ = self.embed(ids, mask)
        return self.lstm(x, mask=self.embed.compute_mask(ids, mask))


def test_s08_a_custom_layer_passes_the_mask_by_hand(keras):
    layer = MyLayer()
    ids = jax.random.randint(jax.random.key(1), (32, 10), 0, 10)
    y, row_mask = layer(ids)
    assert y.shape == (32, 32)
    automatic, same_row_mask = jm.nn.Sequential(layer.embed, layer.lstm)(ids)
    np.testing.assert_array_equal(y, automatic)
    np.testing.assert_array_equal(row_mask, same_row_mask)
    lstm = keras.layers.LSTM(32)
    lstm.build((None, None, 16))
    lstm.set_weights([np.asarray(w[...]) for w in (layer.lstm.w_x, layer.lstm.w_h, layer.lstm.b)])
    theirs = lstm(layer.embed(ids)[0], mask=ids != 0)
    np.testing.assert_allclose(y, theirs, atol=1e-6)


# ------------------------------------------------------------------------ writing mask layers


class TemporalSplit(nnx.Module):
    """Cuts data and mask in halves along time."""

    def __call__(self, x, mask=None):
        first, second = jnp.split(x, 2, axis=1)
        if mask is None:
            return (first, None), (second, None)
        first_mask, second_mask = jnp.split(mask, 2, axis=1)
        return (first, first_mask), (second, second_mask)


@pytest.mark.parametrize("split", [TemporalSplit(), lambda x, mask: jm.shape.split(x, mask, 2)])
def test_s09_custom_split_layer_cuts_the_mask_too(split):
    x, mask = jm.nn.Masking()(tiled_sentences())
    (first, first_mask), (second, second_mask) = split(x, mask)
    assert first.shape == second.shape == (3, 3, 10)
    assert first_mask.tolist() == [[True] * 3] * 3
    assert second_mask.tolist() == [[False] * 3, [True, True, False], [True] * 3]
    (_, first_mask), (_, second_mask) = split(x, None)
    assert first_mask is None
    assert second_mask is None


def test_s10_split_cuts_at_the_middle_step():
    x = jnp.arange(1, 13).reshape(2, 2, 3)
    (first, _), (second, _) = jm.shape.split(x, None, 2)
    assert first.tolist() == [[[1, 2, 3]], [[7, 8, 9]]]
    assert second.tolist() == [[[4, 5, 6]], [[10, 11, 12]]]


class CustomEmbedding(nnx.Module):
    """Makes a mask; the whole protocol is to return it."""

    def __init__(self, size, features, *, mask_zero=False, rngs):
        self.table = nnx.Param(rngs.params.normal((size, features)))
        self.mask_zero = mask_zero

    def __call__(self, ids, mask=None):
        if self.mask_zero:
            mask = ids != 0 if mask is None else mask & (ids != 0)
        return self.table[ids], mask


def test_s11_custom_embedding_starts_the_mask():
    ids = jnp.array([[3, 0, 7], [0, 0, 9]])
    embed = CustomEmbedding(10, 32, mask_zero=True, rngs=nnx.Rngs(0))
    y, mask = embed(ids)
    assert y.shape == (2, 3, 32)
    assert mask.tolist() == [[True, False, True], [False, False, True]]
    assert CustomEmbedding(10, 32, rngs=nnx.Rngs(0))(ids)[1] is None
    pooled, row_mask = jm.nn.Sequential(embed, jm.nn.GlobalMeanPool())(ids)
    np.testing.assert_allclose(pooled[1], embed.table[9], rtol=1e-6)
    assert row_mask.tolist() == [True, True]


def registered_activation():
    class Registered(MyActivation):
        pass

    jm.nn.register(Registered, jm.nn.Passthrough)
    return Registered()


@pytest.mark.parametrize(
    "activation",
    [
        jm.nn.Passthrough(MyActivation()),
        jm.nn.Passthrough(lambda x: jnp.maximum(x, 0)),
        nnx.relu,
        lambda x, mask: (jnp.maximum(x, 0), mask),
        registered_activation(),
    ],
    ids=["wrapped", "wrapped function", "known", "takes the mask", "registered"],
)
def test_s12_custom_activation_lets_the_mask_through(activation):
    embed, lstm = embed_and_lstm()
    ids, _ = sentences()
    y, _ = jm.nn.Sequential(embed, activation, lstm)(ids)
    x, mask = embed(ids)
    np.testing.assert_array_equal(y, lstm(jnp.maximum(x, 0), mask)[0])
    shape = export.symbolic_shape("batch, time")
    _, mask = jax.eval_shape(
        jm.nn.Sequential(embed, activation), jax.ShapeDtypeStruct(shape, jnp.int32)
    )
    assert (mask.shape, mask.dtype) == (shape, bool)


def test_s13_a_layer_must_opt_in_or_the_mask_is_an_error():
    embed, lstm = embed_and_lstm()
    ids, _ = sentences()
    with pytest.raises(jm.MaskError, match=r"layer 1, `MyActivation`, got a mask") as error:
        jm.nn.Sequential(embed, MyActivation(), lstm)(ids)
    for way_out in ("Passthrough", "register", "Consume", "DropMask"):
        assert f"jm.nn.{way_out}" in str(error.value)


def test_s13_keras_behaviour_is_there_for_the_asking():
    embed, lstm = embed_and_lstm()
    ids, _ = sentences()
    unmasked = lstm(jnp.maximum(embed(ids)[0], 0), None)[0]
    layers = (embed, MyActivation(), lstm)
    with pytest.warns(UserWarning, match=r"`MyActivation`, got a mask"):
        y, mask = jm.nn.Sequential(*layers, on_unsupported="warn")(ids)
    assert mask is None
    np.testing.assert_array_equal(y, unmasked)
    y, mask = jm.nn.Sequential(*layers, on_unsupported="drop")(ids)
    assert mask is None
    np.testing.assert_array_equal(y, unmasked)
    # But nothing that stood in the padding is let loose on what follows.
    dirty, mask = jnp.array([[[1.0], [jnp.nan]]]), jnp.array([[True, False]])
    y, _ = jm.nn.Sequential(MyActivation(), on_unsupported="drop")(dirty, mask)
    assert y.tolist() == [[[1], [0]]]


@temporal_softmax
def test_s14_temporal_softmax_uses_the_mask_up(softmax):
    rngs = nnx.Rngs(0)
    embed, dense = jm.nn.Embed(10, 32, mask_zero=True, rngs=rngs), nnx.Linear(32, 1, rngs=rngs)
    ids = jax.random.randint(jax.random.key(0), (32, 100), 0, 10).at[7].set(0)
    y, mask = jm.nn.Sequential(embed, dense, jm.nn.Consume(softmax))(ids)
    assert mask is None
    assert y.shape == (32, 100, 1)
    table, kernel, bias = (np.asarray(w[...]) for w in (embed.embedding, dense.kernel, dense.bias))
    for row, row_ids in zip(np.asarray(y)[..., 0], np.asarray(ids), strict=True):
        logits = table[row_ids[row_ids != 0]] @ kernel[:, 0] + bias
        expected = scipy.special.softmax(logits) if logits.size else logits
        np.testing.assert_allclose(row[row_ids != 0], expected, rtol=2e-5)
        assert not row[row_ids == 0].any()


def test_s15_a_mask_consumer_receives_the_mask():
    seen = []

    class MaskConsumer(nnx.Module):
        def __call__(self, x, mask=None):
            seen.append(mask)
            return x

    ids, _ = sentences()
    embed, _ = embed_and_lstm()
    y, mask = jm.nn.Sequential(embed, jm.nn.Consume(MaskConsumer()))(ids)
    assert seen[0].tolist() == SENTENCE_MASK
    assert y.shape == (3, 6, 16)
    assert mask is None


@mean_pools
def test_s16_custom_mean_pool(pool):
    y, row_mask = jm.nn.Sequential(jm.nn.Masking(), pool)(growing_rows())
    assert y.tolist() == [[10, 10], [15, 15], [20, 20], [25, 25]]
    assert row_mask.tolist() == [True] * 4
    y, mask = jm.nn.Sequential(pool)(growing_rows())
    assert y.tolist() == [[2.5, 2.5], [7.5, 7.5], [15, 15], [25, 25]]
    assert mask is None
    consume = jm.nn.Consume(lambda x, mask: pool(x, mask)[0])
    assert jm.nn.Sequential(jm.nn.Masking(), consume)(growing_rows())[1] is None


def mean_pool_with_step_mask(x, mask):
    """A second mean pool, which hands on the mask of steps that are gone."""
    return jm.pool.mean(x, mask)[0], mask


def test_s17_a_pool_may_return_the_step_mask_to_its_caller_but_not_to_a_layer():
    masked = jm.nn.Masking()(growing_rows())
    y, mask = mean_pool_with_step_mask(*masked)
    assert y.shape == (4, 2)
    assert mask.tolist() == LADDER
    with pytest.raises(jm.MaskError, match=r"mask of shape \(4, 4\) for `y` of shape \(4, 2\)"):
        jm.nn.Sequential(mean_pool_with_step_mask)(*masked)


@flattens
@pytest.mark.parametrize("total", [jm.nn.Consume(my_sum), jm.pool.sum])
def test_s18_custom_flatten_then_sum(flatten, total):
    ids = jnp.array([[1, 0, 0, 0], [1, 2, 0, 0], [1, 2, 3, 0], [1, 2, 3, 4]])
    embed = jm.nn.Embed(
        5, 3, mask_zero=True, embedding_init=nnx.initializers.ones, rngs=nnx.Rngs(0)
    )
    y, _ = jm.nn.Sequential(embed, flatten, total)(ids)
    assert y.tolist() == [3, 6, 9, 12]


def test_s19_any_layer_takes_a_mask_by_hand_and_says_which_it_returns():
    ids, mask = sentences()
    embed, lstm = embed_and_lstm()
    x, _ = embed(ids)
    by_keyword = lstm(x, mask=mask)
    np.testing.assert_array_equal(lstm(x, mask)[0], by_keyword[0])
    assert not np.allclose(by_keyword[0], lstm(x)[0], atol=1e-3)
    previous = mask.at[2, 0].set(False)
    for layer, given in ((embed, ids), (lstm, x), (jm.nn.Sequential(embed, lstm), ids)):
        expected = layer(given, previous)[1]
        np.testing.assert_array_equal(layer.compute_mask(given, previous), expected)
    assert embed.compute_mask(ids, previous).tolist() == previous.tolist()


def test_s20_every_way_to_introduce_a_mask_gives_the_same_one():
    ids, padded = sentences()
    embed, _ = embed_and_lstm()
    _, from_embed = embed(ids)
    _, from_values = jm.nn.Masking()(tiled_sentences())
    by_hand = jm.masks.from_lengths(np.array([3, 5, 6]), time=6)
    for mask in (padded, from_embed, from_values, by_hand):
        assert mask.tolist() == SENTENCE_MASK


@pytest.mark.parametrize("method", ["auto", "scan"])
def test_s20_left_and_right_padding_end_in_the_same_state(method):
    embed, lstm = embed_and_lstm(method=method)
    carries = []
    for padding in ("pre", "post"):
        ids, mask = jm.pad_sequences(SENTENCES, padding=padding)
        x, mask = embed(ids, mask)
        carry, _ = lstm.run(lstm.initial_carry(3), x, mask)
        np.testing.assert_allclose(carry.h, lstm(x, mask)[0], atol=1e-6)
        carries.append(carry)
    left, right = carries
    np.testing.assert_allclose(left.h, right.h, atol=1e-6)
    np.testing.assert_allclose(left.c, right.c, atol=1e-6)


# ------------------------------------------------------------------------------- the example


KEY_LINES = [
    "ids   [[71, 63, 7, 0, 0], [73, 0, 32, 55, 92], [83, 0, 0, 0, 0]]",
    "mask, row by row   ###..   #####   #....",
    "right: jm.pool.mean   [47.0, 50.4, 83.0]",
    "Embed(mask_zero=True)   ###.   #...",
    "40 steps, padded with -999: equal   True",
    "layer 0, function `centre`, got a mask and does not support masks",
    "length of each step of row 0   [1.0, 1.0, 1.0, 0.0, 0.0]",
    "after   ##.   ###   #..",
    "function `every_second_value`, returned a mask of shape (3, 5)",
    "mask after it   None",
    "mask of the whole classifier   ###",
    "padded on the left   ..###   #####   ....#",
    "last states: equal   True",
    "its state is 0   True",
    "my_mean is padding-proof   True",
    "careless_mean is padding-proof   False",
    "leak.check of function `careless_mean`: padding leaks",
]


@pytest.mark.exhaustive
def test_example_tells_the_same_story():
    path = pathlib.Path(__file__).parent.parent / "examples" / "guide.py"
    command = [sys.executable, "-W", "error", str(path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert told.returncode == 0, told.stderr
    for line in KEY_LINES:
        assert line in told.stdout
