"""Normalisation against Flax, PyTorch and scikit-learn, on rows alone or on steps end to end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

import jaxmask as jm
from tests import rows as tools

X = np.random.default_rng(0).normal(2, 3, (4, 5, 6)).astype(np.float32)
MASK = tools.mask_of((5, 3, 1, 0), "holes")
POISONED = np.where(MASK[..., None], X, np.nan)
SCALE = np.linspace(0.5, 2, 6, dtype=np.float32)
BIAS = np.linspace(-1, 1, 6, dtype=np.float32)
STEPS = X[MASK]  # all real steps, end to end


def flax_layer(make):
    layer = make(rngs=nnx.Rngs(0))
    layer.scale[...] = SCALE
    if getattr(layer, "bias", None) is not None:
        layer.bias[...] = BIAS
    return layer


def assert_rows(y, expected_of_row, atol=2e-5):
    """Each row's real steps are what the oracle gives for that row alone."""
    for b in range(len(MASK)):
        if MASK[b].any():
            expected = np.asarray(expected_of_row(X[b][MASK[b]][None]))[0]
            np.testing.assert_allclose(y[b][MASK[b]], expected, atol=atol)
    assert not np.asarray(y)[~MASK].any()


FLAX = {
    "layer": (nnx.LayerNorm, lambda: jm.norm.layer(POISONED, MASK, SCALE, BIAS)),
    "rms": (nnx.RMSNorm, lambda: jm.norm.rms(POISONED, MASK, SCALE)),
    "group": (
        functools.partial(nnx.GroupNorm, num_groups=3),
        lambda: jm.norm.group(POISONED, MASK, 3, SCALE, BIAS),
    ),
    "instance": (nnx.InstanceNorm, lambda: jm.norm.instance(POISONED, MASK, SCALE, BIAS)),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", FLAX)
def test_agrees_with_flax_on_the_row_alone(name):
    make, ours = FLAX[name]
    layer = flax_layer(functools.partial(make, num_features=6, use_fast_variance=False))
    # A row of one step has variance 0 over time, where epsilon alone stands under the root.
    assert_rows(ours()[0], layer, atol=1e-3 if name == "instance" else 2e-5)


def test_agrees_with_torch_on_the_row_alone():
    torch = pytest.importorskip("torch")

    def of_row(function, row):
        """PyTorch has features before time."""
        return function(torch.tensor(row).swapaxes(1, 2)).swapaxes(1, 2).numpy()

    scale, bias = torch.tensor(SCALE), torch.tensor(BIAS)
    functional = torch.nn.functional
    group = functools.partial(
        of_row, lambda row: functional.group_norm(row, 3, scale, bias, eps=1e-6)
    )
    assert_rows(jm.norm.group(POISONED, MASK, 3, SCALE, BIAS)[0], group)
    assert_rows(
        jm.norm.layer(POISONED, MASK, SCALE, BIAS)[0],
        lambda row: functional.layer_norm(torch.tensor(row), (6,), scale, bias, eps=1e-6),
    )
    assert_rows(
        jm.norm.rms(POISONED, MASK, SCALE)[0],
        lambda row: functional.rms_norm(torch.tensor(row), (6,), scale, eps=1e-6),
    )


def test_groups_take_in_every_feature_axis():
    """Audio `[batch, time, frequency, channel]`: time, frequency and the group's channels."""
    x = np.random.default_rng(1).normal(size=(2, 4, 3, 6)).astype(np.float32)
    mask = np.array([[True, True, False, True], [True, False, False, False]])
    for ours, make in (
        (jm.norm.group(x, mask, 3), functools.partial(nnx.GroupNorm, 6, 3)),
        (jm.norm.instance(x, mask), functools.partial(nnx.InstanceNorm, 6)),
    ):
        layer = make(rngs=nnx.Rngs(0))
        for b in range(2):
            expected = layer(x[b][mask[b]][None])[0]
            np.testing.assert_allclose(ours[0][b][mask[b]], expected, atol=1e-4)


def test_standardize_agrees_with_scikit_learn():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    rows = [row[mask] for row, mask in zip(X, MASK, strict=True) if mask.sum() > 1]
    for options, keep in (({}, True), ({"variance": False}, False)):
        y, _ = jm.norm.standardize(POISONED, MASK, **options)
        ours = [row[mask] for row, mask in zip(y, MASK, strict=True) if mask.sum() > 1]
        for a, row in zip(ours, rows, strict=True):
            expected = preprocessing.StandardScaler(with_std=keep).fit_transform(row)
            np.testing.assert_allclose(a, expected, atol=1e-5)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["layer", "rms", "group", "instance", "standardize", "batch"])
def test_constant_rows_have_finite_gradients(name):
    """Variance 0, with and without epsilon, in values, gradients and second derivatives."""
    function = getattr(jm.norm, name)
    extra = (2,) if name == "group" else ()
    # Only zeros have a mean that never rounds, which epsilon 0 would blow up.
    for epsilon, constant in ((0.0, 0.0), (1e-6, 0.0 if name == "rms" else 3.0)):
        x = jnp.full_like(X, constant)

        def total(x, epsilon=epsilon):
            return jnp.sum(jnp.sin(1 + function(x, MASK, *extra, epsilon=epsilon)[0]))

        y, _ = function(x, MASK, *extra, epsilon=epsilon)
        np.testing.assert_allclose(y, 0, atol=1e-3)
        slope = jax.grad(total)(x)
        assert np.isfinite(np.asarray(slope)).all()
        assert np.isfinite(np.asarray(jax.grad(lambda x: jnp.sum(jax.grad(total)(x)))(x))).all()


def test_a_large_mean_does_not_cancel():
    """E[x^2] - E[x]^2 in float32 has no digit left here."""
    x = (X + 1e4).astype(np.float32)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(jm.norm.layer(x, None)[0], exact, atol=2e-3)
    assert np.abs(nnx.LayerNorm(6, rngs=nnx.Rngs(0))(x) - exact).max() > 0.1


def test_half_precision_is_computed_wide():
    """Squares of 300 overflow float16, and the variance of 2000 values loses bfloat16's digits."""
    x = np.full((1, 2, 2), 300, np.float16)
    x[..., 1] = -300
    y, _ = jm.norm.layer(x, None)
    assert y.dtype == jnp.float16
    assert y.tolist() == [[[1, -1], [1, -1]]]


# ----------------------------------------------------------------------------------- batch


def flax_batch(x, **options):
    layer = flax_layer(functools.partial(nnx.BatchNorm, 6, momentum=0.9, **options))
    return layer(x), layer


def test_batch_is_that_of_the_real_steps_end_to_end():
    expected, _ = flax_batch(STEPS)
    y, mask = jm.norm.batch(POISONED, MASK, None, SCALE, BIAS)
    np.testing.assert_allclose(y[MASK], expected, atol=1e-5)
    np.testing.assert_array_equal(mask, MASK)
    statistics = jm.norm.batch_statistics(POISONED, MASK)
    np.testing.assert_allclose(statistics.mean, STEPS.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, STEPS.var(0), rtol=1e-5)
    assert int(statistics.seen) == MASK.sum()


def test_batch_gradients_are_those_of_torch():
    torch = pytest.importorskip("torch")
    steps = torch.tensor(STEPS, requires_grad=True)
    y = torch.nn.functional.batch_norm(
        steps, None, None, torch.tensor(SCALE), torch.tensor(BIAS), training=True, eps=1e-5
    )
    torch.sum(torch.sin(y)).backward()
    ours = jax.grad(lambda x: jnp.sum(jnp.sin(jm.norm.batch(x, MASK, None, SCALE, BIAS)[0])))(
        POISONED
    )
    np.testing.assert_allclose(ours[MASK], steps.grad.numpy(), atol=1e-5)


def test_segments_and_row_masks_are_steps_to_batch_norm():
    ids = np.where(MASK, 1 + (np.cumsum(MASK, axis=1) - 1) // 3, 0)
    packed, segments = jm.norm.batch(POISONED, jm.Segments(ids, 2))
    np.testing.assert_array_equal(packed, jm.norm.batch(POISONED, MASK)[0])
    assert isinstance(segments, jm.Segments)
    rows = np.array([True, False, True, True])
    y, _ = jm.norm.batch(X[:, 0], rows)
    np.testing.assert_allclose(y[rows], nnx.BatchNorm(6, rngs=nnx.Rngs(0))(X[rows, 0]), atol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("devices", ["vmap", "shard_map"])
def test_batch_norm_over_devices_is_that_of_the_whole_batch(devices):
    """Sums and counts are added up: shards of unequal real steps, one of them empty."""
    whole = jax.value_and_grad(loss_over("batch", None), has_aux=True)
    (value, y), slope = whole(POISONED)
    if devices == "vmap":

        def run(x):
            mapped = jax.vmap(loss_over("batch", "shards"), axis_name="shards")
            values, y = mapped(x.reshape(2, 2, 5, 6), MASK.reshape(2, 2, 5))
            return values.sum(), y.reshape(4, 5, 6)
    else:
        mesh = Mesh(np.array(jax.devices()[:1]), ("shards",))
        spec = PartitionSpec("shards")

        def run(x):
            parts = jax.shard_map(
                lambda x, mask: loss_over("batch", "shards")(x, mask)[1],
                mesh=mesh,
                in_specs=(spec, spec),
                out_specs=spec,
            )
            y = parts(x, MASK)
            return jnp.sum(jnp.sin(y)), y

    (mapped_value, mapped_y), mapped_slope = jax.value_and_grad(run, has_aux=True)(POISONED)
    np.testing.assert_allclose(mapped_value, value, rtol=1e-5)
    np.testing.assert_allclose(mapped_y, y, atol=1e-5)
    np.testing.assert_allclose(mapped_slope, slope, atol=1e-5)


def loss_over(name, axis_name):
    def loss(x, mask=MASK):
        y, _ = getattr(jm.norm, name)(x, mask, axis_name=axis_name)
        return jnp.sum(jnp.sin(y)), y

    return loss


def test_running_averages_are_those_of_flax():
    _, flax = flax_batch(STEPS)
    layer = jm.nn.BatchNorm(6, momentum=0.9, rngs=nnx.Rngs(0))
    nnx.jit(lambda layer: layer(POISONED, MASK))(layer)
    np.testing.assert_allclose(layer.mean[...], flax.mean[...], rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], flax.var[...], rtol=1e-5)
    flax.eval()
    layer.eval()
    layer.scale[...], layer.bias[...] = SCALE, BIAS
    assert layer.per_step
    np.testing.assert_allclose(layer(POISONED, MASK)[0][MASK], flax(STEPS), atol=1e-5)


def test_running_averages_ignore_what_has_no_real_step():
    layer = jm.nn.BatchNorm(6, rngs=nnx.Rngs(0))
    layer(POISONED, np.zeros_like(MASK))
    assert layer.mean[...].tolist() == [0.0] * 6
    assert layer.var[...].tolist() == [1.0] * 6
    layer.compute_mask(POISONED, MASK)
    layer(POISONED, MASK, use_running_average=True)
    assert layer.mean[...].tolist() == [0.0] * 6


def test_gradients_do_not_flow_into_running_averages():
    def mean(x):
        layer = jm.nn.BatchNorm(6, rngs=nnx.Rngs(0))
        layer(x, MASK)
        return jnp.sum(layer.mean[...])

    assert not np.asarray(jax.grad(mean)(POISONED)).any()


# ---------------------------------------------------------------------------------- modules


def test_modules_have_the_parameters_that_are_asked_for():
    options = {"use_scale": False, "use_bias": False, "rngs": nnx.Rngs(0)}
    assert not jax.tree.leaves(nnx.state(jm.nn.LayerNorm(6, **options), nnx.Param))
    layer = jm.nn.GroupNorm(6, 3, dtype=jnp.bfloat16, param_dtype=jnp.float16, rngs=nnx.Rngs(0))
    assert layer.scale[...].dtype == jnp.float16
    assert layer(X, MASK)[0].dtype == jnp.bfloat16


def test_spectral_norm_is_that_of_flax():
    """Values and the iteration agree call by call; our layer keeps its own weights."""
    ours = jm.nn.SpectralNorm(nnx.Linear(6, 4, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    theirs = nnx.SpectralNorm(nnx.Linear(6, 4, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(2))
    kernel = np.asarray(ours.layer.kernel[...])
    (path,) = (path for path in theirs.batch_stats if path[-1] == "u")
    ours.u[0][...] = theirs.batch_stats[path][...][0]
    for _ in range(3):
        theirs.layer_instance.kernel[...] = kernel
        np.testing.assert_allclose(ours(POISONED, MASK)[0][MASK], theirs(STEPS), atol=1e-4)
    np.testing.assert_array_equal(ours.layer.kernel[...], kernel)
    for _ in range(50):
        ours(X, MASK)
    ours.eval()
    before = np.asarray(ours.u[0][...])
    y, _ = ours(np.eye(6, dtype=np.float32)[None], None)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(y[0]), 2), 1, rtol=1e-4)
    np.testing.assert_array_equal(ours.u[0][...], before)


def test_spectral_norm_lets_the_layer_keep_its_state():
    layer = jm.nn.SpectralNorm(jm.nn.BatchNorm(6, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    layer(POISONED, MASK)
    assert np.asarray(layer.layer.mean[...]).any()


def test_spectral_norm_streams_what_streams_and_no_other():
    rngs = nnx.Rngs(0)
    dense = jm.nn.SpectralNorm(nnx.Linear(6, 4, rngs=rngs), use_running_average=True, rngs=rngs)
    carry, (y, _) = dense.run(dense.initial_carry(2), X, MASK)
    assert carry == ()
    np.testing.assert_array_equal(y, dense(X, MASK)[0])
    pool = jm.nn.SpectralNorm(jm.nn.AttentionPool(6, rngs=rngs), rngs=rngs)
    with pytest.raises(jm.MaskError, match="not known to be causal"):
        pool.initial_carry(2)
    with pytest.raises(jm.MaskError, match="not known to be causal"):
        pool.run((), X, MASK)


LINEAR = nnx.Linear(6, 4, rngs=nnx.Rngs(0))
BAD = {
    "no features": (lambda: jm.norm.layer(X[..., 0], MASK), ValueError, "feature axis"),
    "integers": (lambda: jm.norm.rms(X.astype(int), MASK), TypeError, "floating"),
    "groups": (lambda: jm.norm.group(X, MASK, 4), ValueError, "num_groups"),
    "scale": (lambda: jm.norm.instance(X, MASK, SCALE[:5]), ValueError, "scale"),
    "bias": (lambda: jm.norm.batch(X, MASK, None, SCALE, BIAS[:5]), ValueError, "bias"),
    "statistics": (
        lambda: jm.norm.batch(X, MASK, jm.norm.BatchStatistics(SCALE[:5], SCALE, 1)),
        ValueError,
        "statistics.mean",
    ),
    "power iterations": (
        lambda: jm.nn.SpectralNorm(LINEAR, n_steps=0, rngs=nnx.Rngs(0)),
        ValueError,
        "`n_steps` must be at least 1",
    ),
    "complex scale": (
        lambda: jm.norm.layer(X, MASK, SCALE * 1j),
        TypeError,
        "`scale` must be float",
    ),
    "group module": (lambda: jm.nn.GroupNorm(6, 4, rngs=nnx.Rngs(0)), ValueError, "num_groups"),
    "module features": (
        lambda: jm.nn.LayerNorm(5, rngs=nnx.Rngs(0))(X, MASK),
        ValueError,
        "5 features",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()
