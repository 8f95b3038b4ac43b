"""Merging against Keras where masks agree, and by a plain count where they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm

DRAW = np.random.default_rng(0)
A, B, C = DRAW.normal(size=(3, 2, 4, 3)).astype(np.float32)
A_MASK = np.array([[True, True, True, False], [True, False, True, False]])
B_MASK = np.array([[True, False, True, False], [True, True, False, False]])
FOLDS = {
    "add": (sum, 0.0),
    "multiply": (np.prod, 1.0),
    "average": (np.mean, None),
    "maximum": (np.max, None),
    "minimum": (np.min, None),
}


def poisoned(x, mask):
    return np.where(mask[..., None], x, np.nan)


PAIRS = (poisoned(A, A_MASK), A_MASK), (poisoned(B, B_MASK), B_MASK), (C, None)


@pytest.mark.parametrize(
    "name", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"]
)
def test_agrees_with_keras_under_equal_masks(name):
    keras = pytest.importorskip("keras")
    arrays = (A, B) if name == "Subtract" else (A, B, C)
    layer = getattr(jm.nn, name)()
    y, mask = layer(*((poisoned(x, A_MASK), A_MASK) for x in arrays))
    expected = getattr(keras.layers, name)()(list(arrays))
    np.testing.assert_allclose(y[A_MASK], np.asarray(expected)[A_MASK], rtol=1e-6)
    np.testing.assert_array_equal(mask, A_MASK)
    assert not np.asarray(y)[~A_MASK].any()


@pytest.mark.parametrize("normalize", [False, True])
def test_dot_of_rows_agrees_with_keras(normalize):
    keras = pytest.importorskip("keras")
    y, _ = jm.nn.Dot(normalize=normalize)((A[:, 0], None), (B[:, 0], None))
    expected = keras.layers.Dot(axes=-1, normalize=normalize)([A[:, 0], B[:, 0]])
    np.testing.assert_allclose(y, expected, rtol=1e-5)


@pytest.mark.parametrize("rule", ["and", "or", "first"])
@pytest.mark.parametrize("name", FOLDS)
def test_every_step_is_merged_from_those_who_have_it(name, rule):
    """Step by step, the pairs that have it; `"or"` and `"first"` leave out who lacks it."""
    function = FOLDS[name][0]
    y, mask = getattr(jm.merge, name)(*PAIRS, combine=rule)
    real = np.stack([A_MASK, B_MASK, np.ones_like(A_MASK)])
    expected_mask = {"and": real.all(0), "or": real.any(0), "first": A_MASK}[rule]
    np.testing.assert_array_equal(mask, expected_mask)
    for b, t in np.ndindex(A_MASK.shape):
        have = [x[b, t] for x, bits in zip((A, B, C), real, strict=True) if bits[b, t]]
        expected = function(np.stack(have), **({} if function is sum else {"axis": 0}))
        np.testing.assert_allclose(y[b, t], expected * expected_mask[b, t], rtol=1e-5)


def test_gradients_reach_those_who_have_the_step_and_no_one_else():
    def total(a, b):
        return jnp.sum(jm.merge.maximum((a, A_MASK), (b, B_MASK), combine="or")[0])

    slopes = jax.grad(total, (0, 1))(PAIRS[0][0], PAIRS[1][0])
    both = A_MASK & B_MASK
    np.testing.assert_array_equal(slopes[0][A_MASK & ~B_MASK], 1)
    np.testing.assert_array_equal(slopes[1][B_MASK & ~A_MASK], 1)
    np.testing.assert_array_equal(slopes[0][both], (A > B)[both])
    assert not np.asarray(slopes[0])[~A_MASK].any()
    assert not np.asarray(slopes[1])[~B_MASK].any()


def test_the_largest_of_infinities_is_infinite():
    """No finite number is the identity of a maximum."""
    x = jnp.full((1, 1), -jnp.inf)
    y, _ = jm.merge.maximum((x, np.array([[True]])), (-x, np.array([[False]])), combine="or")
    assert y.tolist() == [[-np.inf]]


def test_dot_and_features_of_who_is_not_there_are_zero():
    y, _ = jm.merge.dot(*PAIRS[:2], combine="or")
    alone = A_MASK & ~B_MASK
    assert not np.asarray(y)[alone].any()
    y, mask = jm.merge.concatenate(*PAIRS[:2], combine="or")
    np.testing.assert_array_equal(y[alone][:, :3], A[alone])
    assert not np.asarray(y)[alone][:, 3:].any()
    np.testing.assert_array_equal(mask, A_MASK | B_MASK)


def test_the_cosine_of_nothing_is_zero_with_a_finite_gradient():
    zero = jnp.zeros((1, 1, 3))

    def cosine(x):
        return jnp.sum(jm.merge.dot((x, None), (zero + 1, None), normalize=True)[0])

    assert float(cosine(zero)) == 0
    assert np.isfinite(np.asarray(jax.grad(cosine)(zero))).all()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("and", [[1, 0, 2, 0, 0]]), ("or", [[1, 1, 2, 0, 3]]), ("first", [[1, 1, 2, 0, 0]])],
)
def test_segments_stay_where_they_name_the_same_sequence(rule, expected):
    one = jm.Segments(np.array([[1, 1, 2, 2, 0]]), 2)
    two = jm.Segments(np.array([[1, 0, 2, 3, 3]]), 3)
    x = np.ones((1, 5))
    y, segments = jm.merge.add((x, one), (x, two), combine=rule)
    assert segments.ids.tolist() == expected
    assert segments.max_segments == 3
    np.testing.assert_array_equal(np.asarray(y) > 0, np.array(expected) > 0)


def test_integers_stay_integers_and_average_as_floats():
    pair = (np.array([[1, 2]]), np.array([[True, True]]))
    assert jm.merge.add(pair, pair)[0].dtype == jnp.int32
    assert jm.merge.average(pair, pair)[0].dtype == jnp.float32


def test_residual_joins_a_stack_and_streams():
    model = jm.nn.Sequential(
        jm.nn.Residual(nnx.Linear(3, 3, rngs=nnx.Rngs(0))),
        jm.nn.Residual(jm.nn.LSTM(3, 3, rngs=nnx.Rngs(1))),
    )
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    x = poisoned(A, mask)
    linear = x + model.layers[0].layer(x)
    expected = linear[0, :3] + model.layers[1].layer(linear[:1, :3])[0][0]
    y, _ = model(x, mask)
    np.testing.assert_allclose(y[0, :3], expected, rtol=1e-5)
    carry, (first, _) = model.run(model.initial_carry(2), x[:, :2], mask[:, :2])
    _, (second, _) = model.run(carry, x[:, 2:], mask[:, 2:])
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), y, rtol=1e-5)
    with pytest.raises(jm.MaskError, match="Residual"):
        jm.nn.Residual(jnp.cumsum)(x, mask)


ROWS = np.array([True, False])
BAD = {
    "rule": (lambda: jm.merge.add(*PAIRS, combine="xor"), ValueError, "combine"),
    "shapes": (lambda: jm.merge.add((A, A_MASK), (B[..., :1], A_MASK)), ValueError, "broadcast"),
    "dtypes": (lambda: jm.merge.add((A, None), (B.astype(int), None)), TypeError, "dtypes"),
    "ranks": (lambda: jm.merge.add((A, A_MASK), (B, ROWS)), jm.MaskError, "rank"),
    "segments": (
        lambda: jm.merge.add((A, jm.Segments(A_MASK.astype(int), 1)), (B, None)),
        jm.MaskError,
        "must all be `Segments`",
    ),
    "three": (lambda: jm.merge.subtract(*PAIRS), ValueError, "two pairs"),
    "one": (lambda: jm.merge.dot(PAIRS[0]), ValueError, "two pairs"),
    "none": (lambda: jm.merge.multiply(), ValueError, "at least one"),
    "no pair": (lambda: jm.merge.add(A, A_MASK), TypeError, "pair"),
    "no features": (
        lambda: jm.merge.concatenate((A[..., 0], A_MASK), (B[..., 0], A_MASK)),
        ValueError,
        "feature axis",
    ),
    "features": (
        lambda: jm.merge.concatenate((A, A_MASK), (B[:, :2], A_MASK[:, :2])),
        ValueError,
        "last axis",
    ),
    "residual": (
        lambda: jm.nn.Residual(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))(A, A_MASK),
        ValueError,
        "shapes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()
