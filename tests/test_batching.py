"""Ragged sequences to rectangles and back: against Keras, Python's slicing, and each bad input."""

import collections
import itertools
import json
import math
import re
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmask as jm

examples = settings(max_examples=60, deadline=None)
sides = st.sampled_from(["pre", "post"])
ragged_ints = st.lists(st.lists(st.integers(-5, 5), max_size=6), min_size=1, max_size=6)


@st.composite
def ragged_arrays(draw, min_rows=1):
    """Rows `[n, feature...]` of one dtype and of the same feature axes, some of them empty."""
    lengths = draw(st.lists(st.integers(0, 5), min_size=min_rows, max_size=6))
    features = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    dtype = draw(st.sampled_from([np.int32, np.float32, np.float64, np.bool_, np.complex64]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return [random.integers(-9, 9, (n, *features)).astype(dtype) for n in lengths]


def assert_rows_equal(rows, expected):
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert type(row) is np.ndarray
        assert row.dtype == other.dtype
        np.testing.assert_array_equal(row, other)


# ------------------------------------------------------------------------ against Keras


@examples
@given(ragged_ints, st.none() | st.integers(1, 8), sides, sides, st.integers(-3, 3))
def test_padding_agrees_with_keras(rows, maxlen, padding, truncating, value):
    keras = pytest.importorskip("keras")
    arguments = {"maxlen": maxlen, "padding": padding, "truncating": truncating}
    padded, mask = jm.pad_sequences(rows, dtype="int32", value=value, **arguments)
    np.testing.assert_array_equal(
        padded,
        keras.utils.pad_sequences(rows, dtype="int32", value=value, **arguments),
        strict=True,
    )
    # Keras has no mask, but rows of ones padded with 0 are one.
    ones = [[1] * len(row) for row in rows]
    expected = keras.utils.pad_sequences(ones, dtype="bool", value=0, **arguments)
    np.testing.assert_array_equal(mask, expected, strict=True)


@examples
@given(ragged_arrays(), st.none() | st.integers(1, 7), sides, sides)
def test_feature_axes_agree_with_keras(rows, maxlen, padding, truncating):
    keras = pytest.importorskip("keras")
    arguments = {"maxlen": maxlen, "padding": padding, "truncating": truncating}
    padded, _ = jm.pad_sequences(rows, **arguments)
    expected = keras.utils.pad_sequences(rows, dtype=rows[0].dtype, **arguments)
    if any(map(len, rows)):  # else Keras forgets the feature axes
        np.testing.assert_array_equal(padded, expected, strict=True)


TOKENS = [[711, 632, 71], [73, 8, 3215, 55, 927], [83, 91, 1, 645, 1253, 927]]


def test_padding_of_token_ids():
    padded, mask = jm.pad_sequences(TOKENS)
    assert padded.tolist() == [
        [711, 632, 71, 0, 0, 0],
        [73, 8, 3215, 55, 927, 0],
        [83, 91, 1, 645, 1253, 927],
    ]
    assert mask.tolist() == [[True] * 3 + [False] * 3, [True] * 5 + [False], [True] * 6]
    assert padded.dtype == np.int32
    padded, mask = jm.pad_sequences([[1, 2, 3], [4, 5], [1, 4, 8, 19]])
    assert padded.tolist() == [[1, 2, 3, 0], [4, 5, 0, 0], [1, 4, 8, 19]]
    assert padded.dtype == np.int32


def test_a_genuine_zero_is_a_real_step():
    padded, mask = jm.pad_sequences([[0, 5, 0], [0]])
    assert padded.tolist() == [[0, 5, 0], [0, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]


# ------------------------------------------------------------- empty, and of every source


@pytest.mark.parametrize(
    ("rows", "maxlen", "shape", "dtype"),
    [
        ([], None, (0, 0), np.float32),
        ([], 3, (0, 3), np.float32),
        ([[]], None, (1, 0), np.float32),
        ([[], []], 2, (2, 2), np.float32),
        ([[1, 2], []], 0, (2, 0), np.int32),
        ([[[1.0, 2.0]], []], 0, (2, 0, 2), np.float64),
        ([np.array([]), np.zeros((0, 3), np.int16)], None, (2, 0, 3), np.int16),
        ([np.zeros((0, 3), np.int16), []], None, (2, 0, 3), np.int16),
        ([np.zeros((0, 3)), np.zeros((0, 3))], 2, (2, 2, 3), np.float64),
        ([np.zeros((2, 0)), np.zeros((1, 0))], 1, (2, 1, 0), np.float64),
        (np.zeros((0, 4), np.int8), None, (0, 0), np.float32),
    ],
)
def test_nothing_to_pad(rows, maxlen, shape, dtype):
    padded, mask = jm.pad_sequences(rows, maxlen)
    assert (padded.shape, padded.dtype) == (shape, dtype)
    assert (mask.shape, mask.dtype) == (shape[:2], np.bool_)
    assert mask.sum() == sum(min(len(row), shape[1]) for row in rows)


def test_an_empty_row_has_no_say_in_the_type():
    padded, mask = jm.pad_sequences([np.array([]), np.array([7], np.int8), []])
    assert padded.dtype == np.int8
    assert padded.tolist() == [[0], [7], [0]]
    assert mask.tolist() == [[False], [True], [False]]


@pytest.mark.parametrize(
    "source",
    [
        lambda rows: (tuple(row) for row in rows),
        lambda rows: (iter(row) for row in rows),
        lambda rows: [np.array(row, np.int32) for row in rows],
        lambda rows: [jnp.array(row, np.int32) for row in rows],
        lambda rows: [collections.deque(row) for row in rows],
        lambda rows: [np.array(rows[0], np.int32), *rows[1:]],
        lambda rows: [rows[0], iter(rows[1]), jnp.array(rows[2], np.int32)],
        lambda rows: dict(enumerate(rows)).values(),
    ],
)
def test_every_kind_of_source(source):
    padded, mask = jm.pad_sequences(source(TOKENS))
    expected, expected_mask = jm.pad_sequences(TOKENS)
    np.testing.assert_array_equal(padded, expected, strict=True)
    np.testing.assert_array_equal(mask, expected_mask, strict=True)


def test_a_rectangle_is_taken_as_it_is():
    x = np.arange(12.0).reshape(2, 3, 2)
    for source in (x, jnp.asarray(x, jnp.float32), x.tolist()):
        padded, mask = jm.pad_sequences(source)
        np.testing.assert_array_equal(padded, x)
        assert mask.all()


def test_strings_as_objects():
    padded, mask = jm.pad_sequences([["a", "long word"], ["b"]], dtype=object, value="")
    assert padded.tolist() == [["a", "long word"], ["b", ""]]
    assert mask.tolist() == [[True, True], [True, False]]
    padded, _ = jm.pad_sequences([["a", 1], ["b"]], dtype=object, value=("any", "object"))
    assert padded.tolist() == [["a", 1], ["b", ("any", "object")]]
    rows = jm.unpad_sequences(padded, mask)
    assert [row.tolist() for row in rows] == [["a", 1], ["b"]]
    padded, mask = jm.pad_sequences([[("a", "b")], []], dtype=object, value="")
    assert padded.tolist() == [[["a", "b"]], [["", ""]]]
    assert [row.tolist() for row in jm.unpad_sequences(padded, mask)] == [[["a", "b"]], []]


# -------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        ([[1, -(2**31)]], np.int32),
        ([[2**31 - 1]], np.int32),
        ([[1], [2**31]], np.int64),
        ([[-(2**63)]], np.int64),
        ([[1.0]], np.float64),
        ([[1, 2], [0.5]], np.float64),
        ([[True]], np.bool_),
        ([[True], [2]], np.int32),
        ([[1j]], np.complex128),
        ([[np.float32(1)]], np.float32),
        ([np.array([1], np.int8), np.array([1], np.int16)], np.int16),
        ([np.array([1], np.int64)], np.int64),
        ([np.array([1], np.int32), np.array([0.5], np.float32)], np.float64),
        ([np.array([2**64 - 1], np.uint64)], np.uint64),
        ([np.array([1], jnp.bfloat16), []], jnp.bfloat16),
        ([jnp.array([1.0], jnp.bfloat16), np.array([0.5], np.float32)], np.float32),
    ],
)
def test_the_type_of_the_data(rows, dtype):
    padded, _ = jm.pad_sequences(rows)
    assert padded.dtype == dtype
    for row, given_row in zip(padded, rows, strict=True):
        assert row[: len(given_row)].tolist() == np.asarray(given_row).tolist()


@pytest.mark.parametrize(
    ("rows", "dtype", "expected"),
    [
        ([[1.0, -2.0]], np.int8, [[1, -2]]),
        ([[1, 0]], np.bool_, [[True, False]]),
        ([[True]], np.float32, [[1.0]]),
        ([[True]], np.int8, [[1]]),
        ([[float("inf")]], np.float32, [[float("inf")]]),
        ([[0.1]], np.float32, [[float(np.float32(0.1))]]),
        ([[2**63]], np.uint64, [[2**63]]),
        ([[2**64]], object, [[2**64]]),
        ([[1, 7]], jnp.int4, [[1, 7]]),
        ([jnp.array([1, -7], jnp.int4)], np.int32, [[1, -7]]),
        ([[256, 258]], jnp.bfloat16, [[256.0, 258.0]]),
        ([np.array([1], np.uint8), np.array([2.0])], np.int16, [[1], [2]]),
        ([[1], [2.5]], np.complex64, [[1], [2.5]]),
    ],
)
def test_the_type_asked_for(rows, dtype, expected):
    padded, _ = jm.pad_sequences(rows, dtype=dtype)
    assert padded.dtype == dtype
    assert padded.tolist() == expected


def held(values, dtype):
    """What comes back from padding, or None where it is refused."""
    try:
        padded, _ = jm.pad_ragged(values, np.array([0, len(values)]), dtype=dtype)
    except ValueError:
        return None
    return padded[0, 0].item()


powers = st.integers(0, 62).map(lambda exponent: 2**exponent)


@examples
@given(
    st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300) | powers,
    st.sampled_from(["int8", "uint8", "int32", "uint64", "float16", "float32", "float64", "bool"]),
)
def test_integers_are_held_exactly_or_refused(value, dtype):
    with np.errstate(over="ignore"):
        kept = np.array([value]).astype(dtype).tolist()[0]  # wraps, rounds or overflows
    assert held(np.array([value]), dtype) == (kept if kept == value else None)


@examples
@given(
    st.floats(width=32) | st.integers(-(2**33), 2**33).map(float) | st.just(2.0**63),
    st.sampled_from(["int8", "uint16", "int32", "int64"]),
)
def test_floats_become_integers_exactly_or_not_at_all(value, dtype):
    limits = np.iinfo(dtype)
    exact = value.is_integer() and limits.min <= int(value) <= limits.max
    for source in (np.float32, np.float64):
        if float(np.float32(value)) == value or source == np.float64:
            assert held(np.array([value], source), dtype) == (int(value) if exact else None)


@examples
@given(st.floats(allow_nan=False), st.sampled_from([("float32", "f"), ("float16", "e")]))
def test_floats_are_rounded_but_never_become_inf(value, narrow):
    dtype, code = narrow
    try:
        rounded = struct.unpack(code, struct.pack(code, value))[0]
    except OverflowError:
        rounded = np.inf
    rounded = None if np.isinf(rounded) and np.isfinite(value) else rounded
    assert held(np.array([value]), dtype) == rounded
    assert held(np.array([np.inf, value]), dtype) == (None if rounded is None else np.inf)


def test_nan_stays_nan():
    padded, _ = jm.pad_sequences([[np.nan, 1.0], [2.0]], dtype=np.float16, value=np.nan)
    np.testing.assert_array_equal(padded, [[np.nan, 1.0], [2.0, np.nan]])


# ---------------------------------------------------------------------- flat, and back


@examples
@given(ragged_arrays(min_rows=0), st.none() | st.integers(0, 7), sides, sides)
def test_flat_values_and_offsets_give_the_same(rows, maxlen, padding, truncating):
    rows = rows or [np.zeros((0, 2), np.int32)]
    values, offsets = np.concatenate(rows), np.cumsum([0, *map(len, rows)])
    expected, expected_mask = jm.pad_sequences(rows, maxlen, None, padding, truncating, 1)
    other_order = np.asfortranarray(values)
    for flat, bounds in ((values, offsets), (other_order, offsets.astype(np.uint32))):
        padded, mask = jm.pad_ragged(flat, bounds, maxlen, None, padding, truncating, 1)
        np.testing.assert_array_equal(padded, expected, strict=True)
        np.testing.assert_array_equal(mask, expected_mask, strict=True)


def test_flat_values_may_be_jax_arrays():
    padded, mask = jm.pad_ragged(jnp.arange(3), jnp.array([0, 1, 1, 3]))
    assert type(padded) is np.ndarray
    assert padded.tolist() == [[0, 0], [0, 0], [1, 2]]
    assert mask.tolist() == [[True, False], [False, False], [True, True]]


@examples
@given(ragged_arrays(min_rows=0), st.integers(0, 3), sides)
def test_unpadding_is_the_inverse(rows, spare, padding):
    longest = max(map(len, rows), default=0)
    padded, mask = jm.pad_sequences(rows, longest + spare, padding=padding, value=1)
    assert_rows_equal(jm.unpad_sequences(padded, mask), rows)


@examples
@given(ragged_arrays(), st.integers(0, 99))
def test_unpadding_closes_holes(rows, seed):
    padded, _ = jm.pad_sequences(rows, 4)
    mask = np.random.default_rng(seed).random((len(rows), 4)) < 0.5
    expected = [row[real] for row, real in zip(padded, mask, strict=True)]
    assert_rows_equal(jm.unpad_sequences(padded, mask), expected)
    assert_rows_equal(jm.unpad_sequences(padded.copy(order="F"), mask), expected)
    assert_rows_equal(jm.unpad_sequences(padded, None), list(padded))
    if padded.dtype.itemsize < 8:  # JAX has no other without `jax_enable_x64`
        assert_rows_equal(jm.unpad_sequences(jnp.asarray(padded), jnp.asarray(mask)), expected)


def test_unpadded_rows_are_no_views_of_the_input():
    padded = np.ones((2, 2))
    for mask in (None, np.ones((2, 2), bool)):
        jm.unpad_sequences(padded, mask)[0][:] = 7
    assert (padded == 1).all()


def test_arrays_of_numpy_stay_on_the_host():
    # A device would make them 32 bits wide.
    values = np.array([2**40, 1])
    with jax.transfer_guard("disallow"):
        padded, mask = jm.pad_ragged(values, np.array([0, 2]))
        (row,) = jm.unpad_sequences(padded, mask)
        ((x, _, _),) = jm.bucket_batches([values], 1)
    assert row.tolist() == values.tolist() == x[0].tolist()
    assert row.dtype == x.dtype == np.int64


# ------------------------------------------------------------------------------- buckets


@examples
@given(
    ragged_ints,
    st.integers(1, 4),
    st.integers(1, 3),
    st.none() | st.integers(0, 3),
    st.sampled_from([None, (2, 6), (1, 4, 5, 9)]),
)
def test_buckets_hold_every_sequence_once(rows, batch_size, max_shapes, seed, boundaries):
    batches = jm.bucket_batches(
        rows, batch_size, boundaries=boundaries, max_shapes=max_shapes, shuffle_seed=seed, value=9
    )
    seen, shapes = [], set()
    for x, mask, indices in batches:
        shapes.add(x.shape)
        assert x.shape == mask.shape == (batch_size, x.shape[1])
        assert indices.shape == (batch_size,)
        assert indices.dtype == np.int32
        for steps, real, index in zip(x, mask, indices, strict=True):
            expected = rows[index] if index >= 0 else []
            padding = x.shape[1] - len(expected)
            assert steps.tolist() == expected + [9] * padding
            assert real.tolist() == [True] * len(expected) + [False] * padding
        seen += [index for index in indices.tolist() if index >= 0]
    assert sorted(seen) == list(range(len(rows)))
    assert len(shapes) <= len(batches.boundaries) <= (len(boundaries or ()) or max_shapes)
    assert len(list(batches)) == len(batches)


def test_a_sequence_goes_into_the_smallest_bucket_that_holds_it():
    rows = [[k] * k for k in (5, 2, 0, 3, 1, 2)]
    batches = list(jm.bucket_batches(rows, 2, boundaries=[2, 3, 7]))
    assert [indices.tolist() for _, _, indices in batches] == [[2, 4], [1, 5], [3, -1], [0, -1]]
    assert [x.shape[1] for x, _, _ in batches] == [2, 2, 3, 7]


def test_buckets_keep_feature_axes_and_one_dtype():
    rows = [np.ones((n, 2, 3), dtype) for n, dtype in ((1, np.int8), (4, np.int16))]
    for x, _, _ in jm.bucket_batches(rows, 1):
        assert x.shape[2:] == (2, 3)
        assert x.dtype == np.int16


def order(batches):
    return [indices.tolist() for _, _, indices in batches]


def test_shuffling_is_reproducible_and_differs_by_epoch_and_seed():
    rows = [[1] * (k % 7) for k in range(60)]
    batches = jm.bucket_batches(rows, 4, shuffle_seed=3)
    assert order(batches) == order(batches) == order(batches.epoch(0))
    assert order(batches.epoch(5)) == order(jm.bucket_batches(rows, 4, shuffle_seed=3).epoch(5))
    unshuffled = jm.bucket_batches(rows, 4)
    assert order(unshuffled) == order(unshuffled.epoch(1))
    other_seed = jm.bucket_batches(rows, 4, shuffle_seed=4)
    orders = [order(unshuffled), order(batches), order(batches.epoch(1)), order(other_seed)]
    for one, other in itertools.combinations(orders, 2):
        assert one != other
        # Both the batches are in another order and the rows in other batches.
        assert sorted(map(sorted, one)) != sorted(map(sorted, other))
    lengths = [mask.shape[1] for _, mask, _ in batches]
    assert lengths != sorted(lengths)


def test_dropping_the_remainder_leaves_full_batches_only():
    rows = [[1]] * 5 + [[1, 1]] * 3
    batches = jm.bucket_batches(rows, 2, boundaries=[1, 2], drop_remainder=True, shuffle_seed=0)
    left_out = set()
    for epoch in range(8):
        indices = np.concatenate([indices for _, _, indices in batches.epoch(epoch)])
        assert len(indices) == 6 == 2 * len(batches)
        assert (indices >= 0).all()
        left_out |= set(range(8)) - set(indices.tolist())
    assert len(left_out) > 2  # others in each epoch


@examples
@given(st.lists(st.integers(0, 7), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 4))
def test_the_default_boundaries_give_the_fewest_steps(lengths, batch_size, max_shapes):
    def steps(boundaries):
        total, lower = 0, -1
        for upper in boundaries:
            rows = sum(lower < length <= upper for length in lengths)
            total += -(-rows // batch_size) * batch_size * upper
            lower = upper
        return total

    top = max(1, *lengths)
    choices = [
        (*rest, top)
        for count in range(min(max_shapes, top))
        for rest in itertools.combinations(range(1, top), count)
    ]
    chosen = jm.bucket_batches([[0] * n for n in lengths], batch_size, max_shapes=max_shapes)
    assert chosen.boundaries in choices
    assert steps(chosen.boundaries) == min(map(steps, choices))
    assert steps(chosen.boundaries) == sum(x.size for x, _, _ in chosen)


def test_many_different_lengths_are_thinned_to_candidates():
    # Evenly spread lengths are cut best into even parts; thinned candidates only come near.
    for count in (500, 2000):  # of different lengths; at most 512 are candidates
        sequences = [np.zeros(n, bool) for n in range(1, count + 1)]
        chosen = jm.bucket_batches(sequences, 1, max_shapes=4).boundaries
        even = np.arange(1, 5) * count / 4
        np.testing.assert_allclose(chosen, even, atol=0 if count == 500 else 4)
        assert chosen[-1] == count
    assert chosen != tuple(even)


def test_batches_by_tokens():
    rows = [[k] * (1 + k % 6) for k in range(100)]
    batches = jm.bucket_batches(rows, tokens=24, boundaries=[2, 4, 6])
    assert batches.shapes == ((12, 2), (6, 4), (4, 6))
    assert {x.shape for x, _, _ in batches} == set(batches.shapes)
    seen = np.concatenate([indices for _, _, indices in batches])
    assert sorted(seen[seen >= 0]) == list(range(100))
    assert len(list(batches)) == len(batches)


@examples
@given(ragged_ints, st.integers(6, 30), st.integers(1, 3), st.none() | st.integers(0, 9))
def test_shapes_are_promised_and_few(rows, tokens, max_shapes, seed):
    for size in ({"tokens": tokens}, {"batch_size": 3}):
        batches = jm.bucket_batches(rows, **size, max_shapes=max_shapes, shuffle_seed=seed)
        shapes = {x.shape for epoch in range(3) for x, _, _ in batches.epoch(epoch)}
        assert shapes <= set(batches.shapes)
        assert len(batches.shapes) <= max_shapes
        assert all(math.prod(shape) <= tokens for shape in shapes) or "batch_size" in size


def test_a_jitted_step_compiles_once_for_each_promised_shape():
    draw = np.random.default_rng(0)
    batches = jm.bucket_batches(
        [np.ones(n) for n in draw.integers(1, 99, 300)], tokens=400, max_shapes=4, shuffle_seed=0
    )
    traced = []

    @jax.jit
    def step(x, mask):
        traced.append(x.shape)
        return jm.pool.mean(x, mask)[0]

    stream = batches.endless()
    for _ in range(3 * len(batches)):
        x, mask, _ = next(stream)
        step(x, mask)
    assert len(traced) == len(batches.shapes) <= 4


def test_processes_share_each_batch():
    rows = [[k] * (1 + k % 7) for k in range(60)]
    options = {"boundaries": [3, 7], "shuffle_seed": 1}
    for size in ({"batch_size": 6}, {"tokens": 50}):
        whole = jm.bucket_batches(rows, **size, **options)
        parts = [jm.bucket_batches(rows, **size, **options, shard=(p, 3)) for p in range(3)]
        if "tokens" in size:
            assert [part.shapes for part in parts] == [((5, 3), (2, 7))] * 3
        else:
            assert len(parts[0]) == len(whole)
            for batch, *shares in zip(whole, *parts, strict=True):
                for field, joined in zip(batch, zip(*shares, strict=True), strict=True):
                    np.testing.assert_array_equal(field, np.concatenate(joined))
        seen = np.concatenate([indices for part in parts for _, _, indices in part])
        assert sorted(seen[seen >= 0]) == list(range(60))
        shapes = [[x.shape for x, _, _ in part] for part in parts]
        assert shapes[0] == shapes[1] == shapes[2]


def test_batches_resume_exactly_in_any_epoch():
    rows = [[k] * (1 + k % 5) for k in range(40)]

    def make(seed=2):
        return jm.bucket_batches(rows, 3, shuffle_seed=seed).endless()

    stream = make()
    for _ in range(40):
        state = json.loads(json.dumps(stream.get_state()))
        other = make()
        other.set_state(state)
        for one, two in zip(next(stream), next(other), strict=True):
            np.testing.assert_array_equal(one, two, strict=True)
    with pytest.raises(ValueError, match=said("set_state: the state is of other batches")):
        make(seed=3).set_state(state)
    with pytest.raises(ValueError, match=said("set_state: the state is of other batches")):
        jm.bucket_batches(rows[1:], 3, shuffle_seed=2).endless().set_state(state)
    other_shapes = jm.bucket_batches(rows, 3, boundaries=[1, 2, 3, 4, 9], shuffle_seed=2)
    assert len(other_shapes) == state["batches"]
    with pytest.raises(ValueError, match=said("set_state: the state is of other batches")):
        other_shapes.endless().set_state(state)
    for bad in (None, {}, {"epoch": 0}):
        with pytest.raises(ValueError, match=said("set_state: `state` must be what `get_state()`")):
            make().set_state(bad)


def test_batches_by_their_number():
    batches = jm.bucket_batches([[k] * (1 + k % 5) for k in range(20)], 3, shuffle_seed=2)
    numbers = [batches[k][2].tolist() for k in range(2 * len(batches))]
    endless = batches.endless()
    assert numbers == [next(endless)[2].tolist() for _ in numbers]
    assert numbers == order(batches) + order(batches.epoch(1))
    with pytest.raises(IndexError, match="no batch"):
        jm.bucket_batches([], 3)[0]


def test_endless_batches_of_nothing_end():
    assert list(jm.bucket_batches([], 4).endless()) == []


# ------------------------------------------------------------- flat rows, Arrow's and others'


@examples
@given(ragged_arrays(), st.none() | st.integers(0, 7), sides, sides)
def test_ragged_stands_for_sequences(rows, maxlen, padding, truncating):
    flat = jm.Ragged(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))
    arguments = (maxlen, None, padding, truncating)
    found, expected = jm.pad_sequences(flat, *arguments), jm.pad_sequences(rows, *arguments)
    for one, other in zip(found, expected, strict=True):
        if any(map(len, rows)) or one.ndim == 2:
            np.testing.assert_array_equal(one, other, strict=True)
    for one, other in zip(jm.bucket_batches(flat, 2), jm.bucket_batches(rows, 2), strict=True):
        np.testing.assert_array_equal(one[0], other[0], strict=True)


def test_long_rows_are_padded_alike():
    """They are copied one by one, short ones all at once."""
    keras = pytest.importorskip("keras")
    draw = np.random.default_rng(0)
    rows = [draw.integers(-9, 9, n).astype(np.int32) for n in (900, 0, 300, 512)]
    flat, bounds = np.concatenate(rows), np.cumsum([0, *map(len, rows)])
    for padding, truncating in itertools.product(("pre", "post"), repeat=2):
        for maxlen in (None, 400, 1000):
            arguments = {"maxlen": maxlen, "padding": padding, "truncating": truncating}
            expected = keras.utils.pad_sequences(rows, **arguments, value=3)
            ones = [np.ones(len(row)) for row in rows]
            real = keras.utils.pad_sequences(ones, **arguments, dtype=bool)
            for padded, mask in (
                jm.pad_sequences(rows, **arguments, value=3),
                jm.pad_sequences([row.tolist() for row in rows], **arguments, value=3),
                jm.pad_ragged(flat, bounds, **arguments, value=3),
            ):
                np.testing.assert_array_equal(padded, expected, strict=True)
                np.testing.assert_array_equal(mask, real, strict=True)


def test_long_lists_have_the_types_of_short_ones():
    for row in ([1, 2], [1, True], [True, False], [1, 2**40], [1, 0.5], [1.5, 2]):
        for rows in ([row], [row, []]):
            long = [part * 400 for part in rows]
            short = jm.pad_sequences(rows)[0]
            padded = jm.pad_sequences(long)[0]
            assert padded.dtype == short.dtype
            assert padded[:, :2].tolist() == short.tolist()
    with pytest.raises(ValueError, match=said("step 1 of `sequences[1]` is 9007199254740993.")):
        jm.pad_sequences([[0.5] * 900, [0.5, 2**53 + 1]])


arrow_columns = {
    "list": lambda arrow: arrow.array([[1, 2], [], [3]]),
    "slice": lambda arrow: arrow.array([[9], [1, 2], [], [3], [9, 9]])[1:4],
    "large": lambda arrow: arrow.array([[1, 2], [], [3]], arrow.large_list(arrow.int64())),
    "view": lambda arrow: arrow.array([[1, 2], [], [3]], arrow.list_view(arrow.int64())),
    "chunks": lambda arrow: arrow.chunked_array([[[1, 2]], [[], [3]]]),
    "one chunk": lambda arrow: arrow.chunked_array([arrow.array([[1, 2], [], [3]])]),
    "table": lambda arrow: arrow.table({"ids": [[1, 2], [], [3]]})["ids"],
}


@pytest.mark.parametrize("kind", arrow_columns)
def test_columns_of_arrow(kind):
    column = arrow_columns[kind](pytest.importorskip("pyarrow"))
    padded, mask = jm.pad_sequences(column)
    assert padded.dtype == np.int64
    assert padded.tolist() == [[1, 2], [0, 0], [3, 0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]
    assert jm.pad_sequences(column, 1, truncating="pre")[0].tolist() == [[2], [0], [3]]
    flat = jm.bucket_batches(column, 1).ragged
    assert (flat.values.tolist(), flat.offsets.tolist()) == ([1, 2, 3], [0, 2, 2, 3])


def test_columns_of_arrow_are_not_copied_by_row():
    arrow = pytest.importorskip("pyarrow")
    column = arrow.array([[1.0, 2.0], [], [3.0]])
    flat = jm.bucket_batches(column, 1).ragged
    assert np.shares_memory(flat.values, column.values.to_numpy())


def test_data_sets_of_hugging_face():
    rows = pytest.importorskip("datasets").Dataset.from_dict(
        {"ids": [[1, 2], [], [3]], "n": [0] * 3}
    )
    column = rows.with_format("arrow")[:]["ids"]
    flat = jm.bucket_batches(column, 1).ragged
    assert np.shares_memory(flat.values, column.chunk(0).values.to_numpy())
    assert jm.pad_sequences(column)[0].tolist() == [[1, 2], [0, 0], [3, 0]]
    chosen = rows.select([2, 0]).with_format("arrow")[:]["ids"]
    assert jm.pad_sequences(chosen)[0].tolist() == [[3, 0], [1, 2]]
    with pytest.raises(TypeError, match=said("a whole table ... with_format('arrow')")):
        jm.pad_sequences(rows)


def test_features_in_columns_of_arrow():
    arrow = pytest.importorskip("pyarrow")
    rows = [[[1, 2]], [], [[3, 4], [5, 6]]]
    expected = jm.pad_sequences([np.array(row, np.int16).reshape(-1, 2) for row in rows])[0]
    for steps in (arrow.list_(arrow.int16(), 2), arrow.list_(arrow.int16())):
        padded, _ = jm.pad_sequences(arrow.array(rows, arrow.list_(steps)))
        np.testing.assert_array_equal(padded, expected, strict=True)
    fixed = arrow.array([[False] * 2, [True] * 2], arrow.list_(arrow.bool_(), 2))[1:]
    assert jm.pad_sequences(fixed)[0].tolist() == [[True, True]]
    assert jm.pad_sequences(arrow.array([["a"], []]), dtype=object)[0].tolist() == [["a"], [0]]
    assert jm.pad_sequences(arrow.array([], arrow.list_(arrow.int8())))[0].shape == (0, 0)


@pytest.mark.parametrize(
    ("error", "text", "make"),
    [
        (ValueError, "`sequences[1]` is null", lambda a: a.array([[1], None])),
        (ValueError, "step 1 of `sequences[2]` is null", lambda a: a.array([[1], [], [2, None]])),
        (TypeError, "a column of lists, got one of int64", lambda a: a.array([1, 2])),
        (
            TypeError,
            "a whole table ... ['ids'] ... table['name']",
            lambda a: a.table({"ids": [[1]]}),
        ),
        (TypeError, "step 0 of `sequences[1]` is 'a'", lambda a: a.array([[], ["a"]])),
        (ValueError, "1 to 2 features", lambda a: a.array([[[1]], [[3, 4]]])),
        (ValueError, "step 0 of `sequences[1]` is 300, which int8", lambda a: a.array([[], [300]])),
    ],
)
def test_bad_columns_of_arrow(error, text, make):
    column = make(pytest.importorskip("pyarrow"))
    with pytest.raises(error, match=said(f"pad_sequences: ... {text}")):
        jm.pad_sequences(column, dtype="int8" if "int8" in text else None)


def test_no_sequence_no_batch():
    batches = jm.bucket_batches([], 4)
    assert (list(batches), len(batches), batches.boundaries) == ([], 0, ())
    ((x, mask, indices),) = jm.bucket_batches([[], []], 3)
    assert (x.shape, mask.any(), indices.tolist()) == ((3, 1), False, [0, 1, -1])


# ----------------------------------------------------------------------------- bad input


def said(text):
    """A pattern of literal parts, with anything at `...` between them."""
    return "(?s)" + ".*".join(re.escape(part) for part in text.split(" ... "))


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("`sequences[1]`", lambda x: jm.pad_sequences([[1.0], x])),
        ("`sequences[0]`", lambda x: jm.pack_sequences([x], 4)),
        ("`sequences[0]`", lambda x: next(jm.pack_stream([x], 4, 1))),
        ("`sequences[0]`", lambda x: jm.bucket_batches(x[None], 1)),
        ("`values`", lambda x: jm.pad_ragged(x, np.array([0, 2]))),
        ("`padded`", lambda x: jm.unpad_sequences(x[None], np.ones((1, 2), bool))),
    ],
)
def test_what_a_masked_array_hides_is_never_made_real(text, use):
    with pytest.raises(jm.MaskError, match=said(f"{text} is a NumPy masked array")):
        use(np.ma.array([1.0, 2.0], mask=[False, True]))
    use(np.ma.array([1.0, 2.0]))  # hides nothing


@pytest.mark.parametrize(
    ("text", "sequences"),
    [
        ("`sequences` must be an iterable of rows ... got int 3", 3),
        ("`sequences` must be ... got str 'abc'", "abc"),
        ("`sequences` must be ... got dict", {0: [1]}),
        ("`sequences[1]` must be a row ... got int 3 ... `[sequence]`", [[1], 3]),
        ("`sequences[0]` must be a row ... got int 1", [1, 2]),
        ("`sequences[0]` must be a row", np.arange(3)),
        ("`sequences[1]` must be a row ... `[sequence]`", [np.ones(2), np.array(3)]),
        ("`sequences[0]` must be a row ... got str 'ab' ... list", ["ab"]),
        ("`sequences[0]` must be a row ... got set", [{1, 2}]),
    ],
)
def test_rows_that_are_none(text, sequences):
    for dtype in (None, object):
        with pytest.raises(TypeError, match=said(f"pad_sequences: {text}")):
            jm.pad_sequences(sequences, dtype=dtype)


@pytest.mark.parametrize(
    ("text", "sequences"),
    [
        ("step 0 of `sequences[0]` has shape (2,) and step 0 of `sequences[1]`", [[[1, 2]], [[3]]]),
        ("and step 1 of `sequences[0]` has shape ()", [[[1, 2], 3]]),
        ("and step 1 of `sequences[0]` has shape (1,)", [[["a", "b"], ["c"]]]),
        ("step 1 of `sequences[0]` is ragged itself", [[[[1], [2]], [[3], [4, 5]]]]),
        ("[0]` has shape (3,) ... [2]` has shape (2,)", [*np.ones((2, 1, 3)), np.ones((1, 2))]),
        ("[1]` has shape (3,) ... [2]` has shape ()", [[], np.ones((1, 3)), [1.0]]),
    ],
)
def test_steps_of_different_shapes(text, sequences):
    for dtype in (None, object):
        with pytest.raises(ValueError, match=said(f"pad_sequences: ... {text}")):
            jm.pad_sequences(sequences, dtype=dtype)


@pytest.mark.parametrize(
    ("text", "sequences", "dtype"),
    [
        ("step 1 of `sequences[1]` is 'b', of type str ... `dtype=object`", [[1], [2, "b"]], None),
        ("step 0 of `sequences[0]` is 'a', of type str", [["a"]], np.int32),
        ("step 0 of `sequences[0]` is 'a'", [np.array(["a"]), np.array([1])], None),
        ("step 0 of `sequences[1]` is 'a'", [np.array([1]), np.array(["a"])], None),
        ("step 0 of `sequences[1]` is None", [[1], [None]], None),
        ("of type date", [[np.datetime64("2020-01-01")]], None),
        ("dtype object ... astype", [np.array([1, 2], object)], None),
        ("`dtype` must be bool, a number type or object, got <U2", [[1]], "U2"),
        ("bfloat16, int32 ... `dtype=`", [np.ones(1, jnp.bfloat16), [1]], None),
        ("complex ... float32", [[1j]], "float32"),
    ],
)
def test_steps_of_a_type_that_is_none(text, sequences, dtype):
    with pytest.raises(TypeError, match=said(f"pad_sequences: ... {text}")):
        jm.pad_sequences(sequences, dtype=dtype)


two_types = [np.array([1, 300]), np.array([2.0**53, 1.0])]


@pytest.mark.parametrize(
    ("text", "sequences", "dtype"),
    [
        ("step 1 of `sequences[2]` is 300 ... int8 ... -128 to 127", [[1], [], [2, 300]], "int8"),
        ("is -1, which uint8 cannot hold", [[-1]], "uint8"),
        ("is 1.5, which int32 cannot hold", [[1.5]], "int32"),
        ("is nan, which int64 cannot hold", [[np.nan]], "int64"),
        ("is -inf, which int8 cannot hold", [[-np.inf]], "int8"),
        ("is 1e+300, which float32 ... its largest value is 3.4", [[0.0, 1e300]], "float32"),
        ("is 1e+300, which bfloat16 cannot hold", [[1e300]], jnp.bfloat16),
        ("is 16777217, which float32 ... only up to 16777216", [[2**24 + 1]], "float32"),
        ("is 257, which bfloat16 ... only up to 256", [[257]], jnp.bfloat16),
        ("is 65536, which float16 cannot hold", [[2**16]], "float16"),
        ("is 2, which bool cannot hold", [[2]], "bool"),
        ("is 8, which int4 cannot hold", [[8]], jnp.int4),
        ("step 1 of `sequences[0]` is 300, which int8", two_types, "int8"),
        ("step 0 of `sequences[1]` is 9007199254740992.0, which int32", two_types, "int32"),
        ("[0]` is 9007199254740993, which float64", [np.array([2**53 + 1]), np.ones(1)], None),
        # Ints that NumPy reads as uint64, float64 or objects.
        ("step 0 of `sequences[1]` is 9223372036854775808. ... np.uint64", [[1], [2**63]], None),
        ("step 0 of `sequences[0]` is 9223372036854775808. ", [[2**63]], None),
        ("step 1 of `sequences[1]` is 9007199254740993. ", [[0.5], [1, 2**53 + 1]], None),
        ("step 1 of `sequences[0]` is 9007199254740993. ", [[[0.5, 1], [1, 2**53 + 1]]], None),
        ("is 18446744073709551616, which no integer type", [[2**64]], None),
    ],
)
def test_values_that_the_type_cannot_hold(text, sequences, dtype):
    with pytest.raises(ValueError, match=said(f"pad_sequences: ... {text}")):
        jm.pad_sequences(sequences, dtype=dtype)


@pytest.mark.parametrize(
    ("error", "text", "options"),
    [
        (ValueError, "`maxlen` must be at least 0, got -1", {"maxlen": -1}),
        (TypeError, "`maxlen` must be ... int ... got float", {"maxlen": 1.0}),
        (ValueError, "`padding` must be one of 'pre', 'post', got 'left'", {"padding": "left"}),
        (ValueError, "`truncating` must be one of ... got 'end'", {"truncating": "end"}),
        (ValueError, "`value` is 0.5, which int32 cannot hold", {"value": 0.5}),
        (ValueError, "`value` is nan, which int32 cannot hold", {"value": np.nan}),
        (ValueError, "`value` is 300, which int8", {"value": 300, "dtype": "int8"}),
        (ValueError, "`value` is 1e+300, which float32", {"value": 1e300, "dtype": "float32"}),
        (TypeError, "`value` is 'x', of type str", {"value": "x"}),
        (ValueError, "`value` must be one number, got shape (2,)", {"value": [0, 1]}),
    ],
)
def test_bad_options(error, text, options):
    for rows in ([[1]], [[1], [2, 3]], [np.zeros(0, np.int32)]):
        with pytest.raises(error, match=said(f"pad_sequences: {text}")):
            jm.pad_sequences(rows, **options)
        with pytest.raises(error, match=said(f"pad_ragged: {text}")):
            jm.pad_ragged(np.array([1], np.int32), np.array([0, 1]), **options)


three = np.arange(3)


@pytest.mark.parametrize(
    ("error", "text", "values", "offsets"),
    [
        (ValueError, "`offsets[1]` is 2 and `offsets[2]` is 1", three, np.array([0, 2, 1, 3])),
        (ValueError, "must not decrease", three, np.array([0, 2, 1, 3], np.uint32)),
        (ValueError, "from 0 to len(values) = 3, but goes from 1 to 3", three, np.array([1, 3])),
        (ValueError, "= 3, but goes from 0 to 2", three, np.array([0, 2])),
        (ValueError, "= 3, but goes from 0 to 4", three, np.array([0, 4])),
        (TypeError, "`offsets` must be integers, got dtype float64", three, np.array([0.0, 3.0])),
        (ValueError, "`offsets` must be [batch + 1], got shape (0,)", three, np.array([], int)),
        (ValueError, "`offsets` must be ... (1, 2)", three, np.array([[0, 3]])),
        (TypeError, "`offsets` must be a NumPy or JAX array, got list", three, [0, 3]),
        (TypeError, "`values` must be a NumPy or JAX array, got list", [1, 2], np.array([0, 2])),
        (ValueError, "`values` must be [total, feature...]", np.array(1), np.array([0, 1])),
        (TypeError, "`values[0]` is 'a', of type str", np.array(["a"]), np.array([0, 1])),
    ],
)
def test_bad_offsets(error, text, values, offsets):
    with pytest.raises(error, match=said(f"pad_ragged: ... {text}")):
        jm.pad_ragged(values, offsets)


def test_a_bad_flat_value_is_named():
    with pytest.raises(ValueError, match=said("pad_ragged: `values[2]` is 2, which bool")):
        jm.pad_ragged(three, np.array([0, 3]), dtype=bool)


steps, every = np.ones((2, 3)), np.ones((2, 3), bool)


@pytest.mark.parametrize(
    ("error", "text", "padded", "mask"),
    [
        (TypeError, "`mask` must be boolean ... got dtype int64", steps, every.astype(int)),
        (jm.MaskError, "`mask` must ... (2, 3), got (2, 1) ... broadcast", steps, every[:, :1]),
        (jm.MaskError, "`mask` must have rank 2 ... shape (2,)", steps, every[:, 0]),
        (jm.MaskError, "`mask` must have rank 2 ... 1)", steps[..., None], every[..., None]),
        (jm.MaskError, "this function cannot respect `Segments`", steps, jm.Segments(every, 1)),
        (TypeError, "`mask` must be a NumPy or JAX array, got list", steps, every.tolist()),
        (TypeError, "`padded` must be a NumPy or JAX array, got list", steps.tolist(), every),
        (ValueError, "`padded` must be [batch, time, ...], got shape (2,)", steps[:, 0], None),
    ],
)
def test_bad_masks(error, text, padded, mask):
    with pytest.raises(error, match=said(f"unpad_sequences: {text}")):
        jm.unpad_sequences(padded, mask)


by_tokens = {"batch_size": None, "shard": (1, 2)}


@pytest.mark.parametrize(
    ("error", "text", "options"),
    [
        (ValueError, "`sequences[1]` has 3 steps ... `boundaries`, 2", {"boundaries": [1, 2]}),
        (ValueError, "`boundaries` must be ... increasing, got (2, 2)", {"boundaries": [2, 2]}),
        (ValueError, "`boundaries` must be ... got ()", {"boundaries": []}),
        (ValueError, "`boundaries` must be at least 1, got 0", {"boundaries": [0, 3]}),
        (TypeError, "`boundaries` must be a sequence of ints, got int", {"boundaries": 3}),
        (TypeError, "`boundaries` must be ... int ... got float", {"boundaries": [3.0]}),
        (ValueError, "`batch_size` must be at least 1", {"batch_size": 0}),
        (TypeError, "either `batch_size` ... or `tokens`", {"tokens": 3}),
        (TypeError, "either `batch_size` ... got None and None", {"batch_size": None}),
        (ValueError, "a row of 3 steps ... got 2", {"batch_size": None, "tokens": 2}),
        (ValueError, "a row of 3 steps ... got 4", {**by_tokens, "tokens": 4}),
        (ValueError, "a row of 9 steps", {"batch_size": None, "tokens": 8, "boundaries": [1, 9]}),
        (ValueError, "must be a multiple of the 2 processes", {"batch_size": 3, "shard": (0, 2)}),
        (ValueError, "must name one of 2 processes", {"shard": (2, 2)}),
        (TypeError, "`shard` must be `(process, processes)`", {"shard": 1}),
        (ValueError, "`max_shapes` must be at least 1", {"max_shapes": 0}),
        (TypeError, "`shuffle_seed` must be ... int", {"shuffle_seed": 0.5}),
        (ValueError, "`value` is 0.5, which int32", {"value": 0.5}),
        (ValueError, "step 0 of `sequences[2]` is 300, which int8", {"dtype": "int8"}),
    ],
)
def test_bad_buckets(error, text, options):
    with pytest.raises(error, match=said(f"bucket_batches: ... {text}")):
        jm.bucket_batches([[1], [1, 2, 3], [300]], **{"batch_size": 2, **options})


def test_a_bad_epoch():
    with pytest.raises(ValueError, match=said("`index` must be at least 0")):
        jm.bucket_batches([[1]], 1).epoch(-1)
