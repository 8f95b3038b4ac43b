"""What conversions from and to PyTorch refuse, say and keep."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch")
from flax import nnx  # noqa: E402

import jaxmask as jm  # noqa: E402
from tests.rows import mask_of  # noqa: E402

T = torch.nn


def refused(module, match, **options):
    with pytest.raises(ValueError, match=match) as error:
        jm.interop.from_torch(module, **options)
    assert "Nothing was converted" in str(error.value)
    assert "Supported: torch.nn." in str(error.value)
    assert not jm.interop.explain(module).ok


class Mine(T.Module):
    def forward(self, x):
        return x


REFUSED = [
    (T.LSTM(3, 4, proj_size=2), "`proj_size=2`"),
    (T.Embedding(5, 3, max_norm=1.0), "`max_norm=1.0`"),
    (T.Embedding(5, 3, scale_grad_by_freq=True), "`scale_grad_by_freq=True`"),
    (T.LayerNorm((5, 3)), r"`normalized_shape=\(5, 3\)`"),
    (T.BatchNorm1d(3, track_running_stats=False), "`track_running_stats=False`"),
    (T.BatchNorm1d(3, momentum=None), "`momentum=None`"),
    (T.InstanceNorm1d(3, track_running_stats=True), "`track_running_stats=True`"),
    (T.Dropout(1.0), "`p=1`"),
    (T.MultiheadAttention(4, 2, add_zero_attn=True), "`add_zero_attn`"),
    (T.MultiheadAttention(4, 2, kdim=3, vdim=3), "jm.nn.CrossAttention"),
    (T.TransformerEncoderLayer(4, 2, activation=torch.sin), "its activation"),
    (T.TransformerEncoderLayer(4, 2).half(), "float16"),
    (T.Softmax(1), "`dim=1`"),
    (T.Conv2d(1, 1, 1), "it is not supported"),
    (T.ModuleList([T.Linear(1, 1)]), "it is not supported"),
    (T.Linear(3, 3).half(), r"`weight` holds float16.*`model\.float\(\)`"),
    (T.LSTM(3, 3).bfloat16(), "holds bfloat16"),
    (T.Linear(3, 3).double(), "holds float64.*jax_enable_x64"),
    (torch.nn.utils.parametrizations.weight_norm(T.Linear(3, 3)), "its class is not of"),
    (Mine(), "its class is not of `torch.nn`"),
]


@pytest.mark.parametrize(("module", "match"), REFUSED, ids=lambda value: type(value).__name__)
def test_what_has_no_counterpart_is_refused_by_name(module, match):
    if match is None:
        jm.interop.from_torch(module)
    else:
        refused(module, match)


def test_a_softplus_is_linear_from_its_threshold_on():
    module, x = T.Softplus(2.0, threshold=0.5), np.linspace(-2, 2, 9, dtype=np.float32)[None]
    y, _ = jm.interop.from_torch(module)(x, None)
    np.testing.assert_allclose(y, module(torch.tensor(x)), rtol=1e-5)


def test_all_that_is_refused_is_named_by_its_path_and_can_be_replaced():
    hooked = T.Linear(4, 4)
    hooked.register_forward_hook(lambda *_: None)
    model = T.Sequential(T.Linear(3, 4), Mine(), T.Sequential(hooked, T.LSTM(4, 2, proj_size=1)))
    refused(model, r"cannot convert `1` \(Mine\).*\nAlso `2\.0`.*hooks.*\nAlso `2\.1`")
    own = {"1": jm.nn.Passthrough(jnp.sin), "2": jm.nn.GlobalMeanPool()}
    y, _ = jm.interop.from_torch(model, replace=own)(np.ones((2, 3, 3), np.float32))
    assert y.shape == (2, 4)
    with pytest.raises(ValueError, match=r"`9`, which is not a layer.*: 0, 1, 2"):
        jm.interop.from_torch(model, replace=own | {"9": jm.nn.DropMask()})


@pytest.mark.parametrize("what", [T.Linear(2, 2).state_dict(), "model.pt", T.Linear, None, 3])
def test_what_is_no_module_is_refused(what):
    with pytest.raises(TypeError, match=r"expected a `torch.nn.Module`.*load_state_dict"):
        jm.interop.from_torch(what)
    with pytest.raises(TypeError, match="expected a model of"):
        jm.interop.explain(what)


def test_differences_are_warned_of_and_explained():
    shared = T.Linear(3, 3)
    tied = T.Linear(3, 3)
    tied.weight = shared.weight
    model = T.Sequential(T.BatchNorm1d(3), shared, tied, shared)
    with pytest.warns(jm.interop.InteropWarning) as caught:
        made = jm.interop.from_torch(model)
    (warning,) = caught
    assert "`0` (torch.nn.BatchNorm1d): in training" in str(warning.message)
    assert "`1.weight` and `2.weight` are tied in the source" in str(warning.message)
    assert made.layers[1] is made.layers[3]
    assert made.layers[1] is not made.layers[2]
    shared.requires_grad_(False)
    assert "frozen in the source" in str(jm.interop.explain(model))


def test_a_batch_norm_trains_on_real_steps_with_the_momentum_of_the_source():
    theirs = T.BatchNorm1d(3, momentum=0.3)
    with pytest.warns(jm.interop.InteropWarning):
        made = jm.interop.from_torch(theirs)
    x, mask = (
        np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32),
        np.ones((2, 4), bool),
    )
    mask[1, 1:] = False
    made.train()
    y, _ = made(x, mask)
    expected = theirs.train()(torch.tensor(x[mask])).detach()
    np.testing.assert_allclose(y[mask], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.mean[...], theirs.running_mean, rtol=1e-5)
    biased = 0.7 + (theirs.running_var - 0.7) * 4 / 5  # what the warning says
    np.testing.assert_allclose(made.var[...], biased, rtol=1e-5)


def test_a_bias_that_the_source_does_not_have_is_no_parameter():
    made = jm.interop.from_torch(T.LSTM(3, 2, bias=False))
    assert set(nnx.to_pure_dict(nnx.state(made, nnx.Param))) == {"w_x", "w_h"}


def test_a_converted_tagger_trains_is_drawn_and_leaks_nothing():
    torch.manual_seed(0)
    source = T.Sequential(
        T.Embedding(9, 4, padding_idx=0),
        T.LSTM(4, 3, bidirectional=True),
        T.TransformerEncoderLayer(6, 2, 5, dropout=0.1),
        T.Linear(6, 2),
    )
    with pytest.warns(jm.interop.InteropWarning):
        model = jm.interop.from_torch(source)
    ids, mask = jm.pad_sequences([[1, 2, 3, 4], [5]])
    body = jm.nn.Sequential(*model.layers[1:])
    x = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    moves = ("left", "holes", "empty", "permute")
    assert jm.leak.check(body, x, mask, moves=moves).ok
    flow = str(jm.report.mask_flow(model, jnp.asarray(ids), jnp.asarray(mask)))
    assert all(word in flow for word in ("Embed", "Bidirectional", "TransformerEncoderBlock"))
    model.train()
    optimizer = nnx.Optimizer(model, optax.adam(0.03), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            logits, new = model(ids, mask)
            labels = jnp.asarray(ids % 2)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jm.losses.reduce(each, new)

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    losses = [float(step(model, optimizer)) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("kdim", "bias"), [(None, True), (3, True), (6, False)])
def test_attention_to_another_sequence_is_filled_by_name(kdim, bias):
    torch.manual_seed(0)
    theirs = T.MultiheadAttention(4, 2, kdim=kdim, vdim=kdim, bias=bias, batch_first=True)
    for value in theirs.parameters():
        T.init.normal_(value)
    width = kdim or 4
    layer = jm.nn.CrossAttention(2, 4, width, use_bias=bias, rngs=nnx.Rngs(0))
    jm.interop.load_state_dict(layer, theirs.state_dict())
    draw = np.random.default_rng(0)
    x, memory = (draw.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4), (2, 5, width)))
    mask, memory_mask = mask_of((3, 2), "right", 3), mask_of((2, 5), "holes", 5)
    y, _ = layer(x, mask, memory, memory_mask)
    for row in range(2):
        key = torch.tensor(memory[row, memory_mask[row]])[None]
        expected, _ = theirs(torch.tensor(x[row, mask[row]])[None], key, key)
        np.testing.assert_allclose(y[row, mask[row]], expected[0].detach(), rtol=1e-5, atol=1e-6)


def test_flaxs_own_layers_are_filled_by_name():
    torch.manual_seed(0)
    rngs = nnx.Rngs(0)
    pairs = [
        (T.Conv1d(4, 3, 2), nnx.Conv(4, 3, 2, padding="VALID", rngs=rngs)),
        (T.GroupNorm(2, 4), nnx.GroupNorm(4, 2, epsilon=1e-5, rngs=rngs)),
        (T.Linear(4, 2), nnx.Linear(4, 2, rngs=rngs)),
    ]
    x = np.random.default_rng(0).normal(size=(1, 5, 4)).astype(np.float32)
    for theirs, layer in pairs:
        for value in theirs.parameters():
            T.init.normal_(value)
        jm.interop.load_state_dict(layer, theirs.state_dict())
        given = torch.tensor(x)
        if isinstance(theirs, T.Linear):
            expected = theirs(given)
        else:
            expected = theirs(given.transpose(1, 2)).transpose(1, 2)
        np.testing.assert_allclose(layer(x), expected.detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"kernel \(looked for `kernel`\)"):
        jm.interop.load_state_dict(
            nnx.Conv(1, 1, (2, 2), rngs=rngs), T.Conv2d(1, 1, 2).state_dict()
        )


@pytest.mark.parametrize("sort", [False, True])
def test_packed_sequences_become_pairs_and_come_back(sort):
    rows = [torch.randn(n, 2) for n in ((4, 2, 1) if sort else (2, 4, 1))]
    packed = torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=sort)
    x, mask = jm.interop.from_packed_sequence(packed, time=5)
    assert mask.shape == (3, 5)
    for row, steps in enumerate(rows):
        np.testing.assert_array_equal(x[row][mask[row]], steps)
        assert not np.asarray(x[row][~mask[row]]).any()
    holes = mask_of([len(row) for row in rows], "holes", 6)
    spread = np.full((3, 6, 2), np.nan, np.float32)
    spread[holes] = np.concatenate(rows)
    back = jm.interop.to_packed_sequence(spread, holes)
    padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(back, batch_first=True)
    assert lengths.tolist() == [len(row) for row in rows]
    np.testing.assert_array_equal(padded, x[:, :4])


def test_packing_refuses_what_pytorch_has_no_form_for():
    with pytest.raises(ValueError, match=r"row 1 has no real step.*mask"):
        jm.interop.to_packed_sequence(np.ones((2, 1, 1)), np.array([[True], [False]]))
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3)])
    with pytest.raises(ValueError, match="`time` is 2, and the longest row has 3"):
        jm.interop.from_packed_sequence(packed, time=2)
    with pytest.raises(TypeError, match=r"expected a .*PackedSequence"):
        jm.interop.from_packed_sequence(torch.ones(3))


def recurrent(kind, layers, both, rngs):
    def one(width):
        cells = [kind(width, 3, rngs=rngs) for _ in range(1 + both)]
        for cell in cells:  # biases begin with zeros
            cell.b.set_value(jax.random.normal(jax.random.key(width), cell.b.shape))
        return jm.nn.Bidirectional(*cells) if both else cells[0]

    stack = [one(3 * (1 + both) if number else 4) for number in range(layers)]
    return jm.nn.StackedRNN(*stack, dropout_rate=0.2, rngs=rngs) if layers > 1 else stack[0]


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [jm.nn.LSTM, jm.nn.GRU, jm.nn.SimpleRNN])
def test_recurrent_layers_go_back_to_pytorch(kind, layers, both):
    model = recurrent(kind, layers, both, nnx.Rngs(0))
    model.eval()
    theirs = jm.interop.to_torch(model)
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    mask = mask_of((5, 2, 1), "right", 5)
    y, _ = theirs(jm.interop.to_packed_sequence(x, mask))
    y, new = jm.interop.from_packed_sequence(y)
    expected, _ = model(x, mask)
    np.testing.assert_array_equal(new, mask)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    again = jm.interop.from_torch(theirs)
    same = jax.tree.map(np.array_equal, nnx.state(model, nnx.Param), nnx.state(again, nnx.Param))
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("padding", [None, 0, 2])
def test_embeddings_go_back_to_pytorch(padding):
    source = T.Embedding(5, 3, padding_idx=padding)
    made = jm.interop.from_torch(source)
    inside = made.layers[0] if isinstance(made, jm.nn.Sequential) else made
    back = jm.interop.to_torch(inside)
    assert back.padding_idx == padding
    np.testing.assert_array_equal(back.weight.detach(), source.weight.detach())


def test_what_pytorch_does_not_have_does_not_go_back():
    rngs = nnx.Rngs(0)
    lstm, gru = (kind(3, 3, rngs=rngs) for kind in (jm.nn.LSTM, jm.nn.GRU))
    wrong = {
        "`reverse`|backward": jm.nn.LSTM(3, 3, reverse=True, rngs=rngs),
        "every step": jm.nn.LSTM(3, 3, return_sequences=False, rngs=rngs),
        "`reset_after=False`": jm.nn.GRU(3, 3, reset_after=False, rngs=rngs),
        "`merge='sum'`": jm.nn.Bidirectional(lstm, lstm, merge="sum"),
        "same type": jm.nn.StackedRNN(lstm, gru),
        "`residual`": jm.nn.StackedRNN(lstm, residual=True),
        "either every layer": jm.nn.StackedRNN(lstm, jm.nn.Bidirectional(lstm, lstm)),
    }
    for match, module in wrong.items():
        with pytest.raises(ValueError, match=match):
            jm.interop.to_torch(module)
    with pytest.raises(TypeError, match=r"expected one of LSTM, .*`Sequential`"):
        jm.interop.to_torch(jm.nn.Sequential(lstm))


def test_going_back_leaves_the_random_state_of_pytorch():
    before = torch.random.get_rng_state()
    jm.interop.to_torch(jm.nn.GRU(3, 2, rngs=nnx.Rngs(0)))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_rows_are_padded_at_their_own_ends(mode):
    source = T.Conv1d(3, 4, 4, stride=2, padding=2, padding_mode=mode)
    rows = [np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32) for n in (4, 6)]
    y, mask = jm.interop.from_torch(source)(*jm.pad_sequences(rows))
    for row, ours in zip(rows, jm.unpad_sequences(np.asarray(y), np.asarray(mask)), strict=True):
        theirs = source(torch.from_numpy(row.T)[None])[0].T.detach().numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_half_precision_goes_to_pytorch_as_it_is():
    x = jnp.array([[[1.5], [2.0]]], jnp.bfloat16)
    packed = jm.interop.to_packed_sequence(x, None)
    assert packed.data.dtype == torch.bfloat16
    assert packed.data.tolist() == [[1.5], [2.0]]
    embed = jm.nn.Embed(3, 2, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    weight = jm.interop.to_torch(embed).weight
    assert weight.dtype == torch.bfloat16
    assert weight.tolist() == embed.embedding[...].tolist()
    with pytest.raises(ValueError, match="no empty batch"):
        jm.interop.to_packed_sequence(np.ones((0, 2, 1)), None)
