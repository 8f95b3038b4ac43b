"""Padding of each row at its own ends, and pools and transposes as PyTorch has them: row by row."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from tests.test_conv import (
    LENGTHS,
    MASK,
    assert_rows_of_keras,
    draw,
    keras,  # noqa: F401
    ragged,
    torch_pads,
    weights_of,
)

PADS = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def rows_of(function, x, *, moved=False):
    """The real steps of each row, also where rows are padded on the left."""
    given = (x[:, ::-1][:, ::-1], MASK)
    if moved:
        x = np.stack([np.roll(row, len(row) - n, 0) for row, n in zip(x, LENGTHS, strict=True)])
        given = (x, MASK[:, ::-1])
    y, mask = jax.jit(function)(*given)
    assert not np.asarray(y)[~np.asarray(mask)].any()
    return [np.asarray(y)[b, np.asarray(mask)[b]] for b in range(len(x))]


def convolved(row, kernel, bias, pads, mode, strides, dilation):
    """Of the row alone, in float64."""
    span = (len(kernel) - 1) * dilation + 1
    if not len(row):
        return np.zeros((0, kernel.shape[-1]))
    row = np.pad(row.astype(np.float64), (pads, (0, 0)), mode=PADS[mode])
    starts = range(0, max(len(row) - span + 1, 0), strides)
    windows = [row[i : i + span : dilation] for i in starts]
    return np.array([np.einsum("kf,kfo->o", window, kernel) + bias for window in windows]).reshape(
        -1, kernel.shape[-1]
    )


@pytest.mark.sampled(6)
@pytest.mark.parametrize("mode", PADS)
@pytest.mark.parametrize(
    ("padding", "strides", "dilation"),
    [("same", 1, 1), ("same", 2, 2), ("causal", 1, 2), ("full", 1, 1), ((3, 1), 1, 1), (2, 3, 1)],
)
def test_rows_go_on_at_their_own_ends(mode, padding, strides, dilation):
    x, kernel, bias = ragged(2), draw(3, 2, 4), draw(4)
    span = 2 * dilation + 1
    pads = (padding, padding) if padding == 2 else padding
    pads = torch_pads(padding, span) if isinstance(padding, str) else pads
    options = {"padding": padding, "strides": strides, "dilation": dilation}

    def run(x, mask):
        return jm.conv.conv1d(x, mask, kernel, bias, **options, padding_mode=mode)

    for moved in (False, True):
        for row, ours in enumerate(rows_of(run, x, moved=moved)):
            alone = x[row, : LENGTHS[row]]
            theirs = convolved(alone, kernel, bias, pads, mode, strides, dilation)
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_both_axes_go_on():
    x, kernel = ragged(5, 1), draw(3, 4, 1, 2)
    run = functools.partial(
        jm.conv.conv2d, kernel=kernel, padding_mode="circular", frequency_padding=(2, 1)
    )
    for row, ours in enumerate(rows_of(run, x)):
        alone = x[row, : LENGTHS[row], :, 0]
        if not len(alone):
            assert not len(ours)
            continue
        wide = np.pad(alone, ((1, 1), (2, 1)), mode="wrap")
        theirs = np.lib.stride_tricks.sliding_window_view(wide, (3, 4))
        theirs = np.einsum("tfkb,kbo->tfo", theirs, kernel[:, :, 0])
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


POOLS = {
    "max_pool1d": np.max,
    "min_pool1d": np.min,
    "avg_pool1d": np.mean,
    "lp_pool1d": lambda x, axis: np.sqrt(np.sum(x**2, axis)),
}


def pooled(row, reduce, size, strides, dilation, pads, ceil):
    """By the definition in PyTorch's documentation; padding does not count."""
    span, (left, right) = (size - 1) * dilation + 1, pads
    length = len(row) + left + right - span
    count = (-(-length // strides) if ceil else length // strides) + 1
    found = []
    for i in range(count if len(row) else 0):
        start = i * strides - left
        if ceil and start >= len(row):
            break
        taps = [t for t in range(start, start + span, dilation) if 0 <= t < len(row)]
        found.append(reduce(row[taps], axis=0) if taps else np.zeros(row.shape[1:]))
    return np.array(found).reshape(-1, *row.shape[1:])


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize(
    ("size", "strides", "dilation", "padding", "ceil"),
    [
        (3, 2, 1, (1, 1), False),
        (3, 2, 1, "valid", True),
        (2, 3, 1, 1, True),
        (3, 1, 2, "same", False),
        (2, 2, 3, "causal", False),
        (2, 2, 2, (2, 0), True),
    ],
)
def test_pools_are_those_of_the_row_alone(name, size, strides, dilation, padding, ceil):
    x = ragged(2)
    span = (size - 1) * dilation + 1
    if isinstance(padding, str):
        pads = torch_pads(padding, span)
    else:
        pads = (padding, padding) if isinstance(padding, int) else padding
    options = {"strides": strides, "dilation": dilation, "padding": padding, "ceil_mode": ceil}

    def run(x, mask):
        return getattr(jm.conv, name)(x, mask, size, **options)

    for moved in (False, True):
        for row, ours in enumerate(rows_of(run, x, moved=moved)):
            alone = x[row, : LENGTHS[row]].astype(np.float64)
            theirs = pooled(alone, POOLS[name], size, strides, dilation, pads, ceil)
            assert ours.shape == theirs.shape, (row, ours.shape, theirs.shape)
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    whole, mask = run(x[:1], None)
    assert mask is None
    np.testing.assert_allclose(whole[0], rows_of(run, x)[0], rtol=1e-6)


def test_pools_with_gaps_over_two_axes():
    x = ragged(6, 1)
    options = {"strides": (1, 2), "dilation": (2, 3), "padding": "same"}
    best, mean = (
        rows_of(lambda x, mask, f=f: f(x, mask, (2, 2), **options), x)
        for f in (jm.conv.max_pool2d, jm.conv.avg_pool2d)
    )
    for row, n in enumerate(LENGTHS):
        for t, f in itertools.product(range(n), range(2)):
            taps = [s for s in (t - 1, t + 1) if 0 <= s < n]
            seen = x[row][np.ix_(taps, [2 * f, 2 * f + 3])]
            expected = (seen.max(), seen.mean()) if taps else (0, 0)
            np.testing.assert_allclose(best[row][t, f, 0], expected[0], rtol=1e-6)
            np.testing.assert_allclose(mean[row][t, f, 0], expected[1], rtol=1e-5, atol=1e-6)


def spread_out(row, kernel, bias, strides, cut, further, dilation, groups):
    """Each step of the row alone, added where it reaches, in float64."""
    span = (len(kernel) - 1) * dilation + 1
    count = max((len(row) - 1) * strides + span - 2 * cut + further, 0) if len(row) else 0
    y = np.tile(bias.astype(np.float64), (count, 1))
    for t, k, g in itertools.product(range(len(row)), range(len(kernel)), range(groups)):
        o = t * strides + k * dilation - cut
        into = np.split(np.arange(row.shape[1]), groups)[g]
        out = np.split(np.arange(len(bias)), groups)[g]
        if 0 <= o < count:
            y[o, out] += row[t, into] @ kernel[k][:, out]
    return y


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("size", "strides", "cut", "further", "dilation", "groups"),
    [
        (3, 2, 1, 1, 1, 1),
        (3, 2, 1, 0, 1, 2),
        (2, 3, 0, 2, 1, 1),
        (3, 1, 2, 0, 2, 2),
        (4, 2, 5, 0, 1, 1),
    ],
)
def test_transposes_are_those_of_the_row_alone(size, strides, cut, further, dilation, groups):
    x, kernel, bias = ragged(4), draw(size, 4 // groups, 2), draw(2)
    options = {"strides": strides, "dilation": dilation, "groups": groups}

    def run(x, mask):
        given = {"padding": cut, "output_padding": further}
        return jm.conv.conv1d_transpose(x, mask, kernel, bias, **given, **options)

    for moved in (False, True):
        for row, ours in enumerate(rows_of(run, x, moved=moved)):
            theirs = spread_out(
                x[row, : LENGTHS[row]], kernel, bias, strides, cut, further, dilation, groups
            )
            assert ours.shape == theirs.shape, (row, ours.shape, theirs.shape)
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_new_convolutions_are_keras_on_the_row_alone(keras):  # noqa: F811
    x = ragged(6, 2)
    theirs = keras.layers.Conv2DTranspose(
        3, (3, 2), strides=(2, 3), padding="same", bias_initializer="normal"
    )
    theirs.build((None, None, 6, 2))
    kernel, bias = weights_of(theirs)
    y, mask = jm.conv.conv2d_transpose(x, MASK, kernel.swapaxes(2, 3), bias, strides=(2, 3))
    assert_rows_of_keras(theirs, x, y, mask)
    x = ragged(4)
    theirs = keras.layers.SeparableConv1D(
        5, 3, depth_multiplier=2, padding="same", bias_initializer="normal"
    )
    theirs.build((None, None, 4))
    depthwise, pointwise, bias = weights_of(theirs)
    y, mask = jm.conv.separable(x, MASK, depthwise, pointwise[0], bias)
    assert_rows_of_keras(theirs, x, y, mask)
    x = ragged(3, 4, 2)
    theirs = keras.layers.Conv3D(
        3, (2, 3, 2), strides=(1, 1, 2), padding="valid", bias_initializer="normal"
    )
    theirs.build((None, None, 3, 4, 2))
    y, mask = jm.conv.conv3d(
        *(x, MASK, *weights_of(theirs)), padding="valid", space_padding="valid", strides=(1, 1, 2)
    )
    assert_rows_of_keras(theirs, x, y, mask, shortest=2)


PACKED = np.array([[1, 1, 1, 1, 2, 3, 3, 3, 0, 0], [0, 1, 1, 0, 2, 2, 2, 2, 2, 0]], np.int32)
OF_PACKED_ROWS = {
    "wider than the row": lambda x, mask, kernel: jm.conv.conv1d(x, mask, kernel, padding=(4, 3)),
    "narrower": lambda x, mask, kernel: jm.conv.conv1d(
        x, mask, kernel, padding=(0, 1), dilation=2, strides=2
    ),
    "replicate": lambda x, mask, kernel: jm.conv.conv1d(
        x, mask, kernel, padding="full", padding_mode="replicate"
    ),
    "circular": lambda x, mask, kernel: jm.conv.conv1d(
        x, mask, kernel, strides=3, padding_mode="circular"
    ),
    "ceil": lambda x, mask, kernel: jm.conv.avg_pool1d(
        x, mask, 3, padding=(1, 0), strides=2, ceil_mode=True
    ),
    "cut": lambda x, mask, kernel: jm.conv.conv1d_transpose(x, mask, kernel, padding=2, strides=2),
    "constant": lambda x, mask, kernel: jm.audio.stft(
        x[..., 0], mask, 3, 2, fft_size=6, center="constant"
    ),
}


@pytest.mark.parametrize("name", OF_PACKED_ROWS)
def test_sequences_of_packed_rows_end_where_they_end(name):
    """As rows of their own; one row has two."""
    x, kernel = draw(2, 10, 4), draw(3, 4, 2)
    x[PACKED == 0] = np.nan

    @jax.jit
    def run(x, apart):
        segments = jm.Segments(PACKED, 3)
        return OF_PACKED_ROWS[name](x, segments, kernel), OF_PACKED_ROWS[name](*apart, kernel)

    alone = np.concatenate([number == PACKED for number in (1, 2, 3)])
    (y, segments), (expected, mask) = run(x, (np.concatenate([x] * 3), alone))
    assert not np.asarray(y)[np.asarray(segments.ids) == 0].any()
    for at, real in enumerate(np.asarray(mask)):
        found = np.asarray(y)[at % 2][np.asarray(segments.ids)[at % 2] == at // 2 + 1]
        np.testing.assert_allclose(found, np.asarray(expected)[at][real], rtol=1e-4, atol=1e-5)


def test_padding_that_cannot_be_is_refused():
    x, kernel = np.zeros((2, 5, 4), np.float32), np.ones((3, 4, 4), np.float32)
    conv, pool, back = jm.conv.conv1d, jm.conv.max_pool1d, jm.conv.conv1d_transpose
    with pytest.raises(ValueError, match="conv1d: `padding` must be one of 'same'"):
        conv(x, None, kernel, padding="some")
    with pytest.raises(ValueError, match="conv1d: `padding` must be one of 'same'"):
        conv(x, None, kernel, padding=None)
    with pytest.raises(ValueError, match="conv1d: `padding` must be at least 0"):
        conv(x, None, kernel, padding=-1)
    with pytest.raises(ValueError, match="conv1d: `padding_mode` must be one of 'zeros'"):
        conv(x, None, kernel, padding_mode="mirror")
    with pytest.raises(ValueError, match="max_pool1d: `ceil_mode` goes with"):
        pool(x, None, 2, padding="same", ceil_mode=True)
    with pytest.raises(ValueError, match="max_pool1d: padding in numbers must be below the span"):
        pool(x, None, 2, padding=2)
    with pytest.raises(ValueError, match="conv1d_transpose: `output_padding` goes with a number"):
        back(x, None, kernel, output_padding=1)
    with pytest.raises(ValueError, match="conv1d_transpose: `output_padding` must be below"):
        back(x, None, kernel, padding=1, output_padding=2)
    layer = jm.nn.Conv1D(4, 4, 3, padding="causal", padding_mode="circular", rngs=nnx.Rngs(0))
    with pytest.raises(jm.MaskError, match="steps of later chunks"):
        layer.initial_carry(2)
    with pytest.raises(TypeError, match="Conv3D: `strides` must be 3 ints"):
        jm.nn.Conv3D(1, 1, (1, 1, 1), strides=(1, 1), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="ConvTranspose1D: `output_padding` goes with"):
        jm.nn.ConvTranspose1D(1, 1, 2, output_padding=1, rngs=nnx.Rngs(0))


def test_symbolic_time_exports():
    batch, time = jax.export.symbolic_shape("batch, time", constraints=("time >= 3",))
    shapes = [jax.ShapeDtypeStruct((batch, time, 2), np.float32)]
    shapes += [jax.ShapeDtypeStruct((batch, time), bool)]

    def run(x, mask):
        x, mask = jm.conv.conv1d(x, mask, jnp.ones((3, 2, 2)), padding=1, padding_mode="reflect")
        x, mask = jm.conv.max_pool1d(x, mask, 2, dilation=2, padding="same", strides=1)
        x, mask = jm.conv.avg_pool1d(x, mask, 2, padding=1, ceil_mode=True)
        return jm.conv.conv1d_transpose(x, mask, jnp.ones((3, 2, 2)), padding=1, strides=2)

    exported = jax.export.export(jax.jit(run))(*shapes)
    x, mask = draw(3, 7, 2), np.arange(7) < np.array([[7], [3], [0]])
    for ours, theirs in zip(exported.call(x, mask), run(x, mask), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
