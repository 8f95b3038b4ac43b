"""Loss and gradients over micro-batches and devices are those of one batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxmask import losses

# Four micro-batches of two rows, of very different lengths; the last has no real step.
LENGTHS = np.array([[5, 4], [1, 0], [3, 5], [0, 0]])
MASK = np.arange(5) < LENGTHS[..., None]
DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(2, *MASK.shape)).astype(np.float32)
Y[~MASK] = np.nan
PARAMS = {"w": np.float32(0.3), "b": np.float32(-0.2)}


def loss(params, batch):
    x, mask, y = batch
    return losses.sum_and_count(*losses.squared_error(params["w"] * x + params["b"], mask, y))


def of_one_batch():
    """In float64, of the real steps alone."""
    x, y = X[MASK].astype(float), Y[MASK].astype(float)
    error = PARAMS["w"] * x + PARAMS["b"] - y
    return (error**2).mean(), {"w": (2 * error * x).mean(), "b": (2 * error).mean()}


def assert_right(found):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, of_one_batch())


def test_micro_batches_are_one_batch():
    found = jax.jit(lambda p, b: losses.accumulate(loss, p, b))(PARAMS, (X, MASK, Y))
    assert_right(found)
    # What optax.MultiSteps makes of the mean loss of each batch is something else.
    errors = (PARAMS["w"] * X + PARAMS["b"] - Y)[:3] ** 2
    means = [np.nanmean(of_a_batch) for of_a_batch in errors]
    assert abs(np.mean(means) - of_one_batch()[0]) > 0.01


@pytest.mark.parametrize("check_vma", [True, False])
def test_devices_of_a_mesh(check_vma):
    mesh = Mesh(np.array(jax.devices()[:2]), "data")  # two with XLA_FLAGS, else one
    spread = PartitionSpec(None, "data")
    run = jax.shard_map(
        lambda p, b: losses.accumulate(loss, p, b, axis_name="data"),
        mesh=mesh,
        in_specs=(PartitionSpec(), spread),
        out_specs=PartitionSpec(),
        check_vma=check_vma,
    )
    assert_right(jax.jit(run)(PARAMS, (X, MASK, Y)))


def test_devices_of_a_mapped_axis():
    rows = tuple(x.swapaxes(0, 1)[:, :, None] for x in (X, MASK, Y))  # a row of each to a device
    found = jax.vmap(
        lambda b: losses.accumulate(loss, PARAMS, b, axis_name="data"), axis_name="data"
    )(rows)
    for device in range(2):
        assert_right(jax.tree.map(lambda x: x[device], found))  # noqa: B023


def test_half_precision_is_added_up_in_float32_and_nothing_counted_is_zero():
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS)
    value, gradients = losses.accumulate(loss, params, (X, np.zeros_like(MASK), Y))
    assert value == 0
    assert gradients == {"w": 0, "b": 0}
    assert gradients["w"].dtype == jnp.bfloat16

    def ones(w, batch):
        return w * 1.0, jnp.float32(0) + batch

    batches = np.ones(1000, np.float32)
    _, gradient = losses.accumulate(ones, jnp.bfloat16(1), batches)
    assert gradient == 1  # bfloat16 counts to 256


def test_keys_of_noise_are_among_the_batches():
    def noisy(params, batch):
        *batch, key = batch
        return loss(params, (batch[0] + 0 * jax.random.normal(key), *batch[1:]))

    keys = jax.random.split(jax.random.key(0), len(X))
    assert_right(losses.accumulate(noisy, PARAMS, (X, MASK, Y, keys)))


def test_what_is_no_sum_and_count_is_refused():
    batches = (X, MASK, Y)
    with pytest.raises(TypeError, match=r"accumulate: `loss` must give a pair `\(total, count\)`"):
        losses.accumulate(lambda p, b: loss(p, b)[0], PARAMS, batches)
    with pytest.raises(ValueError, match="must be scalars, got shapes"):
        losses.accumulate(lambda p, b: losses.squared_error(p["w"] * b[0], *b[1:]), PARAMS, batches)
    with pytest.raises(ValueError, match="`batches` must hold at least one micro-batch"):
        losses.accumulate(loss, PARAMS, jax.tree.map(lambda x: x[:0], batches))
    with pytest.raises(ValueError, match="accumulate: all arrays of `batches` must have the same"):
        losses.accumulate(loss, PARAMS, (X, MASK[:2], Y))
