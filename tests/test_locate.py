"""`leak.locate` names the layers that let padding in, and those alone."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm

MASK = np.arange(6) < np.array([[6], [3]])
X = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)


class Tagger(nnx.Module):
    """A convolution and attention of Flax, each with or without the mask."""

    def __init__(self, *, mends_convolution, mends_attention, rngs):
        sizes = {"in_features": 4, "decode": False, "rngs": rngs}
        self.convolution = (
            jm.nn.Conv1D(4, 4, 3, rngs=rngs)
            if mends_convolution
            else nnx.Conv(4, 4, kernel_size=(3,), rngs=rngs)
        )
        self.attention = (
            jm.nn.MultiHeadAttention(2, 4, rngs=rngs)
            if mends_attention
            else nnx.MultiHeadAttention(2, **sizes)
        )
        self.mends = mends_convolution, mends_attention

    def __call__(self, x, mask):
        mends_convolution, mends_attention = self.mends
        y = self.convolution(x, mask)[0] if mends_convolution else self.convolution(x)
        y = self.attention(y, mask)[0] if mends_attention else self.attention(y)
        return y, mask


@pytest.mark.parametrize(
    ("mends_convolution", "mends_attention", "guilty"),
    [(False, False, ["convolution", "attention"]), (True, False, ["attention"]), (True, True, [])],
)
def test_layers_without_the_mask_are_found_in_order(mends_convolution, mends_attention, guilty):
    model = Tagger(
        mends_convolution=mends_convolution, mends_attention=mends_attention, rngs=nnx.Rngs(0)
    )
    location = jm.leak.locate(model, X, MASK)
    assert [layer.path for layer in location.guilty] == guilty
    assert location.ok == (not guilty)
    if guilty:
        assert location.first.path == guilty[0]
        assert all(f"{path}, `" in str(location) for path in guilty)


class Mean(nnx.Module):
    """The mistake is in the code of the model itself."""

    def __init__(self, rngs):
        self.project = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x, mask):
        return self.project(x).mean(1), mask.any(1)


def test_the_code_of_the_model_itself_is_named():
    location = jm.leak.locate(Mean(nnx.Rngs(0)), X, MASK)
    assert [layer.name for layer in location.guilty] == ["Mean"]
    assert "the model itself, `Mean`: reads padded steps" in str(location)


def test_a_function_is_no_model():
    with pytest.raises(TypeError, match="module"):
        jm.leak.locate(jnp.sin, X, MASK)


class Maskless(nnx.Module):
    """A layer that mixes steps inside a model whose own code does so too."""

    def __init__(self, rngs, *, pools):
        self.pools = pools
        self.conv = nnx.Conv(4, 6, kernel_size=(3,), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)

    def __call__(self, x):
        y = self.norm(self.conv(x))
        return y.mean(1) if self.pools else y


def test_what_is_around_guilty_layers_is_not_judged_yet():
    text = "The code of `Maskless` itself is judged once these are fixed: run again."
    location = jm.leak.locate(Maskless(nnx.Rngs(0), pools=True), X, MASK)
    assert [layer.name for layer in location.unjudged] == ["Maskless"]
    assert text in str(location)
    flow = jm.report.mask_flow(Maskless(nnx.Rngs(0), pools=True), X, MASK)
    assert f"Padding comes in at conv, norm. {text}" in flow.notes
    assert not jm.leak.locate(Mean(nnx.Rngs(0)), X, MASK).unjudged


@pytest.mark.parametrize("pools", [True, False])
def test_a_module_without_a_mask_is_checked_and_proved_as_in_a_function_that_adds_it(pools):
    model = Maskless(nnx.Rngs(0), pools=pools)  # pooled [2, 6], as long as its rows
    proof = jm.leak.prove(model, X, MASK, witness=False)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def with_mask(params, x, mask):
        y = nnx.merge(graphdef, params, rest, copy=True)(x)
        return y, mask.any(1) if pools else mask

    same = jm.leak.prove(with_mask, X, MASK, params=params, witness=False)
    own = [(c.what, c.where, c.verdict) for c in proof.claims if c.what != "statistics"]
    assert own == [(c.what, c.where, c.verdict) for c in same.claims]
    assert "`Maskless`, called without the mask" in str(proof)
    assert any(c.what == "statistics" and c.verdict != "proved" for c in proof.claims)


def test_a_check_of_a_module_without_a_mask_names_its_lines():
    report = jm.leak.check(nnx.Conv(4, 4, kernel_size=(3,), rngs=nnx.Rngs(0)), X, MASK)
    assert [finding.what for finding in report.findings] == [
        "a window over the edge of the padding"
    ]


def test_a_result_with_another_time_axis_needs_its_own_mask():
    model = nnx.Conv(4, 4, kernel_size=(3,), strides=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"result of shape \[2, 3, 4\] has a time axis other"):
        jm.leak.prove(model, X, MASK)


def test_the_lines_are_named():
    model = Tagger(mends_convolution=False, mends_attention=True, rngs=nnx.Rngs(0))
    (layer,) = jm.leak.locate(model, X, MASK).guilty
    assert line_of(layer).startswith("y = self.convolution(x, mask)[0] if")
    location = jm.leak.locate(Mean(nnx.Rngs(0)), X, MASK)
    assert line_of(location.first) == "return self.project(x).mean(1), mask.any(1)"
    assert f"{location.first.place}: `return self.project(x).mean(1)" in str(location)
    assert (
        line_of(jm.leak.locate(Centred(), X, MASK).first) == "return x - x.mean(1, keepdims=True)"
    )
    of_library = nnx.Conv(4, 4, kernel_size=(3,), rngs=nnx.Rngs(0))
    assert jm.leak.locate(of_library, X, MASK).first.place is None  # no line of ours calls it


def line_of(layer):
    return Path(layer.place.file).read_text().splitlines()[layer.place.line - 1].strip()


class Recurrent(nnx.Module):
    """A layer of Flax that mixes steps, with the lengths or without, and its pooled result."""

    def __init__(self, *, gives_lengths, reverse=False):
        cell = nnx.GRUCell(4, 3, rngs=nnx.Rngs(0))
        self.rnn = nnx.RNN(cell, reverse=reverse, keep_order=reverse)
        self.gives_lengths = gives_lengths

    def __call__(self, x, mask):
        lengths = mask.sum(1) if self.gives_lengths else None
        return jm.pool.mean(self.rnn(jm.ops.fill(x, mask)[0], seq_lengths=lengths), mask)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_layer_that_has_the_lengths_is_not_blamed(reverse):
    assert jm.leak.locate(Recurrent(gives_lengths=True, reverse=reverse), X, MASK).ok
    without = jm.leak.locate(Recurrent(gives_lengths=False, reverse=reverse), X, MASK)
    assert without.ok == (not reverse)  # from the left, no step sees the padding after it


class Centred(nnx.Module):
    def __call__(self, x):
        def centred(x):
            return x - x.mean(1, keepdims=True)

        return jnp.sin(centred(x))


class MaskedThenMean(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)

    def __call__(self, x, mask):
        y = x + self.attention(x, mask=nnx.make_attention_mask(mask, mask))
        return y.mean(axis=1)


def test_the_line_is_not_that_of_a_layer_inside():
    """Flax's attention lets nan in, and the mean lets in whatever there is."""
    location = jm.leak.locate(MaskedThenMean(nnx.Rngs(0)), X, MASK)
    assert [layer.path for layer in location.guilty] == [""]
    assert line_of(location.first) == "return y.mean(axis=1)"


class Lookup(nnx.Module):
    """A leak that only ids out of the table show."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(9, 4, rngs=rngs)

    def __call__(self, ids, mask):
        return (self.embed(ids) * mask[..., None]).sum(1), mask.any(1)


def test_a_model_with_a_table_is_sent_to_the_check():
    ids = np.arange(12).reshape(2, 6) % 9
    location = jm.leak.locate(Lookup(nnx.Rngs(0)), ids, MASK)
    assert location.ok
    assert str(location).endswith(
        "also tries ids out of the table of `nnx.Embed`, which become nan."
    )
    assert "nnx.Embed" not in str(jm.leak.locate(jm.nn.GlobalMeanPool(), X, MASK))


class OverTheLength(nnx.Module):
    """Padding is replaced, and counted."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(9, 4, rngs=rngs)

    def __call__(self, ids, mask):
        return self.embed(jnp.where(mask, ids, 0)).mean(1), mask.any(1)


def test_how_much_padding_there_is_is_for_the_check():
    ids, model = np.arange(12).reshape(2, 6) % 9, OverTheLength(nnx.Rngs(0))
    location = jm.leak.locate(model, ids, MASK)
    assert location.ok
    assert "also varies how much of it there is" in str(location)
    assert not jm.leak.check(model, ids, MASK).ok
