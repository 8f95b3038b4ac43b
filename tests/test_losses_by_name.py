"""Losses that optax lacks, against Keras, SciPy, scikit-learn and the whole batch on one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxmask import losses
from tests.losses import MASK, poisoned

DRAW = np.random.default_rng(0)
PREDICTIONS, TARGETS = DRAW.normal(size=(2, *MASK.shape)).astype(np.float32)
COUNTS = DRAW.integers(0, 6, MASK.shape)


def test_absolute_error_and_its_gradient_where_both_are_equal():
    y, pull = jax.vjp(lambda x: losses.absolute_error(x, MASK, TARGETS)[0], PREDICTIONS)
    np.testing.assert_array_equal(y[MASK], np.abs(PREDICTIONS - TARGETS)[MASK])
    same = jax.grad(lambda x: losses.absolute_error(x, MASK, x)[0].sum())(PREDICTIONS)
    assert not same.any()
    assert np.isfinite(pull(jnp.ones_like(y))[0]).all()


def test_quantile_loss_is_that_of_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    for quantile in (0.1, 0.5, 0.9):
        y = losses.quantile_loss(
            PREDICTIONS, MASK, poisoned(TARGETS, MASK, "nan"), quantile=quantile
        )
        theirs = sk.mean_pinball_loss(TARGETS[MASK], PREDICTIONS[MASK], alpha=quantile)
        np.testing.assert_allclose(losses.reduce(*y), theirs, rtol=1e-5)
    several = np.broadcast_to(np.array([0.1, 0.9], np.float32), (*MASK.shape, 2))
    wide = [np.broadcast_to(x[..., None], several.shape) for x in (PREDICTIONS, TARGETS)]
    y, _ = losses.quantile_loss(wide[0], MASK, wide[1], quantile=several)
    one, _ = losses.quantile_loss(PREDICTIONS, MASK, TARGETS, quantile=0.9)
    np.testing.assert_array_equal(y[..., 1], one)
    kink = jax.grad(lambda x: losses.quantile_loss(x, MASK, x, quantile=0.9)[0].sum())(PREDICTIONS)
    assert not kink.any()
    assert np.isnan(losses.quantile_loss(np.array([np.nan], np.float32), None, np.ones(1))[0][0])


def test_poisson_loss_is_the_negative_log_likelihood_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    y, _ = losses.poisson_nll_loss(PREDICTIONS, MASK, poisoned(COUNTS, MASK, "nan"), full=True)
    theirs = -stats.poisson.logpmf(COUNTS, np.exp(PREDICTIONS.astype(float)))
    np.testing.assert_allclose(y[MASK], theirs[MASK], rtol=1e-5)
    short, _ = losses.poisson_nll_loss(PREDICTIONS, MASK, COUNTS)
    gap = (np.asarray(y) - np.asarray(short))[MASK]
    np.testing.assert_allclose(
        gap, [float(jax.lax.lgamma(n + 1.0)) for n in COUNTS[MASK]], atol=1e-5
    )
    never = np.array([-np.inf, -np.inf], np.float32)
    costs, _ = losses.poisson_nll_loss(never, None, np.array([0, 1]))
    assert costs.tolist() == [0, np.inf]


# ------------------------------------------------------------------------- overlap of segments


def overlap_inputs():
    logits = DRAW.normal(size=(*MASK.shape, 3)).astype(np.float32)
    return logits, np.eye(3, dtype=np.float32)[DRAW.integers(0, 3, MASK.shape)]


@pytest.mark.parametrize("ignore", [False, True])
def test_tversky_and_weighted_dice_are_those_of_optax(ignore):
    logits, targets = overlap_inputs()
    options = {"class_weights": np.array([1.0, 0.0, 3.0], np.float32), "ignore_background": ignore}
    y, _ = losses.tversky_loss(logits, MASK, targets, alpha=0.2, beta=0.9, **options)
    dice, _ = losses.dice_loss(logits, MASK, targets, **options)
    for row, real in enumerate(MASK[:3]):
        one = logits[row][real][None], targets[row][real][None]
        theirs = optax.losses.dice_loss(*one, alpha=0.2, beta=0.9, **options)
        np.testing.assert_allclose(y[row], theirs[0], rtol=1e-5)
        np.testing.assert_allclose(dice[row], optax.losses.dice_loss(*one, **options)[0], rtol=1e-5)
    even, _ = losses.tversky_loss(logits, MASK, targets, alpha=0.5, beta=0.5)
    np.testing.assert_array_equal(even, losses.dice_loss(logits, MASK, targets)[0])
    with pytest.raises(ValueError, match=r"dice_loss: `class_weights` must be \[classes\] = "):
        losses.dice_loss(logits, MASK, targets, class_weights=np.ones(2, np.float32))


# ------------------------------------------------------------------------- pairs of a batch

ITEMS = np.array([1, 1, 0, 1, 1, 1, 0, 1], bool)
VECTORS, KEYS = DRAW.normal(size=(2, 8, 3)).astype(np.float32)
LABELS = np.array([0, 1, 0, 0, 1, 0, 0, 2])


def test_circle_loss_is_that_of_keras():
    keras = pytest.importorskip("keras")
    unit = VECTORS / np.linalg.norm(VECTORS, axis=-1, keepdims=True)
    y, mask = losses.circle_loss(poisoned(VECTORS, ITEMS, "nan"), ITEMS, LABELS, gamma=8.0)
    theirs = keras.losses.circle(LABELS[ITEMS], unit[ITEMS], gamma=8.0)
    np.testing.assert_array_equal(np.asarray(mask), ITEMS & (LABELS != 2))
    np.testing.assert_allclose(y[np.asarray(mask)], np.asarray(theirs)[:-1], rtol=1e-4)


def test_circle_loss_differentiates_scores_and_not_their_weights():
    """Slopes in float64, with the weights of the point itself."""
    x, labels = VECTORS[:3].astype(float), np.array([0, 0, 1])

    def cosines(x):
        unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
        return unit @ unit.T

    fixed = cosines(x)

    def of_the_first(x):
        s = cosines(x)
        near = -4 * (1.4 - fixed[0, 1]) * (s[0, 1] - 0.6)
        far = 4 * max(fixed[0, 2] + 0.4, 0) * (s[0, 2] - 0.4)
        return np.log1p(np.exp(near + far))

    found = jax.grad(lambda x: losses.circle_loss(x, None, labels, gamma=4.0)[0][0])(VECTORS[:3])
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place], down[place] = up[place] + 1e-5, down[place] - 1e-5
        slope = (of_the_first(up) - of_the_first(down)) / 2e-5
        np.testing.assert_allclose(found[place], slope, rtol=1e-3, atol=1e-5)


CONTRASTIVE = {
    "info_nce": lambda x, mask, k, labels, **o: losses.info_nce(x, mask, k, 0.5, **o),
    "ntxent": lambda x, mask, k, labels, **o: losses.ntxent(x, mask, labels, 0.5, **o),
    "circle_loss": lambda x, mask, k, labels, **o: losses.circle_loss(
        x, mask, labels, gamma=4.0, **o
    ),
}


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_negatives_come_from_all_devices(name):
    """Four mapped devices with two items each, and a mesh: values and gradients."""
    loss = CONTRASTIVE[name]

    def mean(axis_name, x, mask, keys, labels):
        y, real = loss(x, mask, keys, labels, axis_name=axis_name)
        total, count = losses.sum_and_count(y, real)
        if axis_name is not None:
            total, count = jax.lax.psum((total, count), axis_name)
        return total / count

    batch = (poisoned(VECTORS, ITEMS, "nan"), ITEMS, poisoned(KEYS, ITEMS, "nan"), LABELS)
    run = jax.value_and_grad(functools.partial(mean, None))
    expected, gradient = jax.jit(run)(*batch)

    def mapped(x):
        parts = (a.reshape(4, 2, *a.shape[1:]) for a in (x, *batch[1:]))
        return jax.vmap(functools.partial(mean, "i"), axis_name="i")(*parts)[0]

    found, of_mapped = jax.jit(jax.value_and_grad(mapped))(batch[0])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(of_mapped, gradient, rtol=1e-4, atol=1e-6)

    mesh = Mesh(np.array(jax.devices()[:2]), "i")  # two with XLA_FLAGS, else one
    spread = jax.shard_map(
        functools.partial(mean, "i"),
        mesh=mesh,
        in_specs=(PartitionSpec("i"),) * 4,
        out_specs=PartitionSpec(),
    )
    found, of_mesh = jax.jit(jax.value_and_grad(spread))(*batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(of_mesh, gradient, rtol=1e-4, atol=1e-6)
