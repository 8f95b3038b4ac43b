"""The example `examples/pronounce.py`, at a size that takes seconds."""

import contextlib
import errno
import functools
import io
import itertools
import json
import os
import re
import resource
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmask as jm
from jaxmask import leak

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import pronounce  # noqa: E402
from _pronounce import data, evaluation, model  # noqa: E402
from _pronounce.checkpoint import Checkpoints  # noqa: E402
from _pronounce.errors import UserError  # noqa: E402
from _pronounce.notes import Notes  # noqa: E402

STEPS = 10
TINY = ["--model", "tiny", "--words", "300", "--steps", str(STEPS)]


@pytest.fixture(scope="module", autouse=True)
def read_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "read_dictionary", functools.cache(data.read_dictionary))
        patch.setattr(pronounce, "CHECKPOINT_EVERY", 4)
        yield


def run_here(*arguments):
    """The exit status, and what the command wrote."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = pronounce.main(list(map(str, arguments)))
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    status, text, _ = run_here(*TINY, "--out", out)
    assert status == 0
    return out, text


def kept(out):
    """What the last checkpoint holds."""
    checkpoints = Checkpoints(out)
    trees = [checkpoints.tree(STEPS, name, None) for name in ("params", "optimizer")]
    return checkpoints.notes(STEPS)[0]["losses"], jax.tree.leaves(trees)


def assert_same_bits(out, other):
    (losses, leaves), (expected, arrays) = kept(out), kept(other)
    assert losses == expected
    for one, two in zip(leaves, arrays, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()


def tear(out, step, file):
    torn = out / "checkpoint" / str(step) / file
    os.truncate(torn, torn.stat().st_size // 2)


def test_a_run_reports_what_it_reached(trained):
    out, text = trained
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == STEPS
    assert metrics["held_out_words"] == 60
    assert metrics["phoneme_error_rate"] > 0
    assert 0 < metrics["word_error_rate"] <= 1
    assert metrics["seconds"] > metrics["training_seconds"] > 0
    assert metrics["real_letters_per_second"] > 0
    assert f"Phoneme error rate: {metrics['phoneme_error_rate']:.2%}" in text
    assert "say" in text
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.exhaustive
def test_stopped_in_the_middle_of_a_step_a_run_goes_on_to_the_same_bits(
    trained, tmp_path, monkeypatch
):
    learn = pronounce.Run._learn

    def learn_or_stop(run, batch):
        if run.step == 6:
            raise KeyboardInterrupt
        learn(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(pronounce.Run, "_learn", learn_or_stop)
        status, _, error = run_here(*TINY, "--out", tmp_path)
    assert status == 130
    assert "goes on from the last checkpoint" in error
    assert Checkpoints(tmp_path).newest() == 4

    status, text, _ = run_here(*TINY, "--out", tmp_path)

    assert status == 0
    assert "Resuming from the checkpoint of step 4" in text
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == STEPS
    assert_same_bits(tmp_path, trained[0])


def test_a_complete_run_says_so_and_other_options_are_refused(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    status, text, _ = run_here(*TINY, "--out", tmp_path)
    assert status == 0
    assert "This run is complete" in text

    status, _, error = run_here(*TINY, "--seed", 1, "--out", tmp_path)
    assert status == 1
    assert "--fresh" in error


def test_say_prints_phonemes_of_every_word(trained):
    words = ["I", "it's", "o-k", *"abcdefgh", "extraordinarily"]
    status, text, error = run_here("say", *words, "--out", trained[0])
    assert (status, error) == (0, "")
    lines = [line.split("\t") for line in text.splitlines()]
    assert [word for word, _ in lines] == words
    assert all(set(said.split()) <= set(data.PHONEMES) for _, said in lines)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("naïve", "unknown letter 'ï'"),
        ("", "empty word"),
        ("a" * 65, "at most 64"),
    ],
)
def test_say_refuses_what_it_cannot_spell(trained, word, message):
    status, text, error = run_here("say", "good", word, "--out", trained[0])
    assert status != 0
    assert text == ""
    assert message in error


def test_say_without_a_checkpoint(tmp_path):
    status, _, error = run_here("say", "word", "--out", tmp_path)
    assert status != 0
    assert "no checkpoint" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.exhaustive
@pytest.mark.parametrize("file", ["params/manifest.ocdbt", "notes-0.json", "sha256.json"])
def test_a_torn_checkpoint_is_skipped(trained, tmp_path, file):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    tear(tmp_path, STEPS, file)
    status, text, error = run_here("say", "word", "--out", tmp_path)
    assert status == 0
    assert text.startswith("word\t")
    assert re.search(r"checkpoint/10 is torn: it is skipped", error)
    if file != "notes-0.json":
        return

    status, text, _ = run_here(*TINY, "--out", tmp_path)
    assert status == 0
    assert "Resuming from the checkpoint of step 8" in text
    assert_same_bits(tmp_path, trained[0])

    for step in (8, STEPS):
        tear(tmp_path, step, file)
    for arguments in (["say", "word"], TINY):
        status, _, error = run_here(*arguments, "--out", tmp_path)
        assert status == 1
        assert "All checkpoints in" in error
        assert "--fresh" in error


@pytest.mark.parametrize("full", ["while Orbax writes", "at the end"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch, full):
    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoints = Checkpoints(tmp_path)
    state = {"params": {"w": jnp.arange(4.0)}}
    checkpoints.save(1, {"request": {}}, **state)
    with monkeypatch.context() as patch:
        if full == "at the end":
            patch.setattr(Path, "rename", no_room)
        else:
            # No file may grow any more: the error then comes from where Orbax writes.
            unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))
        try:
            with pytest.raises(UserError) as error:
                checkpoints.save(2, {"request": {}}, **state)
        finally:
            if full != "at the end":
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert re.search(
        r"(?s)Cannot write the checkpoint of step 2 into .*: .*(No space left|[Tt]oo large).*"
        r"The one of step 1 is whole\. Make room",
        str(error.value),
    )
    assert checkpoints.newest() == 1
    assert [path.name for path in checkpoints.folder.iterdir()] == ["1"]
    checkpoints.save(2, {"request": {}}, **state)
    assert checkpoints.newest() == 2


def test_a_word_lies_on_one_side_of_the_split():
    dictionary = data.read_dictionary()
    parts = data.split(dictionary)
    assert len(parts.held_out) == data.HELD_OUT_WORDS
    assert sum(map(len, parts)) == len(dictionary)
    for one, other in itertools.combinations(parts, 2):
        assert not one.keys() & other.keys()
    assert all(part[word] == dictionary[word] for part in parts for word in part)


def test_entries_that_ctc_cannot_align_are_left_out():
    listed = {"w": [("D", "AH", "B")], "ss": [("S", "S", "S")], "x": [("EH", "K")]}
    assert data.Entries.of(listed).that_fit().words == ["x"]


def test_every_entry_is_seen_once_an_epoch_with_its_own_labels():
    entries = data.Entries.of(data.split(data.read_dictionary(), words=200).training)
    batches = data.Batches(entries, 16, max_shapes=3, shuffle_seed=0)
    seen = []
    for batch in batches.epoch(1):
        for row, index in enumerate(batch.indices):
            if index < 0:
                assert not batch.mask[row].any()
                assert not batch.phoneme_mask[row].any()
                continue
            seen.append(index)
            assert batch.letters[row][batch.mask[row]].tolist() == entries.letters[index]
            assert batch.phonemes[row][batch.phoneme_mask[row]].tolist() == entries.phonemes[index]
    assert sorted(seen) == list(range(len(entries)))


def test_batches_go_on_in_the_middle_of_an_epoch():
    entries = data.Entries.of(data.split(data.read_dictionary(), words=200).training)
    batches = data.Batches(entries, 32, max_shapes=2, shuffle_seed=3)
    step = len(batches) + 2
    unbroken = itertools.islice(batches.from_step(0), step, step + len(batches))
    resumed = itertools.islice(batches.from_step(step), len(batches))
    for one, other in zip(unbroken, resumed, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)


def test_the_nearest_of_the_listed_pronunciations_counts():
    words = ["either", "either", "cat", "read", "read"]
    distances, lengths = [2, 1, 0, 3, 3], [3, 4, 3, 3, 5]
    score = evaluation.error_rates(words, distances, lengths)
    # either: 1 of 4; cat: 0 of 3; read: the first of two that are equally near, 3 of 3.
    assert score == (4 / 10, 2 / 3, 3)


def test_greedy_merges_repeats_and_drops_blanks():
    classes = jnp.array([[3, 3, 0, 3, 5, 5, 7], [0, 2, 2, 4, 4, 4, 4]])
    mask = jm.masks.from_lengths(jnp.array([6, 4]), 7)
    best, says = model.greedy(jax.nn.one_hot(classes, 8), mask)
    rows = [row[keep].tolist() for row, keep in zip(np.array(best), np.array(says), strict=True)]
    assert rows == [[3, 3, 5], [2, 4]]


@pytest.mark.exhaustive
def test_padding_changes_neither_the_loss_nor_a_gradient():
    letters, mask = jm.pad_sequences([[5, 3, 0], [7], [0, 1, 2, 3]], maxlen=5)
    phonemes, phoneme_mask = jm.pad_sequences([[1, 2], [9, 9], [4]])
    graphdef, params = model.split(model.Size(4, 1, 3), seed=0)

    def loss(params, letters, mask):
        logits, frames = nnx.merge(graphdef, params)(letters, mask)
        return jm.losses.ctc_loss(logits, frames, phonemes, phoneme_mask)

    leak.assert_padding_invariant(loss, letters, mask, params=params)


@pytest.mark.parametrize(
    ("options", "model_size", "steps"),
    [
        ({}, "small", pronounce.PRESETS["small"].steps),
        ({"minutes": 3}, "small", None),
        ({"minutes": 60}, "medium", None),
        ({"minutes": 120, "steps": 7}, "large", 7),
        ({"minutes": 60, "model": "tiny"}, "tiny", None),
    ],
)
def test_minutes_choose_the_model_and_leave_the_steps_open(options, model_size, steps):
    request = pronounce.Request(**options)
    assert request.preset() == pronounce.PRESETS[model_size]
    assert request.fixed_steps() == steps


def test_unknown_letters_are_named():
    with pytest.raises(UserError, match="unknown letter '1', '_'"):
        data.letter_ids("a_1")


def test_the_note_of_a_run_knows_its_speed():
    assert Notes({}, letters=300, training_seconds=2.0).letters_per_second() == 150
