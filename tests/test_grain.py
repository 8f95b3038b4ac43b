"""Pipelines of Grain: every record once, in shares, and the same batches after a kill."""

import json
import pickle
import re

import jax
import numpy as np
import pytest

import jaxmask as jm

grain = pytest.importorskip("grain")

draw = np.random.default_rng(0)
LENGTHS = draw.integers(0, 10, 83).tolist()
SEQUENCES = [np.full(n, index, np.int32) for index, n in enumerate(LENGTHS)]
RECORDS = [
    {"ids": row, "label": np.int32(index % 5), "name": f"record {index}"}
    for index, row in enumerate(SEQUENCES)
]


def said(text):
    """A pattern of literal parts, with anything at `...` between them."""
    return "(?s)" + ".*".join(re.escape(part) for part in text.split(" ... "))


def shuffled(process=0, processes=1, records=RECORDS):
    return grain.MapDataset.source(records).seed(3).shuffle()[process::processes]


def bucket(dataset, **options):
    options = {"boundaries": [3, 6, 9], "buffer": 20, "shuffle_seed": 0, **options}
    return jm.grain.Bucket(dataset, 4, **{"key": "ids", "keep": ["label"], "value": -1, **options})


def pack(dataset, **options):
    options = {"buffer": 6, "shuffle_seed": 0, **options}
    options = {"key": "ids", "keep": ["label"], "max_segments": 3, "value": -1, **options}
    return jm.grain.Pack(dataset, 10, 2, **options)


def bucketed(dataset):
    rows = jm.bucket_batches([dataset[k]["ids"] for k in range(len(dataset))], 4, shuffle_seed=1)
    return jm.grain.batches(rows, epochs=2).to_iter_dataset()


def packed_rows(dataset):
    packed = jm.pack_sequences([dataset[k]["ids"] for k in range(len(dataset))], 10)
    return jm.grain.rows(packed).seed(4).shuffle().repeat(2).batch(3).to_iter_dataset()


def padded(dataset):
    batch_fn = jm.grain.pad(12, key="ids", keep=["label"])
    return dataset.batch(4, batch_fn=batch_fn).to_iter_dataset()


def assert_same(one, other):
    one, other = (
        batch if isinstance(batch, dict) else dict(enumerate(batch)) for batch in (one, other)
    )
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], strict=True)


@pytest.mark.parametrize("pipeline", [bucket, pack, bucketed, packed_rows, padded])
@pytest.mark.parametrize("threads", [0, 2])
def test_after_a_kill_the_same_batches_follow(pipeline, threads):
    def make():
        dataset = pipeline(shuffled(0, 2))
        if threads:
            dataset = grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=2)
        return iter(dataset)

    iterator = make()
    states, batches = [json.dumps(iterator.get_state())], []
    for batch in iterator:
        batches.append(batch)
        states.append(json.dumps(iterator.get_state()))
    assert len(batches) >= 6
    for given, state in list(enumerate(states))[:: 1 + 3 * bool(threads)]:
        resumed = make()
        resumed.set_state(json.loads(state))
        for one, two in zip(resumed, batches[given:], strict=True):
            assert_same(one, two)


def test_the_checkpoint_handler_of_grain(tmp_path):
    from etils import epath

    handler = grain.checkpoint.CheckpointHandler()
    iterator = iter(pack(shuffled()))
    for _ in range(7):
        next(iterator)
    handler.save(epath.Path(tmp_path), iterator)
    restored = handler.restore(epath.Path(tmp_path), iter(pack(shuffled())))
    for one, two in zip(iterator, restored, strict=True):
        assert_same(one, two)


def test_a_repeated_source_goes_on():
    iterator = iter(pack(shuffled().repeat(3)))
    labels = sum((batch["indices"] >= 0).sum() for batch in iterator)
    assert labels == 3 * sum(n > 0 for n in LENGTHS)


def test_processes_share_the_records():
    for pipeline in (bucket, pack):
        seen = []
        for process in range(3):
            for batch in pipeline(shuffled(process, 3)):
                seen += batch["ids"][batch["mask"]].tolist()
        expected = [index for index, n in enumerate(LENGTHS) for _ in range(n)]
        assert sorted(seen) == expected


def test_bucketed_batches_hold_what_belongs_together():
    dataset = shuffled()
    shapes, records = set(), 0
    for batch in bucket(dataset):
        shapes.add(batch["ids"].shape)
        for ids, mask, index, label in zip(
            *(batch[name] for name in ("ids", "mask", "indices", "label")), strict=True
        ):
            if index < 0:
                assert not mask.any()
                assert label == 0
                continue
            records += 1
            np.testing.assert_array_equal(ids[mask], dataset[int(index)]["ids"])
            assert label == dataset[int(index)]["label"]
    assert shapes == {(4, 3), (4, 6), (4, 9)}
    assert records == len(RECORDS)


def test_packed_batches_hold_what_belongs_together():
    dataset, records = shuffled(), 0
    for batch in pack(dataset):
        assert batch["ids"].shape == batch["mask"].shape == batch["segments"].shape == (2, 10)
        indices, labels = (batch[name].reshape(2, 3) for name in ("indices", "label"))
        np.testing.assert_array_equal(batch["ids"] >= 0, batch["mask"])
        np.testing.assert_array_equal(batch["segments"] > 0, batch["mask"])
        for row in range(2):
            for number in range(3):
                ids = batch["ids"][row][batch["segments"][row] == number + 1]
                index = indices[row, number]
                assert (index >= 0) == (len(ids) > 0)
                if len(ids):
                    records += 1
                    np.testing.assert_array_equal(ids, dataset[int(index)]["ids"])
                    assert labels[row, number] == dataset[int(index)]["label"]
        # the values stand where pooling puts the results of the sequences
        first, real = jm.pool.first(batch["ids"], jm.Segments(batch["segments"], 3))
        np.testing.assert_array_equal(real, batch["indices"] >= 0)
        named = [dataset[int(k)]["ids"][0] for k in batch["indices"] if k >= 0]
        np.testing.assert_array_equal(np.asarray(first)[np.asarray(real)], named)
    assert records == sum(n > 0 for n in LENGTHS)


def test_names_of_any_length_are_kept():
    dataset, names = shuffled(), [record["name"] for record in RECORDS]
    assert len({len(name) for name in names}) == 2
    for batches in (bucket(dataset, keep=["name"]), pack(dataset, keep=["name"])):
        for batch in batches:
            named = [dataset[k]["name"] if k >= 0 else "" for k in batch["indices"].tolist()]
            assert batch["name"].tolist() == named


def test_bare_sequences():
    dataset = shuffled(records=SEQUENCES)
    x, mask = dataset.batch(4, batch_fn=jm.grain.pad())[0]
    assert x.shape == mask.shape == (4, max(len(dataset[k]) for k in range(4)))
    x, mask, indices = next(iter(jm.grain.Bucket(dataset, 4, boundaries=[9])))
    assert x.shape == mask.shape == (4, 9)
    assert indices.tolist() == [0, 1, 2, 3]
    batch = next(iter(jm.grain.Pack(dataset, 10, 2)))
    assert batch.keys() == {"x", "mask", "segments", "positions"}


def test_batches_by_process_have_one_shape():
    parts = [
        jm.grain.batches(jm.bucket_batches(SEQUENCES, tokens=40, shuffle_seed=0, shard=(p, 2)))
        for p in range(2)
    ]
    shapes = [[x.shape for x, _, _ in part] for part in parts]
    assert shapes[0] == shapes[1]
    seen = np.concatenate([indices for part in parts for _, _, indices in part])
    assert sorted(seen[seen >= 0]) == list(range(len(SEQUENCES)))


def test_padding_to_a_length():
    x, mask = jm.grain.pad(4, value=7)([[1, 2], [3]])
    assert x.tolist() == [[1, 2, 7, 7], [3, 7, 7, 7]]
    assert mask.tolist() == [[True, True, False, False], [True, False, False, False]]
    x, _ = jm.grain.pad(3, value=(0, 0), dtype=object)([["a"], ["b", "c"]])
    assert x.tolist() == [["a", (0, 0), (0, 0)], ["b", "c", (0, 0)]]


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("error", "text", "make"),
    [
        (TypeError, "`keep` needs `key`", lambda d: jm.grain.pad(keep=["label"])),
        (
            TypeError,
            "`keep` must be a sequence of names",
            lambda d: jm.grain.pad(key="ids", keep="label"),
        ),
        (ValueError, "pad: `key` and `keep` must", lambda d: jm.grain.pad(key="a", keep=["a"])),
        (ValueError, "pad: `key` and `keep` must", lambda d: jm.grain.pad(key="mask")),
        (ValueError, "names that differ ... 'indices'", lambda d: bucket(d, keep=["indices"])),
        (ValueError, "names that differ ... 'segments'", lambda d: pack(d, keep=["segments"])),
        (TypeError, "Pack: `parent` must be a dataset of Grain, got list", lambda d: pack([[1]])),
        (ValueError, "Pack: `keep` needs `max_segments`", lambda d: pack(d, max_segments=None)),
        (ValueError, "Pack: `row_length` must be at least 1", lambda d: jm.grain.Pack(d, 0, 1)),
        (ValueError, "`boundaries` must be ... increasing", lambda d: bucket(d, boundaries=[2, 1])),
        (
            ValueError,
            "Bucket: `sequences[7]` has 9",
            lambda d: next(iter(bucket(d, boundaries=[1]))),
        ),
        (
            KeyError,
            "a record has no 'x', only ... Pack: raised while reading record 0",
            lambda d: next(iter(pack(d, key="x"))),
        ),
        (
            KeyError,
            "a record has no 'y' ... reading record",
            lambda d: next(iter(pack(d, keep=["y"]))),
        ),
        (ValueError, "`maxlen` must be at least 0, got -1", lambda d: padding(-1)),
        (TypeError, "`maxlen` must be ... int ... got float", lambda d: padding(2.5)),
        (ValueError, "more than `maxlen`, 1", lambda d: d.batch(9, batch_fn=padding(1))[0]),
        (ValueError, "`epochs` must be", lambda d: jm.grain.batches(jm.bucket_batches([], 1), -1)),
    ],
)
def test_bad_use(error, text, make):
    with pytest.raises(error, match=said(text)):
        make(shuffled())


def padding(maxlen):
    return jm.grain.pad(maxlen, key="ids")


def test_a_record_that_is_no_dict_or_differs():
    with pytest.raises(TypeError, match=said("Pack: a record must be a dict with the key 'ids'")):
        next(iter(pack(shuffled(records=SEQUENCES))))
    records = [{"ids": [1], "label": 1}, {"ids": [1], "label": [1, 2]}]
    differs = "'label' must have one type and shape ... int64 () in record 0 ... in record 1"
    with pytest.raises(ValueError, match=said(differs)):
        next(iter(pack(grain.MapDataset.source(records))))
    with pytest.raises(ValueError, match=said(f"pad: {differs}")):
        jm.grain.pad(key="ids", keep=["label"])(records)
    for bad in (5, {"label": 1}):
        dataset = grain.MapDataset.source([*records[:1] * 3, bad])
        for batches in (bucket(dataset), dataset.batch(4, batch_fn=padding(3))):
            with pytest.raises((TypeError, KeyError), match="raised while reading record 3"):
                list(batches)


def test_a_padded_batch_says_where_it_begins():
    with pytest.raises(TypeError, match=said("`sequences[1]` ... counted from ... {'ids': [7]}")):
        jm.grain.pad(key="ids")([{"ids": [7]}, {"ids": 3}])


def test_a_dataset_without_a_record_gives_no_batch():
    dataset = grain.MapDataset.source([])
    nothing = jm.pack_sequences([], 4)
    for batches in (
        *(bucket(dataset), pack(dataset), padded(dataset)),
        *(jm.grain.batches(jm.bucket_batches([], 2)), jm.grain.rows(nothing)),
    ):
        assert list(batches) == []


class Failing:
    """Record 17 cannot be read."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index == 17:
            raise OSError("bad sector")
        return np.ones(3)


def test_a_record_that_cannot_be_read_is_named():
    dataset = grain.MapDataset.source(Failing())
    for batches in (jm.grain.Pack(dataset, 10, 2), jm.grain.Bucket(dataset, 2, boundaries=[3])):
        with pytest.raises(OSError, match=said("bad sector ... while reading record 17")):
            list(batches)


def test_datasets_travel_to_workers():
    cloudpickle = pytest.importorskip("cloudpickle")
    for dataset in (bucket(shuffled()), pack(shuffled())):
        other = pickle.loads(cloudpickle.dumps(dataset))
        for one, two in zip(dataset, other, strict=True):
            assert_same(one, two)


def test_records_of_several_fields():
    records = [{"s": [k] * (k % 3), "t": [k] * 2, "y": k, "name": str(k)} for k in range(7)]
    dataset = grain.MapDataset.source(records)
    options = {"key": ["s", "t", "y"], "lengths": ["t"], "value": {"s": -1}}
    bounded = {"boundaries": {"time": [1, 2], "t": [2]}}
    batches = list(jm.grain.Bucket(dataset, 2, **bounded, **options))
    given = {"lengths": ["t"], "value": {"s": -1}}
    bare = [{name: record[name] for name in ("s", "t", "y")} for record in records]
    for ours, theirs in zip(batches, jm.bucket_stream(bare, 2, **bounded, **given), strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    packed = list(jm.grain.Pack(dataset, {"time": 3, "t": 4}, 2, max_segments=2, **options))
    labels = np.concatenate([batch["x"]["y"][batch["mask"]["y"]] for batch in packed])
    assert sorted(labels.tolist()) == list(range(7))
    assert all(batch["segments"]["s"].shape == (2, 3) for batch in packed)
    x, mask = next(iter(dataset.batch(3, batch_fn=jm.grain.pad({"time": 4, "t": 2}, **options))))
    assert x["s"].tolist() == [[-1] * 4, [1, -1, -1, -1], [2, 2, -1, -1]]
    assert mask["y"].tolist() == [True] * 3
    with pytest.raises(TypeError, match="`keep` is for one `key`"):
        jm.grain.pad(key=["s"], keep=["y"])
    with pytest.raises(
        ValueError, match="record 1 of the batch has 2 steps, more than `maxlen`, 1"
    ):
        jm.grain.pad(1)([{"s": [1]}, {"s": [1, 2]}])
