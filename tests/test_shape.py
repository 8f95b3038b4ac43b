"""What the laws do not say about shapes: which array comes out, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxmask as jm

X = np.arange(24.0).reshape(2, 4, 3)
MASK = np.array([[True, True, True, False], [True, False, False, False]])


def test_split_is_that_of_numpy():
    for cut in (2, [1, 3], [], [0, 4]):
        pairs = jm.shape.split(X, MASK, cut)
        arrays = np.split(np.where(MASK[..., None], X, 0), cut, axis=1)
        masks = np.split(MASK, cut, axis=1)
        for (x, mask), array, bits in zip(pairs, arrays, masks, strict=True):
            np.testing.assert_array_equal(x, array)
            np.testing.assert_array_equal(mask, bits)


def test_split_counts_from_the_first_real_step():
    x, mask = np.array([[9, 9, 1, 2, 3, 9]]), np.array([[False, False, True, False, True, False]])
    (head, first), (tail, second) = jm.shape.split(x, mask, [2])
    assert (head.tolist(), first.tolist()) == ([[1, 0]], [[True, False]])
    assert (tail.tolist(), second.tolist()) == ([[3, 0, 0, 0]], [[True, False, False, False]])


@pytest.mark.parametrize("cut", [3, 0, [3, 1], [5]])
def test_split_refuses_cuts_that_do_not_fit(cut):
    with pytest.raises(ValueError, match="split"):
        jm.shape.split(X, MASK, cut)


@pytest.mark.parametrize("sections", [np.int64(2), np.uint8(2), (np.int64(2),), np.array([2])])
def test_split_takes_the_numbers_of_numpy(sections):
    x, mask = X[:, :4], MASK[:, :4]
    for ours, theirs in zip(
        jm.shape.split(x, mask, sections), jm.shape.split(x, mask, 2), strict=True
    ):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_split_of_segments():
    segments = jm.Segments(np.array([[1, 1, 2, 0], [1, 2, 2, 2]]), 2)
    (_, first), (_, second) = jm.shape.split(X, segments, 2)
    assert first.ids.tolist() == [[1, 1], [1, 2]]
    assert second.ids.tolist() == [[2, 0], [2, 2]]


def test_concatenated_segments_stay_apart():
    one = jm.Segments(np.array([[1, 2, 0]]), 2)
    two = jm.Segments(np.array([[1, 0, 2]]), 3)
    x = np.ones((1, 3))
    _, joined = jm.shape.concatenate((x, one), (x, two))
    assert joined.ids.tolist() == [[1, 2, 0, 3, 0, 4]]
    assert joined.max_segments == 5
    with pytest.raises(jm.MaskError, match="must all be `Segments`"):
        jm.shape.concatenate((x, one), (x, None))


def test_renumbered_segments_outgrow_a_narrow_dtype():
    segments = jm.Segments(np.arange(1, 101, dtype=np.int8)[None], 100)
    _, joined = jm.shape.concatenate((np.ones((1, 100)), segments), (np.ones((1, 100)), segments))
    assert joined.ids.tolist() == [list(range(1, 201))]


def test_concatenate_without_any_mask_has_none():
    y, mask = jm.shape.concatenate((X, None), (X, None))
    assert y.shape == (2, 8, 3)
    assert mask is None


def test_crop_counts_real_steps():
    """A short row loses its own ends, as it would alone."""
    y, mask = jm.shape.crop(X[..., 0], MASK, (1, 1))
    assert y.tolist() == [[3.0, 0.0], [0.0, 0.0]]
    assert mask.tolist() == [[True, False], [False, False]]
    y, mask = jm.shape.crop(X, None, (1, 1))
    np.testing.assert_array_equal(y, X[:, 1:3])
    assert mask is None
    assert jm.shape.crop(X, MASK, (3, 3))[0].shape == (2, 0, 3)


def test_repeat_makes_steps_of_rows():
    y, mask = jm.shape.repeat(X[:, 0], np.array([True, False]), 3)
    np.testing.assert_array_equal(y[0], np.repeat(X[:1, 0], 3, axis=0))
    assert not np.asarray(y[1]).any()
    assert mask.tolist() == [[True] * 3, [False] * 3]
    with pytest.raises(jm.MaskError, match="row mask"):
        jm.shape.repeat(X, MASK, 3)


def test_permute_keeps_what_the_mask_has():
    rows = np.array([True, False])
    assert jm.shape.permute(X, rows, (0, 2, 1))[0].shape == (2, 3, 4)
    with pytest.raises(jm.MaskError, match="moves batch or time"):
        jm.shape.permute(X, MASK, (0, 2, 1))
    with pytest.raises(ValueError, match="order all"):
        jm.shape.permute(X, MASK, (0, 1))


def test_reshape_names_feature_axes_only():
    assert jm.shape.reshape(X, MASK, (-1, 1))[0].shape == (2, 4, 3, 1)
    for target in ((2, 4, 3), (-1, -1), (-1, 2)):
        with pytest.raises(ValueError, match="feature axes"):
            jm.shape.reshape(X, MASK, target)


BAD = {
    "factor": (lambda: jm.shape.upsample(X, MASK, 0), ValueError, "factor"),
    "factor type": (lambda: jm.shape.upsample(X, MASK, 1.5), TypeError, "factor"),
    "width": (lambda: jm.shape.pad(X, MASK, (-1, 0)), ValueError, "left"),
    "width pair": (lambda: jm.shape.crop(X, MASK, 1), TypeError, "pair"),
    "dtypes": (lambda: jm.shape.concatenate((X, MASK), (X.astype(int), MASK)), TypeError, "dtypes"),
    "shapes": (lambda: jm.shape.concatenate((X, MASK), (X[..., :2], MASK)), ValueError, "time"),
    "no pair": (lambda: jm.shape.concatenate(X, MASK), TypeError, "pair"),
    "nothing": (lambda: jm.shape.concatenate(), ValueError, "at least one"),
    "batch axis": (lambda: jm.shape.split(X, MASK, 2, axis=0), ValueError, "axis"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()


def test_upsampled_ids_stay_integers():
    y, _ = jm.shape.upsample(np.array([[1, 2]]), np.array([[True, False]]), 2)
    assert y.dtype == jnp.int32


def test_take_is_that_of_numpy_on_the_row_alone():
    holes = np.array([[False, True, True, True], [True, False, False, True]])
    indices = np.array([[2, 0, 0, -3], [1, -1, 2, -3]])
    poisoned = np.where(holes[..., None], X, np.nan)
    y, mask = jm.shape.take(poisoned, holes, indices)
    np.testing.assert_array_equal(y[0], X[0][holes[0]][indices[0]])
    np.testing.assert_array_equal(y[1, :2], X[1][holes[1]][indices[1, :2]])
    assert not np.asarray(y[1, 2:]).any()
    assert mask.tolist() == [[True] * 4, [True, True, False, False]]
    y, mask = jm.shape.take(X, None, np.array([[-1], [4]]))
    np.testing.assert_array_equal(y[0, 0], X[0, -1])
    assert mask.tolist() == [[True], [False]]


@pytest.mark.parametrize("cuts", [[1], [-1], [1, 2], [0, 3], [2, 1], [5, 9], [-9, 2]])
def test_split_at_is_that_of_numpy_on_the_row_alone(cuts):
    holes = np.array([[False, True, True, True], [True, False, False, True]])
    positions = np.array([cuts, cuts])
    pieces = jm.shape.split_at(np.where(holes[..., None], X, np.nan), holes, positions)
    for b in range(2):
        row = X[b][holes[b]]
        for (y, mask), piece in zip(pieces, np.split(row, cuts), strict=True):
            np.testing.assert_array_equal(mask[b], np.arange(4) < len(piece))
            np.testing.assert_array_equal(y[b, : len(piece)], piece)
            assert not np.asarray(y[b, len(piece) :]).any()


def test_every_row_is_cut_at_its_own_step():
    (first, _), (second, mask) = jm.shape.split_at(X[..., 0], MASK, np.array([2, 0]))
    assert first.tolist() == [[0, 3, 0, 0], [0, 0, 0, 0]]
    assert second.tolist() == [[6, 0, 0, 0], [12, 0, 0, 0]]
    assert mask.tolist() == [[True, False, False, False]] * 2


BAD_RANKS = {
    "floats": (lambda: jm.shape.take(X, MASK, np.ones((2, 1))), TypeError, "integers"),
    "batch": (lambda: jm.shape.take(X, MASK, np.ones((3, 1), int)), ValueError, "batch"),
    "rank": (lambda: jm.shape.take(X, MASK, np.ones(2, int)), ValueError, "batch"),
    "cuts": (lambda: jm.shape.split_at(X, MASK, np.ones((3,), int)), ValueError, "positions"),
}


@pytest.mark.parametrize("name", BAD_RANKS)
def test_bad_ranks_are_named(name):
    call, error, text = BAD_RANKS[name]
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_steps_are_repeated_as_numpy_repeats_them(dtype):
    draw = np.random.default_rng(0)
    x, counts = draw.integers(0, 9, (4, 6, 2)).astype(dtype), draw.integers(0, 4, (4, 6))
    mask = draw.random((4, 6)) < 0.6
    mask[3] = False
    y, real = jm.shape.repeat_each(x, mask, np.where(mask, counts, -7), 20)
    for row in range(4):
        expected = np.repeat(x[row, mask[row]], counts[row, mask[row]], axis=0)
        np.testing.assert_array_equal(np.asarray(y)[row, np.asarray(real)[row]], expected)
        assert not np.any(np.asarray(y)[row, len(expected) :])


def test_repeated_steps_export_for_any_size():
    rows, steps = export.symbolic_shape("rows, steps")
    kinds = ((rows, steps, 3), float), ((rows, steps), bool), ((rows, steps), int)
    of_any = export.export(jax.jit(lambda *a: jm.shape.repeat_each(*a, 7)))(
        *(jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(kind)) for shape, kind in kinds)
    )
    x, counts = X.astype(jax.dtypes.canonicalize_dtype(float)), np.array([[2, 0, 3, -9]] * 2)
    counts = counts.astype(jax.dtypes.canonicalize_dtype(int))
    expected = jm.shape.repeat_each(x, MASK, counts, 7)
    for a, b in zip(of_any.call(x, MASK, counts), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_repeated_steps_stay_in_their_sequence():
    segments = jm.Segments(np.array([[1, 1, 2, 0]], np.int32), 2)
    x = np.array([[5, 6, 7, 8]])
    y, new = jm.shape.repeat_each(x, segments, np.array([[2, 0, 3, 9]]), 6)
    assert y.tolist() == [[5, 5, 7, 7, 7, 0]]
    assert new.ids.tolist() == [[1, 1, 2, 2, 2, 0]]


def test_counts_that_do_not_fit_are_never_silent():
    x = jnp.ones((2, 2, 1))
    with pytest.raises(ValueError, match="row 1 needs 5 steps, more than `time`, 4"):
        jm.shape.repeat_each(x, None, np.array([[1, 1], [2, 3]]), 4)
    with pytest.raises(ValueError, match=r"`repeats\[0, 1\]` is -1"):
        jm.shape.repeat_each(x, None, np.array([[1, -1], [2, 2]]), 4)
    with pytest.raises(TypeError, match="`repeats` must be integers"):
        jm.shape.repeat_each(x, None, np.ones((2, 2)), 4)
    traced = jax.jit(lambda counts: jm.shape.repeat_each(x, None, counts, 4))
    y, mask = traced(np.array([[1, 1], [2, 3]]))
    assert y[0, :, 0].tolist() == [1, 1, 0, 0]
    assert np.isnan(y[1]).all()
    assert mask[1].all()
    assert np.isnan(traced(np.array([[1, -1], [2, 2]]))[0][0]).all()
