"""Weights by name: PyTorch's, from a file, into models that were written again by hand."""

import jax
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests.golden.make_interop_torch import FEATURES, LENGTHS, PATH, rows
from tests.rows import mask_of
from tests.x64 import enable_x64

GOLDEN = dict(np.load(PATH))
TIME = max(LENGTHS)


def bidirectional(kind, width, hidden, rngs):
    return jm.nn.Bidirectional(*(kind(width, hidden, rngs=rngs) for _ in range(2)))


def models(rngs):
    """The same models in jaxmask, each with what the file calls its parts."""
    f, n = FEATURES, jm.nn
    lstms = (bidirectional(n.LSTM, width, 2, rngs) for width in (f, 4))
    grus = (n.GRU(width, 3, rngs=rngs) for width in (f, 3))
    layers = {"layers.0": "0", "layers.1": "1", "layers.2": "2"}
    tagger = n.Sequential(
        n.Embed(6, f, mask_zero=True, rngs=rngs),
        n.LSTM(f, 3, rngs=rngs),
        nnx.Linear(3, 2, rngs=rngs),
    )
    norms = n.Sequential(n.LayerNorm(f, epsilon=1e-5, rngs=rngs), n.RMSNorm(f, rngs=rngs))
    norms_names = {"layers.0": "0", "layers.1": "1"}
    options = {"norm_first": False, "epsilon": 1e-5, "rngs": rngs}
    options["activation"] = jax.tree_util.Partial(jax.nn.gelu, approximate=False)
    return {
        "lstm": (n.StackedRNN(*lstms), {}),
        "gru": (n.StackedRNN(*grus), {}),
        "rnn": (n.SimpleRNN(f, 3, activation="relu", rngs=rngs), {}),
        "bigru": (bidirectional(n.GRU, f, 2, rngs), {}),
        "tagger_ids": (tagger, layers),
        "norms": (norms, norms_names),
        "batch_norm": (n.BatchNorm(f, rngs=rngs), {}),
        "conv": (n.Conv1D(f, 4, 3, groups=2, rngs=rngs), {}),
        "attention": (n.MultiHeadAttention(2, f, rngs=rngs), {}),
        "encoder": (n.TransformerEncoderBlock(2, f, 3, **options), {}),
    }


def weights_of(name):
    return {n.partition("/")[2]: a for n, a in GOLDEN.items() if n.startswith(f"{name}/")}


@pytest.mark.parametrize("name", models(nnx.Rngs(0)))
def test_models_written_again_are_those_of_pytorch(name):
    model, names = models(nnx.Rngs(0))[name]
    loaded = jm.interop.load_state_dict(model, weights_of(name), names=names)
    assert not loaded.unused
    assert not loaded.unfilled
    model.eval()
    mask = mask_of(LENGTHS, "left" if name == "conv" else "holes", TIME)
    steps = rows()["ids" if name.endswith("ids") else "x"]
    x = np.full(
        (*mask.shape, *steps[0].shape[1:]), 0 if name.endswith("ids") else 9, steps[0].dtype
    )
    x[mask] = np.concatenate(steps)
    y, new = jax.jit(lambda x, mask: model(x, mask))(x, mask)
    for row in range(len(LENGTHS)):
        expected = GOLDEN[f"{name}@{row}"]
        np.testing.assert_allclose(y[row][np.asarray(new[row])], expected, rtol=2e-5, atol=2e-6)


def small(rngs=None):
    rngs = nnx.Rngs(0) if rngs is None else rngs
    return jm.nn.Sequential(nnx.Linear(3, 2, rngs=rngs), jm.nn.LSTM(2, 1, rngs=rngs))


LINEAR = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32)}
LSTM = {
    "rnn.weight_ih_l0": np.ones((4, 2), np.float32),
    "rnn.weight_hh_l0": np.ones((4, 1), np.float32),
    "rnn.bias_ih_l0": np.ones(4, np.float32),
    "rnn.bias_hh_l0": np.ones(4, np.float32),
}
NAMES = {"layers.0": "fc", "layers.1": "rnn"}


def unchanged(error, match, mapping, names=NAMES, **options):
    """An error of this text, and a model that is as it was."""
    model = small()
    before = jax.tree.map(np.asarray, nnx.state(model))
    with pytest.raises(error, match=match):
        jm.interop.load_state_dict(model, mapping, names=names, **options)
    same = jax.tree.map(np.array_equal, before, jax.tree.map(np.asarray, nnx.state(model)))
    assert all(jax.tree.leaves(same))


def test_what_does_not_match_is_listed_and_nothing_is_loaded():
    every = LINEAR | LSTM
    without = {n: a for n, a in every.items() if n != "rnn.bias_hh_l0"}
    unchanged(ValueError, r"layers\.1\.b \(looked for `rnn\.bias_ih_l0` and", without)
    unchanged(ValueError, "Not used:\n- `head`", every | {"head": LINEAR["fc.bias"]})
    unchanged(ValueError, r"looked for `layers\.0\.weight`", every, names={"layers.1": "rnn"})
    wrong = every | {"fc.weight": np.ones((3, 2), np.float32)}
    unchanged(ValueError, r"`layers\.0\.kernel` from `fc\.weight`: expected .*\(3, 2\), got", wrong)
    half = every | {"fc.weight": np.ones((2, 3), np.float16)}
    unchanged(TypeError, r"`fc\.weight` holds float16.*model\.float\(\)", half)
    double = every | {"fc.weight": np.ones((2, 3))}
    unchanged(TypeError, "float64.*jax_enable_x64", double)
    unchanged(ValueError, r"`encoder`, which is not a part of the model", every, {"encoder": "rnn"})
    unchanged(TypeError, "torch.load", "weights.pt")
    unchanged(TypeError, r"got dict at 'state_dict'.*under a key", {"state_dict": every})


def test_loading_without_strict_reports_what_is_left():
    model = small()
    more = {**LINEAR, "other": np.ones(1, np.float32)}
    loaded = jm.interop.load_state_dict(model, more, names=NAMES, strict=False)
    assert set(loaded.filled) == {"layers.0.kernel", "layers.0.bias"}
    assert set(loaded.unfilled) == {"layers.1.w_x", "layers.1.w_h", "layers.1.b"}
    assert loaded.unused == ("other",)
    assert model.layers[0].kernel[...].tolist() == np.ones((3, 2)).tolist()


def test_parameters_of_a_users_own_have_their_own_names():
    class Scaled(nnx.Module):
        def __init__(self, rngs):
            self.scale = nnx.Param(np.zeros(2, np.float32))
            self.fc = nnx.Linear(3, 2, rngs=rngs)

    model = Scaled(nnx.Rngs(0))
    every = {f"model.{n}": a for n, a in (LINEAR | {"gain": np.ones(2, np.float32)}).items()}
    jm.interop.load_state_dict(model, every, names={"": "model", "scale": "model.gain"})
    assert model.scale[...].tolist() == [1.0, 1.0]


def test_parameters_keep_their_dtype_and_what_is_rounded_is_named():
    layer = nnx.Linear(3, 2, param_dtype="bfloat16", rngs=nnx.Rngs(0))
    every = {"weight": np.full((2, 3), 1.001, np.float32), "bias": np.array([0.5, np.inf], "f4")}
    with pytest.warns(jm.interop.InteropWarning, match=r"rounded: kernel\. Build"):
        jm.interop.load_state_dict(layer, every)
    assert layer.kernel[...].dtype == layer.bias[...].dtype == "bfloat16"
    assert layer.kernel[0, 0] == np.float32(1)
    assert layer.bias[...].tolist() == [0.5, np.inf]
    jm.interop.load_state_dict(layer, every | {"weight": np.ones((2, 3), np.float32)})  # exact
    with enable_x64(True):
        wide = nnx.Linear(3, 2, param_dtype="float64", rngs=nnx.Rngs(0))
        jm.interop.load_state_dict(wide, every)
        assert wide.kernel[...].dtype == "float64"
    counter = nnx.Module()
    counter.weight = nnx.Param(np.zeros((2, 3), np.int32))
    with pytest.raises(TypeError, match="`weight` from `weight`: the parameter holds int32"):
        jm.interop.load_state_dict(counter, {"weight": every["weight"]})


def test_importing_the_module_imports_no_other_library():
    import subprocess
    import sys

    code = (
        "import sys, jaxmask as jm; jm.interop.from_torch; "
        "assert not {'torch', 'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
