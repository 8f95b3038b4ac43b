"""Attention against Keras, PyTorch, Flax and plain NumPy; refused input; streaming; noise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests.x64 import enable_x64

LENGTHS = (4, 2, 0)
MASKS = {
    "right": np.arange(5) < np.array(LENGTHS)[:, None],
    "left": (np.arange(5) < np.array(LENGTHS)[:, None])[:, ::-1],
    "holes": np.array([[1, 0, 1, 1, 1], [0, 1, 0, 0, 1], [0] * 5], bool),
}
MEMORY = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1]], bool)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def poisoned(x, mask):
    return np.where(np.expand_dims(mask, tuple(range(2, x.ndim))), x, np.nan)


def close(ours, theirs, tolerance=2e-5):
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=tolerance, atol=tolerance)


def heads(time, count=4, seed=0):
    return draw((3, time, count, 6), seed)


def plain(q, k, v, hidden=None, bias=None):
    """One unpadded row, `[time, heads, features]`, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    logits = np.einsum("qhf,khf->hqk", q, k) / np.sqrt(q.shape[2])
    logits = logits if bias is None else logits + bias
    logits = logits if hidden is None else np.where(hidden, -np.inf, logits)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("hqk,khf->qhf", weights / weights.sum(-1, keepdims=True), v)


# ---------------------------------------------------------------------------- dot product


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("layout", MASKS)
def test_attend_is_torch_on_each_row_alone(layout, causal):
    torch = pytest.importorskip("torch")
    mask = MASKS[layout]
    q, k, v = (poisoned(heads(5, seed=s), mask) for s in range(3))
    sent = draw(q.shape, 9)

    def total(q, k, v):
        y, out = jm.attention.attend(q, mask, k, v, mask, causal=causal)
        return jnp.vdot(y, sent), (y, out)

    gradients, (y, out) = jax.grad(total, (0, 1, 2), has_aux=True)(q, k, v)
    np.testing.assert_array_equal(out, mask)
    for b in range(2):
        row = [torch.tensor(x[b, mask[b]]).transpose(0, 1).requires_grad_() for x in (q, k, v)]
        theirs = torch.nn.functional.scaled_dot_product_attention(*row, is_causal=causal)
        theirs.backward(torch.tensor(sent[b, mask[b]]).transpose(0, 1))
        close(y[b, mask[b]], theirs.detach().transpose(0, 1).numpy())
        for gradient, x in zip(gradients, row, strict=True):
            close(gradient[b, mask[b]], x.grad.transpose(0, 1).numpy())
    for x in (y, *gradients):
        assert not np.asarray(x)[~mask].any()


def test_grouped_heads_window_and_bias_are_the_plain_formula():
    mask, queries = MASKS["holes"], MASKS["left"]
    q, k, v = heads(5), heads(5, 2, 1), heads(5, 2, 2)
    bias = draw((3, 4, 5, 5), 3)
    y, _ = jm.attention.attend(q, queries, k, v, mask, window=2, causal=True, bias=bias)
    for b in range(2):
        at, to = queries[b], mask[b]
        i, j = np.arange(at.sum())[:, None], np.arange(to.sum())
        hidden = (j > i) | (j <= i - 2)
        row = plain(q[b, at], k[b, to], v[b, to], hidden, bias[b][:, at][:, :, to])
        close(y[b, at], row)


def test_a_window_without_causal_looks_both_ways():
    x = np.arange(5, dtype=np.float32).reshape(1, 5, 1, 1)
    mask = np.array([[1, 1, 0, 1, 1]], bool)
    y, _ = jm.attention.attend(np.zeros_like(x), mask, x, x, mask, window=2)
    close(y.ravel(), [0.5, 4 / 3, 0, 8 / 3, 3.5])  # the hole does not part 1 and 3


def test_given_positions_are_what_causal_compares():
    x = np.arange(1, 4, dtype=np.float32).reshape(1, 3, 1, 1)
    at = {"q_positions": np.array([[2, 0, 9]]), "kv_positions": np.array([[0, 1, 2]])}
    y, _ = jm.attention.attend(np.zeros_like(x), None, x, x, None, causal=True, **at)
    close(y.ravel(), [2, 1, 2])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int8])
def test_given_positions_may_be_narrow_or_unsigned(dtype):
    x = heads(5)
    ranks = np.broadcast_to(np.arange(5, dtype=dtype), (3, 5))
    given = {"q_positions": ranks, "kv_positions": ranks}
    for window in (2, 200):
        options = {"causal": True, "window": window}
        y, _ = jm.attention.attend(x, None, x, x, None, **given, **options)
        close(y, jm.attention.attend(x, None, x, x, None, **options)[0])


@pytest.mark.parametrize("size", [1, 2])
def test_a_predicate_is_of_physical_positions(size):
    """And it counts a window as `attend` does."""
    x, mask = heads(5), MASKS["right"]
    for causal, by_hand in (
        (True, jm.masks.window(size)),
        (True, jm.masks.both(jm.masks.causal(), jm.masks.window(size, 9))),
        (False, jm.masks.window(size, size)),
    ):
        ours, _ = jm.attention.attend(x, mask, x, x, mask, predicate=by_hand)
        theirs, _ = jm.attention.attend(x, mask, x, x, mask, causal=causal, window=size)
        close(ours, theirs)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": np.full((1, 1, 2, 2), -np.inf, np.float32)},
        {"bias": np.zeros((1, 1, 2, 2), np.float32)},
        {"dropout_rate": 0.5, "key": jax.random.key(0)},
        {"causal": True, "window": 1, "dropout_rate": 0.5, "key": jax.random.key(0)},
        {"method": "blocks"},
        {"method": "blocks", "bias": np.full((1, 1, 2, 2), -np.inf, np.float32)},
    ],
    ids=["plain", "hidden", "bias", "dropout", "window, dropout", "blocks", "blocks, hidden"],
)
def test_a_query_that_sees_nothing_gives_zero_and_no_gradient(options):
    q, k = heads(2)[:1], heads(2, seed=1)[:1]
    q_mask, kv_mask = np.ones((1, 2), bool), np.zeros((1, 2), bool)
    if np.any(np.isinf(options.get("bias", 0))):
        kv_mask = q_mask
    k = poisoned(k, kv_mask)
    (y, out), pull = jax.vjp(
        lambda q, k: jm.attention.attend(q, q_mask, k, k, kv_mask, **options), q, k
    )
    gradients = pull((jnp.ones_like(y), np.zeros(out.shape, jax.dtypes.float0)))
    assert out.all()
    for x in (y, *gradients):
        assert not np.asarray(x).any()


def test_minus_infinity_in_a_bias_hides_a_key():
    x = heads(3)[:1]
    bias = np.array([[[[0, -np.inf, 0]] * 3]], np.float32)
    close(
        jm.attention.attend(x, None, x, x, None, bias=bias)[0][0], plain(x[0], x[0, ::2], x[0, ::2])
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize(
    "noise", [{}, {"dropout_rate": 0.3, "key": jax.random.key(0)}, {"method": "blocks"}], ids=str
)
def test_a_bias_in_the_padding_does_not_matter(poison, noise):
    x, mask, bias = heads(5), MASKS["holes"], draw((3, 4, 5, 5), 1)
    both = (mask[:, :, None] & mask[:, None])[:, None]

    def total(x, bias):
        return jnp.sum(jnp.sin(jm.attention.attend(x, mask, x, x, mask, bias=bias, **noise)[0]))

    run = jax.value_and_grad(total, argnums=(0, 1))
    value, gradients = run(x, np.where(both, bias, poison).astype(np.float32))
    clean, theirs = run(x, bias)
    assert value == clean
    for ours, other in zip(gradients, theirs, strict=True):
        np.testing.assert_array_equal(ours, other)
    assert not np.asarray(gradients[1])[~np.broadcast_to(both, bias.shape)].any()


def test_no_mask_of_keys_means_that_every_key_is_real():
    x, mask = heads(5), MASKS["holes"]
    ours, out = jm.attention.attend(x, mask, x, x, None)
    np.testing.assert_array_equal(out, mask)
    close(ours, jm.attention.attend(x, mask, x, x, np.ones_like(mask))[0], 0)
    y, out = jm.attention.attend(x, None, x, x, None)
    assert out is None
    close(y[2], plain(x[2], x[2], x[2]))


def test_no_mask_of_keys_means_the_same_beside_each_sibling():
    x, mask = draw((3, 5, 4)), MASKS["holes"]
    weights = jm.attention.AdditiveWeights(np.eye(4, dtype="f"), np.eye(4, dtype="f"), draw(4))
    ours, _ = jm.attention.additive(x, mask, x, x, None, weights)
    close(ours, jm.attention.additive(x, mask, x, x, np.ones_like(mask), weights)[0], 0)


def test_a_nan_stays_in_its_own_sequence_of_a_packed_row():
    ids = np.array([[1, 1, 2, 2, 0]], np.int32)
    segments = jm.Segments(jnp.asarray(ids), 2)
    for bad in range(3):
        arrays = [heads(5, seed=s)[:1] for s in range(3)]
        clean, _ = jm.attention.attend(arrays[0], segments, *arrays[1:], segments)
        arrays[bad][0, 1] = np.nan
        y, _ = jm.attention.attend(arrays[0], segments, *arrays[1:], segments)
        np.testing.assert_array_equal(y[0, 2:], clean[0, 2:])
        assert np.isnan(np.asarray(y[0, 1])).all()
    x = draw((1, 5, 3))
    x[0, 1] = np.nan
    same = np.eye(3, dtype=np.float32)
    weights = jm.attention.AdditiveWeights(same, same, np.ones(3, np.float32))
    y, _ = jm.attention.additive(x, segments, x, x, segments, weights)
    assert np.isnan(np.asarray(y[0, :2])).all()
    assert np.isfinite(np.asarray(y[0, 2:])).all()


def packed_attention(name):
    """Attention of a packed row to itself, `(x, segments) -> pair`."""
    same = np.eye(3, dtype=np.float32)
    weights = jm.attention.AdditiveWeights(same, -same, np.ones(3, np.float32))
    bias = draw((1, 1, 9, 9), 5)
    noise = {"dropout_rate": 0.3, "key": jax.random.key(0)}

    def additive(x, segments):
        return jm.attention.additive(x, segments, x, x, segments, weights)

    def attend(x, segments, **options):
        heads = x[:, :, None]
        y, mask = jm.attention.attend(heads, segments, heads, heads, segments, **options)
        return y[:, :, 0], mask

    blocks = {"method": jm.attention.Choice("blocks", queries=4, keys=2)}
    given = {"plain": {}, "bias": {"bias": bias}, "causal, noise": {"causal": True, **noise}}
    given |= {"blocks": blocks, "blocks, bias": {"bias": bias, **blocks}}
    return additive if name == "additive" else lambda x, mask: attend(x, mask, **given[name])


@pytest.mark.parametrize(
    "name", ["plain", "bias", "causal, noise", "additive", "blocks", "blocks, bias"]
)
def test_a_sequence_of_a_packed_row_never_meets_the_numbers_of_another(name):
    """Not in its values, nor in its gradient, whatever is in another or is sent back into it."""
    ids = np.array([[1, 1, 1, 2, 2, 3, 3, 3, 0]], np.int32)
    segments, x, sent = jm.Segments(jnp.asarray(ids), 3), draw((1, 9, 3)), draw((1, 9, 3), 1)
    attention = packed_attention(name)

    @jax.jit
    def run(x, sent):
        y, pull = jax.vjp(lambda x: attention(x, segments)[0], x)
        return y, *pull(sent)

    clean = [np.asarray(z)[ids != 2] for z in run(x, sent)]
    assert all(np.isfinite(z).all() for z in clean)
    for number in (1e30, -1e38, np.nan, np.inf):
        for spoil in ((True, False), (False, True), (True, True)):
            loud_x, loud_sent = (
                np.where((ids == 2)[..., None] & is_spoiled, np.float32(number), z)
                for z, is_spoiled in zip((x, sent), spoil, strict=True)
            )
            y, gradient = run(loud_x, loud_sent)
            for ours, theirs in zip((y, gradient), clean, strict=True):
                np.testing.assert_array_equal(np.asarray(ours)[ids != 2], theirs)
            if not np.isfinite(number):
                shown = y if spoil[0] else gradient
                assert not np.isfinite(np.asarray(shown)[ids == 2]).all()


def test_dropout_is_the_plain_formula_with_some_weights_gone():
    q, k = heads(40, 2)[:1] * 0, heads(40, 2)[:1]
    v = np.broadcast_to(np.eye(40, 6, dtype=np.float32)[None, :, None], (1, 40, 2, 6))
    options = {"dropout_rate": 0.25, "key": jax.random.key(0)}
    weights = np.asarray(jm.attention.attend(q, None, k, v, None, **options)[0])
    # Each weight is 1/40 or gone: what is read of it here are the first six keys.
    kept = weights * 40 * 0.75
    np.testing.assert_allclose(kept, kept.round(), atol=1e-5)
    assert abs(kept.mean() - 0.75) < 0.05
    for axis in (1, 2, 3):  # queries, heads and keys are independent draws
        assert np.abs(np.diff(kept, axis=axis)).mean() > 0.2
    other = jm.attention.attend(q, None, k, v, None, dropout_rate=0.25, key=jax.random.key(1))[0]
    assert (np.asarray(other) != weights).any()


def test_attend_refuses():
    x, mask = heads(5), MASKS["right"]
    segments = jm.Segments(jnp.asarray(mask.astype(np.int32)), 1)
    attend = jm.attention.attend
    cases = [
        (ValueError, "divide", (x, mask, x[:, :, :3], x[:, :, :3], mask), {}),
        (ValueError, "head_features", (x, mask, x[..., :4], x[..., :4], mask), {}),
        (ValueError, "`v` must be", (x, mask, x, x[:, :, :2], mask), {}),
        (ValueError, "head_features", (x[:, :, 0], mask, x, x, mask), {}),
        (TypeError, "one dtype", (x, mask, x.astype(np.float16), x, mask), {}),
        (TypeError, "floating", (x.astype(int), mask, x, x, mask), {}),
        (ValueError, "`window`.*at least 1", (x, mask, x, x, mask), {"window": 0}),
        (ValueError, "`window`.*at least 1", (x, mask, x, x, mask), {"window": -1}),
        (ValueError, "`bias` must be", (x, mask, x, x, mask), {"bias": x[..., 0]}),
        (
            ValueError,
            "`bias` must be",
            (x, mask, x, x, mask),
            {"bias": np.zeros((3, 2, 5, 5), "f")},
        ),
        (ValueError, "random `key`", (x, mask, x, x, mask), {"dropout_rate": 0.1}),
        (
            ValueError,
            "below 1",
            (x, mask, x, x, mask),
            {"dropout_rate": 1.0, "key": jax.random.key(0)},
        ),
        (
            ValueError,
            "q_positions",
            (x, mask, x, x, mask),
            {"causal": True, "q_positions": mask[:1] * 1},
        ),
        (ValueError, "kv_positions", (x, mask, x, x, mask), {"kv_positions": mask[:1] * 1}),
        (jm.MaskError, "mask.*heads", (x, np.ones((3, 4, 5), bool), x, x, mask), {}),
        (jm.MaskError, "mask.*heads", (x, mask, x, x, np.ones((3, 1, 5, 5), bool)), {}),
        (jm.MaskError, "mask.*shape of the leading", (x, mask, x[:, :3], x[:, :3], mask), {}),
        (jm.MaskError, "Segments", (x, segments, x, x, None), {}),
        (jm.MaskError, "Segments", (x, segments, x, x, mask), {}),
        (jm.MaskError, "Segments", (x, mask, x, x, segments), {}),
        (ValueError, "batch", (x, None, x[:2], x[:2], None), {}),
    ]
    for error, text, arguments, options in cases:
        with pytest.raises(error, match=f"(?s){text}"):
            jax.eval_shape(lambda a=arguments, o=options: attend(*a, **o))


# ------------------------------------------------------------------------------- additive


def test_additive_is_keras():
    keras = pytest.importorskip("keras")
    q, k, v = draw((3, 5, 4)), draw((3, 3, 4), 1), draw((3, 3, 2), 2)
    layer = keras.layers.AdditiveAttention()
    layer([q, v[..., :1].repeat(4, -1), k])
    scale = draw(4, 3)
    layer.set_weights([scale])
    weights = jm.attention.AdditiveWeights(np.eye(4, dtype="f"), np.eye(4, dtype="f"), scale)
    mask = MASKS["right"]
    y, out = jm.attention.additive(
        poisoned(q, mask), mask, poisoned(k, MEMORY), poisoned(v, MEMORY), MEMORY, weights
    )
    np.testing.assert_array_equal(out, mask)
    for b in range(2):
        to = MEMORY[b]
        theirs = layer([q[b : b + 1, mask[b]], v[b : b + 1, to], k[b : b + 1, to]])
        close(y[b, mask[b]], np.asarray(theirs)[0])
    causal, _ = jm.attention.additive(q, None, q, q, None, weights, causal=True)
    close(causal, np.asarray(layer([q, q, q], use_causal_mask=True)))


def test_errors_name_the_mask_as_the_function_does():
    q, mask = jnp.ones((1, 2, 1, 4)), jnp.ones((1, 2), bool)
    with pytest.raises(TypeError, match=r"attend: `kv_mask` must.*`kv_mask.astype\(bool\)`"):
        jm.attention.attend(q, mask, q, q, mask.astype(float))
    with pytest.raises(jm.MaskError, match="attend: `q_mask` must have the shape"):
        jm.attention.attend(q, mask[:, :1], q, q, mask)
    labels = jnp.ones((1, 2), int)
    with pytest.raises(jm.MaskError, match="edit_distance: `target_mask` must have rank 2"):
        jm.metrics.edit_distance(labels, mask, labels, mask[0])


def test_additive_refuses():
    x, mask = draw((3, 5, 4)), MASKS["right"]
    weights = jm.attention.AdditiveWeights(np.eye(4, dtype="f"), np.eye(4, dtype="f"), draw(4))
    additive = jm.attention.additive
    with pytest.raises(ValueError, match="w_q"):
        additive(x[..., :3], mask, x, x, mask, weights)
    with pytest.raises(TypeError, match="AdditiveWeights"):
        additive(x, mask, x, x, mask, draw(4))
    with pytest.raises(ValueError, match="`v` must be"):
        additive(x, mask, x, x[:, :3], mask, weights)


# ------------------------------------------------------------------------------ positions


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_is_the_turn_of_a_complex_number(interleaved):
    mask = MASKS["holes"]
    x = heads(5)
    y, out = jm.attention.rotary(poisoned(x, mask), mask, base=50.0, interleaved=interleaved)
    np.testing.assert_array_equal(out, mask)
    for b in range(2):
        row = x[b, mask[b]].astype(np.float64)
        a, c = (row[..., ::2], row[..., 1::2]) if interleaved else np.split(row, 2, axis=-1)
        angle = np.arange(len(row))[:, None, None] * 50.0 ** (-np.arange(3) / 3)
        turned = (a + 1j * c) * np.exp(1j * angle)
        parts = (turned.real, turned.imag)
        joined = (
            np.stack(parts, -1).reshape(row.shape) if interleaved else np.concatenate(parts, -1)
        )
        close(y[b, mask[b]], joined)
    assert not np.asarray(y)[~mask].any()


def test_rotary_takes_positions_and_restarts_in_each_segment():
    x = heads(5)[:1]
    segments = jm.Segments(jnp.array([[1, 1, 2, 2, 0]]), 2)
    at = np.array([[0, 1, 0, 1, 0]])
    ours, theirs = (
        jm.attention.rotary(x, segments)[0],
        jm.attention.rotary(x, None, positions=at)[0],
    )
    close(ours[:, :4], theirs[:, :4], 0)
    with pytest.raises(ValueError, match="even"):
        jm.attention.rotary(x[..., :5], None)
    with pytest.raises(ValueError, match="positions"):
        jm.attention.rotary(x, None, positions=at[:, :3])
    with pytest.raises(TypeError, match="integers"):
        jm.attention.rotary(x, None, positions=at.astype(np.float32))


def test_sinusoids_are_the_formula():
    angle = np.arange(50)[:, None] / 10000 ** (np.arange(0, 8, 2) / 8)
    y = np.asarray(jm.attention.sinusoids(jnp.arange(50), 8))
    close(y[:, ::2], np.sin(angle))
    close(y[:, 1::2], np.cos(angle))
    with pytest.raises(ValueError, match="even"):
        jm.nn.SinusoidalPositions(3)


def test_positions_count_real_steps():
    layer = jm.nn.LearnedPositions(5, 4, rngs=nnx.Rngs(0))
    table, x = np.asarray(layer.embedding[...]), draw((3, 5, 4))
    for layout, mask in MASKS.items():
        y, _ = layer(poisoned(x, mask), mask)
        for b, length in enumerate(LENGTHS):
            close(y[b, mask[b]], x[b, mask[b]] + table[:length], 1e-6), layout
    with pytest.raises(ValueError, match="max_length"):
        layer(draw((1, 6, 4)), np.ones((1, 6), bool))
    with pytest.raises(ValueError, match="features"):
        layer(draw((1, 5, 3)))


def test_learned_positions_past_the_table_become_padding_in_a_stream():
    layer = jm.nn.LearnedPositions(3, 2, rngs=nnx.Rngs(0))
    carry = layer.initial_carry(2)
    mask = np.array([[1, 1], [0, 1]], bool)
    for _ in range(2):
        carry, (y, out) = layer.run(carry, np.ones((2, 2, 2), "f"), mask)
    assert out.tolist() == [[True, False], [False, True]]
    assert carry.tolist() == [4, 2]
    assert not np.asarray(y)[~np.asarray(out)].any()
    _, (_, out) = layer.run(layer.initial_carry(1), np.ones((1, 4, 2), "f"))
    assert out.tolist() == [[True, True, True, False]]


# -------------------------------------------------------------------------------- modules


def flax_attention(**options):
    return nnx.MultiHeadAttention(2, 6, 8, decode=False, rngs=nnx.Rngs(1), **options)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_is_flax_with_the_same_weights(causal):
    theirs = flax_attention()
    ours = jm.nn.MultiHeadAttention(2, 6, 8, causal=causal, rngs=nnx.Rngs(0))
    nnx.update(ours, nnx.state(theirs, nnx.Param))
    mask, x, sent = MASKS["holes"], draw((3, 5, 6)), draw((3, 5, 6), 1)

    def total(layer, x):
        y, out = layer(x, mask)
        return jnp.vdot(y, sent), (y, out)

    (by_layer, by_x), (y, out) = nnx.grad(total, argnums=(0, 1), has_aux=True)(
        ours, poisoned(x, mask)
    )
    np.testing.assert_array_equal(out, mask)
    sums = None
    for b in range(2):

        def alone(layer, row, b=b):
            steps = row.shape[1]
            past = np.tril(np.ones((1, 1, steps, steps), bool))
            y = layer(row, mask=past if causal else None)
            return jnp.vdot(y, sent[b : b + 1, mask[b]]), y

        (their_layer, their_x), row = nnx.grad(alone, argnums=(0, 1), has_aux=True)(
            theirs, x[b : b + 1, mask[b]]
        )
        close(y[b, mask[b]], row[0])
        close(by_x[b, mask[b]], their_x[0])
        leaves = jax.tree.leaves(their_layer)
        sums = leaves if sums is None else [a + c for a, c in zip(sums, leaves, strict=True)]
    for a, c in zip(jax.tree.leaves(by_layer), sums, strict=True):
        close(a, c)


def test_cross_attention_is_keras_with_the_same_weights():
    keras = pytest.importorskip("keras")
    theirs = keras.layers.MultiHeadAttention(2, 4, output_shape=6)
    ours = jm.nn.CrossAttention(2, 6, memory_features=3, qkv_features=8, rngs=nnx.Rngs(0))
    x, memory, mask = draw((3, 5, 6)), draw((3, 3, 3), 1), MASKS["left"]
    theirs(x, memory)
    parts = (ours.query, ours.key, ours.value, ours.out)
    theirs.set_weights([np.asarray(w) for p in parts for w in (p.kernel[...], p.bias[...])])
    y, out = ours(poisoned(x, mask), mask, poisoned(memory, MEMORY), MEMORY)
    np.testing.assert_array_equal(out, mask)
    for b in range(2):
        row = theirs(x[b : b + 1, mask[b]], memory[b : b + 1, MEMORY[b]])
        close(y[b, mask[b]], np.asarray(row)[0])
    every, _ = ours(x, mask, memory)
    close(every, ours(x, mask, memory, np.ones((3, 3), bool))[0], 0)
    assert ours.compute_mask(x, mask, memory) is not None


def test_dropout_of_a_module_follows_its_mode():
    layer = jm.nn.MultiHeadAttention(2, 6, dropout_rate=0.5, rngs=nnx.Rngs(0))
    x, mask = draw((3, 5, 6)), MASKS["right"]
    first, second = layer(x, mask)[0], layer(x, mask)[0]
    assert (np.asarray(first) != np.asarray(second)).any()
    # The same noise under more padding: a layer that has drawn as often.
    twin = jm.nn.MultiHeadAttention(2, 6, dropout_rate=0.5, rngs=nnx.Rngs(0))
    wider = np.pad(mask, ((0, 0), (2, 1)))
    y, _ = twin(np.pad(x, ((0, 0), (2, 1), (0, 0))), wider)
    close(np.asarray(y)[wider], np.asarray(first)[mask])
    layer.eval()
    close(layer(x, mask)[0], layer(x, mask)[0], 0)


def test_modules_refuse():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match="divide"):
        jm.nn.MultiHeadAttention(3, 8, rngs=rngs)
    with pytest.raises(ValueError, match="divide"):
        jm.nn.MultiHeadAttention(4, 8, num_kv_heads=3, rngs=rngs)
    with pytest.raises(ValueError, match="even"):
        jm.nn.MultiHeadAttention(2, 6, rotary=True, rngs=rngs)
    with pytest.raises(ValueError, match="window"):
        jm.nn.MultiHeadAttention(2, 6, window=0, rngs=rngs)
    for kind in (jm.nn.MultiHeadAttention, jm.nn.CrossAttention, jm.nn.TransformerDecoderBlock):
        with pytest.raises(ValueError, match="`dropout_rate` must lie from 0 to below 1, got 1"):
            kind(2, 6, dropout_rate=1.0, rngs=rngs)
    layer = jm.nn.MultiHeadAttention(2, 6, rngs=rngs)
    with pytest.raises(ValueError, match=r"features\] = \(3, 5, 6\)"):
        layer(draw((3, 5, 4)), MASKS["right"])
    with pytest.raises(jm.MaskError, match="causal"):
        layer.initial_carry(2)
    causal = jm.nn.MultiHeadAttention(2, 6, causal=True, rngs=rngs)
    with pytest.raises(ValueError, match="max_length"):
        causal.initial_carry(2)
    cross = jm.nn.CrossAttention(2, 6, rngs=rngs)
    segments = jm.Segments(jnp.ones((3, 5), jnp.int32), 1)
    with pytest.raises(jm.MaskError, match="memory_mask"):
        cross(draw((3, 5, 6)), segments, draw((3, 5, 6)))
    with pytest.raises(ValueError, match="memory"):
        cross(draw((3, 5, 6)), None, draw((3, 5, 4)))


# ------------------------------------------------------------------------------ streaming


def chunks(layer, sizes):
    """`(x, mask) -> (carry, y)`, compiled: a stream in chunks of so many steps."""

    @jax.jit
    def streamed(x, mask):
        carry, pieces = layer.initial_carry(x.shape[0]), []
        for start, end in itertools.pairwise(np.cumsum((0, *sizes))):
            carry, (y, _) = layer.run(carry, x[:, start:end], mask[:, start:end])
            pieces.append(y)
        return carry, jnp.concatenate(pieces, axis=1)

    return streamed


@pytest.mark.sampled(2)
@pytest.mark.parametrize("window", [None, 2])
def test_a_prompt_on_either_side_then_a_step_at_a_time_is_one_long_call(window):
    """Ragged prompts, padded left, right or with holes, then decoding."""
    options = {"causal": True, "rotary": True, "num_kv_heads": 2, "window": window}
    layer = jm.nn.MultiHeadAttention(4, 8, max_length=8, rngs=nnx.Rngs(0), **options)
    x, steps = draw((3, 5, 8)), draw((3, 3, 8), 1)
    streamed, alone = chunks(layer, (5, 1, 1, 1)), jax.jit(lambda x: layer(x)[0])
    for prompt in MASKS.values():
        mask = np.concatenate([prompt, np.ones((3, 3), bool)], axis=1)
        whole = np.concatenate([poisoned(x, prompt), steps], axis=1)
        carry, y = streamed(whole, mask)
        assert carry.length.tolist() == [7, 5, 3]
        for b in range(3):
            close(y[b, mask[b]], alone(whole[b : b + 1, mask[b]])[0])


def test_gradients_flow_through_the_cache():
    layer = jm.nn.MultiHeadAttention(2, 6, causal=True, max_length=4, rngs=nnx.Rngs(0))
    x, mask, sent = draw((3, 5, 6)), MASKS["holes"], draw((3, 5, 6), 1)
    streamed = chunks(layer, (2, 1, 2))
    in_chunks = jax.jit(jax.grad(lambda x: jnp.vdot(streamed(x, mask)[1], sent)))(x)
    close(in_chunks, jax.jit(jax.grad(lambda x: jnp.vdot(layer(x, mask)[0], sent)))(x))


def test_a_full_cache_is_not_silent():
    layer = jm.nn.MultiHeadAttention(2, 6, causal=True, max_length=3, rngs=nnx.Rngs(0))
    x, mask = draw((3, 5, 6)), MASKS["holes"]
    carry, (y, out) = layer.run(layer.initial_carry(3), x, mask)
    assert carry.overflowed.tolist() == [True, False, False]
    assert out.tolist()[0] == [True, False, True, True, False]
    np.testing.assert_array_equal(out[1:], mask[1:])
    assert not np.asarray(y)[~np.asarray(out)].any()
    close(np.asarray(y)[np.asarray(out)], np.asarray(layer(x, mask)[0])[np.asarray(out)])
    carry, (_, out) = layer.run(carry, x[:, :1], None)
    assert out.tolist() == [[False], [True], [True]]
    assert carry.length.tolist() == [5, 3, 1]


def test_a_window_needs_no_more_cache_than_itself():
    layer = jm.nn.MultiHeadAttention(2, 6, causal=True, window=2, rngs=nnx.Rngs(0))
    x = draw((1, 9, 6))
    carry, y = chunks(layer, (1, 4, 1, 3))(x, np.ones((1, 9), bool))
    assert carry.k.shape[1] == 2
    close(y, layer(x)[0])
    _, (_, mask) = layer.run(carry, x[:, :1])
    assert mask is None


def test_streams_refuse():
    layer = jm.nn.MultiHeadAttention(
        2, 6, causal=True, max_length=4, dropout_rate=0.5, rngs=nnx.Rngs(0)
    )
    x = draw((3, 5, 6))
    with pytest.raises(ValueError, match="eval"):
        layer.run(layer.initial_carry(3), x)
    layer.eval()
    with pytest.raises(jm.MaskError, match="Segments"):
        layer.run(layer.initial_carry(3), x, jm.Segments(jnp.ones((3, 5), jnp.int32), 1))
    cache, q = layer.initial_carry(3), heads(5)
    with pytest.raises(ValueError, match="as in the cache"):
        jm.attention.attend_cached(cache, q, q, q, None)
    cache = jm.attention.empty_cache(3, 4, kv_heads=4, head_features=6)
    with pytest.raises(ValueError, match="as many slots"):
        jm.attention.attend_cached(cache, q, q, q, None, window=3)
    for wrong in (layer, tuple(cache)):
        with pytest.raises(TypeError, match="KVCache"):
            jm.attention.attend_cached(wrong, q, q, q, None)
        with pytest.raises(TypeError, match="KVCache"):
            layer.run(wrong, x)
    for positions in (jm.nn.SinusoidalPositions(6), jm.nn.LearnedPositions(9, 6, rngs=nnx.Rngs(0))):
        with pytest.raises(ValueError, match=r"`carry` must be \[batch\]"):
            positions.run(positions.initial_carry(1), x)
    with pytest.raises(ValueError, match="slots"):
        jm.attention.empty_cache(3, 0, kv_heads=4, head_features=6)


@pytest.mark.parametrize("window", [None, 2])
def test_a_stream_of_float64_is_one_call_in_float64(window):
    with enable_x64(True):
        layer = jm.nn.MultiHeadAttention(
            2, 8, causal=True, rotary=True, window=window, max_length=5, rngs=nnx.Rngs(0)
        )
        x, mask = draw((3, 5, 8)).astype(np.float64), MASKS["holes"]
        y, _ = jax.jit(layer)(x, mask)
        close(chunks(layer, (2, 3))(x, mask)[1], y, 1e-13)


def test_a_cache_of_numpy_arrays_goes_on():
    layer = jm.nn.MultiHeadAttention(2, 6, causal=True, max_length=5, rngs=nnx.Rngs(0))
    x = draw((3, 5, 6))
    carry, _ = layer.run(layer.initial_carry(3), x[:, :2])
    _, (y, _) = layer.run(jax.tree.map(np.asarray, carry), x[:, 2:])
    close(y, layer(x)[0][:, 2:])


def test_dtypes():
    x, mask = heads(5), MASKS["right"]
    for dtype in (jnp.bfloat16, jnp.float16):
        half = jnp.asarray(x, dtype)
        assert jm.attention.attend(half, mask, half, half, mask)[0].dtype == dtype
        assert jm.attention.rotary(half, mask)[0].dtype == dtype
    layer = jm.nn.MultiHeadAttention(
        2, 6, causal=True, max_length=5, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)
    )
    carry, (y, _) = layer.run(layer.initial_carry(3), draw((3, 5, 6)), mask)
    assert (carry.k.dtype, y.dtype) == (jnp.float32, jnp.bfloat16)


def test_additive_sums_of_half_precision_do_not_overflow():
    """60 features of 60 and weights of 30 make 108,000, which float16 does not hold."""
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(2, 4, 60)), jnp.float16).at[0].set(60)
    w = jnp.full((60, 3), 30, jnp.float16)
    narrow = jm.attention.AdditiveWeights(w, -w, jnp.ones(3, jnp.float16))
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), narrow)
    mask = jnp.array([[True, True, True, False]] * 2)
    y, _ = jm.attention.additive(x, mask, x, x, mask, narrow)
    x = x.astype(jnp.float32)
    want, _ = jm.attention.additive(x, mask, x, x, mask, wide)
    np.testing.assert_allclose(y.astype(jnp.float32), want, rtol=2e-3, atol=2e-3)
