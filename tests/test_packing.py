"""Packed rows: against a plain best-fit decreasing, against each sequence alone, and back."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmask as jm

examples = settings(max_examples=80, deadline=None)
limits = st.none() | st.integers(1, 4)


def said(text):
    """A pattern of literal parts, with anything at `...` between them."""
    return "(?s)" + ".*".join(re.escape(part) for part in text.split(" ... "))


def sequences_of(lengths, features=(), seed=0):
    draw = np.random.default_rng(seed)
    return [draw.normal(size=(n, *features)).astype(np.float32) for n in lengths]


def assert_rows_equal(rows, expected):
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row, other, strict=True)


# ---------------------------------------------------------------------------- the plan


def plain_best_fit_decreasing(lengths, row_length, max_segments):
    rows = []
    for length in sorted((n for n in lengths if n), reverse=True):
        fitting = [
            row
            for row in rows
            if row_length - sum(row) >= length and len(row) < (max_segments or np.inf)
        ]
        if fitting:
            min(fitting, key=lambda row: row_length - sum(row)).append(length)
        else:
            rows.append([length])
    return rows


@examples
@given(st.lists(st.integers(0, 12), max_size=30), st.integers(12, 20), limits)
def test_the_plan_is_best_fit_decreasing(lengths, row_length, max_segments):
    packed = jm.pack_sequences([[0] * n for n in lengths], row_length, max_segments=max_segments)
    rows = [[] for _ in packed.x]
    for length, row in zip(lengths, packed.pieces.row.tolist(), strict=True):
        assert (row == -1) == (length == 0)
        if length:
            rows[row].append(length)
    expected = plain_best_fit_decreasing(lengths, row_length, max_segments)
    assert len(rows) == len(expected)
    if max_segments is None:  # else equally full rows may hold different sequences
        assert sorted(map(sum, rows)) == sorted(map(sum, expected))
    for row in rows:
        assert 0 < sum(row) <= row_length
        assert len(row) <= (max_segments or row_length)


def test_most_rows_of_common_lengths_are_full():
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(3.2, 0.6, 5000), 1, 128).astype(int)
    packed = jm.pack_sequences([np.zeros(n, np.int8) for n in lengths], 128)
    assert packed.fill > 0.99
    assert packed.mask.sum() == lengths.sum()


# ------------------------------------------------------------------- there and back


@examples
@given(
    st.lists(st.integers(0, 9), max_size=12),
    st.integers(9, 15),
    limits,
    st.sampled_from([(), (2,), (2, 3)]),
)
def test_unpacking_is_the_inverse(lengths, row_length, max_segments, features):
    rows = sequences_of(lengths, features) or [np.zeros((0, *features), np.float32)]
    packed = jm.pack_sequences(rows, row_length, max_segments=max_segments)
    assert_rows_equal(jm.unpack_sequences(packed.x, packed), rows)
    # of what a model made of the rows, on a device, with other features
    y = jnp.stack([packed.x.sum(tuple(range(2, packed.x.ndim)))] * 2, axis=-1)
    sums = [np.stack([row.sum(tuple(range(1, row.ndim)))] * 2, axis=-1) for row in rows]
    for row, other in zip(jm.unpack_sequences(y, packed), sums, strict=True):
        np.testing.assert_allclose(row, other, rtol=1e-6)


@settings(max_examples=8, deadline=None)  # each shape compiles
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(9, 15), limits)
def test_segments_positions_and_mask(lengths, row_length, max_segments):
    rows = [np.full(n, index, np.int32) for index, n in enumerate(lengths)]
    packed = jm.pack_sequences(rows, row_length, max_segments=max_segments, value=-1)
    np.testing.assert_array_equal(packed.mask, packed.x >= 0)
    np.testing.assert_array_equal(packed.mask, packed.segments > 0)
    assert packed.segments.dtype == packed.positions.dtype == np.int32
    np.testing.assert_array_equal(
        packed.positions, jm.masks.positions(packed.as_segments()), strict=True
    )
    assert np.asarray(jm.masks.is_right_padded(packed.mask)).all()
    for x, ids in zip(packed.x, packed.segments, strict=True):
        assert (np.diff(ids[ids > 0]) >= 0).all()
        assert len({(a, b) for a, b in zip(x, ids, strict=True)}) == len(set(x.tolist()))
    assert packed.max_segments == max(1, packed.segments.max(initial=0))
    if max_segments is not None:
        assert packed.max_segments <= max_segments
    jm.pool.sum(packed.x, packed.as_segments())  # which looks at the ids


def test_every_source_packs_alike():
    rows = [[1, 2, 3], [4], [], [5, 6]]
    expected = jm.pack_sequences(rows, 4)
    flat = jm.Ragged(np.arange(1, 7, dtype=np.int32), np.array([0, 3, 4, 4, 6]))
    for source in (flat, iter(rows), [np.array(row, np.int32) for row in rows]):
        packed = jm.pack_sequences(source, 4)
        np.testing.assert_array_equal(packed.x, expected.x, strict=True)
        np.testing.assert_array_equal(packed.segments, expected.segments)


def test_arrow_columns_pack():
    arrow = pytest.importorskip("pyarrow")
    rows = [[1, 2, 3], [4], [], [5, 6]]
    packed = jm.pack_sequences(arrow.array(rows, arrow.list_(arrow.int32())), 4)
    assert [row.tolist() for row in jm.unpack_sequences(packed.x, packed)] == rows


def test_long_sequences_are_copied_alike():
    """They go another way than short ones: slice by slice."""
    rows = sequences_of([300, 120, 0, 77, 512], (2,))
    packed = jm.pack_sequences(rows, 600)
    assert_rows_equal(jm.unpack_sequences(packed.x, packed), rows)
    assert (packed.x[~packed.mask] == 0).all()
    expected = jm.masks.positions(packed.as_segments())
    np.testing.assert_array_equal(packed.positions, expected, strict=True)
    np.testing.assert_array_equal(packed.mask, packed.segments > 0)
    for segment, piece in zip(packed.pieces.segment, packed.pieces.length, strict=True):
        assert segment == 0 or (packed.segments == segment).sum(1).max() >= piece > 0
    assert packed.segments.max() == 2


@pytest.mark.parametrize("rows", [[], [[]], [[], []], [np.zeros((0, 3), np.int8)]])
def test_nothing_to_pack(rows):
    packed = jm.pack_sequences(rows, 4)
    assert packed.x.shape[:2] == packed.mask.shape == packed.segments.shape == (0, 4)
    assert (packed.fill, packed.max_segments, packed.count) == (1.0, 1, len(rows))
    assert [len(row) for row in jm.unpack_sequences(packed.x, packed)] == [0] * len(rows)
    y, real = packed.collect(np.zeros((0, 2)))
    assert (y.shape, real.tolist()) == ((len(rows), 2), [False] * len(rows))


# ---------------------------------------------------------------------------- overflow

LONG = [[1], list(range(10, 17)), [2, 3], list(range(20, 26))]


def test_split_sequences_come_back_whole():
    packed = jm.pack_sequences(LONG, 3, overflow="split")
    assert [row.tolist() for row in jm.unpack_sequences(packed.x, packed)] == LONG
    assert packed.pieces.sequence.tolist() == [0, 1, 1, 1, 2, 3, 3]
    assert packed.pieces.length.tolist() == [1, 3, 3, 1, 2, 3, 3]
    assert packed.positions.max() == 2
    assert not packed.dropped


def test_truncated_steps_are_returned():
    packed = jm.pack_sequences(LONG, 5, overflow="truncate")
    kept = [row.tolist() for row in jm.unpack_sequences(packed.x, packed)]
    assert kept == [row[:5] for row in LONG]
    assert {k: v.tolist() for k, v in packed.dropped.items()} == {1: [15, 16], 3: [25]}


def test_dropped_sequences_are_returned():
    packed = jm.pack_sequences(LONG, 6, overflow="drop")
    kept = [row.tolist() for row in jm.unpack_sequences(packed.x, packed)]
    assert kept == [LONG[0], [], LONG[2], LONG[3]]
    assert {k: v.tolist() for k, v in packed.dropped.items()} == {1: LONG[1]}
    y, real = packed.collect(np.arange(len(packed.x) * packed.max_segments) + 1)
    assert real.tolist() == [True, False, True, True]
    assert y[1] == 0


@pytest.mark.parametrize("overflow", ["error", "split", "truncate", "drop"])
def test_where_nothing_is_too_long_all_do_the_same(overflow):
    packed = jm.pack_sequences(LONG, 7, overflow=overflow)
    assert [row.tolist() for row in jm.unpack_sequences(packed.x, packed)] == LONG
    assert not packed.dropped


# ----------------------------------------------- each sequence is what it is when alone

LENGTHS = [3, 0, 5, 1, 2, 4]


def alone(function, rows):
    """The function of each unpadded sequence, stacked; 0 for one without a step."""
    function = jax.jit(function)
    found = [function(row[None], None) for row in rows if len(row)]
    results = iter([y[0] for y, _ in found])
    zero = jnp.zeros_like(found[0][0][0])
    return jnp.stack([next(results) if len(row) else zero for row in rows])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["mean", "sum", "max", "first", "last"])
def test_pooling_by_sequence(name):
    rows = sequences_of(LENGTHS, (3,))
    packed, pool = jm.pack_sequences(rows, 6), jax.jit(getattr(jm.pool, name))
    for most in (None, packed.max_segments + 2):
        segments = packed.as_segments(most)

        def by_sequence(x, segments=segments, most=most):
            return packed.collect(pool(x, segments)[0], most)

        y, real = by_sequence(jnp.asarray(packed.x))
        np.testing.assert_allclose(y, alone(pool, rows), atol=1e-6)
        assert real.tolist() == [n > 0 for n in LENGTHS]
        # the gradient of each sequence is that of the sequence alone
        weights = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), jnp.float32)
        slope = jax.grad(lambda x: jnp.sum(by_sequence(x)[0] * weights))(jnp.asarray(packed.x))  # noqa: B023
        assert (np.asarray(slope)[~packed.mask] == 0).all()
        for row, weight, found in zip(
            rows, weights, jm.unpack_sequences(slope, packed), strict=True
        ):
            if len(row):
                expected = jax.grad(lambda x, w=weight: jnp.sum(pool(x[None], None)[0] * w))(row)
                np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_last_state_of_a_recurrence_by_sequence():
    from flax import nnx

    rows = sequences_of(LENGTHS, (3,))
    packed = jm.pack_sequences(rows, 6)
    layer = jm.nn.LSTM(3, 4, return_sequences=False, rngs=nnx.Rngs(0))
    y, real = packed.collect(layer(packed.x, packed.as_segments())[0])
    np.testing.assert_allclose(y, alone(layer, rows), atol=1e-6)
    assert real.tolist() == [n > 0 for n in LENGTHS]


def test_a_loss_by_sequence():
    """The mean over sequences of each one's mean, and labels of whole sequences."""
    rows = sequences_of(LENGTHS, (3,))
    targets = [np.arange(len(row)) % 3 for row in rows]
    cross_entropy = jax.jit(jm.losses.softmax_cross_entropy_with_integer_labels)
    packed, packed_targets = jm.pack_sequences(rows, 6), jm.pack_sequences(targets, 6)
    np.testing.assert_array_equal(packed.segments, packed_targets.segments)

    segments = packed.as_segments()
    found = jm.losses.reduce(*cross_entropy(packed.x, segments, packed_targets.x), by="row")
    means = [
        float(jm.losses.reduce(*cross_entropy(x[None], None, y[None])))
        for x, y in zip(rows, targets, strict=True)
        if len(x)
    ]
    np.testing.assert_allclose(found, np.mean(means), rtol=1e-6)

    labels = np.arange(len(rows)) % 3
    most = packed.max_segments + 1
    logits, row_mask = jm.pool.mean(packed.x, packed.as_segments(most))
    placed, placed_mask = packed.place(labels, most)
    np.testing.assert_array_equal(row_mask, placed_mask)
    of_batch = jm.losses.reduce(*cross_entropy(logits, row_mask, placed))
    single = [
        float(jm.losses.reduce(*cross_entropy(x.mean(0)[None], None, labels[index : index + 1])))
        for index, x in enumerate(rows)
        if len(x)
    ]
    np.testing.assert_allclose(of_batch, np.mean(single), rtol=1e-5)


def test_the_page_on_batches_runs():
    page = (Path(__file__).parents[1] / "docs" / "batching.md").read_text()
    names = {}
    exec(re.search(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)[1], names)
    expected = [sequence.mean(0) for sequence in names["sequences"]]
    np.testing.assert_allclose(names["of_each"], expected, atol=1e-6)
    assert names["found"].all()
    assert [len(y) for y in names["back"]] == [4, 2, 5, 1]
    squares = [np.mean(0.5 * y**2) for y in names["back"]]
    np.testing.assert_allclose(names["by_sequence"], np.mean(squares), rtol=1e-5)
    assert np.isfinite(names["loss"])


def test_place_and_collect_are_inverse():
    packed = jm.pack_sequences([np.ones(n) for n in LENGTHS], 6)
    values = np.random.default_rng(0).normal(size=(6, 2))
    for most in (None, 7):
        placed, real = packed.place(values, most)
        assert real.sum() == 5
        assert (placed[~real] == 0).all()
        y, row_mask = packed.collect(placed, most)
        np.testing.assert_array_equal(y[row_mask], values[row_mask])
    split = jm.pack_sequences(LONG, 3, overflow="split")
    placed, real = split.place(np.array([5, 6, 7, 8]))
    assert sorted(placed[real].tolist()) == [5, 6, 6, 6, 7, 8, 8]


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("error", "text", "options"),
    [
        (ValueError, "`sequences[1]` has 7 steps ... `row_length`, 6 ... split", {"row_length": 6}),
        (ValueError, "`row_length` must be at least 1, got 0", {"row_length": 0}),
        (TypeError, "`row_length` must be ... int ... got float", {"row_length": 8.0}),
        (ValueError, "`overflow` must be one of 'error', 'split'", {"overflow": "cut"}),
        (ValueError, "`max_segments` must be at least 1", {"max_segments": 0}),
        (ValueError, "`value` is 0.5, which int32", {"value": 0.5}),
        (ValueError, "step 4 of `sequences[1]` is 14, which bool", {"dtype": bool}),
    ],
)
def test_bad_options(error, text, options):
    with pytest.raises(error, match=said(f"pack_sequences: ... {text}")):
        jm.pack_sequences([[1], [1, 1, 0, 1, 14, 1, 1]], **{"row_length": 8, **options})


@pytest.mark.parametrize(
    ("error", "text", "sequences"),
    [
        (TypeError, "`sequences[1]` must be a row ... got int 3", [[1], 3]),
        (ValueError, "`sequences[0]` has shape () ... [1]` has shape (2,)", [[1], np.ones((1, 2))]),
        (TypeError, "step 0 of `sequences[1]` is 'a'", [[1], ["a"]]),
        (ValueError, "must not decrease", jm.Ragged(np.ones(3), np.array([0, 2, 1, 3]))),
    ],
)
def test_bad_sequences(error, text, sequences):
    with pytest.raises(error, match=said(f"pack_sequences: ... {text}")):
        jm.pack_sequences(sequences, 4)


def test_what_does_not_belong_to_the_rows():
    packed = jm.pack_sequences([[1, 2], [3], [4]], 2)
    with pytest.raises(ValueError, match=said("unpack_sequences: `y` must be ... [2, 2, ...]")):
        jm.unpack_sequences(packed.x[:1], packed)
    with pytest.raises(TypeError, match=said("unpack_sequences: `y` must be ... got list")):
        jm.unpack_sequences(packed.x.tolist(), packed)
    with pytest.raises(ValueError, match=said("as_segments: row 1 holds 2 sequences")):
        packed.as_segments(1)
    with pytest.raises(ValueError, match=said("place: `values` must have one value for each of")):
        packed.place(np.ones(2))
    with pytest.raises(ValueError, match=said("collect: `y` must be [rows * max_segments, ...]")):
        packed.collect(np.ones(3))
    split = jm.pack_sequences([[1, 2, 3]], 2, overflow="split")
    with pytest.raises(ValueError, match=said("collect: sequence 0 was split")):
        split.collect(np.ones(2))


@pytest.mark.parametrize("real", [np.array([[True, False, True, True]]), None])
def test_segments_and_a_condition_leave_steps_out(real):
    segments = jm.Segments(np.array([[1, 1, 2, 0]]), max_segments=3)
    condition = jnp.array([[True, False, True, True]]) if real is None else real
    for both in (segments & condition, condition & segments):
        assert isinstance(both, jm.Segments)
        assert both.ids.tolist() == [[1, 0, 2, 0]]
        assert both.max_segments == 3
