"""`jm.report`: where a mask goes in a model, what a batch holds, where two outputs differ."""

import sys
import threading
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests import report_picture

IDS, MASK = jm.pad_sequences([[1, 2, 3, 4, 5, 6], [5, 2]])


def classifier(*between):
    rngs = nnx.Rngs(0)
    return jm.nn.Sequential(
        jm.nn.Embed(9, 4, rngs=rngs),
        jm.nn.LSTM(4, 8, rngs=rngs),
        *between,
        jm.nn.GlobalMeanPool(),
        nnx.Linear(8, 2, rngs=rngs),
    )


class Attender(nnx.Module):
    """Plain Flax, with and without a mask of attention."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(9, 4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, ids):
        x = self.embed(ids)
        return self.out(self.norm(self.drop(self.attention(x))))


class Masked(Attender):
    def __call__(self, ids, mask):
        x = self.embed(ids)
        return self.out(self.attention(x, mask=self.of_keys(mask)))

    def of_keys(self, mask):
        return mask[:, None, None, :]


class MaskedByFloats(Masked):
    def of_keys(self, mask):
        return nnx.make_attention_mask(mask, mask)


def words(flow):
    return {f"{layer.path} {layer.name}": layer.words for layer in flow.layers}


@pytest.fixture(scope="module")
def flow():
    return jm.report.mask_flow(classifier(), IDS, MASK)


@pytest.fixture(scope="module")
def plain():
    return jm.report.mask_flow(Attender(nnx.Rngs(0)), IDS, MASK)


def test_each_layer_in_order(flow):
    assert words(flow) == {
        " Sequential": ("used", "changed"),
        "layers[0] Embed": ("passed",),
        "layers[1] LSTM": ("used", "passed"),
        "layers[2] GlobalMeanPool": ("used", "changed"),
        "layers[3] Linear": ("passed",),  # a mask of rows
    }
    lstm = flow.layers[2]
    assert (lstm.inputs, lstm.outputs) == ("float32[2,6,4], bool[2,6]", "float32[2,6,8], bool[2,6]")
    assert [layer.fill for layer in flow.layers] == pytest.approx([1, 8 / 12, 8 / 12, 1, 1])
    assert not flow.missing
    assert all(layer.verdict == "proved" for layer in flow.layers[:-1])


def test_arithmetic_and_memory(flow):
    linear = flow.layers[-1]
    assert linear.operations == 2 * 2 * 8 * 2 + 2 * 2  # the product and the bias
    assert linear.on_padding == 0
    assert 0.2 < flow.on_padding <= 4 / 12
    embed = flow.layers[1]
    assert embed.bytes == 2 * 6 * 4 * 4 + 2 * 6
    assert embed.bytes_of_padding == pytest.approx(embed.bytes * 4 / 12)
    assert flow.layers[0].bytes == sum(layer.bytes for layer in flow.layers[1:])


def test_a_mask_made_by_a_layer():
    rngs = nnx.Rngs(0)
    model = jm.nn.Sequential(jm.nn.Embed(9, 4, mask_zero=True, rngs=rngs), jm.nn.GlobalMaxPool())
    flow = jm.report.mask_flow(model, IDS)
    assert [layer.words[0] for layer in flow.layers] == ["made", "made", "used"]
    assert flow.layers[1].fill == pytest.approx(8 / 12)


def test_a_dropped_mask_is_missing_later():
    norm = nnx.LayerNorm(8, rngs=nnx.Rngs(0))
    flow = jm.report.mask_flow(classifier(jm.nn.DropMask(), norm), IDS, MASK)
    found = words(flow)
    assert found["layers[2] DropMask"] == ("dropped",)
    assert found["layers[3] LayerNorm"] == ("not needed",)
    assert found["layers[4] GlobalMeanPool"] == ("missing",)
    assert [layer.path for layer in flow.missing] == ["layers[4]"]
    assert "layers[4] (GlobalMeanPool)" in str(flow)


def test_a_transformer_block_and_a_convolution():
    rngs = nnx.Rngs(0)
    block = jm.nn.TransformerEncoderBlock(2, 4, 8, rngs=rngs)
    model = jm.nn.Sequential(block, jm.nn.Conv1D(4, 4, 2, strides=2, rngs=rngs))
    flow = jm.report.mask_flow(model, jnp.ones((2, 6, 4)), MASK)
    found = words(flow)
    assert found["layers[0].attention MultiHeadAttention"] == ("used", "passed")
    assert found["layers[1] Conv1D"] == ("used", "changed")
    assert flow.layers[-1].outputs == "float32[2,3,4], bool[2,3]"


def test_plain_flax_layers_that_mix_steps(plain):
    found = words(plain)
    assert found["embed Embed"] == ("not needed",)
    assert found["attention MultiHeadAttention"] == ("missing",)
    assert found["norm BatchNorm"] == ("missing",)
    assert found["drop Dropout"] == found["out Linear"] == ("not needed",)
    assert [layer.path for layer in plain.missing] == ["attention", "norm"]
    assert {layer.path for layer in plain.layers if layer.verdict == "sees padding"} == {
        "", "attention", "norm",
    }  # fmt: skip


@pytest.mark.parametrize("model", [Masked, MaskedByFloats])
def test_a_mask_of_attention_is_used(model):
    found = jm.report.mask_flow(model(nnx.Rngs(0)), IDS, MASK)
    attention = next(layer for layer in found.layers if layer.path == "attention")
    assert attention.words == ("used",)
    assert attention.verdict == "proved if finite"


def test_without_any_mask():
    flow = jm.report.mask_flow(Attender(nnx.Rngs(0)), IDS)
    assert "no mask anywhere" in str(flow)
    assert [layer.path for layer in flow.missing] == ["attention", "norm"]
    assert all(layer.fill is None for layer in flow.layers)


def test_the_model_and_its_class_stay_as_they_are():
    model = Attender(nnx.Rngs(0))
    before = [np.asarray(a) for a in jax.tree.leaves(nnx.state(model, nnx.BatchStat))]
    count, call = int(model.drop.rngs.count[...]), Attender.__dict__["__call__"]
    jm.report.mask_flow(model, IDS, MASK)
    with pytest.raises(ValueError, match="must be an integer"):
        jm.report.mask_flow(model, jnp.ones((2, 6)))
    after = [np.asarray(a) for a in jax.tree.leaves(nnx.state(model, nnx.BatchStat))]
    assert all(map(np.array_equal, before, after))
    assert int(model.drop.rngs.count[...]) == count
    assert Attender.__dict__["__call__"] is call
    assert "__call__" in vars(nnx.Linear)


def test_calls_of_other_threads_are_not_seen():
    linear, results = nnx.Linear(3, 3, rngs=nnx.Rngs(0)), []

    class Waits(nnx.Module):
        def __init__(self):
            self.inside = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

        def __call__(self, x):
            other = threading.Thread(target=lambda: results.append(linear(jnp.ones((1, 3)))))
            other.start()
            other.join()
            return self.inside(x)

    flow = jm.report.mask_flow(Waits(), jnp.ones((2, 3)))
    assert [layer.name for layer in flow.layers] == ["Waits", "Linear"]
    assert results[0].shape == (1, 3)


def test_a_model_of_many_layers_stays_readable():
    rngs = nnx.Rngs(0)
    pairs = [(nnx.LayerNorm(4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)) for _ in range(20)]
    model = jm.nn.Sequential(*(layer for pair in pairs for layer in pair))
    flow = jm.report.mask_flow(model, jnp.ones((2, 6, 4)), MASK)
    assert len(flow.layers) == 41
    assert len(str(flow).splitlines()) < 12
    assert "19 more like these 2, layers[2] to layers[39]" in str(flow)


class Transformed(nnx.Module):
    def __init__(self, rngs):
        self.pool = jm.nn.GlobalMeanPool()
        self.mix = jm.nn.Conv1D(4, 4, 2, padding="causal", rngs=rngs)

    @nnx.jit
    def __call__(self, x, mask):
        return nnx.remat(lambda model, x, mask: model.pool(*model.mix(x, mask)))(self, x, mask)


def test_layers_in_transformations():
    model, x = Transformed(nnx.Rngs(0)), jnp.ones((2, 6, 4))
    model(x, MASK)  # what JAX has compiled is seen too
    flow = jm.report.mask_flow(model, x, MASK)
    assert [layer.name for layer in flow.layers] == ["Transformed", "Conv1D", "GlobalMeanPool"]
    assert flow.layers[1].words == ("used", "passed")
    assert flow.layers[1].fill == pytest.approx(8 / 12)


def test_a_cell_in_a_scan():
    model = jm.nn.RNN(nnx.SimpleCell(4, 4, rngs=nnx.Rngs(0)))
    rnn, cell, *inside = jm.report.mask_flow(model, jnp.ones((2, 6, 4)), MASK).layers
    assert cell.name == "SimpleCell"
    assert [layer.operations for layer in inside] == [
        6 * (2 * 2 * 4 * 4 + 2 * 4),
        6 * 2 * 2 * 4 * 4,
    ]
    assert cell.on_padding / cell.operations == pytest.approx(4 / 12)
    assert rnn.operations > cell.operations


def test_every_wrapper():
    rngs = nnx.Rngs(0)

    def linear():
        return nnx.Linear(4, 4, rngs=rngs)

    attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
    model = jm.nn.Sequential(
        jm.nn.RaggedVmap(nnx.Sequential(linear(), nnx.Conv(4, 4, 3, rngs=rngs))),
        jm.nn.RaggedVmap(attention, batched=True),
        jm.nn.RaggedVmap(lambda row: row - row.mean(axis=0)),
        jm.nn.SkipPadding(jm.nn.Sequential(linear(), jm.nn.Conv1D(4, 4, 3, rngs=rngs))),
        jm.nn.Passthrough(linear()),
        jm.nn.TimeDistributed(linear()),
        jm.nn.Residual(linear()),
        jm.nn.SpectralNorm(linear(), rngs=rngs),
        jm.nn.RaggedVmap(lambda row: row.mean(axis=0)),
        jm.nn.Consume(lambda x, rows: x.sum(axis=-1)),
    )
    x = jnp.ones((2, 6, 4))
    flow = jm.report.mask_flow(model, x, MASK)
    assert not flow.guilty
    assert jm.leak.locate(model.layers[1], x, MASK).ok
    first, row = flow.layers[1:3]
    assert (first.bytes, row.bytes, row.inputs) == (2 * 6 * 4 * 4 + 2 * 6, 0, "float32[time,4]")
    assert sum(layer.name == "Conv" for layer in flow.layers) == 1  # not once for each trial
    assert "on one row without padding" in flow.notes[-1]


def test_rows_and_segments():
    rngs = nnx.Rngs(0)
    linear = jm.nn.Sequential(nnx.Linear(4, 4, rngs=rngs))
    rows = jm.report.mask_flow(linear, jnp.ones((2, 4)), jnp.array([True, False]))
    assert [layer.words for layer in rows.layers] == [("passed",), ("passed",)]
    segments = jm.Segments(np.array([[1, 1, 2, 0]]), 2)
    pool = jm.report.mask_flow(jm.nn.GlobalMaxPool(), jnp.ones((1, 4, 3)), segments)
    assert pool.layers[0].inputs == "float32[1,4,3], Segments[1,4]"
    assert pool.layers[0].words == ("used", "changed")
    assert pool.layers[0].fill == 1.0


def test_a_second_mask_is_used():
    layer = jm.nn.CrossAttention(2, 4, 4, rngs=nnx.Rngs(0))
    x, mask = jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool).at[0, 2].set(False)
    flow = jm.report.mask_flow(layer, x, mask, jnp.ones((2, 6, 4)), MASK)
    assert flow.layers[0].words == ("used", "passed")
    assert flow.layers[0].fill == pytest.approx(5 / 6)


def test_bad_models_and_inputs():
    model, x = classifier(), jnp.ones((2, 6, 4))
    with pytest.raises(TypeError, match=r"`model` must be an `nnx.Module`.*function into a module"):
        jm.report.mask_flow(lambda x: x, x)
    with pytest.raises(TypeError, match=r"must be an `nnx.Module` with a `__call__`"):
        jm.report.mask_flow(nnx.List([]), x)
    with pytest.raises(TypeError, match="does not take 4 inputs"):
        jm.report.mask_flow(model, IDS, MASK, MASK, MASK)
    with pytest.raises(jm.MaskError, match="marks no step as real"):
        jm.report.mask_flow(model, IDS, jnp.zeros((2, 6), bool))
    linear = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    with pytest.raises(jm.MaskError, match="leading axes of no input"):
        jm.report.mask_flow(linear, x, jnp.ones((2, 5), bool))
    with pytest.raises(TypeError, match="must be a boolean mask"):
        jm.report.mask_flow(Attender(nnx.Rngs(0)), IDS, jnp.ones((2, 6)))
    with pytest.raises(TypeError) as caught:
        jm.report.mask_flow(jm.nn.Sequential(linear), jnp.ones((2, 6, 3)), MASK)
    assert any("`layers[0]`, `Linear`" in note for note in caught.value.__notes__)


def test_pictures(flow, plain, tmp_path):
    packed = jm.report.batch(jnp.ones((2, 4)), None, np.array([[1, 1, 2, 0], [1, 2, 3, 3]]))
    other = jm.report.compare(jnp.zeros((2, 6)), jnp.ones((2, 6)), MASK)
    for name, shown in (("flow", plain), ("batch", packed), ("compare", other)):
        root = ElementTree.fromstring(shown.to_svg(tmp_path / f"{name}.svg"))
        assert len(root) > 10
        assert (tmp_path / f"{name}.svg").stat().st_size < 40_000
        assert shown._repr_html_() == shown.to_html()
    assert packed.to_png(tmp_path / "batch.png") == (tmp_path / "batch.png").read_bytes()
    assert (tmp_path / "batch.png").read_bytes().startswith(b"\x89PNG")
    for layer in flow.layers:
        assert layer.name in str(flow)
        assert layer.name in flow.to_html()


def test_a_table_of_rich(flow):
    console = pytest.importorskip("rich.console").Console(width=200, record=True, file=sys.stderr)
    console.print(flow)
    assert "GlobalMeanPool" in console.export_text()


def test_png_without_matplotlib(flow, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install jaxmask\[report\]"):
        flow.to_png("never.png")


def test_batch():
    packed = jm.report.batch(jnp.ones((2, 4)), None, np.array([[1, 1, 2, 0], [1, 2, 3, 3]]))
    assert str(packed).splitlines() == [
        "batch [2, 4]: 2 rows, 4 steps, 5 sequences, 88% real",
        "row 0  112·  3 real, 75%",
        "row 1  1233  4 real, 100%",
    ]
    wide = jm.report.batch(np.zeros((90, 500)), np.arange(500) < np.arange(90)[:, None])
    assert len(str(wide).splitlines()) == 44
    assert "1 of 90 rows have no real step." in str(wide)
    assert wide.row_fill[50] == 0.1
    with pytest.raises(jm.MaskError, match="marks no step as real"):
        jm.report.batch(np.zeros((1, 2)), np.zeros((1, 2), bool))
    with pytest.raises(jm.MaskError, match="leading axes"):
        jm.report.batch(np.zeros((1, 2)), np.ones((1, 3), bool))
    with pytest.raises(jm.MaskError, match="differ in which steps"):
        jm.report.batch(np.zeros((1, 2)), np.ones((1, 2), bool), np.array([[1, 0]]))


def test_compare():
    a = np.random.default_rng(0).normal(size=(3, 5, 2))
    b = a.copy()
    b[0, 3, 1] += 0.25
    b[0, 4, 0] -= 2
    b[1, 4] = np.nan  # padding
    b[2, 0, 0] = np.nan
    mask = np.array([[True] * 5, [True] * 4 + [False], [True] * 5])
    found = jm.report.compare(a, b, mask)
    assert found.first.tolist() == [3, -1, 0]
    assert found.steps[0].tolist() == pytest.approx([0, 0, 0, 0.25, 2], abs=1e-6)
    assert np.isnan(found.largest)
    assert not found.ok
    assert jm.report.compare(a, a, mask).ok
    assert jm.report.compare(a[:1], b[:1], mask[:1], tolerance=2.1).ok
    same = np.array([np.nan, np.inf])
    assert jm.report.compare(same, same).ok
    with pytest.raises(ValueError, match="one shape"):
        jm.report.compare(a, b[:1])


def test_the_page():
    names = report_picture.run("\n".join(report_picture.blocks("python")))
    shown = f"{names['picture']}\n{names['difference']}\n"
    assert shown == report_picture.blocks("text")[0]
    assert "… 11 more like it, layers[2] to layers[12]" in str(names["flow"])
    assert (report_picture.PAGE.with_name("report.svg")).exists()
