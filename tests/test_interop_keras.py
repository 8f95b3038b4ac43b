"""Models of Keras as masked modules: each row as Keras has it alone, and back."""

import re
import warnings

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests import keras_models

L = keras.layers
IDS = np.array([[3, 4, 5, 6], [7, 8, 0, 0], [0, 0, 0, 0]])
LENGTHS = (4, 2)
pytestmark = pytest.mark.filterwarnings("ignore:Layer '.* mask:UserWarning")


def converted(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jm.interop.InteropWarning)
        return jm.interop.from_keras(model, **options)


def with_weights(model):
    """All weights different from 0, as after training."""
    for place, weight in enumerate(model.weights):
        if "seed" not in weight.path:
            weight.assign(np.random.default_rng(place).normal(size=weight.shape) * 0.5)
    return model


def assert_rows(model, y, rows, *, atol=1e-5):
    """`rows`: the inputs of each row alone."""
    for place, alone in enumerate(rows):
        expected = np.asarray(model(alone))[0]
        np.testing.assert_allclose(np.asarray(y)[place][: len(expected)], expected, atol=atol)


@pytest.fixture(scope="module")
def tagger():
    layers = [
        L.Embedding(9, 4, mask_zero=True),
        L.Bidirectional(L.LSTM(3, return_sequences=True, dropout=0.5)),
        L.Conv1D(4, 3, padding="same", activation="relu"),
        L.Dense(2),
    ]
    model = keras.Sequential(layers)
    model.build((None, None))
    return with_weights(model)


# ------------------------------------------------------------------------------ the breadth


@pytest.mark.sampled(160)
@pytest.mark.parametrize("seed", range(160))
def test_random_models_agree_with_each_row_alone(seed):
    made = keras_models.random_model(keras, seed)
    kind = keras_models.KINDS[seed // 2 % 3]
    if kind == "holes" and not made.closes_holes:
        kind = "right"  # where a hole keeps its place no row alone is its equal
    keras_models.agrees(made, kind, gradients=seed // 2 % 2 == 0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(200, 220))
def test_random_models_agree_in_bfloat16(seed):
    made = keras_models.random_model(keras, seed, "bfloat16")
    keras_models.agrees(made, "left", gradients=False, rtol=0.1, atol=0.1)


@pytest.mark.exhaustive
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_transposed_convolutions(size, strides, padding):
    layer = L.Conv1DTranspose(2, size, strides=strides, padding=padding)
    layer.build((None, None, 3))
    with_weights(layer)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    mask = np.arange(5) < np.array([[5], [3]])
    y, _ = converted(layer)(x, mask)
    assert_rows(layer, y, [x[:1], x[1:, :3]])


@pytest.mark.exhaustive
@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("strides", [2, 3, 4])
@pytest.mark.parametrize("kind", ["Conv1D", "MaxPooling1D"])
def test_strided_windows_agree_or_are_refused(size, strides, kind):
    arguments = (2, size) if kind == "Conv1D" else (size,)
    layer = getattr(L, kind)(*arguments, strides=strides, padding="same")
    layer.build((None, None, 3))
    x = np.random.default_rng(0).normal(size=(1, 8, 3)).astype(np.float32)
    moves = (size - 1) // 2 != max(size - strides, 0) // 2
    if moves:
        with pytest.raises(ValueError, match='padding="same"'):
            converted(layer)
        return
    module = converted(layer)
    for n in range(1, 9):
        np.testing.assert_allclose(module(x[:, :n])[0], layer(x[:, :n]), atol=1e-5)


# ---------------------------------------------------------------- what Keras has in silence


def test_a_sequential_model_and_what_is_said_of_it(tagger):
    plan = jm.interop.explain(tagger)
    assert plan.ok
    assert re.search(r"(?s)Values differ:.*- `conv1d\w*` \(Conv1D\): Keras drops", str(plan))
    with pytest.warns(jm.interop.InteropWarning, match="Conv1D") as caught:
        module = jm.interop.from_keras(tagger)
    assert len(caught) == 1
    y, mask = module(IDS)
    np.testing.assert_array_equal(mask, IDS != 0)
    assert not np.asarray(y)[2].any()
    assert_rows(tagger, y, [IDS[r : r + 1, :n] for r, n in enumerate(LENGTHS)])
    given, _ = module(IDS, np.array([[True, True, False, False]] * 3))  # both masks hold
    np.testing.assert_allclose(given[0, :2], np.asarray(tagger(IDS[:1, :2]))[0], atol=1e-5)


def test_a_stack_means_the_same_where_keras_passes_no_mask_on(monkeypatch):
    """From Keras 3.16 on, the mask of a recurrent layer ends with it."""

    def stack():
        layers = [L.Embedding(9, 4, mask_zero=True), L.LSTM(3, return_sequences=True), L.LSTM(2)]
        model = keras.Sequential(layers)
        model.build((None, None))
        return with_weights(model)

    passes = L.LSTM(1).supports_masking  # up to 3.15
    with warnings.catch_warnings():
        warnings.simplefilter("error" if passes else "ignore", jm.interop.InteropWarning)
        before, _ = jm.interop.from_keras(stack())(IDS)
    monkeypatch.setattr(L.LSTM, "compute_mask", lambda self, x, mask: None)
    later = stack()
    assert not np.allclose(later(IDS)[1], later(IDS[1:2, :2])[0], atol=1e-3)  # it reads padding
    with pytest.warns(jm.interop.InteropWarning, match=r"3\.16 and later do not"):
        module = jm.interop.from_keras(later)
    np.testing.assert_array_equal(module(IDS)[0], before)


def test_an_encoder_and_a_decoder_with_a_shared_embedding():
    """Keras ignores the decoder's mask, since `initial_state` is given."""
    source, target = (keras.Input((None,), dtype="int32", name=n) for n in ("source", "target"))
    embed = L.Embedding(9, 4, mask_zero=True)
    sequence, h, c = L.LSTM(4, return_sequences=True, return_state=True)(embed(source))
    decoded, *_ = L.LSTM(4, return_sequences=True, return_state=True)(
        embed(target), initial_state=[h, c]
    )
    attended = L.MultiHeadAttention(2, 3)(decoded, sequence)
    y = L.Dense(2)(decoded + attended)
    model = with_weights(keras.Model({"source": source, "target": target}, [y, h]))
    module = converted(model)
    x = {"source": IDS[:2], "target": np.array([[5, 6, 7], [8, 0, 0]])}
    (y, states), (mask, row_mask) = module(x)
    np.testing.assert_array_equal(mask, x["target"] != 0)
    assert row_mask.tolist() == [True, True]
    for r, (n, m) in enumerate(((4, 3), (2, 1))):
        alone = {"source": IDS[r : r + 1, :n], "target": x["target"][r : r + 1, :m]}
        theirs, their_states = model(alone)
        np.testing.assert_allclose(y[r, :m], theirs[0], atol=1e-5)
        np.testing.assert_allclose(states[r], their_states[0], atol=1e-5)
    parameters = sum(p.size for p in jax.tree.leaves(nnx.state(module, nnx.Param)))
    assert parameters == model.count_params()  # the embedding once


def test_masks_reach_the_layers_inside_documents():
    inside = keras.Sequential([L.Embedding(9, 4, mask_zero=True), L.GRU(3)])
    model = keras.Sequential([L.TimeDistributed(inside), L.GRU(2)])
    model.build((None, None, 4))
    with_weights(model)
    documents = np.stack([IDS, IDS[::-1]])
    y, row_mask = converted(model)(documents)
    assert row_mask.tolist() == [True, True]
    sentences = [inside(IDS[r : r + 1, :n]) for r, n in enumerate(LENGTHS)]
    outer = model.layers[-1]
    expected = outer(np.stack([np.asarray(s)[0] for s in sentences])[None])
    np.testing.assert_allclose(y[0], expected[0], atol=1e-5)


def test_flatten_and_repeat_join_rows():
    x = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32)
    mask = np.array([[True, True, False], [False] * 3])
    model = keras.Sequential([keras.Input((3, 2)), L.Flatten(), L.Dense(2), L.RepeatVector(2)])
    y, out = converted(with_weights(model))(np.where(mask[..., None], x, np.nan), mask)
    np.testing.assert_allclose(y[:1], model(x[:1] * mask[:1, :, None]), atol=1e-5)
    assert out.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("invert", [False, True])
def test_statistics_of_the_data_are_constants(invert):
    layer = L.Normalization(mean=[1.0, 2.0], variance=[4.0, 0.25], invert=invert)
    x = np.random.default_rng(0).normal(size=(1, 3, 2)).astype(np.float32)
    expected = layer(x)
    module = converted(layer)
    np.testing.assert_allclose(module(x)[0], expected, rtol=1e-6)
    assert not jax.tree.leaves(nnx.state(module, nnx.Param))


def test_integers_are_scaled_in_single_precision():
    layer, x = L.Rescaling(1 / 255.0), np.array([[[255], [77]]], np.int32)
    y, _ = converted(layer)(x)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, layer(x), rtol=1e-6)


def test_merges_spread_a_row_over_time():
    x, row = keras.Input((None, 2)), keras.Input((2,))
    model = keras.Model([x, row], L.Multiply()([x, row]))
    values = np.arange(12, dtype=np.float32).reshape(2, 3, 2), np.ones((2, 2), np.float32) * 2
    mask = np.array([[True, True, False], [True, False, False]])
    y, out = converted(model)(list(values), [mask, None])
    np.testing.assert_array_equal(out, mask)
    np.testing.assert_array_equal(y, np.where(mask[..., None], 2 * values[0], 0))


# ----------------------------------------------------------------- a model like any other


def test_it_trains_and_its_dropout_follows_the_mode(tagger):
    module = converted(tagger)
    evaluated, _ = module(IDS)
    np.testing.assert_array_equal(module(IDS)[0], evaluated)

    def loss(module):
        y, mask = module(jnp.asarray(IDS))
        return jm.losses.reduce(*jm.losses.squared_error(y, mask, jnp.ones_like(y)))

    gradients = nnx.grad(loss)(module)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradients)]
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert all(leaf.any() for leaf in leaves)
    module.train()
    noisy, _ = module(IDS)
    assert not np.array_equal(noisy, evaluated)
    given = module(IDS, rngs=nnx.Rngs(1))[0]
    np.testing.assert_array_equal(given, module(IDS, rngs=nnx.Rngs(1))[0])
    np.testing.assert_array_equal(module(IDS, deterministic=True)[0], evaluated)


def test_the_noise_of_every_layer():
    noises = [L.GaussianDropout(0.2), L.AlphaDropout(0.2), L.GaussianNoise(0.3), L.Dropout(0.3)]
    module = converted(keras.Sequential([keras.Input((None, 50)), *noises]))
    x, mask = np.ones((2, 40, 50), np.float32), np.arange(40) < np.array([[40], [20]])
    np.testing.assert_array_equal(module(x, mask)[0], np.where(mask[..., None], x, 0))
    for noise in noises:
        module = converted(noise)
        module.train()
        y = np.asarray(module(x * 2, mask)[0])
        assert not y[~mask].any()
        theirs = np.asarray(noise(x * 2, training=True))
        np.testing.assert_allclose(y[mask].mean(), theirs.mean(), atol=0.1)
        np.testing.assert_allclose(y[mask].std(), theirs.std(), atol=0.1)


@pytest.fixture(scope="module")
def graph():
    x = keras.Input((None, 4))
    y = L.LSTM(4, return_sequences=True)(x)
    y = L.LayerNormalization()(L.Add()([y, L.MultiHeadAttention(1, 4)(y, y)]))
    return converted(with_weights(keras.Model(x, L.Dense(2)(y))))


def test_the_leak_check_acquits_it(graph):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    report = jm.leak.check(graph, x, np.array([[True, True, False], [True] * 3]))
    assert report.ok, str(report)


def test_mask_flow_draws_it(graph):
    flow = jm.report.mask_flow(graph, np.ones((2, 3, 4), np.float32), np.ones((2, 3), bool))
    assert not flow.missing
    names = [layer.name for layer in flow.layers]
    assert {"Graph", "LSTM", "MultiHeadAttention", "LayerNorm"} <= set(names)


def test_packed_rows_go_through_a_graph():
    x = keras.Input((None, 3))
    module = converted(keras.Model(x, L.Dense(2)(L.Dense(4)(x))))
    segments = jm.Segments(jnp.array([[1, 1, 2, 0]]), max_segments=2)
    y, out = module(jnp.ones((1, 4, 3)), segments)
    assert out.ids.tolist() == segments.ids.tolist()
    assert not y[0, 3].any()


def test_a_graph_checks_its_inputs(graph):
    x = np.ones((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match=r"one value, of the input `.*`, got a list of 2"):
        graph([x, x])
    with pytest.raises(jm.MaskError, match="mask"):
        graph(x, [None, None])
    with pytest.raises(jm.MaskError, match="mask") as caught:
        graph(x, np.ones((2, 2), bool))
    assert "lstm" in "".join(caught.value.__notes__)
    mask = np.array([[True, False, False], [False] * 3])
    np.testing.assert_array_equal(graph.compute_mask(x, mask), mask)


def test_inputs_by_name():
    """As Keras takes them, for lists of inputs too."""
    left, right = keras.Input((None, 2), name="left"), keras.Input((None, 2), name="right")
    model = keras.Model([right, left], L.Subtract()([left, right]))
    module = converted(model)
    a, b = np.ones((1, 3, 2), np.float32), np.full((1, 3, 2), 5, np.float32)
    mask = np.array([[True, True, False]])
    y, out = module({"left": a, "right": b}, {"left": mask, "right": None})
    np.testing.assert_array_equal(out, mask)
    np.testing.assert_array_equal(y[0, :2], model({"left": a, "right": b})[0, :2])
    np.testing.assert_array_equal(y, module([b, a], [None, mask])[0])
    expected = "a list of the model's inputs, `right`, `left` in this order, or a dict with these"
    for wrong, text in (
        ({"left": a}, "a dict with `left`"),
        ((a, b), "a tuple of 2"),
        (a, "array"),
    ):
        with pytest.raises(ValueError, match=f"{expected} names, got .*{text}"):
            module(wrong)
    with pytest.raises(jm.MaskError, match=f"{expected} names, with None"):
        module([b, a], mask)
    with pytest.warns(UserWarning, match="match the names"):
        crossed = keras.Model({"left": right, "right": left}, L.Subtract()([left, right]))
    y, _ = converted(crossed)({"left": a, "right": b})  # the keys of the structure, as in Keras
    np.testing.assert_array_equal(y, b - a)


def test_a_merge_says_how_it_combines_masks():
    x, y = keras.Input((None, 2)), keras.Input((None, 2))
    model = keras.Model([x, y], L.Add()([L.Masking()(x), L.Masking()(y)]))
    assert "real where any input that has a mask has it (`or`)" in str(jm.interop.explain(model))
    first, second = np.ones((1, 3, 2), np.float32), np.ones((1, 3, 2), np.float32)
    first[0, 1:] = second[0, 2:] = 0
    added, mask = converted(model)([first, second])
    assert mask.tolist() == [[True, True, False]]
    assert added[0, :, 0].tolist() == [2, 1, 0]


# ------------------------------------------------------------------------------- refusals


class _Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


class _OwnLSTM(L.LSTM):
    pass


def sequential(*layers):
    return keras.Sequential([keras.Input((None, 4)), *layers])


def given_a_mask():
    x, mask = keras.Input((None, 4)), keras.Input((None,), dtype="bool")
    return keras.Model([x, mask], L.LSTM(2)(x, mask=mask))


def sliced():
    x = keras.Input((None, 4))
    return keras.Model(x, L.LSTM(2, return_sequences=True)(x)[:, -1])


REFUSED = {
    "lambda": (lambda: sequential(L.Lambda(lambda x: x)), r"`lambda\w*` \(Lambda\).*LastStep"),
    "unbuilt": (lambda: keras.Sequential([L.Dense(2)]), "not built"),
    "unbuilt layer": (lambda: L.LSTM(2), "not built"),
    "own model": (_Own, r"\(_Own\).*subclassed model.*one by one"),
    "own layer": (lambda: sequential(_OwnLSTM(2)), "custom class"),
    "other class": (lambda: sequential(L.EinsumDense("abc,cd->abd", (None, 2))), "EinsumDense"),
    "half": (lambda: sequential(L.Dense(2, dtype="mixed_float16")), "`mixed_float16`.*set_weights"),
    "strides": (lambda: sequential(L.Conv1D(2, 3, strides=2, padding="same")), "padded length"),
    "activation": (lambda: sequential(L.Dense(2, activation=lambda x: x)), "its `activation`"),
    "axis": (lambda: keras.Sequential([keras.Input((3, 4)), L.LayerNormalization(axis=1)]), "axis"),
    "mask": (given_a_mask, "explicit mask, `mask`"),
    "slice": (sliced, r"GetItem.*LastStep"),
    "states": (lambda: built(L.LSTM(2, return_state=True)), "returns its states"),
}


def built(layer):
    layer.build((None, None, 4))
    return layer


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_named(name):
    make, text = REFUSED[name]
    model = make()
    with pytest.raises(ValueError, match=f"(?s)cannot convert .*{text}") as caught:
        jm.interop.from_keras(model)
    assert "Nothing was converted" in str(caught.value)
    plan = jm.interop.explain(model)
    assert not plan.ok
    assert "Not supported" in str(plan)


def test_a_stateful_layer_is_refused():
    model = keras.Sequential([keras.Input((3, 4), batch_size=2), L.LSTM(2, stateful=True)])
    with pytest.raises(ValueError, match="stateful"):
        jm.interop.from_keras(model)


@pytest.mark.parametrize("value", [None, nnx.Linear, L.LSTM, np.ones(3), "model.keras"])
def test_what_is_not_of_keras_is_refused(value):
    with pytest.raises(TypeError, match=r"Keras 3"):
        jm.interop.from_keras(value)


def test_what_both_directions_share_is_said_once():
    plan = jm.interop.explain(sequential(L.Bidirectional(L.LSTM(2, recurrent_dropout=0.5))))
    assert str(plan).count("`recurrent_dropout` is dropped") == 1


def test_a_layer_of_the_user_in_the_place_of_one():
    model = sequential(L.Dense(2), L.Lambda(lambda x: 2 * x, name="twice"))
    module = converted(model, replace={"twice": jm.nn.Passthrough(lambda x: 2 * x)})
    x = np.ones((1, 2, 4), np.float32)
    y, _ = module(x, np.array([[True, False]]))
    np.testing.assert_allclose(y[0, 0], np.asarray(model(x))[0, 0], atol=1e-6)
    with pytest.raises(ValueError, match="`thrice`"):
        jm.interop.from_keras(model, replace={"thrice": jm.nn.DropMask(), "twice": jm.nn.Masking()})


# ----------------------------------------------------------------------------- and back


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: jm.nn.LSTM(4, 3, rngs=rngs),
        lambda rngs: jm.nn.GRU(4, 3, reset_after=False, return_sequences=False, rngs=rngs),
        lambda rngs: jm.nn.GRU(4, 3, return_sequences=False, reverse=True, rngs=rngs),
        lambda rngs: jm.nn.SimpleRNN(4, 3, activation="relu", rngs=rngs),
        lambda rngs: jm.nn.Bidirectional(
            jm.nn.GRU(4, 3, rngs=rngs), jm.nn.GRU(4, 3, rngs=rngs), "sum"
        ),
    ],
    ids=["lstm", "gru", "backward gru", "simple", "bidirectional"],
)
def test_to_keras_gives_the_same_rows(make):
    module = jm.nn.Sequential(
        jm.nn.Embed(9, 4, mask_zero=True, rngs=nnx.Rngs(0)), make(nnx.Rngs(1))
    )
    if getattr(module.layers[1], "b", None) is not None:
        module.layers[1].b[...] += 0.3
    if getattr(module.layers[1], "reverse", False):
        layer = jm.interop.to_keras(module.layers[1])
        y = layer(jm.interop.to_keras(module.layers[0])(IDS[:2]))
    else:
        y = jm.interop.to_keras(module)(IDS[:2])
    ours, mask = module(IDS[:2])
    real = np.asarray(mask)
    np.testing.assert_allclose(np.asarray(y)[real], np.asarray(ours)[real], atol=1e-6)


def test_to_keras_refuses_what_keras_has_not():
    rngs = nnx.Rngs(0)
    with pytest.raises(TypeError, match="layer 1, is LayerNorm"):
        jm.interop.to_keras(jm.nn.Sequential(jm.nn.Masking(), jm.nn.LayerNorm(3, rngs=rngs)))
    with pytest.raises(ValueError, match="reversed"):
        jm.interop.to_keras(jm.nn.Sequential(jm.nn.LSTM(3, 2, reverse=True, rngs=rngs)))
