"""What a layer without masks is told, and how an error within a stack names where it happened."""

import functools

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.nnx import bridge

import jaxmask as jm

X, MASK = jnp.ones((2, 5, 6)), jnp.ones((2, 5), bool)
RNGS = nnx.Rngs(0, dropout=1)


def smooth(x):
    return jnp.cumsum(x, axis=1)


MIXING = {
    "RNN": (nnx.RNN(nnx.LSTMCell(6, 6, rngs=RNGS)), "jm.nn.RNN(cell)"),
    "Bidirectional": (
        nnx.Bidirectional(
            nnx.RNN(nnx.GRUCell(6, 6, rngs=RNGS)), nnx.RNN(nnx.GRUCell(6, 6, rngs=RNGS))
        ),
        "jm.nn.Bidirectional",
    ),
    "a cell": (nnx.GRUCell(6, 6, rngs=RNGS), "jm.nn.RNN(cell)"),
    "MultiHeadAttention": (
        nnx.MultiHeadAttention(2, 6, decode=False, rngs=RNGS),
        "jm.nn.MultiHeadAttention",
    ),
    "Conv": (nnx.Conv(6, 6, (3,), rngs=RNGS), "jm.nn.Conv1D"),
    "ConvTranspose": (nnx.ConvTranspose(6, 6, (3,), rngs=RNGS), "jm.nn.ConvTranspose1D"),
    "BatchNorm": (nnx.BatchNorm(6, rngs=RNGS), "jm.nn.BatchNorm"),
    "GroupNorm": (nnx.GroupNorm(6, 3, rngs=RNGS), "jm.nn.GroupNorm"),
    "InstanceNorm": (nnx.InstanceNorm(6, rngs=RNGS), "jm.nn.InstanceNorm"),
    "LayerNorm over time": (
        nnx.LayerNorm(6, reduction_axes=(1, 2), rngs=RNGS),
        "jm.nn.GroupNorm(num_features, 1",
    ),
    "RMSNorm over time": (nnx.RMSNorm(6, reduction_axes=(1, 2), rngs=RNGS), "jm.nn.RMSNorm"),
    "LinearGeneral over time": (
        nnx.LinearGeneral((5, 6), 2, axis=(1, 2), rngs=RNGS),
        "axis=-1",
    ),
    "Dropout": (nnx.Dropout(0.5, broadcast_dims=(1,), rngs=RNGS), "jm.nn.SpatialDropout"),
    "SpectralNorm": (
        nnx.SpectralNorm(nnx.Linear(6, 6, rngs=RNGS), rngs=RNGS),
        "jm.nn.SpectralNorm",
    ),
    "WeightNorm": (nnx.WeightNorm(nnx.Linear(6, 6, rngs=RNGS), rngs=RNGS), "normalised weights"),
    "Sequential": (nnx.Sequential(nnx.relu), "jm.nn.Sequential"),
    "Einsum": (nnx.Einsum("btf,tu->buf", (5, 5), None, rngs=RNGS), "jm.nn.RaggedVmap"),
    "linen.Conv": (linen.Conv(6, (3,)), "jm.nn.Conv1D"),
    "linen.RNN": (linen.RNN(linen.LSTMCell(6)), "jm.nn.RNN(cell)"),
    "linen attention": (linen.MultiHeadDotProductAttention(2), "jm.nn.MultiHeadAttention"),
    "linen.BatchNorm": (linen.BatchNorm(), "jm.nn.BatchNorm"),
    "linen.Dense": (linen.Dense(3), "nnx.Linear"),
    "linen through the bridge": (bridge.ToNNX(linen.Conv(6, (3,))), "jm.nn.Conv1D"),
    "jnp.flip": (jnp.flip, "jm.nn.Flip"),
    "jnp.cumsum": (jnp.cumsum, "jm.ops.cumsum"),
    "partial": (functools.partial(jnp.mean, axis=1), "jm.nn.GlobalMeanPool"),
    "max_pool": (functools.partial(nnx.max_pool, window_shape=(2,)), "jm.nn.MaxPool1D"),
    "avg_pool": (functools.partial(nnx.avg_pool, window_shape=(2,)), "jm.nn.AvgPool1D"),
    "own": (smooth, "jm.nn.RaggedVmap"),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_layer_that_mixes_steps_is_told_what_replaces_it_before_passthrough(name):
    layer, replacement = MIXING[name]
    with pytest.raises(jm.MaskError) as raised:
        jm.nn.Sequential(layer)(X, MASK)
    text = str(raised.value)
    assert replacement in text
    assert text.index(replacement) < text.index("jm.nn.Passthrough(layer)")


def test_what_is_recommended_exists():
    from jaxmask.nn import _advice

    texts = [*_advice._LAYERS.values(), *_advice._LINEN.values(), *_advice._FUNCTIONS.values()]
    names = {part.split("`")[0].split("(")[0] for text in texts for part in text.split("`jm.")[1:]}
    for name in names:
        assert functools.reduce(getattr, name.split("."), jm)


def test_a_layer_of_flax_without_a_feature_axis_is_told_to_add_one():
    for layer in (nnx.Linear(5, 2, rngs=RNGS), nnx.LoRA(5, 2, 4, rngs=RNGS), jax.nn.glu):
        with pytest.raises(jm.MaskError, match=r"x\[\.\.\., None\]"):
            jm.nn.Sequential(layer)(X[..., 0], MASK)
    with pytest.raises(jm.MaskError, match=r"jm\.ops\.softmax"):
        jm.nn.Sequential(jax.nn.softmax)(X[..., 0], MASK)


class Encoder:
    def encode(self, x):
        return x


FUNCTIONS = {
    "function": smooth,
    "lambda": lambda x: x,
    "builtin": len,
    "method": Encoder().encode,
    "partial": functools.partial(jnp.sum, axis=0),
    "jax.jit": jax.jit(smooth),
    "nnx.jit": nnx.jit(smooth),
    "custom_jvp": jax.custom_jvp(smooth),
    "custom_vjp": jax.custom_vjp(smooth),
    "jnp.ufunc": jnp.add,
    "np.ufunc": np.add,
    "np.vectorize": np.vectorize(smooth),
    "a class": Encoder,
    "a Linen module": bridge.ToNNX(linen.Dense(3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_rule_for_the_type_of_every_function(name):
    """It would let every function join: what mixes steps would leak padding from then on."""
    kind = type(FUNCTIONS[name])
    with pytest.raises(TypeError, match=r"register: .*jm\.nn\.register\(f, "):
        jm.nn.register(kind, jm.nn.Passthrough)
    with pytest.raises(jm.MaskError):
        jm.nn.Sequential(smooth)(X, MASK)


def test_the_advice_for_a_function_names_it():
    with pytest.raises(jm.MaskError, match=r"`jm\.nn\.register\(smooth, jm\.nn\.Passthrough\)`"):
        jm.nn.Sequential(smooth)(X, MASK)
    for unnamed in (lambda x: x, functools.partial(smooth)):
        with pytest.raises(jm.MaskError, match=r"`jm\.nn\.register\(f, jm\.nn\.Passthrough\)`"):
            jm.nn.Sequential(unnamed)(X, MASK)


def test_register_refuses_what_is_no_layer():
    with pytest.raises(TypeError, match="must be a class or a function, got str"):
        jm.nn.register("smooth", jm.nn.Passthrough)
    with pytest.raises(TypeError, match="`adapter` must be callable, such as"):
        jm.nn.register(smooth, None)


BUILT_FOR_EIGHT = {
    "LSTM": lambda rngs: jm.nn.LSTM(8, 6, rngs=rngs),
    "RNN": lambda rngs: jm.nn.RNN(nnx.GRUCell(8, 6, rngs=rngs)),
    "MinGRU": lambda rngs: jm.nn.MinGRU(8, 6, rngs=rngs),
    "Conv1D": lambda rngs: jm.nn.Conv1D(8, 6, 3, rngs=rngs),
    "ConvTranspose1D": lambda rngs: jm.nn.ConvTranspose1D(8, 6, 3, rngs=rngs),
    "BatchNorm": lambda rngs: jm.nn.BatchNorm(8, rngs=rngs),
    "MultiHeadAttention": lambda rngs: jm.nn.MultiHeadAttention(2, 8, rngs=rngs),
    "AttentionPool": lambda rngs: jm.nn.AttentionPool(8, rngs=rngs),
    "RaggedVmap": lambda rngs: jm.nn.RaggedVmap(nnx.Linear(8, 6, rngs=rngs)),
    "Passthrough": lambda rngs: jm.nn.Passthrough(nnx.Linear(8, 6, rngs=rngs)),
    "nnx.Linear": lambda rngs: nnx.Linear(8, 6, rngs=rngs),
    "nnx.LinearGeneral": lambda rngs: nnx.LinearGeneral(8, (2, 3), rngs=rngs),
    "nnx.LayerNorm": lambda rngs: nnx.LayerNorm(8, rngs=rngs),
    "nnx.BatchNorm": lambda rngs: nnx.BatchNorm(8, use_running_average=True, rngs=rngs),
    "nnx.LoRA": lambda rngs: nnx.LoRA(8, 2, 6, rngs=rngs),
}
STACKS = {
    "Sequential: layer 1": lambda layer: jm.nn.Sequential(jnp.tanh, layer),
    "StackedRNN: layer 1": lambda layer: jm.nn.StackedRNN(jnp.tanh, layer),
    "Residual": jm.nn.Residual,
    "TimeDistributed": jm.nn.TimeDistributed,
}


@pytest.mark.parametrize("name", BUILT_FOR_EIGHT)
def test_a_wrong_size_in_a_stack_names_the_layer_its_position_and_its_sizes(name):
    for where, stack in STACKS.items():
        layer = BUILT_FOR_EIGHT[name](nnx.Rngs(0))
        over_documents = where == "TimeDistributed"
        pair = (X[:, None], MASK[:, None]) if over_documents else (X, MASK)
        with pytest.raises((ValueError, TypeError)) as raised:
            stack(layer)(*pair)
        last = str(raised.value).splitlines()[-1]
        assert last.startswith(f"{where}, `{type(layer).__name__}(")
        assert "8" in last
        assert last.endswith("got an array of shape (2, 5, 6).")


def test_a_wrong_size_in_a_chunk_and_deep_inside():
    model = jm.nn.Sequential(
        jm.nn.Residual(jm.nn.Sequential(jnp.tanh, jm.nn.LSTM(8, 6, rngs=RNGS)))
    )
    with pytest.raises(ValueError, match="LSTM: the last axis") as called:
        model(X, MASK)
    with pytest.raises(ValueError, match="LSTM: the last axis") as run:
        model.run(model.initial_carry(2), X, MASK)
    for raised in (called, run):
        places = str(raised.value).splitlines()[1:]
        assert [place.split(", ")[0] for place in places] == [
            "Sequential: layer 1",
            "Residual",
            "Sequential: layer 0",
        ]


def test_an_error_keeps_its_type_and_its_own_text():
    class Odd(Exception):
        def __init__(self, number):
            super().__init__(number)

    def layer(x, mask):
        raise Odd(3)

    with pytest.raises(Odd) as raised:
        jm.nn.Sequential(layer)(X, MASK)
    assert raised.value.args == (3,)
    assert "Sequential: layer 0, function `layer`" in raised.value.__notes__[0]


IDS = jnp.array([[3, 4, 0], [5, 0, 0]])


def masked_models():
    rngs = nnx.Rngs(0)
    lstm = jm.nn.LSTM(4, 4, rngs=rngs)
    return {
        "mask_zero": jm.nn.Embed(9, 4, mask_zero=True, rngs=rngs),
        "nested": jm.nn.Sequential(jm.nn.Embed(9, 4, mask_zero=True, rngs=rngs), lstm),
        "residual": jm.nn.TimeDistributed(lambda x, mask: (x, x[:, 0] != 0)),
        "plain": jm.nn.Embed(9, 4, rngs=rngs),
        "per step": lambda x, mask: (x * 1.0, mask),
    }


@pytest.mark.parametrize("name", masked_models())
def test_a_model_that_needs_a_mask_is_not_called_without_one(name):
    """`model(ids)` where no embedding has `mask_zero` trains on padding, and nothing says so."""
    makes_one = name in ("mask_zero", "nested", "residual")
    model = jm.nn.Sequential(masked_models()[name], lambda x, mask: (x, mask), needs_mask=True)
    ids = IDS[..., None] if name == "residual" else IDS
    calls = [lambda: model(ids), lambda: model.compute_mask(ids), lambda: nnx.jit(model)(ids)]
    for call in calls:
        if makes_one:
            call()
        else:
            with pytest.raises(jm.MaskError, match=r"`needs_mask=True`.*mask_zero=True"):
                call()
    _, mask = model(ids, IDS != 0)
    np.testing.assert_array_equal(mask, IDS != 0)


def test_a_model_that_needs_a_mask_needs_one_in_chunks_and_wherever_it_stands():
    rngs = nnx.Rngs(0)
    model = jm.nn.Sequential(jm.nn.LSTM(6, 6, rngs=rngs), needs_mask=True)
    for layer in (model, jm.nn.Sequential(jnp.tanh, jm.nn.Residual(model))):
        with pytest.raises(jm.MaskError, match="needs_mask"):
            layer(X)
        with pytest.raises(jm.MaskError, match="needs_mask"):
            layer.run(layer.initial_carry(2), X)
        layer.run(layer.initial_carry(2), X, MASK)
    # A mask that ends within is no mask that was forgotten.
    jm.nn.Sequential(jm.nn.DropMask(), jm.nn.LSTM(6, 6, rngs=rngs), needs_mask=True)(X, MASK)


def test_a_rate_of_each_feature_is_refused_by_name():
    rngs, many = nnx.Rngs(0), np.full(6, 0.5)
    calls = {
        "Dropout: `dropout_rate`": lambda: jm.nn.Dropout(many, rngs=rngs),
        "SpatialDropout: `dropout_rate`": lambda: jm.nn.SpatialDropout(many, rngs=rngs),
        "GaussianNoise: `stddev`": lambda: jm.nn.GaussianNoise(many, rngs=rngs),
        "StackedRNN: `dropout_rate`": lambda: jm.nn.StackedRNN(
            jnp.tanh, dropout_rate=many, rngs=rngs
        ),
        "MultiHeadAttention: `dropout_rate`": lambda: jm.nn.MultiHeadAttention(
            2, 6, dropout_rate=many, rngs=rngs
        ),
        "BatchNorm: `momentum`": lambda: jm.nn.BatchNorm(6, momentum=many, rngs=rngs),
    }
    for text, call in calls.items():
        with pytest.raises(ValueError, match=f"{text} must be one number"):
            call()


@pytest.mark.parametrize("layer", [jm.nn.Dropout, jm.nn.SpatialDropout])
@pytest.mark.parametrize("dropout_rate", [-0.1, 1, 2.0])
def test_dropout_is_refused_where_it_is_built(layer, dropout_rate):
    with pytest.raises(ValueError, match="`dropout_rate` must lie from 0 to below 1"):
        layer(dropout_rate)


def test_a_dropout_of_flax_may_drop_everything():
    y, mask = jm.nn.Sequential(nnx.Dropout(1.0, rngs=nnx.Rngs(0)))(X, MASK)
    assert not y.any()
    np.testing.assert_array_equal(mask, MASK)
