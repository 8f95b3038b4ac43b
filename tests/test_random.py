"""Noise is what it should be, and padding does not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm

KEY = jax.random.key(0)


def test_dropout_keeps_the_share_and_the_mean():
    x, mask = jnp.ones((40, 50, 20)), jnp.ones((40, 50), bool)
    y, _ = jm.random.dropout(x, mask, KEY, 0.25)
    y = np.asarray(y)
    assert set(np.unique(y.round(5))) == {0.0, np.float32(1 / 0.75).round(5)}
    assert abs((y == 0).mean() - 0.25) < 0.01
    # Rows, steps and features are independent draws.
    for axis in range(3):
        assert np.abs(np.diff(y, axis=axis)).mean() > 0.1


def test_each_key_is_another_draw():
    x, mask = jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
    draws = [jm.random.dropout(x, mask, jax.random.key(k), 0.5)[0] for k in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_row_ids_name_rows_independently_of_their_place():
    x, mask = jnp.ones((3, 4, 5)), jnp.ones((3, 4), bool)
    ids = jnp.array([7, 3, 9])
    y, _ = jm.random.dropout(x, mask, KEY, 0.5, row_ids=ids)
    other, _ = jm.random.dropout(x, mask, KEY, 0.5, row_ids=ids[::-1])
    np.testing.assert_array_equal(y, other[::-1])


def test_a_rate_of_0_keeps_all():
    x, mask = jnp.full((1, 2, 3), 5.0), jnp.array([[True, False]])
    total = jax.value_and_grad(lambda x: jm.random.dropout(x, mask, KEY, 0.0)[0].sum())
    value, gradient = total(x)
    assert float(value) == 15
    assert gradient.ravel().tolist() == [1.0] * 3 + [0.0] * 3


@pytest.mark.parametrize("noise", [jm.random.dropout, jm.random.spatial_dropout])
@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_a_rate_lies_from_0_to_below_1(noise, rate):
    with pytest.raises(ValueError, match=f"{noise.__name__}: `dropout_rate` must lie from 0"):
        noise(jnp.ones((1, 2, 3)), None, KEY, rate)


def test_bad_arguments_are_named():
    x, mask = jnp.ones((1, 2, 3)), jnp.ones((1, 2), bool)
    with pytest.raises(TypeError, match="floating"):
        jm.random.dropout(x.astype(int), mask, KEY, 0.5)
    with pytest.raises(ValueError, match="row_ids"):
        jm.random.dropout(x, mask, KEY, 0.5, row_ids=jnp.arange(2))


# --------------------------------------------------------------------- maps, noise and spans


def test_a_key_of_the_old_style_draws_the_same():
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    for noise in (jm.random.dropout, jm.random.spatial_dropout):
        np.testing.assert_array_equal(
            *(noise(jnp.ones((2, 5, 4)), None, k, 0.5)[0] for k in (old, new))
        )


def test_spatial_dropout_drops_a_feature_everywhere_or_nowhere():
    x = jnp.ones((60, 5, 2, 40))
    y = np.asarray(jm.random.spatial_dropout(x, None, KEY, 0.25)[0])
    assert (y == y[:, :1, :1]).all()
    assert set(np.unique(y.round(5))) == {0.0, np.float32(1 / 0.75).round(5)}
    assert abs((y[:, 0, 0] == 0).mean() - 0.25) < 0.03
    for axis in (0, 3):
        assert np.abs(np.diff(y, axis=axis)).mean() > 0.1


def test_the_sequences_of_a_packed_row_have_draws_of_their_own():
    segments = jm.Segments(jnp.array([[1, 1, 2, 2, 0]]), 2)
    for y, mask in (
        jm.random.spatial_dropout(jnp.ones((1, 5, 40)), segments, KEY, 0.5),
        jm.random.feature_masking(jnp.ones((1, 5, 40)), segments, KEY, 20),
    ):
        first, same, second, other, padding = np.asarray(y[0])
        np.testing.assert_array_equal(mask.ids, segments.ids)
        assert (first == same).all()
        assert (second == other).all()
        assert (first != second).any()
        assert not padding.any()


def test_time_masking_of_a_packed_row_counts_in_each_sequence():
    segments = jm.Segments(jnp.array([[1] * 3 + [2] * 9]), 2)
    found = set()
    for seed in range(40):
        y, _ = jm.random.time_masking(jnp.ones((1, 12)), segments, jax.random.key(seed), 2)
        hidden = np.asarray(y[0]) == 0
        found.add((int(hidden[:3].sum()), int(hidden[3:].sum())))
    assert found == {(a, b) for a in range(3) for b in range(3)}


def test_gaussian_noise_is_normal():
    stats = pytest.importorskip("scipy.stats")
    x = jnp.full((20, 30, 10), 3.0)
    y = np.asarray(jm.random.gaussian_noise(x, None, KEY, 0.5)[0])
    assert stats.kstest(y.ravel(), stats.norm(3, 0.5).cdf).pvalue > 0.001
    half, _ = jm.random.gaussian_noise(x.astype(jnp.bfloat16), None, KEY, 0.5)
    np.testing.assert_allclose(half.astype(np.float32), y, atol=0.02)


def test_time_masking_draws_widths_and_starts_as_the_paper():
    """SpecAugment: width uniform from 0 to T, start uniform where the span fits."""
    lengths = np.full(4000, 6)
    mask = np.arange(8) < lengths[:, None]
    y, out = jm.random.time_masking(jnp.ones((4000, 8)), mask, KEY, 3)
    hidden = (np.asarray(y) == 0) & mask
    np.testing.assert_array_equal(out, mask)
    width = hidden.sum(1)
    for value in range(4):
        assert abs((width == value).mean() - 1 / 4) < 0.03
    for value in range(1, 4):
        start = hidden[width == value].argmax(1)
        share = np.bincount(start, minlength=7 - value) / len(start)
        np.testing.assert_allclose(share, 1 / (7 - value), atol=0.05)
    # One span: it starts once.
    assert (np.diff(hidden.astype(int), axis=1, prepend=0) == 1).sum(1).max() == 1


def test_the_widest_span_is_a_part_of_the_real_steps():
    mask = np.arange(20) < np.array([[20], [10], [4], [0]])
    widest = np.zeros(4, int)
    for seed in range(60):
        y, _ = jm.random.time_masking(
            jnp.ones((4, 20)), mask, jax.random.key(seed), 8, max_ratio=0.5
        )
        widest = np.maximum(widest, ((np.asarray(y) == 0) & mask).sum(1))
    assert widest.tolist() == [8, 5, 2, 0]


def test_feature_masking_hides_one_band_at_every_step():
    x = jnp.ones((50, 3, 6))
    hidden = np.asarray(jm.random.feature_masking(x, None, KEY, 4)[0]) == 0
    assert (hidden == hidden[:, :1]).all()
    assert set(hidden[:, 0].sum(1)) == {0, 1, 2, 3, 4}
    assert (np.diff(hidden[:, 0].astype(int), axis=1, prepend=0) == 1).sum(1).max() == 1
    two = np.asarray(jm.random.feature_masking(x, None, KEY, 2, num_masks=3)[0]) == 0
    assert two[:, 0].sum(1).max() > 2


# ---------------------------------------------------------------------------------- modules

NOISE = {
    "Dropout": (0.5,),
    "SpatialDropout": (0.5,),
    "GaussianNoise": (0.5,),
    "TimeMasking": (4,),
    "TimeWarp": (2,),
    "FeatureMasking": (4,),
}
MASK = np.array([[True] * 6, [True] * 3 + [False] * 3])


@pytest.mark.parametrize("name", NOISE)
def test_modules_draw_in_training_and_pass_in_evaluation(name):
    layer = getattr(jm.nn, name)(*NOISE[name], rngs=nnx.Rngs(0))
    x = jnp.where(MASK[..., None], jnp.arange(1.0, 37.0).reshape(6, 6), jnp.nan)
    draws = [np.asarray(layer(x, MASK)[0]) for _ in range(4)]
    assert any((draw != draws[0]).any() for draw in draws[1:])
    before = nnx.state(layer, nnx.RngState)
    layer.compute_mask(x, MASK)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), before, nnx.state(layer)))
    assert not layer.per_step
    layer.eval()
    assert layer.per_step
    np.testing.assert_array_equal(layer(x, MASK)[0], np.where(MASK[..., None], x, 0))
    y, _ = layer(x, MASK, deterministic=False, rngs=jax.random.key(1))
    np.testing.assert_array_equal(y, layer(x, MASK, deterministic=False, rngs=jax.random.key(1))[0])


def test_modules_say_where_a_stream_comes_from():
    with pytest.raises(ValueError, match="TimeMasking: noise needs a random stream"):
        jm.nn.TimeMasking(2)(jnp.ones((1, 3, 2)))
    layer = jm.nn.GaussianNoise(0.1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="GaussianNoise: the random stream of a closed-over"):
        jax.jit(lambda x: layer(x)[0])(jnp.ones((1, 3, 2)))
    assert jax.jit(lambda x, key: layer(x, rngs=key)[0])(jnp.ones((1, 3, 2)), KEY).shape == (
        1,
        3,
        2,
    )
    nnx.jit(lambda layer, x: layer(x)[0])(layer, jnp.ones((1, 3, 2)))


X3 = jnp.ones((1, 2, 3))
BAD = {
    "spatial features": (
        lambda: jm.random.spatial_dropout(X3[..., 0], np.ones((1, 2), bool), KEY, 0.5),
        ValueError,
        "feature axis",
    ),
    "stddev": (lambda: jm.random.gaussian_noise(X3, None, KEY, -1.0), ValueError, "stddev"),
    "stddev of nan": (
        lambda: jm.random.gaussian_noise(X3, None, KEY, float("nan")),
        ValueError,
        "stddev",
    ),
    "width": (lambda: jm.random.time_masking(X3, None, KEY, -1), ValueError, "max_width"),
    "ratio": (
        lambda: jm.random.time_masking(X3, None, KEY, 1, max_ratio=2),
        ValueError,
        "max_ratio",
    ),
    "row ids": (
        lambda: jm.random.gaussian_noise(X3, None, KEY, 1.0, row_ids=np.array([0.7])),
        TypeError,
        "`row_ids` must be integers",
    ),
    "number": (
        lambda: jm.random.feature_masking(X3, None, KEY, 1, num_masks=1.5),
        TypeError,
        "num_masks",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_noise_is_named(name):
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()


def test_a_warp_moves_one_step_and_keeps_the_ends():
    """Of the values 0, 1, 2, ..., the warped row is the map itself: two lines that meet."""
    lengths = np.array([40, 23, 9, 4, 2, 0])
    mask = np.arange(40) < lengths[:, None]
    x = np.where(mask, np.arange(40.0), np.nan).astype(np.float32)[..., None]
    warp = jax.jit(lambda key: jm.random.time_warp(x, mask, key, 5)[0][..., 0])
    moved = set()
    for seed in range(20):
        y = np.asarray(warp(jax.random.key(seed)))
        assert not y[~mask].any()
        for row, n in enumerate(lengths):
            own = y[row, :n]
            if n < 5:
                np.testing.assert_allclose(own, np.arange(n), atol=1e-6)
                continue
            assert own[0] == 0
            assert abs(own[-1] - (n - 1)) < 1e-4
            bends = np.flatnonzero(np.abs(np.diff(own, 2)) > 1e-3) + 1
            assert len(bends) <= 1
            if len(bends):
                (target,) = bends
                most, source = min(5, (n - 3) // 2), round(float(own[target]))
                assert abs(own[target] - source) < 1e-4
                assert abs(source - target) <= most
                assert most < source < n - 1 - most
                moved.add((row, source - int(target)))
    offsets = {offset for row, offset in moved if row == 0}
    assert min(offsets) <= -3
    assert max(offsets) >= 3


def test_a_warp_of_a_sequence_is_that_of_the_row_with_its_key():
    """Holes and other sequences of the row are not seen."""
    ids = np.array([[1] * 9 + [0] + [2] * 7])
    x = np.random.default_rng(0).normal(size=(1, 17, 2)).astype(np.float32)
    y, _ = jm.random.time_warp(x, jm.Segments(ids, 2), jax.random.key(1), 2)
    for segment in (1, 2):
        own = ids[0] == segment
        other = np.where(own[None, :, None], x, 1e6)
        again, _ = jm.random.time_warp(other, jm.Segments(ids, 2), jax.random.key(1), 2)
        np.testing.assert_allclose(y[0, own], again[0, own], rtol=1e-6)
        assert np.ptp(np.asarray(y[0, own]), axis=0).max() <= np.ptp(x[0, own], axis=0).max()
