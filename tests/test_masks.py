"""Every convention for padding says the same; the attention-mask algebra against plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import jaxmask as jm

MASK = np.array([[True, True, False], [True, False, False], [False] * 3, [True] * 3])
LENGTHS = np.array([2, 1, 0, 3])


def test_every_convention_gives_the_same_mask():
    m = jm.masks
    ids = np.where(MASK, 7, 0)
    for mask in (
        m.from_lengths(LENGTHS, 3),
        m.from_lengths(jnp.asarray(LENGTHS), 3),
        m.from_offsets(np.array([0, 2, 3, 3, 6]), 3),
        m.from_paddings(1.0 - MASK),
        m.from_paddings(~MASK),
        m.from_attention_mask(MASK.astype(int)),
        m.from_segments(MASK.astype(int)),
        m.from_segments(np.where(MASK, 0, -1), padding_id=-1),
        m.from_values(ids),
        m.from_values(np.where(MASK, 7, -100), -100),
        m.from_values(np.where(MASK[..., None], [0.0, 1.0], np.nan), np.nan),
        m.as_bool(jm.Segments(MASK.astype(int), 1)),
    ):
        np.testing.assert_array_equal(mask, MASK)


def test_paddings_are_those_of_optax():
    """A step that optax is told to pad does not count in its CTC loss."""
    logits = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    labels, no_label = np.ones((4, 1), int), np.zeros((4, 1))
    loss = optax.ctc_loss(logits, jm.masks.to_paddings(MASK), labels, no_label)
    alone = optax.ctc_loss(logits[:1, :2], np.zeros((1, 2)), labels[:1], no_label[:1])
    np.testing.assert_allclose(loss[0], alone[0], rtol=1e-5)


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5))
def test_questions_against_plain_python(rows):
    mask = np.array(rows)
    assert jm.masks.lengths(mask).tolist() == [sum(row) for row in rows]
    assert jm.masks.rows(mask).tolist() == [any(row) for row in rows]
    right = [sorted(row, reverse=True) == row for row in rows]
    assert jm.masks.is_right_padded(mask).tolist() == right
    expected = [[sum(row[:t]) if row[t] else 0 for t in range(4)] for row in rows]
    assert jm.masks.positions(mask).tolist() == expected


def test_positions_restart_in_each_segment():
    segments = jm.Segments(np.array([[1, 1, 2, 2, 2, 0], [0, 1, 0, 1, 2, 0]]), 3)
    assert jm.masks.positions(segments).tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 0, 1, 0, 0]]
    assert jm.masks.rows(segments).tolist() == [True, True, False, True, True, False]
    assert jm.masks.lengths(segments).tolist() == [5, 3]


def test_attention_predicates_against_loops():
    m, time = jm.masks, 5
    segments = jm.Segments(np.array([[1, 1, 2, 2, 0]]), 2)
    ids = segments.ids[0]
    cases = {
        "causal": (m.causal(), lambda q, k: k <= q),
        "window": (m.window(2, 3), lambda q, k: q - 1 <= k <= q + 2),
        "both": (m.both(m.causal(), m.window(2, 2)), lambda q, k: q - 1 <= k <= q),
        "either": (m.either(m.window(1), lambda q, k: k == 0), lambda q, k: k in (q, 0)),
        "segment": (m.same_segment(segments), lambda q, k: ids[q] == ids[k] > 0),
    }
    full = np.ones((1, time), bool)
    for name, (predicate, expected) in cases.items():
        seen = m.to_attention_mask(full, full, predicate=predicate)
        for q, k in itertools.product(range(time), repeat=2):
            assert bool(seen[0, 0, q, k]) == expected(q, k), (name, q, k)


def test_segments_as_attention_mask_stay_apart():
    segments = jm.Segments(np.array([[1, 1, 2, 0]]), 2)
    seen = jm.masks.to_attention_mask(segments, segments)[0, 0]
    full = np.ones((1, 4), bool)
    expected = jm.masks.to_attention_mask(full, full, predicate=jm.masks.same_segment(segments))
    np.testing.assert_array_equal(seen, expected[0, 0])
    with pytest.raises(jm.MaskError, match="both be `Segments`"):
        jm.masks.to_attention_mask(segments, full)


def test_attention_mask_fits_flax():
    """A padded key changes nothing in `nnx.MultiHeadAttention` under this mask."""
    attention = nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0), decode=False)
    x = np.random.default_rng(0).normal(size=(4, 3, 4)).astype(np.float32)
    seen = jm.masks.to_attention_mask(MASK, MASK, predicate=jm.masks.causal())
    y = attention(jnp.asarray(x), mask=seen)
    poisoned = attention(jnp.asarray(np.where(MASK[..., None], x, 1e3)), mask=seen)
    np.testing.assert_allclose(y[MASK], poisoned[MASK], atol=1e-5)


BAD = {
    "float lengths": (lambda: jm.masks.from_lengths(np.array([0.5]), 3), TypeError, "lengths"),
    "too long": (lambda: jm.masks.from_lengths(np.array([4]), 3), ValueError, r"0\.\.3"),
    "negative": (lambda: jm.masks.from_lengths(np.array([-1]), 3), ValueError, r"0\.\.3"),
    "rank": (lambda: jm.masks.from_lengths(np.array([[1]]), 3), ValueError, "batch"),
    "time": (lambda: jm.masks.from_lengths(np.array([1]), 2.5), TypeError, "time"),
    "offsets": (lambda: jm.masks.from_offsets(np.array([[0]]), 3), ValueError, "offsets"),
    "paddings": (lambda: jm.masks.from_paddings(np.zeros(3)), ValueError, "paddings"),
    "ids": (lambda: jm.masks.from_segments(np.zeros((1, 3))), TypeError, "ids"),
    "values": (lambda: jm.masks.from_values(np.zeros(3)), ValueError, "x"),
    "int mask": (lambda: jm.masks.lengths(MASK.astype(int)), TypeError, "lengths: `mask`.*boolean"),
    "int kv_mask": (
        lambda: jm.masks.to_attention_mask(MASK, MASK.astype(int)),
        TypeError,
        "to_attention_mask: `kv_mask`.*boolean",
    ),
    "no predicate": (lambda: jm.masks.both(), ValueError, "predicate"),
    "window": (lambda: jm.masks.window(0), ValueError, "left"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()


def test_a_traced_length_is_not_looked_at():
    mask = jax.jit(lambda lengths: jm.masks.from_lengths(lengths, 3))(jnp.array([5, -1]))
    assert mask.tolist() == [[True] * 3, [False] * 3]


@pytest.mark.parametrize(
    ("ids", "most", "text"),
    [
        ([[1, 3, 3]], 3, r"without a gap, each in one piece, got \[1, 3\] in row 0"),
        ([[1, 2, 0], [1, 2, 1]], 2, r"got \[1, 2, 1\] in row 1"),
        ([[-1, 1, 1]], 1, r"got \[-1, 1\]"),
        ([[1, 2, 3]], 2, "row 0 holds 3 sequences.*max_segments=3"),
    ],
)
def test_ids_on_the_host_must_number_sequences(ids, most, text):
    segments = jm.Segments(np.array(ids), max_segments=most)
    with pytest.raises(jm.MaskError, match=text):
        jm.pool.mean(np.ones((len(ids), 3, 1), np.float32), segments)


def test_ids_may_come_in_any_order_and_with_padding_between():
    segments = jm.Segments(np.array([[0, 2, 0, 2, 1], [0, 0, 0, 0, 0]]), max_segments=2)
    assert jm.pool.sum(np.ones((2, 5), np.float32), segments)[0].tolist() == [1, 2, 0, 0]


def test_from_segments_refuses_padding_of_another_kind():
    ids = np.array([[0, 0, 1, -1]])
    with pytest.raises(ValueError, match=r"from_segments: `ids` must be 0 \(padding\) .* got -1"):
        jm.masks.from_segments(ids)
    assert jm.masks.from_segments(ids, padding_id=-1).tolist() == [[True, True, True, False]]
