"""Streams: every sequence once, in few shapes, and the same batches after a kill."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmask as jm

examples = settings(max_examples=60, deadline=None)
lengths = st.lists(st.integers(0, 9), max_size=40)
seeds = st.none() | st.integers(0, 2)


def said(text):
    """A pattern of literal parts, with anything at `...` between them."""
    return "(?s)" + ".*".join(re.escape(part) for part in text.split(" ... "))


def named(lengths):
    """Sequences that hold their own index."""
    return [np.full(n, index, np.int32) for index, n in enumerate(lengths)]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def fields(packed):
    return (packed.x, packed.mask, packed.segments, packed.positions, packed.indices)


def assert_resumes(make, batches_of=lambda batch: batch):
    """From the state after any number of batches, by JSON, the others follow."""
    stream = make()
    states, batches = [stream.get_state()], []
    for batch in stream:
        batches.append(batches_of(batch))
        states.append(stream.get_state())
    for given_before, state in enumerate(states):
        other = make()
        other.set_state(json.loads(json.dumps(state)))
        assert json.dumps(other.get_state()) == json.dumps(state)
        rest = [batches_of(batch) for batch in other]
        for one, two in zip(rest, batches[given_before:], strict=True):
            assert_same(one, two)
    return batches


# ------------------------------------------------------------------------------ packing


@examples
@given(
    lengths,
    st.integers(1, 3),
    st.integers(1, 8),
    st.sampled_from(["split", "truncate", "drop"]),
    seeds,
    st.none() | st.integers(1, 3),
)
def test_a_packed_stream_loses_nothing(lengths, batch_size, buffer, overflow, seed, most):
    rows, seen, left_out = named(lengths), [], {}
    stream = jm.pack_stream(
        rows,
        6,
        batch_size,
        buffer=buffer,
        overflow=overflow,
        max_segments=most,
        shuffle_seed=seed,
        value=-1,
    )
    for packed in stream:
        assert packed.x.shape == (batch_size, 6)
        assert packed.max_segments <= (most or 6)
        np.testing.assert_array_equal(packed.mask, packed.x >= 0)
        left_out |= packed.dropped
        for index, row in zip(packed.indices, jm.unpack_sequences(packed.x, packed), strict=True):
            assert (row == index).all()
            seen += [(index, len(row))]
    for index, length in enumerate(lengths):
        found = sorted((n for i, n in seen if i == index), reverse=True)
        rest = len(left_out.get(index, ()))
        assert sum(found) + rest == length
        if overflow == "split":
            assert found == [6, length - 6] if length > 6 else [length]
        else:
            kept = 0 if overflow == "drop" and length > 6 else min(length, 6)
            assert found == [kept]


@examples
@given(lengths, st.integers(1, 3), st.integers(1, 8), seeds)
def test_a_packed_stream_resumes_exactly(lengths, batch_size, buffer, seed):
    rows = named(lengths)
    options = {"buffer": buffer, "overflow": "split", "shuffle_seed": seed}
    assert_resumes(lambda: jm.pack_stream(rows, 6, batch_size, **options), fields)


def test_no_sequence_waits_for_more_than_one_window():
    draw = np.random.default_rng(0)
    # Those of 5 fit with nothing: best fit alone would put them off for good.
    rows = [np.full(n, k) for k, n in enumerate(draw.choice([5, 4, 2], 400, p=[0.1, 0.3, 0.6]))]
    window = 8 * 6 // 2  # sequences at most
    given_after = 0
    for packed in jm.pack_stream(rows, 6, 3, buffer=8):
        given_after += packed.count
        assert packed.indices.min() > given_after - packed.count - 3 * window
    assert given_after == 400


def test_a_stream_packs_nearly_as_well_as_the_whole():
    draw = np.random.default_rng(0)
    rows = [np.zeros(int(n), np.int8) for n in np.clip(draw.lognormal(3.2, 0.6, 5000), 1, 128)]
    packed = list(jm.pack_stream(rows, 128, 16))
    fill = sum(p.mask.sum() for p in packed) / sum(p.mask.size for p in packed)
    assert fill > 0.97
    assert len(list(jm.pack_stream(rows, 128, 16, buffer=16))) > len(packed)


def test_a_stream_is_read_no_further_than_its_buffer():
    read = []

    def rows():
        for index in range(1000):
            read.append(index)
            yield np.ones(5)

    next(jm.pack_stream(rows(), 10, 2, buffer=4))
    assert len(read) <= 8
    read.clear()
    next(jm.bucket_stream(rows(), 2, boundaries=[5], buffer=6))
    assert len(read) == 6


# ---------------------------------------------------------------------------- bucketing


@examples
@given(lengths, st.integers(1, 4), st.integers(1, 12), seeds)
def test_a_bucketed_stream_loses_nothing_and_resumes(lengths, batch_size, buffer, seed):
    rows = named(lengths)
    options = {"boundaries": [2, 5, 9], "buffer": buffer, "shuffle_seed": seed, "value": -1}
    batches = assert_resumes(lambda: jm.bucket_stream(rows, batch_size, **options))
    seen = []
    for x, mask, indices in batches:
        assert x.shape in {(batch_size, 2), (batch_size, 5), (batch_size, 9)}
        np.testing.assert_array_equal(mask, x >= 0)
        for row, real, index in zip(x, mask, indices, strict=True):
            assert (row[real] == index).all()
            assert real.sum() == (lengths[index] if index >= 0 else 0)
        seen += [index for index in indices if index >= 0]
    assert sorted(seen) == list(range(len(rows)))


def test_a_bucketed_stream_by_tokens():
    rows = named([1, 2, 3, 4, 5, 6] * 20)
    shapes = {x.shape for x, _, _ in jm.bucket_stream(rows, tokens=24, boundaries=[2, 6])}
    assert shapes == {(12, 2), (4, 6)}


# ----------------------------------------------------------------------------- bad input


def failing(after):
    yield from ([1] * 2 for _ in range(after))
    raise OSError("the disk is gone")


def streams(rows, **options):
    yield "pack_stream", jm.pack_stream(rows(), 4, 1, **options)
    yield "bucket_stream", jm.bucket_stream(rows(), 1, boundaries=[4], **options)


def test_a_generator_that_fails_midway_is_named():
    for where, stream in streams(lambda: failing(5)):
        with pytest.raises(OSError, match=said(f"gone ... {where}: raised while reading record 5")):
            list(stream)
    for whole in (lambda rows: jm.pack_sequences(rows, 4), jm.pad_sequences):
        with pytest.raises(OSError, match=said("gone ... after 5 rows of `sequences`")):
            whole(failing(5))
    with pytest.raises(OSError, match=said("gone ... in `sequences[1]`, after 3 steps")):
        jm.pad_sequences([[[1, 1]], failing(3)])


@pytest.mark.parametrize("again", ["reading", "arranging"])
def test_after_an_error_nothing_is_skipped(again):
    """The stream says so, and goes back to its last batch: mended records give every batch."""
    bad = {"record": 5}

    def rows():
        for index in range(9):
            if index == bad["record"] and again == "reading":
                raise OSError("the disk is gone")
            yield np.full(9 if index == bad["record"] else 1 + index % 4, index)

    for where, stream in (
        ("pack_stream", jm.pack_stream(rows, 4, 1, buffer=1, max_segments=2)),
        ("bucket_stream", jm.bucket_stream(rows, 2, boundaries=[2, 4], buffer=3)),
    ):
        bad["record"], seen = 5, []
        with pytest.raises((OSError, ValueError)):
            seen.extend(stream)
        assert seen
        for _ in range(2):
            with pytest.raises(
                RuntimeError, match=said(f"{where}: ... stopped at an error ... at")
            ):
                next(stream)
        bad["record"] = None
        stream.set_state(json.loads(json.dumps(stream.get_state())))
        seen += stream
        of_each = [batch[2] if isinstance(batch, tuple) else batch.indices for batch in seen]
        found = np.concatenate(of_each)
        assert sorted(found[found >= 0]) == list(range(9))


def test_a_source_that_became_shorter():
    rows = [[1], [2], [3]]
    stream = jm.bucket_stream(rows, 1, boundaries=[1], buffer=1)
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(ValueError, match=said("bucket_stream: ... after 1 records ... only 0")):
        jm.bucket_stream([], 1, boundaries=[1], buffer=1).set_state(stream.get_state())


def test_a_state_of_another_stream():
    rows = [[1], [2, 2]]
    makers = (
        lambda size: jm.pack_stream(rows, 4, size),
        lambda size: jm.bucket_stream(rows, size, boundaries=[4]),
    )
    for make in makers:
        stream = make(1)
        with pytest.raises(ValueError, match=said("set_state: the state is of other batches")):
            stream.set_state(make(2).get_state())
        with pytest.raises(ValueError, match=said("set_state: `state` must be ... got NoneType")):
            stream.set_state(None)
        assert len(list(stream)) == len(list(make(1)))  # and nothing has moved


@pytest.mark.parametrize(
    ("error", "text", "rows"),
    [
        (ValueError, "`sequences[1]` has 5 steps", [[1], [1] * 5]),
        (TypeError, "`sequences[1]` must be a row ... got int 3", [[1], 3]),
        (TypeError, "`sequences[2]` has dtype float64", [np.ones(1, np.int32)] * 2 + [np.ones(1)]),
        (ValueError, "step 0 of `sequences[1]` is 0.5, which int32", [[1], [0.5]]),
        (ValueError, "(2,) and a step of `sequences[1]` has shape ()", [np.ones((1, 2)), [1.0]]),
        (TypeError, "step 0 of `sequences[1]` is 'a'", [[1], ["a"]]),
    ],
)
def test_a_bad_record_is_named(error, text, rows):
    for where, stream in streams(lambda: iter(rows)):
        with pytest.raises(error, match=said(f"{where}: ... {text}")):
            list(stream)


def test_an_empty_row_before_the_type_is_known():
    for _, stream in streams(lambda: [[], [1], [2]], value=7):
        batches = [
            getattr(batch, "x", batch[0] if isinstance(batch, tuple) else None) for batch in stream
        ]
        assert sorted(set(np.concatenate(batches).ravel().tolist())) == [1, 2, 7]


def test_a_resumed_stream_remembers_its_type():
    rows = [[0.5], [1.5], [2], [3]]  # the last two alone would be integers
    for make in (
        lambda: jm.pack_stream(rows, 1, 1, buffer=2),
        lambda: jm.bucket_stream(rows, 1, boundaries=[1], buffer=2),
    ):
        stream = make()
        for _ in range(3):
            next(stream)
        resumed = make()
        resumed.set_state(stream.get_state())
        for one in (stream, resumed):
            batch = next(one)
            x = batch[0] if isinstance(batch, tuple) else batch.x
            assert x.dtype == np.float64
            assert x.tolist() == [[3.0]]


def test_no_record_no_batch():
    for _, stream in streams(list):
        assert list(stream) == []
        assert list(stream) == []
    (packed,) = jm.pack_stream([[], []], 3, 2)
    assert (packed.x.shape, packed.mask.any(), packed.count) == ((2, 3), False, 2)


ROWS = named([1, 3, 2, 2, 1, 4, 1, 2])
EPOCHS = {
    "pack_stream": lambda rows: jm.pack_stream(rows, 6, 1, buffer=2, shuffle_seed=3),
    "bucket_stream": lambda rows: jm.bucket_stream(
        rows, 2, boundaries=[2, 4], buffer=3, shuffle_seed=3
    ),
}


@pytest.mark.parametrize("name", EPOCHS)
def test_epochs_follow_each_other_and_resume_exactly(name):
    """Each is one order of all sequences, the same by `epoch(k)` as in the endless stream."""

    def make():
        return EPOCHS[name](lambda: iter(ROWS))

    def leaves(batch):
        return batch if isinstance(batch, tuple) else fields(batch)

    epochs = [[leaves(batch) for batch in make().epoch(k)] for k in range(3)]
    for epoch in epochs:
        indices = np.concatenate([batch[-1].ravel() for batch in epoch])
        assert sorted(set(indices[indices >= 0])) == list(range(len(ROWS)))
    orders = [json.dumps([batch[-1].tolist() for batch in epoch]) for epoch in epochs]
    assert len(set(orders)) == 3
    plain = make()
    assert_batches(plain, epochs[0], leaves)
    assert list(plain) == []
    assert_batches(plain.epoch(1), epochs[1], leaves)
    stream, expected = make().endless(), [batch for epoch in epochs for batch in epoch]
    for k in range(len(expected)):
        other = make().endless()
        other.set_state(json.loads(json.dumps(stream.get_state())))
        rest = expected[k : k + 4]
        assert_batches((next(other) for _ in rest), rest, leaves)
        assert stream.get_state()["epoch"] == max(0, k - 1) // len(epochs[0])
        next(stream)


def assert_batches(batches, expected, leaves):
    for batch, want in zip(batches, expected, strict=True):
        assert_same(leaves(batch), want)


@pytest.mark.parametrize("name", EPOCHS)
def test_an_endless_stream_needs_batches_and_a_beginning(name):
    assert list(EPOCHS[name]([]).endless()) == []
    generator = EPOCHS[name](iter(ROWS))
    with pytest.raises(ValueError, match=said(f"{name}: a generator ... start over ... function")):
        generator.endless()
    assert len(list(generator.epoch(0)))
    with pytest.raises(ValueError, match=said("cannot be read again")):
        generator.epoch(1)


def test_a_generator_cannot_be_resumed():
    stream = jm.pack_stream(iter([[1], [2]]), 2, 1)
    state = stream.get_state()
    next(stream)
    with pytest.raises(ValueError, match=said("pack_stream: a generator cannot be read again")):
        stream.set_state(state)
    again = jm.pack_stream(lambda: iter([[1], [2]]), 2, 1)
    first = fields(next(again))
    again.set_state(state)
    assert_same(fields(next(again)), first)


@pytest.mark.parametrize(
    ("error", "text", "options"),
    [
        (ValueError, "`row_length` must be at least 1", {"row_length": 0}),
        (ValueError, "`batch_size` must be at least 1", {"batch_size": 0}),
        (ValueError, "`buffer` must be at least 1", {"buffer": 0}),
        (ValueError, "`overflow` must be one of", {"overflow": "cut"}),
        (TypeError, "`sequences` must be an iterable of rows, or a function", {"sequences": 3}),
    ],
)
def test_bad_options_of_packing(error, text, options):
    with pytest.raises(error, match=said(f"pack_stream: {text}")):
        jm.pack_stream(**{"sequences": [[1]], "row_length": 2, "batch_size": 1, **options})


@pytest.mark.parametrize(
    ("error", "text", "options"),
    [
        (TypeError, "either `batch_size` ... or `tokens`", {"tokens": 4}),
        (ValueError, "`buffer` must be at least 1", {"buffer": 0}),
        (ValueError, "`boundaries` must be ... increasing", {"boundaries": [3, 2]}),
        (ValueError, "a row of 5 steps", {"batch_size": None, "tokens": 4, "boundaries": [2, 5]}),
    ],
)
def test_bad_options_of_bucketing(error, text, options):
    with pytest.raises(error, match=said(f"bucket_stream: ... {text}")):
        jm.bucket_stream([[1]], **{"batch_size": 1, "boundaries": [2], **options})
