"""Transformer blocks against PyTorch's with the same weights, their modes, and their streams."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests.test_attention import LENGTHS, MASKS, MEMORY, close, draw, poisoned

torch = pytest.importorskip("torch")
FEATURES, HIDDEN = 8, 12


def copy_norm(theirs, ours):
    ours.scale[...] = jnp.asarray(theirs.weight.detach().numpy())
    ours.bias[...] = jnp.asarray(theirs.bias.detach().numpy())


def copy_linear(theirs, ours):
    ours.kernel[...] = jnp.asarray(theirs.weight.detach().numpy().T)
    ours.bias[...] = jnp.asarray(theirs.bias.detach().numpy())


def copy_attention(theirs, ours):
    parts = zip(
        (ours.query, ours.key, ours.value),
        np.split(theirs.in_proj_weight.detach().numpy(), 3),
        np.split(theirs.in_proj_bias.detach().numpy(), 3),
        strict=True,
    )
    for part, weight, bias in parts:
        part.kernel[...] = jnp.asarray(weight.T.reshape(part.kernel.shape))
        part.bias[...] = jnp.asarray(bias.reshape(part.bias.shape))
    ours.out.kernel[...] = jnp.asarray(
        theirs.out_proj.weight.detach().numpy().T.reshape(ours.out.kernel.shape)
    )
    ours.out.bias[...] = jnp.asarray(theirs.out_proj.bias.detach().numpy())


def torch_layer(kind, norm_first):
    torch.manual_seed(0)
    layer = kind(
        *(FEATURES, 2, HIDDEN, 0.0, torch.nn.functional.relu),
        batch_first=True,
        norm_first=norm_first,
    )
    for parameter in layer.parameters():  # biases and scales start at 0 and 1
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def encoder_pair(norm_first, **options):
    theirs = torch_layer(torch.nn.TransformerEncoderLayer, norm_first)
    ours = jm.nn.TransformerEncoderBlock(
        *(2, FEATURES, HIDDEN),
        norm_first=norm_first,
        activation=jax.nn.relu,
        epsilon=1e-5,
        rngs=nnx.Rngs(0),
        **options,
    )
    copy_attention(theirs.self_attn, ours.attention)
    copy_norm(theirs.norm1, ours.attention_norm)
    copy_norm(theirs.norm2, ours.mlp_norm)
    copy_linear(theirs.linear1, ours.mlp_in)
    copy_linear(theirs.linear2, ours.mlp_out)
    return theirs, ours


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("layout", MASKS)
def test_the_encoder_block_is_torch(norm_first, layout):
    theirs, ours = encoder_pair(norm_first)
    mask, sent = MASKS[layout][:2], draw((2, 5, FEATURES), 1)
    x = draw((2, 5, FEATURES))
    row = torch.tensor(x, requires_grad=True)
    y_theirs = theirs(row, src_key_padding_mask=torch.tensor(~mask.copy()))
    (y_theirs * torch.tensor(np.where(mask[..., None], sent, 0))).sum().backward()

    def total(layer, x):
        y, out = layer(x, mask)
        return jnp.vdot(y, sent), (y, out)

    (by_layer, by_x), (y, out) = nnx.grad(total, argnums=(0, 1), has_aux=True)(
        ours, poisoned(x, mask)
    )
    np.testing.assert_array_equal(out, mask)
    close(np.asarray(y)[mask], y_theirs.detach().numpy()[mask], 1e-4)
    close(np.asarray(by_x)[mask], row.grad.numpy()[mask], 1e-4)
    close(by_layer.mlp_in.kernel[...], theirs.linear1.weight.grad.numpy().T, 1e-3)
    close(by_layer.attention_norm.scale[...], theirs.norm1.weight.grad.numpy(), 1e-3)
    for z in (y, by_x):
        assert not np.asarray(z)[~mask].any()


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_decoder_block_is_torch_on_each_row_alone(norm_first):
    theirs = torch_layer(torch.nn.TransformerDecoderLayer, norm_first)
    ours = jm.nn.TransformerDecoderBlock(
        *(2, FEATURES, HIDDEN),
        norm_first=norm_first,
        activation=jax.nn.relu,
        epsilon=1e-5,
        rngs=nnx.Rngs(0),
    )
    copy_attention(theirs.self_attn, ours.attention)
    copy_attention(theirs.multihead_attn, ours.cross_attention)
    for number, norm in enumerate((ours.attention_norm, ours.cross_norm, ours.mlp_norm), 1):
        copy_norm(getattr(theirs, f"norm{number}"), norm)
    copy_linear(theirs.linear1, ours.mlp_in)
    copy_linear(theirs.linear2, ours.mlp_out)
    mask, x, memory = MASKS["left"], draw((3, 5, FEATURES)), draw((3, 3, FEATURES), 1)
    y, out = ours(poisoned(x, mask), mask, poisoned(memory, MEMORY), MEMORY)
    np.testing.assert_array_equal(out, mask)
    for b, length in enumerate(LENGTHS[:2]):
        causal = torch.nn.Transformer.generate_square_subsequent_mask(length)
        rows = (torch.tensor(x[b : b + 1, mask[b]]), torch.tensor(memory[b : b + 1, MEMORY[b]]))
        row = theirs(*rows, tgt_mask=causal, tgt_is_causal=True)
        close(y[b, mask[b]], row.detach().numpy()[0], 1e-4)
    assert not np.asarray(y)[~mask].any()


def test_a_decoder_only_model_streams_in_a_sequential():
    rngs = nnx.Rngs(0)
    options = {"causal": True, "rotary": True, "max_length": 5, "rngs": rngs}
    layers = [jm.nn.TransformerEncoderBlock(2, FEATURES, **options) for _ in range(2)]
    model = jm.nn.Sequential(*layers)
    mask, x = MASKS["holes"], draw((3, 5, FEATURES))
    whole, out = model(poisoned(x, mask), mask)
    np.testing.assert_array_equal(out, mask)
    carries = [layer.initial_carry(3) for layer in layers]
    for start, end in itertools.pairwise((0, 2, 3, 5)):
        y, chunk = poisoned(x, mask)[:, start:end], mask[:, start:end]
        for i, layer in enumerate(layers):
            carries[i], (y, chunk) = layer.run(carries[i], y, chunk)
        close(y, whole[:, start:end])
        np.testing.assert_array_equal(chunk, mask[:, start:end])


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_step_that_no_longer_fits_is_padding_from_there_on(norm_first):
    layer = jm.nn.TransformerEncoderBlock(
        2, FEATURES, causal=True, max_length=3, norm_first=norm_first, rngs=nnx.Rngs(0)
    )
    mask, x = MASKS["right"], draw((3, 5, FEATURES))
    carry, (y, out) = layer.run(layer.initial_carry(3), x, mask)
    assert out.tolist() == [[True] * 3 + [False] * 2, [True] * 2 + [False] * 3, [False] * 5]
    assert carry.overflowed.tolist() == [True, False, False]
    assert not np.asarray(y)[~np.asarray(out)].any()


def test_the_decoder_block_streams():
    layer = jm.nn.TransformerDecoderBlock(2, FEATURES, max_length=5, rngs=nnx.Rngs(0))
    mask, x, memory = MASKS["holes"], draw((3, 5, FEATURES)), draw((3, 3, FEATURES), 1)
    whole, _ = layer(x, mask, memory, MEMORY)
    carry = layer.initial_carry(3)
    for start, end in ((0, 1), (1, 4), (4, 5)):
        carry, (y, _) = layer.run(carry, x[:, start:end], mask[:, start:end], memory, MEMORY)
        close(y, whole[:, start:end])


@pytest.mark.parametrize("memory_mask", [None, MEMORY], ids=["full", "ragged"])
def test_a_memory_projected_once_is_the_memory(memory_mask):
    layer = jm.nn.TransformerDecoderBlock(2, FEATURES, max_length=5, rngs=nnx.Rngs(0))
    mask, x, memory = MASKS["holes"], draw((3, 5, FEATURES)), draw((3, 3, FEATURES), 1)
    given = memory if memory_mask is None else poisoned(memory, memory_mask)

    def total(layer, memory, project):
        made = layer.project(memory, memory_mask) if project else memory
        carry, values = layer.initial_carry(3), []
        for cut in (slice(0, 2), slice(2, 5)):
            pair = (made,) if project else (made, memory_mask)
            carry, (y, _) = layer.run(carry, x[:, cut], mask[:, cut], *pair)
            values.append(y)
        y = jnp.concatenate(values, axis=1)
        return jnp.sum(jnp.sin(y)), y

    run = nnx.jit(nnx.grad(total, argnums=(0, 1), has_aux=True), static_argnames="project")
    (gradients, y), (others, z) = (run(layer, given, project=p) for p in (True, False))
    close(y, z)
    jax.tree.map(close, nnx.state(gradients[0]), nnx.state(others[0]))
    close(gradients[1], others[1])
    if memory_mask is not None:
        assert not np.asarray(gradients[1])[~memory_mask].any()
    y, out = layer(x, mask, layer.project(memory, memory_mask))
    close(y, layer(x, mask, memory, memory_mask)[0], 0)
    np.testing.assert_array_equal(out, mask)


def test_a_projected_memory_holds_its_mask():
    layer = jm.nn.TransformerDecoderBlock(2, FEATURES, rngs=nnx.Rngs(0))
    x, memory = draw((3, 5, FEATURES)), draw((3, 3, FEATURES), 1)
    projected = layer.project(memory, MEMORY)
    with pytest.raises(jm.MaskError, match="leave `memory_mask` None"):
        layer(x, None, projected, MEMORY)
    segments = jm.Segments(jnp.ones((3, 5), jnp.int32), 1)
    with pytest.raises(jm.MaskError, match="memory_mask"):
        layer(x, segments, projected)
    with pytest.raises(ValueError, match="memory"):
        layer.project(memory[..., :4], MEMORY)


def test_dropout_follows_the_mode_and_not_the_padding():
    def build():
        return jm.nn.TransformerEncoderBlock(2, FEATURES, dropout_rate=0.5, rngs=nnx.Rngs(0))

    x, mask = draw((3, 5, FEATURES)), MASKS["left"]
    layer = build()
    first, second = layer(x, mask)[0], layer(x, mask)[0]
    assert (np.asarray(first) != np.asarray(second)).any()
    wider = np.pad(mask, ((0, 0), (0, 2)))
    y, _ = build()(np.pad(x, ((0, 0), (0, 2), (0, 0))), wider)
    close(np.asarray(y)[wider], np.asarray(first)[mask])
    layer.eval()
    close(layer(x, mask)[0], layer(x, mask)[0], 0)


def test_the_way_out_of_a_plain_transform_is_one_that_there_is():
    block = jm.nn.TransformerEncoderBlock(2, 8, dropout_rate=0.3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"MultiHeadAttention: .*split and merge.*inside\."):
        jax.jit(lambda x: block(x)[0])(jnp.zeros((1, 2, 8)))


def test_blocks_refuse():
    layer = jm.nn.TransformerEncoderBlock(2, FEATURES, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="in_features"):
        layer(draw((3, 5, 4)))
    with pytest.raises(jm.MaskError, match="causal"):
        layer.initial_carry(3)
    with pytest.raises(jm.MaskError, match=r"mask.*heads"):
        layer(draw((3, 5, FEATURES)), np.ones((3, 5, 5), bool))
    decoder = jm.nn.TransformerDecoderBlock(2, FEATURES, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="max_length"):
        decoder.initial_carry(3)
    segments = jm.Segments(jnp.ones((3, 5), jnp.int32), 1)
    with pytest.raises(jm.MaskError, match="memory_mask"):
        decoder(draw((3, 5, FEATURES)), segments, draw((3, 5, FEATURES)), np.ones((3, 5), bool))
