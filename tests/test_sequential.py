"""How layers join: what carries a mask, what ends it, and what is refused with a helpful text."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm

X = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
MASK = np.array([[True, True, True, False], [True, False, False, False]])
RNGS = nnx.Rngs(0, dropout=1)


def run(*layers, mask=MASK, **options):
    return jm.nn.Sequential(*layers, **options)(jnp.asarray(X), mask)


def test_a_plain_layer_that_meets_a_mask_is_named_with_the_ways_out():
    conv = nnx.Conv(3, 3, (3,), rngs=RNGS)
    with pytest.raises(jm.MaskError) as raised:
        run(jm.nn.Masking(), conv)
    text = str(raised.value)
    ways = ("Passthrough", "Consume", "DropMask", "register(Conv", "mask")
    for word in ("layer 1", "`Conv`", *ways):
        assert word in text
    assert isinstance(raised.value, ValueError)
    with pytest.raises(jm.MaskError, match=r"batched=True\)` if it is written for `\[batch, time"):
        run(lambda x: x.mean(axis=1))


@pytest.mark.parametrize("policy", ["drop", "warn"])
def test_the_behaviour_of_keras_on_request(policy):
    conv = nnx.Conv(3, 3, (3,), rngs=RNGS)
    if policy == "warn":
        with pytest.warns(UserWarning, match="The mask ends here"):
            y, mask = run(conv, on_unsupported="warn")
    else:
        y, mask = run(conv, on_unsupported="drop")
    assert mask is None
    np.testing.assert_allclose(y, conv(jnp.where(MASK[..., None], X, 0)), atol=1e-6)


def test_without_a_mask_any_layer_runs():
    conv = nnx.Conv(3, 3, (3,), rngs=RNGS)
    y, mask = run(conv, mask=None)
    assert mask is None
    np.testing.assert_array_equal(y, conv(X))


def per_step_layers():
    rngs = nnx.Rngs(0)
    return {
        "Linear": nnx.Linear(3, 2, rngs=rngs),
        "LinearGeneral": nnx.LinearGeneral(3, (2, 2), rngs=rngs),
        "LayerNorm": nnx.LayerNorm(3, rngs=rngs),
        "RMSNorm": nnx.RMSNorm(3, rngs=rngs),
        "PReLU": nnx.PReLU(),
        "LoRA": nnx.LoRA(3, 2, 4, rngs=rngs),
        "BatchNorm": nnx.BatchNorm(3, use_running_average=True, rngs=rngs),
        "relu": nnx.relu,
        "gelu": jax.nn.gelu,
        "softmax": jax.nn.softmax,
        "tanh": jnp.tanh,
    }


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", per_step_layers())
def test_per_step_layers_of_flax_join_and_never_see_padding(name):
    """Values are Flax's; parameter gradients have no nan, which Flax's own have."""
    layer = per_step_layers()[name]
    poisoned = jnp.where(MASK[..., None], X, jnp.nan)
    model = jm.nn.Sequential(layer)

    def loss(model):
        y, mask = model(poisoned, MASK)
        return jnp.sum(y**2), (y, mask)

    gradients, (y, mask) = nnx.grad(loss, has_aux=True)(model)
    np.testing.assert_array_equal(mask, MASK)
    np.testing.assert_allclose(y[MASK], layer(jnp.asarray(X))[MASK], atol=1e-6)
    assert not np.asarray(y)[~MASK].any()
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(np.asarray(leaf)).all()


def mixing_layers():
    rngs = nnx.Rngs(0)
    return {
        "BatchNorm": nnx.BatchNorm(3, rngs=rngs),
        "LayerNorm over time": nnx.LayerNorm(3, reduction_axes=(1, 2), rngs=rngs),
        "LinearGeneral over time": nnx.LinearGeneral((4, 3), 2, axis=(1, 2), rngs=rngs),
        "GroupNorm": nnx.GroupNorm(3, 3, rngs=rngs),
        "Sequential": nnx.Sequential(nnx.relu),
        "lambda": lambda x: x,
        "jnp.flip": jnp.flip,
    }


@pytest.mark.parametrize("name", mixing_layers())
def test_layers_that_mix_steps_or_may_are_refused(name):
    with pytest.raises(jm.MaskError, match="layer 0"):
        run(mixing_layers()[name])


def test_a_linear_layer_over_time_is_refused():
    """Of `[batch, time]` without features, the last axis is time."""
    with pytest.raises(jm.MaskError, match="mix steps"):
        jm.nn.Sequential(nnx.Linear(4, 2, rngs=RNGS))(jnp.asarray(X[..., 0]), MASK)


def test_any_callable_with_a_mask_joins():
    def shorten(x, mask):
        return x[:, :2], mask[:, :2]

    class Own:
        def __call__(self, x, mask=None):
            return x + 1, mask

    y, mask = run(shorten, Own(), jm.nn.GlobalMeanPool())
    assert y.shape == (2, 3)
    assert mask.tolist() == [True, True]


def test_a_keyword_only_mask_is_no_masked_layer():
    def layer(x, *, mask=None):
        return x

    with pytest.raises(jm.MaskError, match="second positional"):
        run(layer)


RETURNS = {
    "no pair": (lambda x, mask: x, "must return a pair"),
    "three": (lambda x, mask: (x, mask, x), "tuple of 3"),
    "int mask": (lambda x, mask: (x, mask.astype(int)), "boolean"),
    "lengths": (lambda x, mask: (x, mask.sum(1)), "boolean"),
    "other time": (lambda x, mask: (x[:, 1:], mask), "leading axes"),
    "no array": (lambda x, mask: (x, "mask"), "type str"),
}


@pytest.mark.parametrize("name", RETURNS)
def test_what_a_layer_returns_is_checked(name):
    layer, text = RETURNS[name]
    with pytest.raises((jm.MaskError, TypeError), match=text) as raised:
        run(layer)
    assert "layer 0" in str(raised.value)


def test_a_mask_from_nowhere_is_an_error():
    with pytest.raises(jm.MaskError, match="takes no mask"):
        run(lambda x: (x, x[..., 0] > 0), mask=None)


def test_a_class_or_a_list_is_no_layer():
    with pytest.raises(TypeError, match=r"Build it: `Masking\("):
        jm.nn.Sequential(jm.nn.Masking)
    with pytest.raises(TypeError, match="one by one"):
        jm.nn.Sequential([jm.nn.Masking()])
    with pytest.raises(ValueError, match="on_unsupported"):
        jm.nn.Sequential(on_unsupported="ignore")


def test_register_by_type_is_exact_and_comes_first():
    class Double(nnx.Module):
        def __call__(self, x):
            return 2 * x

    class Subclass(Double):
        pass

    jm.nn.register(Double, jm.nn.Passthrough)
    y, mask = run(Double())
    np.testing.assert_array_equal(y[MASK], 2 * X[MASK])
    assert mask is not None
    with pytest.raises(jm.MaskError, match=re.escape("`Subclass`")):
        run(Subclass())


def test_wrappers():
    seen = []

    def f(x, mask):
        seen.append(mask)
        return x.sum(1)

    y, mask = run(jm.nn.Consume(f))
    assert mask is None
    assert seen[0] is not None
    y, mask = run(jm.nn.Passthrough(lambda x: x**2))
    np.testing.assert_allclose(y[MASK], X[MASK] ** 2, rtol=1e-6)
    y, mask = jm.nn.DropMask()(jnp.where(MASK[..., None], X, jnp.nan), MASK)
    assert mask is None
    assert np.isfinite(np.asarray(y)).all()
    with pytest.raises(jm.MaskError, match="axes of the mask"):
        run(jm.nn.Passthrough(lambda x: x[:, ::2]))


def test_passthrough_fill_is_for_a_batch_without_any_real_step():
    def refuse_ones(x):
        return jnp.where(x == 1, jnp.nan, x)

    nothing = np.zeros_like(MASK)
    layer = jm.nn.Passthrough(refuse_ones, fill=2.0)
    with jax.debug_nans(True):
        assert not np.asarray(layer(jnp.asarray(X), nothing)[0]).any()


def dropout_model():
    rngs = nnx.Rngs(0, dropout=3)
    return jm.nn.Sequential(nnx.Dropout(0.5, rngs=rngs), nnx.Linear(3, 3, rngs=rngs))


def test_dropout_draws_the_same_noise_whatever_the_padding():
    """Flax's own draws over the padded shape: one more step of padding changes every draw."""
    wider = np.concatenate([X, X[:, :1]], axis=1), np.pad(MASK, [(0, 0), (0, 1)])
    y, _ = dropout_model()(jnp.asarray(X), MASK)
    y_wider, _ = dropout_model()(jnp.asarray(wider[0]), wider[1])
    np.testing.assert_allclose(y[MASK], y_wider[wider[1]], atol=1e-6)


def test_dropout_in_training_and_in_evaluation():
    model = jm.nn.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(dropout=3)))
    first, second = (model(jnp.asarray(X), MASK)[0] for _ in range(2))
    assert (first != second).any()
    model.eval()
    np.testing.assert_array_equal(model(jnp.asarray(X), MASK)[0][MASK], X[MASK])


def test_dropout_with_explicit_rngs():
    model = jm.nn.Sequential(nnx.Dropout(0.5))
    with pytest.raises(ValueError, match="random stream"):
        model(jnp.asarray(X), MASK)
    draws = [model(jnp.asarray(X), MASK, rngs=nnx.Rngs(dropout=k))[0] for k in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


@pytest.mark.parametrize("layer", [nnx.Dropout(0.5), jm.nn.Dropout(0.5)], ids=["flax", "own"])
def test_explicit_rngs_reach_every_layer_that_draws(layer):
    for model in (jm.nn.Sequential(layer), jm.nn.Sequential(jm.nn.Sequential(layer))):
        draws = [model(jnp.asarray(X), MASK, rngs=nnx.Rngs(dropout=k))[0] for k in (0, 0, 1)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert (draws[0] != draws[2]).any()


def test_explicit_rngs_go_through_wrappers_and_adapters():
    class Foreign(nnx.Module):
        def __init__(self):
            self.inner = jm.nn.Sequential(nnx.Dropout(0.5))

        def __call__(self, x):
            raise AssertionError("the adapter knows better")

    jm.nn.register(Foreign, lambda foreign: foreign.inner)
    linear = nnx.Linear(3, 3, rngs=RNGS)
    inner = jm.nn.Sequential(nnx.Dropout(0.5), linear)
    documents = jnp.asarray(X)[:, None], MASK[:, None]
    for layer, pair in (
        (jm.nn.TimeDistributed(jm.nn.Sequential(inner)), documents),
        (jm.nn.SpectralNorm(inner, rngs=nnx.Rngs(0)), (jnp.asarray(X), MASK)),
        (Foreign(), (jnp.asarray(X), MASK)),
    ):
        model = jm.nn.Sequential(layer)
        model(*pair, rngs=nnx.Rngs(dropout=0))
        draws = [nnx.clone(model)(*pair, rngs=nnx.Rngs(dropout=k))[0] for k in (0, 0, 1)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert (draws[0] != draws[2]).any()


def test_a_pair_of_results_is_no_input_of_the_next_layer():
    grus = (jm.nn.GRU(3, 3, rngs=nnx.Rngs(0)) for _ in range(2))
    model = jm.nn.Sequential(jm.nn.Bidirectional(*grus, merge=None), nnx.Linear(3, 2, rngs=RNGS))
    with pytest.raises(TypeError, match="layer 1, `Linear`: `x` must be an array, got a tuple"):
        model(jnp.asarray(X), MASK)


def test_dropout_in_a_plain_jit_says_what_to_do():
    model = dropout_model()
    with pytest.raises(ValueError, match=r"nnx\.jit.*rngs="):
        jax.jit(lambda x: model(x, MASK)[0])(jnp.asarray(X))
    explicit = jax.jit(lambda x, key: model(x, MASK, rngs=nnx.Rngs(dropout=key))[0])
    assert explicit(jnp.asarray(X), jax.random.key(0)).shape == X.shape


def test_compute_mask_is_the_mask_of_a_call_and_changes_no_stream():
    model = jm.nn.Sequential(
        nnx.Dropout(0.5, rngs=nnx.Rngs(dropout=3)), jm.nn.Upsample(2), jm.nn.LSTM(3, 2, rngs=RNGS)
    )
    before = jax.tree.leaves(nnx.state(model, nnx.RngState))
    np.testing.assert_array_equal(model.compute_mask(X, MASK), np.repeat(MASK, 2, axis=1))
    after = jax.tree.leaves(nnx.state(model, nnx.RngState))
    for a, b in zip(before, after, strict=True):
        assert (a == b).all()


def test_documents_of_sentences():
    """`[batch, outer, time]` goes through `TimeDistributed`; each sentence is a row."""
    ids = np.random.default_rng(1).integers(1, 9, (2, 3, 4))
    mask = np.random.default_rng(2).random((2, 3, 4)) < 0.6
    mask[0, 2] = False
    embed = jm.nn.Embed(9, 5, rngs=RNGS)
    sentence = jm.nn.LSTM(5, 6, return_sequences=False, rngs=RNGS)
    document = jm.nn.LSTM(6, 4, return_sequences=False, rngs=RNGS)
    model = jm.nn.Sequential(
        jm.nn.TimeDistributed(embed), jm.nn.TimeDistributed(sentence), document
    )
    y, row_mask = model(jnp.asarray(ids), mask)
    assert row_mask.tolist() == [True, True]
    for b in range(2):
        steps = []
        for s in range(3):
            real = ids[b, s][mask[b, s]]
            if len(real):
                steps.append(sentence(embed(jnp.asarray(real[None]))[0])[0])
        alone, _ = document(jnp.stack(steps, axis=1))
        np.testing.assert_allclose(y[b], alone[0], atol=1e-5)


def test_time_distributed_refuses_what_does_not_belong():
    layer = jm.nn.TimeDistributed(nnx.Linear(3, 2, rngs=RNGS))
    with pytest.raises(jm.MaskError, match="outer"):
        layer(jnp.asarray(X), MASK[:, :2])
    with pytest.raises(TypeError, match="boolean"):
        layer(jnp.asarray(X), MASK.astype(float))
    with pytest.raises(jm.MaskError, match="cannot respect `Segments`"):
        layer(jnp.asarray(X), jm.Segments(MASK.astype(np.int32), 1))
