"""What the laws do not say about windows: other libraries on the row alone, and what is refused."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from jaxmask import _loops
from tests import optimised

LENGTHS = (9, 6, 4, 1, 0)
TIME = 9
MASK = np.arange(TIME) < np.array(LENGTHS)[:, None]
DRAW = np.random.default_rng(0)


def draw(*shape):
    return DRAW.normal(size=shape).astype(np.float32)


def ragged(*features):
    """Rows of every length with nan in their padding."""
    x = draw(len(LENGTHS), TIME, *features)
    x[~MASK] = np.nan
    return x


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def weight_of(shape):
    """What a result of a row is weighed by before it is added up."""
    return np.cos(np.arange(np.prod(shape, dtype=int))).reshape(shape).astype(np.float32)


def value_and_gradients(function, x, *weights):
    """`(rows of results, gradient in x, gradients in the weights)` of the padded batch."""

    def total(x, *weights):
        y, mask = function(x, MASK, *weights)
        sent = np.stack([weight_of(y.shape[1:])] * len(x))
        return jnp.sum(jm.ops.fill(y * sent, mask)[0]), (y, mask)

    run = jax.jit(jax.value_and_grad(total, argnums=range(1 + len(weights)), has_aux=True))
    (_, (y, mask)), gradients = run(x, *weights)
    return [np.asarray(y)[b, np.asarray(mask)[b]] for b in range(len(x))], *gradients


def assert_rows_of_torch(torch, function, theirs, x, *weights):
    """Each row, and the gradients, are what PyTorch gives for the row alone, unpadded."""
    rows, by_x, *by_weights = value_and_gradients(function, x, *weights)
    tensors = [torch.tensor(w, requires_grad=True) for w in weights]
    for row, length in enumerate(LENGTHS):
        alone = torch.tensor(x[row, :length], requires_grad=True)
        y = theirs(alone, *tensors)
        assert rows[row].shape == tuple(y.shape), (row, rows[row].shape, y.shape)
        np.testing.assert_allclose(rows[row], y.detach().numpy(), rtol=1e-4, atol=1e-5)
        if y.numel():
            (y * torch.tensor(weight_of(y.shape))).sum().backward()
            slope = alone.grad.numpy()
            np.testing.assert_allclose(by_x[row, :length], slope, rtol=1e-4, atol=1e-5)
        assert not np.asarray(by_x[row, length:]).any()
    for ours, tensor in zip(by_weights, tensors, strict=True):
        np.testing.assert_allclose(ours, tensor.grad.numpy(), rtol=1e-4, atol=1e-4)


def torch_pads(padding, span):
    """PyTorch knows one number for both ends; all five paddings are zeros put there by hand."""
    left = {"same": (span - 1) // 2, "causal": span - 1, "full": span - 1}.get(padding, 0)
    total = {"valid": 0, "full": 2 * (span - 1)}.get(padding, span - 1)
    return left, total - left


@pytest.mark.parametrize(
    ("padding", "strides", "dilation", "groups", "size"),
    [
        ("same", 1, 1, 1, 4),
        ("same", 2, 1, 1, 3),
        ("same", 3, 2, 2, 2),
        ("valid", 1, 2, 1, 3),
        ("valid", 2, 1, 2, 3),
        ("causal", 1, 2, 1, 3),
        ("causal", 2, 1, 1, 4),
        ("reverse_causal", 2, 1, 1, 4),
        ("full", 2, 2, 1, 3),
        ("same", 4, 1, 1, 1),
    ],
)
def test_conv1d_is_torch_on_the_row_alone(torch, padding, strides, dilation, groups, size):
    x, kernel, bias = ragged(4), draw(size, 4 // groups, 6), draw(6)
    span = (size - 1) * dilation + 1
    left, right = torch_pads(padding, span)

    def theirs(row, kernel, bias):
        if not len(row) or len(row) + left + right < span:
            return row.new_zeros((0, 6))
        padded = torch.nn.functional.pad(row.T[None], (left, right))
        weight = kernel.permute(2, 1, 0)
        options = {"stride": strides, "dilation": dilation, "groups": groups}
        return torch.nn.functional.conv1d(padded, weight, bias, **options)[0].T

    def ours(x, mask, kernel, bias):
        options = {"strides": strides, "dilation": dilation, "groups": groups}
        return jm.conv.conv1d(x, mask, kernel, bias, padding=padding, **options)

    assert_rows_of_torch(torch, ours, theirs, x, kernel, bias)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("strides", [1, 2, 3])
def test_transpose_is_torch_on_the_row_alone(torch, strides, size):
    def theirs(row, kernel, bias):
        if not len(row):
            return row.new_zeros((0, 2))
        options = {"stride": strides, "output_padding": max(strides - size, 0)}
        weight = kernel.permute(1, 2, 0)
        return torch.nn.functional.conv_transpose1d(row.T[None], weight, bias, **options)[0].T

    def ours(x, mask, kernel, bias):
        return jm.conv.conv1d_transpose(x, mask, kernel, bias, strides=strides, padding="valid")

    assert_rows_of_torch(torch, ours, theirs, ragged(4), draw(size, 4, 2), draw(2))


@pytest.mark.parametrize("strides", [1, 2])
def test_pools_are_torch_on_the_row_alone(torch, strides):
    def theirs(pool):
        def run(row):
            if not len(row):
                return row.new_zeros((0, 3))
            return pool(row.T[None])[0].T

        return run

    same = {"strides": strides, "padding": "same"}
    functional = torch.nn.functional
    assert_rows_of_torch(
        torch,
        lambda x, mask: jm.conv.max_pool1d(x, mask, 3, **same),
        theirs(lambda x: functional.max_pool1d(x, 3, strides, padding=1)),
        ragged(3),
    )
    assert_rows_of_torch(
        torch,
        lambda x, mask: jm.conv.min_pool1d(x, mask, 3, **same),
        theirs(lambda x: -functional.max_pool1d(-x, 3, strides, padding=1)),
        ragged(3),
    )
    assert_rows_of_torch(
        torch,
        lambda x, mask: jm.conv.avg_pool1d(x, mask, 3, **same),
        theirs(lambda x: functional.avg_pool1d(x, 3, strides, padding=1, count_include_pad=False)),
        ragged(3),
    )


def test_lp_pool_is_torch_on_the_row_alone(torch):
    def theirs(row):
        if len(row) < 2:
            return row.new_zeros((0, 3))
        return torch.nn.functional.lp_pool1d(row.T[None], 3.0, 2, 1)[0].T

    def ours(x, mask):
        return jm.conv.lp_pool1d(x, mask, 2, p=3, strides=1)

    assert_rows_of_torch(torch, ours, theirs, np.abs(ragged(3)))


# Where Keras takes the row alone at all: it refuses what is shorter than a `valid` window.
KERAS_CONV = [
    ("same", {}),
    ("same", {"dilation_rate": 2}),
    ("valid", {"strides": 2}),
    ("causal", {"strides": 2}),
    ("causal", {"groups": 2}),
]


@pytest.mark.parametrize(("padding", "options"), KERAS_CONV)
def test_conv1d_is_keras_on_the_row_alone(keras, padding, options):
    theirs = keras.layers.Conv1D(6, 3, padding=padding, bias_initializer="normal", **options)
    theirs.build((None, None, 4))
    renamed = {{"dilation_rate": "dilation"}.get(k, k): v for k, v in options.items()}
    x = ragged(4)
    y, mask = jm.conv.conv1d(x, MASK, *weights_of(theirs), padding=padding, **renamed)
    assert_rows_of_keras(theirs, x, y, mask, shortest=3 if padding == "valid" else 1)


def weights_of(layer):
    return [np.asarray(weight.value) for weight in layer.weights]


def assert_rows_of_keras(theirs, x, y, mask, shortest=1):
    for row, length in enumerate(LENGTHS):
        if length >= shortest:
            expected = np.asarray(theirs(x[row : row + 1, :length]))[0]
            ours = np.asarray(y)[row, np.asarray(mask)[row]]
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
        else:
            assert not np.asarray(mask)[row].any()


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_depthwise_is_keras_on_the_row_alone(keras, padding):
    options = {"depth_multiplier": 2, "bias_initializer": "normal"}
    theirs = keras.layers.DepthwiseConv1D(3, padding=padding, **options)
    x = ragged(4)
    theirs.build((None, None, 4))
    kernel, bias = weights_of(theirs)
    y, mask = jm.conv.depthwise(x, MASK, kernel, bias, padding=padding)
    assert_rows_of_keras(theirs, x, y, mask, shortest=3 if padding == "valid" else 1)


@pytest.mark.parametrize(
    ("padding", "size", "strides"),
    [("same", 4, 1), ("same", 2, 3), ("same", 3, 2), ("valid", 3, 2)],
)
def test_transpose_is_keras_on_the_row_alone(keras, padding, size, strides):
    theirs = keras.layers.Conv1DTranspose(
        2, size, strides=strides, padding=padding, bias_initializer="normal"
    )
    x = ragged(4)
    theirs.build((None, None, 4))
    kernel, bias = weights_of(theirs)
    kernel = np.swapaxes(kernel, 1, 2)
    y, mask = jm.conv.conv1d_transpose(x, MASK, kernel, bias, strides=strides, padding=padding)
    assert_rows_of_keras(theirs, x, y, mask)


def test_conv2d_and_pools_are_keras_on_the_row_alone(keras):
    x = ragged(6, 2)
    theirs = keras.layers.Conv2D(3, (3, 2), padding="same", bias_initializer="normal")
    theirs.build((None, None, 6, 2))
    y, mask = jm.conv.conv2d(x, MASK, *weights_of(theirs), frequency_padding="same")
    assert_rows_of_keras(theirs, x, y, mask)
    theirs = keras.layers.Conv2D(3, (3, 2), strides=(2, 1), bias_initializer="normal")
    theirs.build((None, None, 6, 2))
    y, mask = jm.conv.conv2d(
        *(x, MASK, *weights_of(theirs)),
        padding="valid",
        frequency_padding="valid",
        strides=(2, 1),
    )
    assert_rows_of_keras(theirs, x, y, mask, shortest=3)
    pools = {
        keras.layers.MaxPooling2D: jm.conv.max_pool2d,
        keras.layers.AveragePooling2D: jm.conv.avg_pool2d,
    }
    for theirs, ours in pools.items():
        y, mask = ours(x, MASK, (2, 3))
        assert_rows_of_keras(theirs((2, 3)), x, y, mask, shortest=2)
    y, mask = jm.conv.avg_pool2d(
        x, MASK, (3, 3), strides=(1, 1), padding="same", frequency_padding="same"
    )
    same = keras.layers.AveragePooling2D((3, 3), strides=1, padding="same")
    assert_rows_of_keras(same, x, y, mask)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("padding", ["same", "causal", "reverse_causal", "valid", "full"])
def test_every_amount_of_padding_gives_the_same_strided_result(padding):
    """XLA's SAME does not: its phase moves with the padded length."""
    row, kernel = draw(1, 5, 2), draw(4, 2, 3)
    alone, _ = jm.conv.conv1d(row, None, kernel, padding=padding, strides=3)
    for extra in range(1, 8):
        x = np.pad(row, ((0, 0), (0, extra), (0, 0)), constant_values=7)
        mask = np.arange(5 + extra)[None] < 5
        y, real = jm.conv.conv1d(x, mask, kernel, padding=padding, strides=3)
        np.testing.assert_allclose(y[0, np.asarray(real)[0]], alone[0], rtol=1e-5, atol=1e-6)


STRIDED = {
    "conv1d": lambda x, mask: jm.conv.conv1d(x, mask, np.cos(np.arange(18.0)).reshape(3, 2, 3)),
    "max_pool1d": lambda x, mask: jm.conv.max_pool1d(x, mask, 2),
    "lp_pool1d": lambda x, mask: jm.conv.lp_pool1d(x, mask, 3, strides=2, padding="full"),
    "avg_pool2d": lambda x, mask: jm.conv.avg_pool2d(x[..., None], mask, (3, 1), padding="same"),
    "downsample": lambda x, mask: jm.shape.downsample(x, mask, 3),
    "frames": lambda x, mask: jm.audio.frames(x, mask, 4, 3, padding="reverse_causal"),
    "stack": lambda x, mask: jm.conv.max_pool1d(*jm.conv.min_pool1d(x, mask, 2), 2),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize("known", [True, False])
def test_strides_count_from_the_first_real_step(name, known):
    """However much padding stands on the left, value and gradient are those of the row alone."""
    alone = draw(1, 7, 2)

    def total(x, mask):
        y, mask = STRIDED[name](x, mask)
        real = jnp.ones(y.shape[:2], bool) if mask is None else mask
        sent = jnp.cumsum(real, axis=1).reshape(*real.shape, *[1] * (y.ndim - 2))
        return jnp.sum(y**2 * sent), (y, real)

    (_, (expected, _)), slope = jax.value_and_grad(total, has_aux=True)(jnp.asarray(alone), None)
    x = np.full((6, 12, 2), np.nan, np.float32)
    mask = np.zeros((6, 12), bool)
    for row in range(6):
        x[row, row : row + 7] = alone[0]
        mask[row, row : row + 7] = True
    run = jax.value_and_grad(total, has_aux=True)
    (_, (y, real)), gradient = (run if known else jax.jit(run))(jnp.asarray(x), mask)
    for row in range(6):
        mine = np.asarray(y)[row, np.asarray(real)[row]]
        np.testing.assert_allclose(mine, expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient[row, mask[row]], slope[0], rtol=1e-5, atol=1e-5)
    assert not np.asarray(gradient)[~mask].any()


EXPORTED = {
    "conv1d": lambda x, mask: jm.conv.conv1d(x, mask, np.ones((3, 2, 4), np.float32), strides=2),
    "conv1d full": lambda x, mask: jm.conv.conv1d(
        x, mask, np.ones((3, 2, 4), np.float32), strides=2, padding="full", dilation=2
    ),
    "transpose": lambda x, mask: jm.conv.conv1d_transpose(
        x, mask, np.ones((3, 2, 4), np.float32), strides=2
    ),
    "max_pool1d": lambda x, mask: jm.conv.max_pool1d(x, mask, 2),
    "avg_pool1d": lambda x, mask: jm.conv.avg_pool1d(x, mask, 3, strides=2, padding="causal"),
    "downsample": lambda x, mask: jm.shape.downsample(x, mask, 2),
    "frames": lambda x, mask: jm.audio.frames(x, mask, 3, 2, padding="reverse_causal"),
    "crop": lambda x, mask: jm.shape.crop(x, mask, (1, 1)),
    "module": jm.nn.Conv1D(2, 4, 3, strides=2, rngs=nnx.Rngs(0)),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", EXPORTED)
def test_exports_with_a_symbolic_time(name):
    """One program serves batches and times of every size."""
    batch, time = jax.export.symbolic_shape("batch, time", constraints=("time >= 3",))
    shapes = [jax.ShapeDtypeStruct((batch, time, 2), np.float32)]
    shapes += [jax.ShapeDtypeStruct((batch, time), bool)]
    exported = jax.export.export(jax.jit(EXPORTED[name]))(*shapes)
    for length in (4, 7):
        x, mask = draw(3, length, 2), np.arange(length) >= np.array([[0], [1], [length]])
        ours, theirs = jax.jit(exported.call)(x, mask), EXPORTED[name](x, mask)
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ours[1], theirs[1])


EXTREMES = {
    "max_pool1d": lambda x, mask: jm.conv.max_pool1d(x, mask, 3, strides=1, padding="same"),
    "min_pool1d": lambda x, mask: jm.conv.min_pool1d(x, mask, 4, strides=2, padding="full"),
    "max_pool2d": lambda x, mask: jm.conv.max_pool2d(
        x.reshape(*mask.shape, 4, 4), mask, (2, 2), padding="reverse_causal"
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", EXTREMES)
def test_gradients_of_pools_after_a_norm(name):
    """The optimised program gives the parameters before a pool the gradients of float64."""

    def loss(params, x):
        x = x @ params["kernel"]
        x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
        y, real = EXTREMES[name](x * params["scale"], MASK)
        return jnp.sum(jm.ops.fill(jnp.tanh(y) ** 2, real)[0])

    gradient = optimised.jit(jax.vmap(jax.grad(loss), in_axes=(0, None)))
    x = np.where(MASK[..., None], draw(*MASK.shape, 16), 1e3)
    params = {"kernel": draw(8, 16, 16) / 4, "scale": draw(8, 16)}  # of eight seeds
    ours = gradient(params, x.astype(np.float32))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
        for seed in range(8):
            one = jax.tree.map(lambda p, seed=seed: p[seed], wide)
            theirs = jax.grad(loss)(one, jnp.asarray(x, jnp.float64))
            for key, value in theirs.items():
                atol = 1e-5 * float(jnp.abs(value).max())
                np.testing.assert_allclose(ours[key][seed], value, rtol=1e-4, atol=atol)


def test_of_steps_that_tie_the_first_gets_the_gradient():
    x = jnp.array([[[1.0], [3.0], [3.0], [3.0], [2.0]]])
    for mask in (None, np.array([[True, False, True, True, True]])):
        for function, sign in ((jm.conv.max_pool1d, 1), (jm.conv.min_pool1d, -1)):
            slope = jax.grad(lambda x, f=function, m=mask: f(x, m, 5, padding="same")[0].sum())
            first = 1 if mask is None else 2
            expected = np.arange(5) == first
            np.testing.assert_array_equal(slope(sign * x)[0, :, 0], expected)


WIDTHS = {
    "avg_pool1d": lambda x, mask: jm.conv.avg_pool1d(40 * jnp.abs(x), mask, 4),
    "avg_pool2d": lambda x, mask: jm.conv.avg_pool2d(40 * jnp.abs(x), mask, (2, 2)),
    "lp_pool1d": lambda x, mask: jm.conv.lp_pool1d(x, mask, 4, p=3, padding="causal"),
    "conv1d": lambda x, mask: jm.conv.conv1d(x, mask, x[0, :2, :, None] / 300, strides=2),
    "log_mel": lambda x, mask: jm.audio.log_mel(x[..., 0], mask, x[0, :3, :2] * 0 + 1, 4, 2),
    "stft": lambda x, mask: jm.audio.stft(x[..., 0], mask, 4, 2, padding="same"),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, np.float64])
def test_widths(name, dtype):
    """Half precision does not overflow on the way, and 64 bits are computed in 64 bits."""
    x = np.where(MASK[..., None], 300 * draw(*MASK.shape, 4), np.nan)
    with jax.enable_x64(True):
        x = jnp.asarray(x, dtype)
        y, _ = WIDTHS[name](x, MASK)
        wide, _ = WIDTHS[name](x.astype(jnp.float64), MASK)
        assert y.dtype == dtype or name == "stft"
        rtol = 4 * float(jnp.finfo(dtype).eps)
        atol = rtol * float(jnp.abs(wide).max())
        np.testing.assert_allclose(np.asarray(y, wide.dtype), wide, rtol=rtol, atol=atol)
        single, _ = WIDTHS[name](x.astype(jnp.float32), MASK)
        if dtype == np.float64:  # not what 32 bits give
            assert not np.array_equal(np.asarray(single, wide.dtype), wide)


def test_mask_rules():
    mask = np.array([[False, True, True, True, True, False]])
    x, kernel = np.ones((1, 6, 1), np.float32), np.ones((3, 1, 1), np.float32)
    expected = {
        ("same", "anchor"): [0, 1, 1, 1, 1, 0],
        ("same", "all"): [0, 0, 1, 1, 0, 0],
        ("causal", "all"): [0, 0, 0, 1, 1, 0],
        ("reverse_causal", "all"): [0, 1, 1, 0, 0, 0],
        ("valid", "all"): [0, 1, 1, 0],
        ("full", "any"): [0, 1, 1, 1, 1, 1, 1, 0],
        ("full", "anchor"): [0, 1, 1, 1, 1, 0, 0, 0],
        ("full", "all"): [0, 0, 0, 1, 1, 0, 0, 0],
    }
    for (padding, rule), bits in expected.items():
        _, real = jm.conv.conv1d(x, mask, kernel, padding=padding, mask_rule=rule)
        assert real.astype(int).tolist() == [bits], (padding, rule)


@pytest.mark.parametrize(
    ("padding", "rule"), [("valid", "any"), ("same", "any"), ("causal", "any"), ("valid", "anchor")]
)
def test_rules_that_depend_on_the_amount_of_padding_are_refused(padding, rule):
    with pytest.raises(ValueError, match="how much padding"):
        jm.conv.conv1d(
            np.ones((1, 3, 1)), None, np.ones((2, 1, 1)), padding=padding, mask_rule=rule
        )


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("padding", "strides"), [("same", 2), ("valid", 1), ("full", 1), ("full", 3)]
)
def test_segments_close_up(padding, strides):
    """Strides count from the first step of each sequence, wherever it lies in its row."""
    ids = np.array([[0, 1, 1, 1, 1, 2, 2, 2, 0, 0, 3]])
    x, kernel = draw(1, 11, 2), draw(3, 2, 4)
    y, segments = jm.conv.conv1d(x, jm.Segments(ids, 3), kernel, padding=padding, strides=strides)
    counts = []
    for number in (1, 2, 3):
        alone, _ = jm.conv.conv1d(
            x[:, ids[0] == number], None, kernel, padding=padding, strides=strides
        )
        mine = np.asarray(y)[0, np.asarray(segments.ids)[0] == number]
        np.testing.assert_allclose(mine, alone[0], rtol=1e-5, atol=1e-6)
        counts.append(len(mine))
    packed = [number for number, count in zip((1, 2, 3), counts, strict=True) for _ in range(count)]
    assert segments.ids[0, : sum(counts)].tolist() == packed
    assert not segments.ids[0, sum(counts) :].any()


@pytest.mark.parametrize("padding", ["causal", "same", "valid", "full"])
def test_a_hole_inside_a_packed_sequence_takes_nothing_from_the_others(padding):
    """As merging with "and" leaves it: the sequence is still one."""
    ids = np.array([[1, 0, 1, 2, 2, 0, 2, 2]])
    x, kernel = draw(1, 8, 2), draw(3, 2, 4)
    y, segments = jm.conv.conv1d(x, jm.Segments(ids, 2), kernel, padding=padding)
    for number, where in ((1, slice(0, 3)), (2, slice(3, 8))):
        real = ids[:, where] == number
        alone, mask = jm.conv.conv1d(x[:, where], real, kernel, padding=padding)
        mine = np.asarray(y)[np.asarray(segments.ids) == number]
        np.testing.assert_allclose(mine, np.asarray(alone)[mask], rtol=1e-5, atol=1e-6)


def test_a_batch_of_no_packed_row_stays_one():
    segments = jm.Segments(np.zeros((0, 3), np.int32), 2)
    y, mask = jm.conv.conv1d_transpose(
        np.ones((0, 3, 4), np.float32), segments, np.ones((3, 4, 6), np.float32), strides=2
    )
    assert y.shape == (0, 6, 6)
    assert mask.shape == (0, 6)


def test_infinite_real_steps_stay_what_they_are():
    """The finite stand-in for padding does not hide them."""
    x = np.array([[-np.inf, 5.0]], np.float32)
    mask = np.array([[True, False]])
    y, _ = jm.conv.max_pool1d(x, mask, 2, strides=1, padding="same")
    assert y.tolist() == [[-np.inf, 0.0]]
    y, _ = jm.conv.min_pool1d(-x, mask, 2, strides=1, padding="same")
    assert y.tolist() == [[np.inf, 0.0]]
    lowest = np.finfo(np.float32).min
    y, _ = jm.conv.max_pool1d(np.where(mask, lowest, x), mask, 2, strides=1, padding="same")
    assert y.tolist() == [[lowest, 0.0]]


def test_integers_are_pooled():
    x, mask = np.array([[3, 1, 2, 9]]), np.array([[True, True, True, False]])
    y, _ = jm.conv.max_pool1d(x, mask, 2, padding="reverse_causal")
    assert y.tolist() == [[3, 2]]
    y, _ = jm.conv.min_pool1d(x, mask, 2, padding="reverse_causal")
    assert y.tolist() == [[1, 2]]
    with pytest.raises(TypeError, match="floating"):
        jm.conv.avg_pool1d(x, mask, 2)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_lp_pool_of_zeros_has_finite_derivatives(p):
    @jax.jit
    def total(x):
        return jnp.sum(jm.conv.lp_pool1d(x, np.array([[True, True, False]]), 2, p=p)[0])

    x = jnp.zeros((1, 3))
    assert jax.grad(total)(x).tolist() == [[0, 0, 0]]
    assert jax.jacfwd(total)(x).tolist() == [[0, 0, 0]]
    for point in (x, x.at[0, 0].set(2)):
        assert jnp.isfinite(jax.jit(jax.hessian(total))(point)).all()


ONES, KERNEL = np.ones((2, 5, 4), np.float32), np.ones((3, 4, 6), np.float32)
REFUSED = {
    "window of 0": (lambda: jm.conv.conv1d(ONES, None, KERNEL[:0]), "at least 1"),
    "pool of 0": (lambda: jm.conv.max_pool1d(ONES, None, 0), "`window` must be at least 1"),
    "stride of 0": (lambda: jm.conv.conv1d(ONES, None, KERNEL, strides=0), "`strides`"),
    "dilation of 0": (lambda: jm.conv.conv1d(ONES, None, KERNEL, dilation=0), "`dilation`"),
    "factor of 0": (lambda: jm.shape.downsample(ONES, None, 0), "`factor`"),
    "groups": (lambda: jm.conv.conv1d(ONES, None, KERNEL[:, :1], groups=3), "`kernel`"),
    "groups out": (
        lambda: jm.conv.conv1d(ONES, None, np.ones((3, 1, 6), np.float32), groups=4),
        "`groups` must divide",
    ),
    "kernel features": (lambda: jm.conv.conv1d(ONES, None, KERNEL[:, :3]), "x has 4 features"),
    "kernel rank": (lambda: jm.conv.conv1d(ONES, None, KERNEL[0]), "rank 3"),
    "bias": (lambda: jm.conv.conv1d(ONES, None, KERNEL, np.ones(5, np.float32)), "`bias`"),
    "padding": (lambda: jm.conv.conv1d(ONES, None, KERNEL, padding="SAME"), "`padding`"),
    "padding of transpose": (
        lambda: jm.conv.conv1d_transpose(ONES, None, KERNEL, padding="full"),
        "`padding`",
    ),
    "rank": (lambda: jm.conv.conv1d(ONES[..., 0], None, KERNEL), "time, feature"),
    "p": (lambda: jm.conv.lp_pool1d(ONES, None, 2, p=0.5), "`p`"),
    "p of infinity": (lambda: jm.conv.lp_pool1d(ONES, None, 2, p=np.inf), "`max_pool1d`"),
    "p of nan": (lambda: jm.conv.lp_pool1d(ONES, None, 2, p=np.nan), "`p`"),
    "depthwise": (lambda: jm.conv.depthwise(ONES, None, KERNEL[:, :3]), "same feature"),
    "no pair of sizes": (
        lambda: jm.conv.max_pool2d(ONES, None, (2, 2, 2)),
        "`window` must be a pair",
    ),
    "module groups": (lambda: jm.nn.Conv1D(4, 6, 3, groups=4, rngs=nnx.Rngs(0)), "divide"),
    "mask over features": (
        lambda: jm.conv.conv1d(ONES, np.ones((2, 5, 4), bool), KERNEL),
        "not features",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, text = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=text):
        jax.eval_shape(call)


def test_dtypes():
    x = jnp.ones((1, 4, 2), jnp.bfloat16)
    assert jm.conv.conv1d(x, None, np.ones((3, 2, 5), np.float32))[0].dtype == jnp.bfloat16
    layer = jm.nn.Conv1D(2, 3, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert layer(x.astype(jnp.float32))[0].dtype == jnp.bfloat16
    assert layer.kernel[...].dtype == jnp.float32
    with pytest.raises(TypeError, match="floating"):
        jm.conv.conv1d(np.ones((1, 4, 2), int), None, np.ones((3, 2, 5), np.float32))


def test_module_options_reach_the_function():
    layer = jm.nn.Conv1D(
        *(4, 6, 3),
        padding="full",
        strides=2,
        dilation=2,
        groups=2,
        mask_rule="all",
        rngs=nnx.Rngs(0),
    )
    x = ragged(4)
    options = {"padding": "full", "strides": 2, "dilation": 2, "groups": 2, "mask_rule": "all"}
    expected = jm.conv.conv1d(x, MASK, layer.kernel[...], layer.bias[...], **options)
    for ours, theirs in zip(layer(x, MASK), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert jm.nn.Conv1D(4, 6, 3, use_bias=False, rngs=nnx.Rngs(0)).bias is None


STREAMS = {
    "Conv1D": lambda **o: jm.nn.Conv1D(3, 4, 3, **o, rngs=nnx.Rngs(0)),
    "DepthwiseConv1D": lambda **o: jm.nn.DepthwiseConv1D(3, 3, **o, rngs=nnx.Rngs(0)),
    "MaxPool1D": lambda **o: jm.nn.MaxPool1D(3, **{"strides": 1} | o),
    "AvgPool1D": lambda **o: jm.nn.AvgPool1D(3, **{"strides": 1} | o),
}


@pytest.mark.parametrize("name", STREAMS)
def test_layers_that_are_not_causal_refuse_to_run_in_chunks(name):
    for options in ({"padding": "same"}, {"padding": "causal", "strides": 2}):
        layer = STREAMS[name](**options)
        with pytest.raises(jm.MaskError, match=f'{name}.*padding="causal"'):
            layer.initial_carry(2)
        with pytest.raises(jm.MaskError, match=f'{name}.*padding="causal"'):
            layer.run((), np.ones((2, 3, 3), np.float32))


@pytest.mark.parametrize("name", STREAMS)
def test_chunks_of_any_size_are_one_call(name):
    layer = STREAMS[name](padding="causal")
    x = ragged(3)
    y, _ = layer(x, MASK)
    run = jax.jit(lambda carry, x, mask: layer.run(carry, x, mask))
    for size in (1, 2, 4):
        carry, pieces = layer.initial_carry(len(x)), []
        for start in range(0, TIME, size):
            chunk = slice(start, start + size)
            carry, (piece, mask) = run(carry, x[:, chunk], MASK[:, chunk])
            np.testing.assert_array_equal(mask, MASK[:, chunk])
            pieces.append(piece)
        np.testing.assert_allclose(np.concatenate(pieces, axis=1), y, rtol=1e-5, atol=1e-6)
        assert all(leaf.shape[1] == 2 for leaf in carry)


@pytest.mark.parametrize("name", ["Conv1D", "DepthwiseConv1D"])
def test_chunks_have_the_dtype_of_one_call(name):
    layer = STREAMS[name](padding="causal", dtype=jnp.bfloat16)
    x = ragged(3)
    _, (y, _) = layer.run(layer.initial_carry(len(x)), x, MASK)
    expected, _ = layer(x, MASK)
    assert y.dtype == expected.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, expected)


def test_integers_are_pooled_in_chunks_as_in_one_call():
    layer = jm.nn.MaxPool1D(2, strides=1, padding="causal")
    x = np.array([[2**24 + 1, 3, 2**24 + 3]], np.int32)  # float32 does not hold them
    carry, (y, _) = layer.run(layer.initial_carry(1), x[:, :1])
    _, (rest, _) = layer.run(carry, x[:, 1:])
    np.testing.assert_array_equal(np.concatenate([y, rest], axis=1), layer(x)[0])


def test_a_pool_with_known_features_scans_over_chunks():
    layer = jm.nn.MaxPool1D(3, strides=1, padding="causal", in_features=3)
    x = ragged(3)
    chunks = np.swapaxes(x.reshape(len(x), 3, 3, 3), 0, 1)
    bits = np.swapaxes(MASK.reshape(len(x), 3, 3), 0, 1)

    def step(carry, chunk):
        return layer.run(carry, *chunk)

    _, (y, _) = jax.lax.scan(step, layer.initial_carry(len(x)), (chunks, bits))
    expected, _ = layer(x, MASK)
    np.testing.assert_array_equal(np.swapaxes(y, 0, 1).reshape(x.shape), expected)


def test_a_stack_runs_in_chunks():
    rngs = nnx.Rngs(0)
    stack = jm.nn.Sequential(
        jm.nn.Conv1D(3, 4, 3, padding="causal", dilation=2, rngs=rngs),
        nnx.relu,
        jm.nn.AvgPool1D(2, padding="causal", strides=1),
        jm.nn.DepthwiseConv1D(4, 2, padding="causal", rngs=rngs),
    )
    x = ragged(3)
    run = jax.jit(lambda carry, x, mask: stack.run(carry, x, mask))
    carry, pieces = stack.initial_carry(len(x)), []
    for chunk in (slice(0, 4), slice(4, 5), slice(5, 9)):
        carry, (piece, _) = run(carry, x[:, chunk], MASK[:, chunk])
        pieces.append(piece)
    expected, _ = stack(x, MASK)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, rtol=1e-5, atol=1e-6)


def test_a_carry_of_another_layer_is_refused():
    layer = STREAMS["Conv1D"](padding="causal")
    other = jm.nn.Conv1D(3, 4, 5, padding="causal", rngs=nnx.Rngs(0)).initial_carry(3)
    with pytest.raises(ValueError, match="carry"):
        layer.run(other, np.ones((2, 3, 3), np.float32))
    with pytest.raises(jm.MaskError, match="Segments"):
        layer.run(layer.initial_carry(2), ONES[..., :3], jm.Segments(np.ones((2, 5), int), 1))


def test_downsampled_lengths_are_rounded_up():
    lengths = np.array(LENGTHS)
    for factor, extra in itertools.product((1, 2, 3), (0, 1, 2)):
        mask = np.arange(TIME + extra) < lengths[:, None]
        _, real = jm.shape.downsample(np.zeros(mask.shape), mask, factor)
        assert jm.masks.lengths(real).tolist() == (-(-lengths // factor)).tolist()


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        ((2, 9, 4), (3, 4, 6), {"window_strides": (2,), "padding": ((1, 1),)}),
        ((2, 9, 4), (3, 2, 6), {"rhs_dilation": (2,), "feature_group_count": 2}),
        ((2, 5, 4), (3, 4, 6), {"lhs_dilation": (2,), "padding": ((2, 3),)}),
        ((2, 6, 5, 3), (3, 2, 3, 4), {"window_strides": (1, 2), "padding": ((1, 1), (0, 1))}),
    ],
)
def test_gradients_inside_loops_are_those_outside(shape, kernel, options):
    """They come from convolutions in another order of axes."""
    spatial = "HW"[-(len(shape) - 2) :]
    names = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    defaults = {"window_strides": (1,) * len(spatial), "padding": ((0, 0),) * len(spatial)}
    options = {**defaults, **options, "dimension_numbers": names}
    x, w = (np.random.default_rng(i).normal(size=s) for i, s in enumerate((shape, kernel)))

    def pulled(x, w):
        y, pull = jax.vjp(lambda x, w: _loops.convolve(x, w, **options), x, w)
        return y, pull(jnp.cos(y))

    outside = jax.jit(pulled)(x, w)
    with _loops.inside_loop():
        program = jax.jit(lambda x, w: pulled(x, w)).lower(x, w)
    orders = set(re.findall(r"dim_numbers = (.*?), window", program.as_text()))
    assert len(orders) == 1, "all convolutions are in the fast order"
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        program.compile()(x, w),
        outside,
    )
