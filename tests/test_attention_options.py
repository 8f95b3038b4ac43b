"""Weights, caps, norms, biases by distance and windows of attention, against other libraries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from jaxmask.attention import Choice, _pairwise
from tests.test_attention import MASKS, MEMORY, close, draw, heads, poisoned

BLOCKS = Choice("blocks", queries=2, keys=3)
METHODS = ("reference", BLOCKS)


def alone(q, k, v, hidden=None, bias=None, cap=None):
    """The weights and values of one unpadded row, `[time, heads, features]`, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    logits = np.einsum("qhf,khf->hqk", q, k) / np.sqrt(q.shape[2])
    logits = logits if cap is None else cap * np.tanh(logits / cap)
    logits = logits if bias is None else logits + bias
    logits = logits if hidden is None else np.where(hidden, -np.inf, logits)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights, np.einsum("hqk,khf->qhf", weights, v)


def steps(mask, b):
    """The positions of the queries and of the keys of a row."""
    n = np.arange(mask[b].sum())
    return n[:, None], n[None, :]


# ---------------------------------------------------------------------------------- weights


def test_weights_are_keras():
    keras = pytest.importorskip("keras")
    theirs = keras.layers.MultiHeadAttention(2, 4, value_dim=3, output_shape=6)
    ours = jm.nn.CrossAttention(
        *(2, 6), memory_features=5, qkv_features=8, value_head_features=3, rngs=nnx.Rngs(0)
    )
    x, memory, mask = draw((3, 5, 6)), draw((3, 3, 5), 1), MASKS["holes"]
    theirs(x, memory, return_attention_scores=True)
    parts = (ours.query, ours.key, ours.value, ours.out)
    theirs.set_weights([np.asarray(w) for p in parts for w in (p.kernel[...], p.bias[...])])
    (y, out), weights = ours(
        *(poisoned(x, mask), mask, poisoned(memory, MEMORY), MEMORY), return_weights=True
    )
    np.testing.assert_array_equal(out, mask)
    assert weights.shape == (3, 2, 5, 3)
    seen = (mask[:, None, :, None] & MEMORY[:, None, None]) & np.ones((3, 2, 1, 1), bool)
    assert not np.asarray(weights)[~seen].any()
    for b in range(2):
        row, scores = theirs(
            x[b : b + 1, mask[b]], memory[b : b + 1, MEMORY[b]], return_attention_scores=True
        )
        close(y[b, mask[b]], np.asarray(row)[0])
        close(np.asarray(weights)[b][:, mask[b]][:, :, MEMORY[b]], np.asarray(scores)[0])


def test_weights_of_a_packed_row_stay_within_its_sequences():
    ids = np.array([[1, 1, 2, 2, 0]])
    x = heads(5)[:1]
    _, weights = jm.attention.attend(
        *(x, jm.Segments(jnp.asarray(ids), 2), x, x, jm.Segments(jnp.asarray(ids), 2)),
        return_weights=True,
    )
    for at in (slice(0, 2), slice(2, 4)):
        close(weights[0, :, at, at], alone(x[0, at], x[0, at], x[0, at])[0])
    own = (ids[:, :, None] == ids[:, None]) & (ids > 0)[:, :, None]
    assert not np.asarray(weights)[0, :, ~own[0]].any()


def test_weights_are_those_before_dropout_and_take_the_reference():
    x, mask = heads(5), MASKS["right"]
    noise = {"dropout_rate": 0.5, "key": jax.random.key(0)}
    (_, plain), (_, noisy) = (
        jm.attention.attend(x, mask, x, x, mask, causal=True, return_weights=True, **options)
        for options in ({}, noise)
    )
    close(plain, noisy, 0)
    assert plain.dtype == jnp.float32
    assert "weights" in jm.attention.explain((1, 2048, 2, 4), return_weights=True).reason
    with pytest.raises(ValueError, match="weights are returned"):
        jm.attention.attend(x, mask, x, x, mask, method="blocks", return_weights=True)
    assert not np.isnan(np.asarray(jm.attention.attend(x[:, :0], None, x, x, None)[0])).any()


def test_gradients_flow_through_the_weights():
    x, mask = heads(5), MASKS["holes"]

    def total(x):
        _, weights = jm.attention.attend(x, mask, x, x, mask, return_weights=True)
        return jnp.sum(weights**2)

    def of_row(row):
        logits = jnp.einsum("qhf,khf->hqk", row, row) / np.sqrt(6)
        return jnp.sum(jax.nn.softmax(logits) ** 2)

    ours = jax.jit(jax.grad(total))(poisoned(x, mask))
    assert not np.asarray(ours)[~mask].any()
    for b in range(2):
        close(ours[b, mask[b]], jax.grad(of_row)(x[b, mask[b]]))


# ------------------------------------------------------------------- windows, caps, values


@pytest.mark.parametrize("method", METHODS, ids=lambda m: getattr(m, "method", m))
@pytest.mark.parametrize("window", [(3, 1), (2, None), (None, 2), (1, 3)], ids=str)
def test_a_window_of_two_sides_counts_real_steps(window, method):
    mask, (left, right) = MASKS["holes"], window
    q, k, v = heads(5), heads(5, 2, 1), draw((3, 5, 2, 3), 2)
    y, _ = jm.attention.attend(q, mask, k, v, mask, window=window, method=method, softcap=0.7)
    assert y.shape == (3, 5, 4, 3)
    for b in range(2):
        i, j = steps(mask, b)
        hidden = np.zeros((len(i), len(i)), bool)
        hidden = hidden if left is None else hidden | (j <= i - left)
        hidden = hidden if right is None else hidden | (j >= i + right)
        at = mask[b]
        close(y[b, at], alone(q[b, at], k[b, at], v[b, at], hidden, cap=0.7)[1])


def test_a_window_is_that_of_jax():
    x = heads(5)
    for ours, theirs in (((3, 2), (2, 1)), ((2, 1), (1, 0)), ((4, 4), 3)):
        y, _ = jm.attention.attend(x, None, x, x, None, window=ours)
        close(y, jax.nn.dot_product_attention(x, x, x, local_window_size=theirs))
    causal, _ = jm.attention.attend(x, None, x, x, None, window=(None, 1))
    close(causal, jm.attention.attend(x, None, x, x, None, causal=True)[0], 0)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: getattr(m, "method", m))
def test_a_cap_bounds_the_logits_and_leaks_no_nan(method):
    """A key that overflows stays out of queries that do not see it, and of their gradients."""
    q, k, v = heads(4)[:1], heads(5, seed=1)[:1], heads(5, seed=2)[:1]
    k[:, 4] = 3e38 * np.array([1, -1, 1, 1, -1, 1], np.float32)

    @jax.jit
    def run(q, k, v):
        y, _ = jm.attention.attend(
            q, None, k, v, None, causal=True, softcap=5.0, scale=30.0, method=method
        )
        return jnp.sum(jnp.sin(y)), y

    gradients, y = jax.grad(run, (0, 1, 2), has_aux=True)(q, k, v)
    i, j = np.arange(4)[:, None], np.arange(4)
    close(y[0], alone(30 * np.sqrt(6) * q[0], k[0, :4], v[0, :4], j > i, cap=5)[1])
    for x in gradients:
        assert np.isfinite(x).all()


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_of_blocks_are_those_of_the_reference(causal):
    """With a cap, values of another size, and a bias that reads an array."""
    mask, (q, k) = MASKS["holes"], (heads(5), heads(5, 2, 1))
    v, table = draw((3, 5, 2, 3), 2), draw((4, 4), 3)

    def values(table, q, k, v, method):
        def bias(query, key):
            buckets = jm.attention.relative_buckets(key - query, num_buckets=4, max_distance=3)
            return jnp.moveaxis(table[buckets[:, 0]], -1, 1)

        options = {"causal": causal, "bias": bias, "softcap": 1.5, "method": method}
        return jnp.sum(jnp.sin(jm.attention.attend(q, mask, k, v, mask, **options)[0]))

    run = jax.jit(jax.value_and_grad(values, (0, 1, 2, 3)), static_argnames="method")
    ours, theirs = (run(table, q, k, v, method=method) for method in (BLOCKS, "reference"))
    jax.tree.map(close, ours, theirs)

    def second(table, method):
        first = lambda t: values(t, q, k, v, method)  # noqa: E731
        return jnp.vdot(jax.grad(first)(table), jnp.cos(table))

    slope = jax.jit(jax.grad(second), static_argnames="method")
    close(slope(table, method=BLOCKS), slope(table, method="reference"), 1e-4)


def test_options_refuse():
    x = heads(5)
    for error, text, options in (
        (ValueError, "`softcap` must be positive", {"softcap": 0.0}),
        (ValueError, "pair", {"window": (1, 2, 3)}),
        (ValueError, "`window`.*at least 1", {"window": (0, 2)}),
        (ValueError, "`bias` must be", {"bias": lambda query, key: jnp.zeros((2, 2, 5, 5))}),
        (TypeError, "floating", {"bias": lambda query, key: query - key}),
    ):
        with pytest.raises(error, match=text):
            jm.attention.attend(x, None, x, x, None, **options)
    with pytest.raises(TypeError, match="known before"):
        jax.jit(lambda c: jm.attention.attend(x, None, x, x, None, softcap=c))(1.0)
    with pytest.raises(ValueError, match="`features` must be even"):
        jm.attention.rotary(x, None, features=5)
    with pytest.raises(ValueError, match="even, and no more"):
        jm.nn.MultiHeadAttention(2, 8, rotary=True, rotary_features=6, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="`normalize_qk` must be one of"):
        jm.nn.MultiHeadAttention(2, 8, normalize_qk="batch", rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="`bias` must be callable"):
        jm.nn.MultiHeadAttention(2, 8, bias=np.zeros((1, 2, 5, 5)), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="more than the 8 distances"):
        jm.nn.RelativeBias(2, max_distance=8, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="integers"):
        jm.attention.relative_buckets(np.ones(2, np.float32))
    with pytest.raises(ValueError, match="`max_length="):
        jm.nn.CrossAttention(2, 8, rngs=nnx.Rngs(0)).initial_carry(3)


# ---------------------------------------------------------------------- biases by distance


def test_the_slopes_of_alibi_are_those_of_its_paper():
    """Figure 3 and its footnote: 8 heads; 16 heads; between powers, by interpolation."""
    close(jm.attention.Alibi(8).slopes, 0.5 ** np.arange(1, 9))
    close(jm.attention.Alibi(16).slopes, 2.0 ** (-np.arange(1, 17) / 2))
    close(jm.attention.Alibi(6).slopes, [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8])
    assert jm.attention.Alibi(3) == jm.attention.Alibi(3)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: getattr(m, "method", m))
def test_a_bias_by_distance_counts_real_steps(method):
    x, alibi = heads(5), jm.attention.Alibi(4)
    for mask in MASKS.values():
        y, _ = jm.attention.attend(x, mask, x, x, mask, causal=True, bias=alibi, method=method)
        for b in range(2):
            i, j = steps(mask, b)
            bias = -np.array(alibi.slopes)[:, None, None] * (i - j)
            row = x[b, mask[b]]
            close(y[b, mask[b]], alone(row, row, row, j > i, bias)[1])


def bucket(distance, buckets, most, bidirectional):
    """Raffel et al.'s code, for one distance."""
    found = 0
    if bidirectional:
        buckets //= 2
        found += buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return found + distance
    share = np.log(distance / exact + 1e-12) / np.log(most / exact)
    return found + min(exact + int(share * (buckets - exact) + 1e-9), buckets - 1)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (4, 3), (10, 50)])
def test_buckets_are_those_of_t5(bidirectional, buckets, most):
    distances = np.arange(-300, 301)
    ours = jm.attention.relative_buckets(
        distances, num_buckets=buckets, max_distance=most, bidirectional=bidirectional
    )
    theirs = [bucket(int(d), buckets, most, bidirectional) for d in distances]
    np.testing.assert_array_equal(ours, theirs)


# ------------------------------------------------------------------------ evaluated block by block


def test_what_is_evaluated_block_by_block():
    ids = jm.Segments(jnp.array([[1, 1, 2, 2, 0]]), 2)
    dense = np.tril(np.ones((5, 5), bool))
    for f in (
        jm.masks.both(jm.masks.same_segment(ids), jm.masks.window(3, 2)),
        jm.masks.either(jm.masks.causal(), lambda query, key: key % 3 == 0),
        lambda query, key: jnp.asarray(dense)[query, key],
    ):
        function, arrays = _pairwise.as_pair_function(f, 2)
        found = function(tuple(a[0] for a in arrays), jnp.arange(5), jnp.arange(5))
        np.testing.assert_array_equal(found, f(jnp.arange(5)[:, None], jnp.arange(5)[None]))
    for f in (
        lambda query, key: dense,
        lambda query, key: key < key.shape[1] // 2,
        lambda query, key: key < jnp.max(query),
        lambda query, key: jnp.cumsum(key, axis=1) > query,
        lambda query, key: (key <= query) & (query[:, 0] > 1),
    ):
        assert _pairwise.as_pair_function(f, 2) is None
    assert (
        _pairwise.as_pair_function(jm.masks.window(3), 2)[0]
        == _pairwise.as_pair_function(jm.masks.window(3), 2)[0]
    )
    assert (
        _pairwise.as_pair_function(jm.masks.window(3), 2)[0]
        != _pairwise.as_pair_function(jm.masks.window(4), 2)[0]
    )


def test_a_predicate_that_cannot_be_evaluated_by_block_is_held_whole():
    x, mask = heads(5), MASKS["holes"]
    for f in (lambda q, k: k < k.shape[1] // 2 + 1, lambda q, k: jnp.max(q) - q >= k):
        ours, theirs = (
            jm.attention.attend(x, mask, x, x, mask, predicate=f, method=method)[0]
            for method in METHODS
        )
        close(ours, theirs)


def test_predicates_and_biases_under_vmap_read_their_own_arrays():
    x, ids = heads(5), np.array([[1, 1, 2, 2, 2], [1, 1, 1, 2, 2], [1, 2, 2, 2, 2]])
    table = draw((5,), 4)

    def values(x, ids, table):
        predicate = jm.masks.same_segment(jm.Segments(ids, 2))
        bias = lambda query, key: table[jnp.abs(query - key)]  # noqa: E731
        options = {"predicate": predicate, "bias": bias, "method": BLOCKS}
        return jnp.sum(jm.attention.attend(x, None, x, x, None, **options)[0] ** 2)

    run = jax.value_and_grad(values, (0, 2))
    many = np.stack([x, x[::-1]]), np.stack([ids, ids[::-1]]), np.stack([table, 2 * table])
    together = jax.jit(jax.vmap(run))(*many)
    for i in range(2):
        jax.tree.map(
            lambda a, b, i=i: close(a[i], b, 1e-4), together, jax.jit(run)(*(a[i] for a in many))
        )


@pytest.mark.parametrize("kind", ["predicate", "bias"])
def test_memory_stays_linear_with_a_function_of_positions(kind):
    def needed(time):
        def loss(q, k, v, table):
            functions = {
                "predicate": jm.masks.either(jm.masks.window(64), lambda q, k: k < table[q] // 99),
                "bias": lambda q, k: table[jnp.minimum(jnp.abs(q - k), 9)].astype(jnp.float32),
            }
            options = {kind: functions[kind], "method": Choice("blocks", queries=64, keys=64)}
            return jnp.sum(jm.attention.attend(q, None, k, v, None, **options)[0])

        x = [jax.ShapeDtypeStruct((1, time, 2, 16), "float32")] * 3
        x.append(jax.ShapeDtypeStruct((4096,), "int32"))
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert needed(2048) < 2.2 * needed(1024)
    assert needed(2048) < 2048**2 * 2 * 4 / 4  # of one array of logits


# ------------------------------------------------------------------------- rotary, modules


@pytest.mark.parametrize("interleaved", [False, True])
def test_partial_rotary_turns_the_first_features_alone(interleaved):
    x, mask = heads(5), MASKS["left"]
    y, _ = jm.attention.rotary(poisoned(x, mask), mask, features=4, interleaved=interleaved)
    part, _ = jm.attention.rotary(poisoned(x, mask)[..., :4], mask, interleaved=interleaved)
    close(y[..., :4], part, 0)
    close(np.asarray(y)[mask][..., 4:], x[mask][..., 4:], 0)
    assert not np.asarray(y)[~mask].any()


def test_norms_of_queries_and_keys_are_flax():
    theirs = nnx.MultiHeadAttention(2, 6, 8, decode=False, normalize_qk=True, rngs=nnx.Rngs(1))
    theirs.query_ln.scale[...] = draw(4, 1)
    theirs.key_ln.scale[...] = draw(4, 2)
    ours = jm.nn.MultiHeadAttention(2, 6, 8, normalize_qk=True, rngs=nnx.Rngs(0))
    nnx.update(ours, nnx.state(theirs, nnx.Param))
    mask, x = MASKS["holes"], draw((3, 5, 6))
    y, _ = ours(poisoned(x, mask), mask)
    for b in range(2):
        close(y[b, mask[b]], theirs(x[b : b + 1, mask[b]])[0])


def test_root_mean_square_norms_come_before_the_turn():
    layer = jm.nn.MultiHeadAttention(2, 6, 8, normalize_qk="rms", rotary=True, rngs=nnx.Rngs(0))
    layer.query_ln.scale[...] = draw(4, 1)
    x = draw((3, 5, 6))
    q = np.asarray(layer.query(x), np.float64)
    q = q / np.sqrt((q**2).mean(-1, keepdims=True) + 1e-6) * draw(4, 1)
    close(layer._heads(jnp.asarray(x), None)[0], jm.attention.rotary(q.astype("f"), None)[0])


OPTIONS = {
    "relative": {"bias": "relative", "softcap": 2.0, "scale": 1.0},
    "alibi": {"bias": jm.attention.Alibi(4), "window": (3, None), "normalize_qk": "rms"},
    "partial": {"rotary": True, "rotary_features": 2, "value_head_features": 3},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_stream_of_any_options_is_one_call(name):
    options, rngs = dict(OPTIONS[name]), nnx.Rngs(0)
    if options.get("bias") == "relative":
        options["bias"] = jm.nn.RelativeBias(
            4, num_buckets=4, max_distance=4, bidirectional=False, embedding_init=draws, rngs=rngs
        )
    layer = jm.nn.MultiHeadAttention(
        *(4, 16), num_kv_heads=2, causal=True, max_length=5, rngs=rngs, **options
    )
    x, mask = draw((3, 5, 16)), MASKS["holes"]

    @nnx.jit
    def both(layer, x):
        carry, (first, _) = layer.run(layer.initial_carry(3), x[:, :2], mask[:, :2])
        _, (rest, _) = layer.run(carry, x[:, 2:], mask[:, 2:])
        return layer(x, mask)[0], jnp.concatenate([first, rest], axis=1)

    close(*both(layer, poisoned(x, mask)))


def draws(key, shape, dtype):
    return jnp.asarray(draw(shape, 5), dtype)


def test_run_attends_by_the_method_of_its_layer(monkeypatch):
    seen = []
    whole = jm.attention._cache.attend
    monkeypatch.setattr(
        jm.attention._cache,
        "attend",
        lambda *args, **options: seen.append(options["method"]) or whole(*args, **options),
    )
    for method in ("reference", BLOCKS):
        layer = jm.nn.MultiHeadAttention(
            2, 6, causal=True, max_length=5, method=method, rngs=nnx.Rngs(0)
        )
        layer.run(layer.initial_carry(3), draw((3, 5, 6)))
    assert seen == ["reference", BLOCKS]


def test_a_bias_of_a_call_takes_the_place_of_the_layers():
    layer = jm.nn.MultiHeadAttention(4, 8, bias=jm.attention.Alibi(4), rngs=nnx.Rngs(0))
    plain = jm.nn.MultiHeadAttention(4, 8, rngs=nnx.Rngs(0))
    x, mask, bias = draw((3, 5, 8)), MASKS["right"], draw((1, 4, 5, 5))
    close(layer(x, mask, bias=bias)[0], plain(x, mask, bias=bias)[0], 0)
    close(layer(x, mask)[0], plain(x, mask, bias=jm.attention.Alibi(4))[0], 0)


def test_layers_that_are_given_one_bias_share_its_table():
    rngs = nnx.Rngs(0)
    bias = jm.nn.RelativeBias(2, num_buckets=4, max_distance=4, rngs=rngs)
    model = jm.nn.Sequential(
        *(jm.nn.TransformerEncoderBlock(2, 4, bias=bias, rngs=rngs) for _ in range(2))
    )
    tables = [v for v in jax.tree.leaves(nnx.state(model, nnx.Param)) if v.shape == (4, 2)]
    assert len(tables) == 1
    x, mask = draw((3, 5, 4)), MASKS["right"]
    gradient = nnx.grad(lambda model: jnp.sum(model(x, mask)[0] ** 2))(model)
    assert any(np.any(v) for v in jax.tree.leaves(gradient) if v.shape == (4, 2))


def test_a_memory_in_chunks_is_the_memory():
    layer = jm.nn.CrossAttention(2, 6, memory_features=3, max_length=5, rngs=nnx.Rngs(0))
    x, memory, mask = draw((3, 2, 6)), draw((3, 7, 3), 1), np.ones((3, 2), bool)
    real = np.array([[1, 0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 0, 0], [0] * 7], bool)
    carry = layer.initial_carry(3)
    for at in (slice(0, 3), slice(3, 4), slice(4, 7)):
        carry, (y, out) = layer.run(carry, x, mask, poisoned(memory, real)[:, at], real[:, at])
        seen = np.where(np.arange(7) < at.stop, real, False)
        close(y, layer(x, mask, memory, seen)[0])
    np.testing.assert_array_equal(out, mask)
    assert carry.length.tolist() == [4, 1, 0]
    _, (again, _) = layer.run(carry, x, mask)
    close(again, y, 0)
    carry, (y, out) = layer.run(carry, x, None, memory[:, :2])
    assert carry.overflowed.tolist() == [True, False, False]
    assert out.tolist() == [[False] * 2, [True] * 2, [True] * 2]
    assert not np.asarray(y)[0].any()
    cache = jm.attention.empty_cache(3, 2, kv_heads=4, head_features=6)
    with pytest.raises(jm.MaskError, match="Segments"):
        jm.attention.extend_cache(cache, heads(5), heads(5), jm.Segments(jnp.ones((3, 5), int), 1))
