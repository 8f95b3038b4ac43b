"""Records of several fields: each must be what the call of its sequences alone makes of it."""

import json
import re

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import jaxmask as jm

LENGTHS = {"source": "source", "target": "target", "labels": "target"}
few = settings(max_examples=25, deadline=None)
sizes = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), min_size=1, max_size=9)


def records_of(pairs):
    """A source with features, a target with labels, a class and a speaker for each record."""
    draw = np.random.default_rng(len(pairs))
    return [
        {
            "source": {"x": draw.normal(size=(n, 2)), "tone": draw.integers(1, 9, n).tolist()},
            "target": draw.integers(1, 99, m),
            "labels": draw.integers(1, 99, m).tolist(),
            "kind": index,
            "speaker": draw.normal(size=3),
        }
        for index, (n, m) in enumerate(pairs)
    ]


OPTIONS = {"lengths": {**LENGTHS, "speaker": None}, "value": {"labels": -100, "kind": -1}}


def equal(one, other):
    """Two trees of arrays."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    return np.array_equal(one, other)


def column(records, *path):
    for key in path:
        records = [record[key] for record in records]
    return records


@few
@given(sizes, st.sampled_from(["pre", "post"]), st.integers(0, 4))
def test_each_field_is_padded_as_it_is_alone(pairs, side, most):
    records = records_of(pairs)
    options = {"padding": {"source": side}, "truncating": {"labels": "pre", "target": "pre"}}
    maxlen = {"source": None, "target": most}
    x, mask = jm.pad_sequences(records, maxlen, **options, **OPTIONS)
    for path in (("source", "x"), ("source", "tone")):
        alone = jm.pad_sequences(column(records, *path), padding=side)
        assert equal(x["source"][path[1]], alone[0])
        assert equal(mask["source"][path[1]], alone[1])
    for name, value in (("target", 0), ("labels", -100)):
        alone = jm.pad_sequences(records_column := column(records, name), most, None, "post", "pre")
        assert equal(mask[name], alone[1])
        assert equal(x[name], np.where(alone[1], alone[0], value)), records_column
    assert mask["source"]["x"] is mask["source"]["tone"]
    assert x["kind"].tolist() == list(range(len(pairs)))
    assert equal(x["speaker"], np.stack(column(records, "speaker")))
    assert mask["kind"].shape == mask["speaker"].shape == (len(pairs),)


@few
@given(sizes)
def test_columns_are_padded_as_records_are_and_come_back(pairs):
    records = records_of(pairs)
    columns = {name: column(records, name) for name in records[0] if name != "source"}
    columns["source"] = {name: column(records, "source", name) for name in ("x", "tone")}
    x, mask = jm.pad_sequences(records, **OPTIONS)
    assert equal(jm.pad_sequences(columns, **OPTIONS)[0], {name: x[name] for name in columns})
    for record, back in zip(records, jm.unpad_sequences(x, mask), strict=True):
        assert equal(record, back)


def test_a_batch_for_a_decoder_as_hugging_face_collates_it():
    rows = [([5, 6, 7], [8, 9]), ([5], [8, 9, 1, 2])]
    records = [{"input_ids": ids, "labels": labels} for ids, labels in rows]
    x, mask = jm.pad_sequences(
        records, value={"input_ids": 3, "labels": -100}, lengths=["labels"], padding="pre"
    )
    assert x["input_ids"].tolist() == [[5, 6, 7], [3, 3, 5]]
    assert mask["input_ids"].astype(int).tolist() == [[1, 1, 1], [0, 0, 1]]
    assert x["labels"].tolist() == [[-100, -100, 8, 9], [8, 9, 1, 2]]


@few
@given(sizes, st.integers(1, 4), st.sampled_from([None, "grid", "shapes"]), st.booleans())
def test_buckets_hold_every_record_once_in_few_shapes(pairs, batch_size, kind, shuffled):
    records = records_of(pairs)
    boundaries = {
        None: None,
        "grid": {"target": [2, 5], "source": [1, 3, 6]},
        "shapes": [{"source": 6, "target": 5}, {"source": 2, "target": 3}],
    }[kind]
    options = {"boundaries": boundaries, "shuffle_seed": 0 if shuffled else None, **OPTIONS}
    batches = jm.bucket_batches(records, batch_size, max_shapes=3, **options)
    assert len(batches.shapes) <= {None: 3, "grid": 6, "shapes": 2}[kind]
    found = {}
    for x, mask, indices in batches:
        assert {
            "source": {"x": x["source"]["x"].shape, "tone": x["source"]["tone"].shape},
            **{name: x[name].shape for name in ("target", "labels", "kind", "speaker")},
        } in batches.shapes
        assert equal(mask["kind"], indices >= 0)
        assert np.all(x["kind"][indices < 0] == -1)
        assert np.all(x["labels"][~mask["labels"]] == -100)
        found |= dict(zip(indices[indices >= 0], jm.unpad_sequences(x, mask), strict=True))
    assert found.keys() == set(range(len(records)))
    assert all(equal(found[k], record) for k, record in enumerate(records))
    if kind == "grid":  # the smallest of each length
        for size, members in zip(batches.boundaries, batches.members, strict=True):
            for index in members:
                n, m = pairs[index]
                assert size["source"] == min(b for b in (1, 3, 6) if b >= n)
                assert size["target"] == min(b for b in (2, 5) if b >= m)


def test_a_record_goes_into_the_smallest_shape_that_holds_it():
    shapes = [{"s": 6, "t": 6}, {"s": 2, "t": 3}]
    columns = {"s": [[1], [1] * 5], "t": [[2] * 3, [2]]}
    batches = jm.bucket_batches(columns, 1, boundaries=shapes, lengths=["s", "t"])
    assert [(x["s"].shape[1], indices.tolist()) for x, _, indices in batches] == [
        (2, [0]),
        (6, [1]),
    ]


def test_each_field_of_a_bucket_has_its_side():
    columns = {"a": [[1], [1, 2]], "b": [[3], [4, 5]]}
    for batches in (
        jm.bucket_batches(columns, 2, boundaries=[2], padding={"b": "pre"}),
        jm.bucket_stream(
            [{"a": [1], "b": [3]}, {"a": [1, 2], "b": [4, 5]}],
            2,
            boundaries=[2],
            padding={"b": "pre"},
        ),
    ):
        ((x, mask, _),) = batches
        assert x["a"].tolist() == [[1, 0], [1, 2]]
        assert x["b"].tolist() == [[0, 3], [4, 5]]
        assert all(equal(mask[name], x[name] > 0) for name in x)


def test_chosen_shapes_waste_little():
    draw = np.random.default_rng(0)
    source = draw.integers(1, 100, 2000)
    target = np.clip((source * draw.uniform(0.6, 1.4, 2000)).astype(int), 1, None)
    columns = {"s": [[1] * n for n in source], "t": [[1] * n for n in target]}
    waste = {}
    for most in (1, 4, 16):
        batches = jm.bucket_batches(columns, tokens=4000, lengths=["s", "t"], max_shapes=most)
        assert len(batches.shapes) <= most
        assert all(rows * (n + shape["t"][1]) <= 4000 for shape in batches.shapes
                   for rows, n in [shape["s"]])  # fmt: skip
        steps = sum(x["s"].size + x["t"].size for x, _, _ in batches)
        waste[most] = 1 - (source.sum() + target.sum()) / steps
    assert waste[16] < waste[4] < waste[1]
    assert waste[16] < 0.2


def test_a_long_source_never_meets_a_long_target():
    columns = {"s": [[1] * 90, [1]], "t": [[1], [1] * 90]}
    batches = jm.bucket_batches(columns, tokens=100, lengths=["s", "t"])
    assert {(shape["s"][1], shape["t"][1]) for shape in batches.shapes} == {(90, 1), (1, 90)}


@few
@given(sizes, st.integers(1, 5), st.sampled_from([None, 3]))
def test_streams_of_records_resume_exactly(pairs, buffer, seed):
    records = records_of(pairs)
    bounded = {"boundaries": {"source": [2, 6], "target": [5]}, "buffer": buffer}
    packed = {"row_length": {"source": 7, "target": 6}, "max_segments": 2, "buffer": buffer}
    for make in (
        lambda: jm.bucket_stream(lambda: iter(records), 2, shuffle_seed=seed, **bounded, **OPTIONS),
        lambda: jm.pack_stream(
            lambda: iter(records), batch_size=2, shuffle_seed=seed, **packed, **OPTIONS
        ),
    ):
        stream, states, batches = make(), [], []
        while True:
            states.append(json.dumps(stream.get_state()))
            try:
                batches.append(next(stream))
            except StopIteration:
                break
        xs = [batch[0] if isinstance(batch, tuple) else batch.x for batch in batches]
        for k, state in enumerate(states):
            other = make()
            other.set_state(json.loads(state))
            rest = [batch[0] if isinstance(batch, tuple) else batch.x for batch in other]
            assert len(rest) == len(xs) - k
            assert all(map(equal, rest, xs[k:]))
        seen = np.concatenate(
            [batch[2] if isinstance(batch, tuple) else batch.indices for batch in batches]
        )
        assert sorted(seen[seen >= 0].tolist()) == list(range(len(records)))


@few
@given(sizes, st.sampled_from([None, 1, 3]))
def test_packed_records_come_back(pairs, most):
    records = records_of(pairs)
    rows = {"source": 8, "target": 5}
    packed = jm.pack_sequences(records, rows, max_segments=most, **OPTIONS)
    for k, back in enumerate(jm.unpack_sequences(packed.x, packed)):
        if pairs[k] == (0, 0):
            assert back.pop("kind") is None
            assert back.pop("speaker") is None
            assert equal(packed.dropped[k], records[k])
        assert equal({name: records[k][name] for name in back}, back)
    each = packed.as_segments(most)
    for name in ("target", "labels"):
        assert packed.x[name].shape[1] == 5
        assert equal(each[name].ids, packed.segments[name])
        assert equal(packed.mask[name], packed.segments[name] > 0)
        # The same placement as the row of the class that pooling would give.
        ids, (row, step) = packed.segments[name], np.nonzero(packed.segments[name])
        slots = row * each[name].max_segments + ids[row, step] - 1
        owners = packed.x["kind"][slots]
        assert packed.mask["kind"][slots].all()
        ranks = packed.positions[name][row, step]
        expected = [records[k][name][rank] for k, rank in zip(owners, ranks, strict=True)]
        assert packed.x[name][row, step].tolist() == expected


def test_one_length_packs_as_sequences_alone_do():
    draw = np.random.default_rng(0)
    rows = [draw.integers(0, 9, n) for n in draw.integers(1, 9, 50)]
    for overflow in ("split", "truncate", "drop"):
        alone = jm.pack_sequences(rows, 6, overflow=overflow)
        both = jm.pack_sequences({"a": rows, "b": rows}, 6, overflow=overflow)
        for name in ("a", "b"):
            assert equal(both.x[name], alone.x)
            assert equal(both.segments[name], alone.segments)
            assert equal(both.positions[name], alone.positions)
        assert all(equal(both.dropped[k]["b"], alone.dropped[k]) for k in alone.dropped)
        assert both.fill == pytest.approx(alone.fill)
        back = jm.unpack_sequences({"b": 10 * both.x["b"]}, both)
        expected = jm.unpack_sequences(10 * alone.x, alone)
        assert all(equal(record["b"], row) for record, row in zip(back, expected, strict=True))
        assert len(jm.unpack_sequences(both.x["a"], both)) == len(rows)


def test_several_lengths_overflow_together():
    records = {"s": [[1, 2, 3], [4]], "t": [[5], [6]]}
    rows = {"s": 2, "t": 2}
    cut = jm.pack_sequences(records, rows, lengths=["s", "t"], overflow="truncate")
    assert equal(cut.dropped[0], {"s": [3], "t": []})
    gone = jm.pack_sequences(records, rows, lengths=["s", "t"], overflow="drop")
    assert equal(gone.dropped[0], {"s": [1, 2, 3], "t": [5]})
    assert gone.x["t"].tolist() == [[6, 0]]


def test_several_lengths_are_packed_well():
    draw = np.random.default_rng(0)
    source = draw.integers(1, 60, 500)
    target = np.clip((source * draw.uniform(0.7, 1.3, 500)).astype(int), 1, 64)
    columns = {"s": [[1] * n for n in source], "t": [[1] * n for n in target]}
    packed = jm.pack_sequences(columns, 64, lengths=["s", "t"])
    assert packed.fill > 0.9


def test_documents_of_sentences():
    documents = [[[1, 2], [3]], [[4, 5, 6]], []]
    x, mask = jm.pad_sequences(documents, axes=2, value=-1)
    assert x.tolist() == [
        [[1, 2, -1], [3, -1, -1]], [[4, 5, 6], [-1] * 3], [[-1] * 3] * 2
    ]  # fmt: skip
    assert equal(mask, x > 0)
    x, mask = jm.pad_sequences(
        {"ids": documents, "tags": documents, "labels": [[1, 0], [1], []], "kind": [7, 8, 9]},
        {"outer": 1, "time": 2},
        axes={"ids": 2, "tags": 2},
        lengths={"labels": "outer"},
        truncating={"ids": "pre", "tags": "pre", "labels": "pre"},
        padding="pre",
    )
    assert x["ids"].tolist() == [[[0, 3]], [[5, 6]], [[0, 0]]]
    assert x["labels"].tolist() == [[0], [1], [0]]
    assert mask["labels"].tolist() == [[True], [True], [False]]
    y, outer = jm.nn.TimeDistributed(jm.nn.GlobalMeanPool())(1.0 * x["ids"][..., None], mask["ids"])
    assert outer.shape == (3, 1)
    assert y[:, 0, 0].tolist() == [3.0, 5.5, 0.0]


def test_nothing_in_the_fields():
    for columns in ({"a": [], "b": []}, {"a": [[]], "b": [[]]}):
        x, mask = jm.pad_sequences(columns)
        assert x["a"].shape == mask["b"].shape == (len(columns["a"]), 0)
        assert not len(jm.bucket_batches({"a": [], "b": []}, 2, lengths=["b"]))
        packed = jm.pack_sequences(columns, 3)
        assert packed.x["a"].shape == (0, 3)
        assert len(jm.unpack_sequences(packed.x, packed)) == len(columns["a"])


GOOD = {"ids": [1, 2], "labels": [1, 2]}


@pytest.mark.parametrize(
    ("error", "text", "records", "options"),
    [
        (ValueError, "record 1 has 2 steps of 'ids' and 1 of 'labels'",
         [GOOD, {**GOOD, "labels": [1]}], {}),
        (ValueError, "record 1 is missing 'labels'; expected 'ids'", [GOOD, {"ids": [1]}], {}),
        (ValueError, "record 1 has the extra 'more'", [GOOD, {**GOOD, "more": 1}], {}),
        (TypeError, "record 1 must be a dict ... got list", [GOOD, [1]], {}),
        (ValueError, "`value` names an unknown field 'label'; the fields are 'ids', 'labels'",
         [GOOD], {"value": {"label": 1}}),
        (ValueError, "`value` names an unknown field 'ids.x'",
         [GOOD], {"value": {"ids": {"x": 1}}}),
        (ValueError, "`lengths` names an unknown field 'targets'",
         [GOOD], {"lengths": ["targets"]}),
        (TypeError, "`lengths` must be a dict or a list", [GOOD], {"lengths": "ids"}),
        (ValueError, "`dtype` names fields, but the sequences are plain rows",
         [[1]], {"dtype": {"ids": int}}),
        (ValueError, "`lengths` names fields", [[1]], {"lengths": ["a"]}),
        (ValueError, "field 'labels': `value` is 0.5, which int32",
         [GOOD], {"value": {"labels": 0.5}}),
        (TypeError, "field 'ids': step 1 of `sequences[0]` is 'a'", [{"ids": [1, "a"]}], {}),
        (TypeError, "field 'ids': `sequences[1]` must be a row... got int",
         [{"ids": [1]}, {"ids": 3}], {}),
        (TypeError, "field 'name': step 0 of `sequences[0]` is 'x'... `dtype={'name': object}`",
         [{"ids": [1], "name": "x"}], {}),
        (TypeError, "field 'of.name': step 0 ... `dtype={'of': {'name': object}}`",
         [{"ids": [1], "of": {"name": ["x"]}}], {}),
        (ValueError, "field 'b' has 1 records, but 'a' has 2", {"a": [[1], [2]], "b": [[1]]}, {}),
        (TypeError, "field 'a' must be a column", {"a": 3}, {}),
        (TypeError, "named by strings, got dict with the key 0", {0: [[1]]}, {}),
        (ValueError, "a dict without a field", {}, {}),
        (ValueError, "a dict without a field", [{}], {}),
    ],
)  # fmt: skip
def test_bad_records(error, text, records, options):
    pattern = re.escape(text).replace(r"\.\.\.", ".*")
    with pytest.raises(error, match=pattern):
        jm.pad_sequences(records, **options)
    if not isinstance(records, dict) and "value" not in options and "sequences[1]" not in text:
        with pytest.raises(error, match=pattern):
            list(jm.bucket_stream(iter(records), 2, boundaries=[2], **options))


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("`maxlen` must be given for the lengths 'time', got it for 'ids'",
         lambda: jm.pad_sequences([GOOD], {"ids": 3})),
        ("share the length 'time', but only one",
         lambda: jm.pad_sequences([{"a": [[1]], "b": [1]}], axes={"a": 2})),
        ("record 0 has 1 steps of 'a' and 2 of 'b', which share the length 'outer'",
         lambda: jm.pad_sequences([{"a": [[1]], "b": [1, 2]}], axes={"a": 2},
                                  lengths={"b": "outer"})),
        ("document 1: step 0 of `sequences[0]` is ragged itself",
         lambda: jm.pad_sequences([[[1]], [[[[1], [1, 2]]]]], axes=2)),
        ("the records have the lengths 'time', 'labels': give `boundaries` of each",
         lambda: jm.bucket_batches([GOOD], 1, boundaries=[3], lengths=["labels"])),
        ("record 0 has steps 2 of 'time' and 2 of 'labels', which none of `boundaries` holds",
         lambda: jm.bucket_batches([GOOD], 1, boundaries={"time": [9], "labels": [1]},
                                   lengths=["labels"])),
        ("no field of the records is a sequence", lambda: jm.bucket_batches({"a": [1]}, 1)),
        ("has 2 steps of 'labels', more than `row_length`, 1",
         lambda: jm.pack_sequences([GOOD], {"time": 2, "labels": 1}, lengths=["labels"])),
        ('`overflow="split"` cuts records of one length only',
         lambda: jm.pack_sequences([GOOD], 1, lengths=["labels"], overflow="split")),
        ("'y' has one value for each record, and so a row has `max_segments`",
         lambda: next(jm.pack_stream([{"ids": [1], "y": 1}], 2, 1))),
        ("Say which field `y` belongs to",
         lambda: jm.unpack_sequences(np.zeros((1, 2)),
                                     jm.pack_sequences([GOOD], 2, lengths=["labels"]))),
        ("has no field 'x', only 'ids', 'labels'",
         lambda: jm.unpack_sequences({"x": np.zeros((1, 2))}, jm.pack_sequences([GOOD], 2))),
        ("`mask` has the fields",
         lambda: jm.unpad_sequences({"a": np.zeros((1, 2))}, {"b": np.ones((1, 2), bool)})),
        ("`mask` must be a dict",
         lambda: jm.unpad_sequences({"a": np.zeros((1, 2))}, np.ones((1, 2), bool))),
    ],
)  # fmt: skip
def test_bad_options_of_records(text, call):
    with pytest.raises(ValueError, match=re.escape(text)):
        call()
