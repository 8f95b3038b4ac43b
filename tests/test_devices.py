"""Many devices, many processes, and runs that are killed: what `docs/devices.md` promises."""

import contextlib
import functools
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import job, optimised
from tests.many_devices import collectives

from _pronounce.checkpoint import Checkpoints  # isort: skip  # `job` knows where it is


ROOT = Path(__file__).parents[1]
OPTIONS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "PYTHONPATH": str(ROOT),
}


def start(module, *arguments, devices, cache=None):
    """A program of its own, since JAX counts its devices when it starts.

    With a folder as `cache` its lives compile what they have in common once.
    """
    options = OPTIONS | ({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {})
    forced = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.{module}", *map(str, arguments)],
        env={**os.environ, **options, "XLA_FLAGS": f"{forced} {optimised.QUICK_FLAGS}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def wait(*programs):
    """What each wrote; if one fails, the others are not waited for."""
    try:
        written = [program.communicate(timeout=1800) for program in programs]
    finally:
        for program in programs:
            program.kill()
    for program, (_, error) in zip(programs, written, strict=True):
        assert program.returncode == 0, error
    return [out for out, _ in written]


# ------------------------------------------------------------------------------ many devices

EXAMPLES = ("pronounce", pytest.param("letters_to_phonemes", marks=pytest.mark.exhaustive))


@functools.cache
def learned(example):
    (out,) = wait(start("many_devices", example, devices=4))
    return json.loads(out)


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("way", ["data", "spread"])
def test_four_devices_learn_what_one_learns(example, way):
    found, one = learned(example)[way], learned(example)["one"]
    np.testing.assert_allclose(found["losses"], one["losses"], rtol=1e-6)
    assert one["losses"][0] != one["losses"][1]
    assert found["difference"] < 1e-5


@pytest.mark.parametrize("example", EXAMPLES)
def test_data_parallel_only_gradients_and_the_loss_are_added_up(example):
    found = learned(example)["data"]
    # The sum of the losses, their count, and the cotangent of the sum.
    assert found["collectives"] == {"all-reduce": found["parameters"] + 3}
    assert found["share"] == [1, 1]


@pytest.mark.parametrize("example", EXAMPLES)
def test_spread_only_parameters_are_gathered_and_their_gradients_scattered(example):
    found = learned(example)["spread"]
    # The norm of all gradients, by which the first example clips them, is a sum over devices too.
    norms = found["arrays"] if example == "pronounce" else 0
    assert found["collectives"] == {
        "all-gather": found["parameters"],
        "reduce-scatter": found["parameters"] // 4,
        "all-reduce": 3 + norms,
    }
    # A quarter of the parameters and of their moments stays on a device through all steps.
    np.testing.assert_allclose(found["share"], 1 / 4, atol=1e-3)


def test_the_engine_runs_the_rows_of_each_device():
    rows = {way: found["rows_of_engine"] for way, found in learned("pronounce").items()}
    assert rows == {"one": [16], "data": [4], "spread": [4]}


def test_a_checkpoint_of_four_devices_is_read_by_one():
    assert learned("pronounce")["spread"]["restored"]


def test_every_collective_is_found_in_a_program():
    assert collectives(
        "  a = (f32[2,3]{1,0}, f32[]) all-reduce(b, c), channel_id=1\n"
        "  %d = f32[4]{0} all-gather-start(%e), dimensions={0}\n"
        "  f = f32[8] fusion(%all-gather.1)\n"
        "  g = s32[5]{0} collective-permute(h)\n"
    ) == {"all-reduce": 7, "all-gather": 4, "collective-permute": 5}


# ---------------------------------------------------------------------------- many processes


@pytest.fixture(scope="module")
def two(request, tmp_path_factory):
    """What two processes of two devices each found, and where their checkpoints are."""
    folder = tmp_path_factory.mktemp("two")
    lives = addresses(lives_of(request.config))
    options = {"devices": 2, "cache": folder / "cache"}
    wait(*(start("two_processes", folder, process, *lives, **options) for process in (0, 1)))
    return [read(folder / f"{k}.pickle") for k in (0, 1)], folder


def lives_of(config):
    """One without a trouble; then, with `--all`, two with one and a last that goes on."""
    if config.getoption("--long"):
        return 6
    return 4 if config.getoption("--all") else 1


def addresses(number):
    """Free ones of this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


@pytest.fixture(scope="module")
def one():
    """The same by one process, on one device, without any row that only fills a batch."""
    state, losses = job.train(job.mesh_of(1), [0, 1], fill=False)
    return job.arrays(state), losses


def read(path):
    return pickle.loads(path.read_bytes())


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)


@pytest.mark.exhaustive
def test_two_processes_learn_what_one_learns_though_one_has_fewer_batches(two, one):
    (first, second), _ = two
    assert first["devices"] == second["devices"] == (2, 4)
    assert len(first["losses"]) >= 20 > 2 * len(list(job.pipeline(1))) - 2
    np.testing.assert_allclose(first["losses"], one[1], rtol=1e-5)
    # Parameters, statistics of batch normalisation, momentum, random key, accuracy.
    assert_close(first["state"], one[0])
    assert np.asarray(first["state"][".accuracy.count.high"]) == sum(job.RECORDS)


@pytest.mark.exhaustive
def test_both_processes_have_the_same_bits(two):
    (first, second), _ = two
    assert first["losses"] == second["losses"]
    for name, array in first["state"].items():
        assert array.tobytes() == second["state"][name].tobytes(), name


def test_a_step_without_a_real_row_changes_no_bit(two):
    for found in two[0]:
        after, loss, count = found["after_nothing"]
        assert (loss, count) == (0, 0)
        for name, array in found["state"].items():
            assert after[name].tobytes() == array.tobytes(), name


def test_metrics_of_processes_merge(two):
    labels = [record["label"] for shard in (0, 1) for record in job.records(shard)]
    for found in two[0]:
        assert found["mean_label"] == pytest.approx(np.mean(labels), rel=1e-6)


def test_one_process_goes_on_from_the_checkpoint_of_two(two, one, tmp_path):
    shutil.copytree(two[1] / "checkpoint", tmp_path / "checkpoint")
    checkpoints = Checkpoints(tmp_path)
    newest = checkpoints.newest()
    assert newest == 20
    shutil.rmtree(tmp_path / "checkpoint" / str(newest))
    state, losses = job.train(job.mesh_of(1), [0, 1], checkpoints, fill=False)
    assert losses[: newest - job.EVERY] == two[0][0]["losses"][: newest - job.EVERY]
    assert_close(job.arrays(state), one[0])


def ends(two):
    """Pairs of how the two processes ended, of the lives in trouble and the last one."""
    return list(zip(*(read(two[1] / f"ends-{k}.pickle")[1:] for k in (0, 1)), strict=True))


@pytest.mark.exhaustive
def test_where_one_process_is_lost_the_other_ends_with_an_error(two):
    *troubled, last = ends(two)
    assert {life[0]["trouble"] for life in troubled} == {"no room", "killed"}
    for life in troubled:
        own, other = life[life[0]["who"]], life[1 - life[0]["who"]]
        assert own["status"] in (-signal.SIGKILL, -signal.SIGABRT), own["log"]
        assert other["status"] == -signal.SIGABRT, other["log"]
        assert "another task died" in other["log"]
        assert other["seconds"] < 120
    assert [each["status"] for each in last] == [0, 0], last[0]["log"]


@pytest.mark.exhaustive
def test_a_full_disk_of_one_process_leaves_the_last_checkpoint_whole(two):
    for life in ends(two)[:-1]:
        if life[0]["trouble"] == "no room":
            assert re.search(
                r"Cannot write the checkpoint of step \d+ .*too large.*\. "
                r"The one of step \d+ is whole\. Make room",
                life[life[0]["who"]]["log"],
            )


@pytest.mark.exhaustive
def test_after_all_troubles_two_processes_end_with_the_bits_of_an_unbroken_run(two):
    for process, unbroken in enumerate(two[0]):
        state, losses = read(two[1] / "broken" / f"{process}.pickle")
        assert losses == unbroken["losses"]
        for name, array in unbroken["state"].items():
            assert array.tobytes() == state[name].tobytes(), name


# ------------------------------------------------------------------------------------- kills


@pytest.fixture(scope="module")
def killed(request, tmp_path_factory):
    folder, kills = tmp_path_factory.mktemp("killed"), request.config.getoption("--long")
    return json.loads(wait(start("killed", folder, kills, devices=1, cache=folder / "cache"))[0])


@pytest.mark.exhaustive
def test_killed_at_any_moment_a_run_ends_with_the_bits_of_an_unbroken_one(killed):
    first, *others = killed["ends"]
    assert len(first["losses"]) >= 20
    assert others
    assert all(other == first for other in others)


@pytest.mark.exhaustive
def test_it_was_killed_in_the_middle_of_it(killed):
    lives = {life["moment"]: life for life in killed["lives"][1:5]}
    assert {life["status"] for life in lives.values()} == {-signal.SIGKILL}
    assert lives["in_a_step"]["left"] == ["5"]
    assert [name for name in lives["while_writing"]["left"] if name.startswith("10.writing")]
    assert lives["before_sealing"]["left"] == ["10.writing", "5"]
    assert lives["while_dropping"]["left"] == ["10", "15", "5.dropped"]
    assert killed["lives"][5]["left"] == ["15", "20"]


@pytest.mark.exhaustive
def test_a_torn_checkpoint_was_skipped_with_a_message(killed):
    assert re.search(rf"checkpoint/{killed['torn']} is torn: it is skipped", killed["log"])


# -------------------------------------------------------------------------------------- docs


def test_the_python_of_the_page_runs(monkeypatch, capsys):
    page = (ROOT / "docs" / "devices.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(compile("\n".join(blocks), "docs/devices.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.strip()
    assert printed in page


def test_an_array_of_all_kinds_can_be_compared():
    found = job.arrays({"key": jax.random.key(3), "x": np.ones(2)})
    assert found["['key']"].tolist() == [0, 3]
