"""`method="blocks"`: each row alone in float64, the reference, and what is never computed."""

import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

import jaxmask as jm
from jaxmask.attention import Choice, explain
from jaxmask.attention._blocks import layout
from jaxmask.attention._reference import Given, Setting
from jaxmask.attention._visible import visible
from tests.test_attention import close, draw, plain, poisoned
from tests.x64 import enable_x64

TIME = 13
LENGTHS = np.array([TIME, 5, 0])
RIGHT = np.arange(TIME) < LENGTHS[:, None]
IDS = np.array([[1] * 4 + [2] * 3 + [3] * 5 + [0], [1] * 2 + [2] * 8 + [0] * 3, [0] * TIME], "i")
MASKS = {
    "none": None,
    "right": RIGHT,
    "left": RIGHT[:, ::-1],
    "holes": RIGHT[:, np.random.default_rng(3).permutation(TIME)],
    "packed": jm.Segments(jnp.asarray(IDS), 3),
}
SIZES = (Choice("blocks", queries=4, keys=3), Choice("blocks", queries=5, keys=TIME))
NOISE = {"dropout_rate": 0.3, "key": jax.random.key(0)}


def arrays(time=TIME, heads=4, dtype=np.float32):
    """Queries, keys and values, two heads to one of keys."""
    shapes = (3, time, heads, 6), (3, time, 2, 6), (3, time, 2, 6)
    return [draw(shape, seed).astype(dtype) for seed, shape in enumerate(shapes)]


def both_ways(xs, mask, method, bias=None, **options):
    """The values and all gradients."""

    def values(bias, *xs):
        q, k, v = xs
        return jm.attention.attend(q, mask, k, v, mask, bias=bias, method=method, **options)[0]

    y, pull = jax.vjp(values, bias, *xs)
    return [y, *jax.tree.leaves(pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)))]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size.queries}x{size.keys}")
@pytest.mark.parametrize("name", ["right", "left", "holes"])
def test_each_row_alone(name, size):
    mask = MASKS[name]
    q, k, v = (poisoned(x, mask) for x in arrays())
    y, out = jm.attention.attend(q, mask, k, v, mask, causal=True, window=4, method=size)
    np.testing.assert_array_equal(out, mask)
    assert not np.asarray(y)[~mask].any()
    for b, length in enumerate(LENGTHS[:2]):
        i, j = np.arange(length)[:, None], np.arange(length)
        row = plain(q[b, mask[b]], k[b, mask[b]], v[b, mask[b]], (j > i) | (j <= i - 4))
        close(y[b, mask[b]], row)


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": True},
        {"causal": True, "window": 4},
        {"window": 3, "scale": 0.3},
        {"bias": np.where(draw((1, 4, TIME, TIME)) > 1, -np.inf, draw((1, 4, TIME, TIME)))},
        {"bias": draw((3, 1, TIME, TIME)), "causal": True},
        {"predicate": jm.masks.window(2, 3)},
        NOISE,
    ],
    ids=lambda options: ",".join(options) or "plain",
)
@pytest.mark.parametrize("name", MASKS)
def test_values_and_gradients_are_those_of_the_reference(name, options):
    options = dict(options)
    if "bias" in options:
        options["bias"] = options["bias"].astype(np.float32)
    theirs = both_ways(arrays(), MASKS[name], "reference", **options)
    ours = both_ways(arrays(), MASKS[name], SIZES[0], **options)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


@pytest.mark.parametrize(
    "options",
    [
        {"softcap": 2.0, **NOISE},
        {"causal": True},
        {"window": 3},
        {"predicate": jm.masks.window(2, 3)},
        {"mask": RIGHT[:, 1:]},
    ],
    ids=lambda options: ",".join(options),
)
def test_whole_blocks_in_which_all_may_be_seen(options):
    options = {"mask": None, **options}
    theirs, ours = (
        both_ways(arrays(12), method=method, **options) for method in ("reference", SIZES[0])
    )
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


def test_queries_and_keys_of_other_lengths_and_packing():
    """Memories of packed sequences are longer than their queries, and in another order."""
    q, k, v = arrays()
    k, v = (np.concatenate([x, x[:, :6]], axis=1) for x in (k, v))
    memory = np.array([[3] * 7 + [1] * 5 + [2] * 6 + [0], [2] * 3 + [0] * 4 + [1] * 12, [1] * 19])
    segments = jm.Segments(jnp.asarray(memory), 3)
    for options in ({}, {"causal": True, "window": 3}):
        ours, theirs = (
            jm.attention.attend(q, MASKS["packed"], k, v, segments, method=method, **options)[0]
            for method in (SIZES[0], "reference")
        )
        close(ours, theirs)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 4])
def test_the_blocks_are_those_in_which_a_query_sees_a_key(causal, window):
    """None is missed, and in rows without holes none is visited in vain."""
    q, k, v = arrays()
    positions = np.argsort(draw((3, TIME)), axis=1).astype(np.int32)
    for (name, mask), given, size in itertools.product(MASKS.items(), (False, True), SIZES):
        at = (jnp.asarray(positions),) * 2 if given else (None, None)
        setting = Setting(size, causal=causal, window=window)
        arguments = Given(q, mask, k, v, mask, None, None, *at)
        found = layout.seen_blocks(setting, arguments, *layout.sides(setting, arguments))
        pairs = visible(
            q, mask, k, mask, causal=causal, window=window, positions=at, where="attend"
        )
        real = np.ones((3, TIME), bool) if mask is None else jm.masks.as_bool(mask)
        seen = np.ones(TIME, bool) if pairs is None else np.asarray(pairs)[:, 0]
        pairs = np.broadcast_to(np.asarray(real)[:, :, None] & seen, (3, TIME, TIME))
        pad = ((0, 0), (0, -TIME % size.queries), (0, -TIME % size.keys))
        cut = np.pad(pairs, pad).reshape(
            *(3, found.shape[1], size.queries, found.shape[2], size.keys)
        )
        some = cut.any(axis=(2, 4))
        assert not (some & ~np.asarray(found)).any(), (name, given)
        if name != "holes" and not given:
            np.testing.assert_array_equal(found, some)


def test_what_is_not_seen_is_not_computed():
    """A nan in a key that `causal` hides stays out of the queries of all earlier blocks."""
    q, k, v = arrays()
    k[:, 12], v[:, 12] = np.nan, np.nan
    y, *gradients = both_ways([q, k, v], None, SIZES[0], causal=True)
    assert np.isfinite(y[:, :12]).all()
    assert np.isnan(y[:, 12]).all()
    assert np.isfinite(gradients[1][:, :12]).all() == np.isfinite(gradients[2][:, :12]).all()


@pytest.mark.parametrize("mask", [None, "right"])
def test_memory_grows_with_the_length_of_a_row(mask):
    def needed(time):
        def loss(q, k, v):
            return jnp.sum(jm.attention.attend(q, real, k, v, real, method=method)[0])

        method = Choice("blocks", queries=64, keys=64)
        x = [jax.ShapeDtypeStruct((1, time, 2, 16), "float32")] * 3
        real = None if mask is None else jnp.ones((1, time), bool)
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert needed(2048) < 2.2 * needed(1024)
    assert needed(2048) < 2048**2 * 2 * 4 / 4  # of one array of logits


def test_vmap_over_anything():
    q, k, _ = arrays()
    bias, ids = draw((1, 4, TIME, TIME)), jnp.asarray(IDS)

    def values(q, k, ids, bias):
        mask = jm.Segments(ids, 3)
        y = jm.attention.attend(q, mask, k, k, mask, bias=bias, causal=True, method=SIZES[0])[0]
        return jnp.sum(y**2)

    run = jax.value_and_grad(values, (0, 1, 3))
    many = [np.stack([a, a[:, ::-1] if a.ndim > 2 else np.roll(a, 2, 1)]) for a in (q, k, ids)]
    many.append(np.stack([bias, 2 * bias]))
    for axes in ((0, 0, 0, 0), (0, None, 0, None), (None, None, None, 0), (0, 0, None, None)):
        pick = lambda i: [a[i] if on == 0 else a[0] for a, on in zip(many, axes, strict=True)]  # noqa: B023, E731
        given = [a if on == 0 else a[0] for a, on in zip(many, axes, strict=True)]
        together = jax.jit(jax.vmap(run, axes))(*given)
        for i in range(2):
            for a, b in zip(
                jax.tree.leaves(together), jax.tree.leaves(jax.jit(run)(*pick(i))), strict=True
            ):
                close(a[i], b, 1e-4)


def test_second_derivatives_are_those_of_the_reference():
    q, k, v = arrays()
    mask, along = MASKS["holes"], draw(q.shape, 7)

    def slope(method, bias):
        def total(x, bias):
            y = jm.attention.attend(x, mask, k, v, mask, bias=bias, causal=True, method=method)[0]
            return jnp.sum(jnp.sin(y))

        first = lambda x, bias: jnp.vdot(jax.grad(total)(x, bias), along)  # noqa: E731
        return jax.jit(jax.grad(first, (0, 1)))(q, bias)

    bias = draw((1, 1, TIME, TIME))
    for ours, theirs in zip(slope(SIZES[0], bias), slope("reference", bias), strict=True):
        close(ours, theirs)


def test_forward_mode_names_the_reference():
    q, k, v = arrays()

    def values(q, method):
        return jm.attention.attend(q, None, k, v, None, method=method)[0]

    with pytest.raises(TypeError, match='`method="reference"`'):
        jax.jvp(lambda q: values(q, "blocks"), (q,), (q,))
    _, slope = jax.jvp(lambda q: values(q, "reference"), (q,), (q,))
    assert np.isfinite(slope).all()


def test_a_checkpoint_recomputes_it():
    q, k, v = arrays()

    def total(q):
        return jnp.sum(jm.attention.attend(q, RIGHT, k, v, RIGHT, method=SIZES[0])[0] ** 2)

    close(jax.jit(jax.grad(jax.checkpoint(total)))(q), jax.grad(total)(q), 1e-6)


def test_half_precision_sums_in_float32_and_float64_stays():
    q, k, v = arrays()
    half = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
    y, *gradients = both_ways(half, MASKS["right"], SIZES[0])
    assert {x.dtype for x in (y, *gradients)} == {jnp.dtype(jnp.bfloat16)}
    wide = both_ways([np.asarray(x, np.float32) for x in half], MASKS["right"], SIZES[0])
    close(y.astype(np.float32), wide[0], 5e-3)
    with enable_x64(True):
        ours, theirs = (
            both_ways(arrays(dtype=np.float64), MASKS["right"], method)
            for method in (SIZES[0], "reference")
        )
        for a, b in zip(ours, theirs, strict=True):
            close(a, b, 1e-12)


# ------------------------------------------------------------------------------ the rule


def test_the_rule():
    assert explain((1, 100, 8, 64)).method == "reference"
    assert explain((1, 128, 8, 64)).method == "blocks"
    made = [explain((1, n, 8, 64), window=w) for n, w in ((1024, None), (1024, 9), (999, None))]
    assert [(one.queries, one.keys) for one in made] == [(256, 512), (128, 128), (128, 128)]
    assert explain((1, 2048, 8, 64), packed=True).keys == 128
    assert explain((1, 2048, 8, 64), (1, 3, 8, 64)).method == "reference"
    assert explain((1, 2048, 8, 64), method="reference").reason == "asked for"
    assert explain((1, 0, 8, 64), method="blocks").method == "reference"
    assert explain((1, 5, 8, 64), method="blocks").queries == 5
    with pytest.raises(ValueError, match=r"`k_shape` must be \[batch, key"):
        explain((1, 2, 3, 4), (1, 2))
    with pytest.raises(ValueError, match="`method` must be one of"):
        explain((1, 2, 3, 4), method="flash")
    x = np.zeros((1, 2, 1, 4), np.float32)
    with pytest.raises(ValueError, match="`method` must be one of"):
        jm.attention.attend(x, None, x, x, None, method="flash")


def test_a_symbolic_dimension_takes_the_reference():
    (time,) = jax.export.symbolic_shape("time")
    assert "symbolic" in explain((1, time, 2, 4)).reason
    x = jax.ShapeDtypeStruct((1, time, 2, 4), "float32")
    with pytest.raises(ValueError, match="symbolic"):
        jax.eval_shape(lambda x: jm.attention.attend(x, None, x, x, None, method="blocks"), x)


def test_a_mesh_takes_the_reference_and_shard_map_the_blocks():
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    with jax.set_mesh(mesh):
        assert "shard_map" in explain((4, 2048, 8, 64)).reason
    rows, inside = PartitionSpec("rows"), []
    xs = [np.concatenate([x] * len(jax.devices())) for x in arrays()]

    def loss(q, k, v):
        inside.append(explain((4, 2048, 8, 64)).method)
        y, _ = jm.attention.attend(q, None, k, v, None, causal=True, method=SIZES[0])
        return jax.lax.psum(jnp.sum(y**2), "rows")

    sharded = jax.shard_map(loss, mesh=mesh, in_specs=rows, out_specs=PartitionSpec())
    gradient = jax.jit(jax.grad(sharded))(*xs)
    assert set(inside) == {"blocks"}
    q, k, v = xs

    def plain_loss(q):
        return jnp.sum(
            jm.attention.attend(q, None, k, v, None, causal=True, method="reference")[0] ** 2
        )

    close(gradient, jax.grad(plain_loss)(q))


def test_modules_hand_the_method_on():
    layers = (
        lambda **how: jm.nn.TransformerDecoderBlock(2, 6, rngs=nnx.Rngs(0), **how),
        lambda **how: jm.nn.TransformerEncoderBlock(2, 6, rngs=nnx.Rngs(0), **how),
    )
    for make, memory in zip(layers, ((draw((3, TIME, 6), 1), RIGHT), ()), strict=True):
        ours, theirs = (make(method=method) for method in (SIZES[0], "reference"))
        assert ours.attention.method == SIZES[0]
        x = draw((3, TIME, 6))
        close(ours(x, RIGHT, *memory)[0], theirs(x, RIGHT, *memory)[0])
    assert layers[0](method="blocks").cross_attention.method == "blocks"
    with pytest.raises(ValueError, match="`method` must be one of"):
        layers[1](method="flash")
