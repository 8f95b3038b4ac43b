"""Runs before any test module is imported."""

import gc
import importlib.util
import os
import re
from collections import Counter

import jax
import pytest
from hypothesis import settings

from tests import by_numpy, draws, optimised

# Keras reads it once, when it is first imported; the comparisons with Keras need one backend.
os.environ["KERAS_BACKEND"] = "jax"

# The first example of a shape compiles, which no deadline foresees.
settings.register_profile("jax", deadline=None)
settings.load_profile("jax")


def pytest_addoption(parser):
    parser.addoption(
        "--all",
        action="store_true",
        help="run what is exhaustive too: every law over every entry, optimised, and 4000 chains",
    )
    parser.addoption(
        "--optimized",
        action="store_true",
        help="compile everything as users do; otherwise only the laws of gradients are",
    )
    parser.addoption(
        "--fuzz", type=int, default=0, metavar="N", help="try N random chains and row functions"
    )
    parser.addoption(
        "--fuzz-seed", type=int, default=0, metavar="SEED", help="the number of the first of them"
    )
    parser.addoption(
        "--long",
        type=int,
        default=0,
        metavar="N",
        help="with --all: kill a training job N times more",
    )


def pytest_configure(config):
    gc.set_threshold(1_000_000, 20, 100)  # tracing makes many objects, and few cycles
    optimised.compile_on_one_core()
    optimised.share_mlir_contexts()
    optimised.spare_what_no_test_reads()
    draws.draw_parameters_by_numpy()
    if not config.getoption("--optimized"):
        by_numpy.run_by_numpy()
        optimised.compile_quickly()


def pytest_generate_tests(metafunc):
    """Each law runs over its entries, and with `--all` compiles all of them as users do."""
    law = metafunc.function
    if not hasattr(law, "of_gradients"):
        return
    from tests.law import way_to_compile  # its registry compiles, by the flags of above

    as_users_do = metafunc.config.getoption("--all")
    ways = ["optimised" if as_users_do else way_to_compile(law, entry) for entry in law.entries]
    metafunc.parametrize(
        ("_compiler", "entry"),
        list(zip(ways, law.entries, strict=True)),
        ids=[f"{way}-{entry}" for way, entry in zip(ways, law.entries, strict=True)],
        indirect=["_compiler"],
        scope="function",
    )


@pytest.fixture(autouse=True)
def _compiler(request):
    """How a law compiles its programs."""
    with optimised.compiled(getattr(request, "param", "quick")):
        yield


@pytest.fixture(autouse=True)
def _spared(request):
    """A law that could say nothing new of an entry is left to `--all`."""
    where = getattr(request.function, "where", None)
    if where and not request.config.getoption("--all"):
        entry = request.getfixturevalue("entry")
        if not where(entry):
            pytest.skip(f"not where {where.__name__}; tried with --all")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """All laws of an entry, and all tests of another file, on one worker.

    So each program compiles once, and each fixture of a file is made once. (`--dist loadgroup` does
    not group with every version of pytest.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByProgram(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            if entry := re.search(r"\[(?:quick|fused|optimised)-(.*)\]$", nodeid):
                return entry[1]
            path = nodeid.partition("::")[0]
            return nodeid if path.endswith("test_chains.py") else path

    return ByProgram(config, log)


def pytest_collection_modifyitems(config, items):
    """All tests of an entry in a row."""
    if not config.getoption("--all"):
        leave_out_the_exhaustive(config, items)
    skip_examples_without_their_library(items)
    groups: dict[str, int] = {}
    for item in items:
        params = getattr(item, "callspec", None) and item.callspec.params
        entry = params and params.get("entry")
        name = str(entry) if entry else str(item.path)
        groups.setdefault(name, len(groups))
        item.stash[GROUP] = name
    items.sort(key=lambda item: groups[item.stash[GROUP]])


def skip_examples_without_their_library(items):
    """Examples of `interop` that convert a model of a library which is not installed."""
    missing = [name for name in ("torch", "keras") if importlib.util.find_spec(name) is None]
    for item in items:
        lines = "".join(e.source for e in item.dtest.examples) if hasattr(item, "dtest") else ""
        for name in missing:
            if re.search(rf"import .*\b{name}\b", lines):
                item.add_marker(pytest.mark.skip(reason=f"needs {name}"))


def leave_out_the_exhaustive(config, items):
    """Tests that are marked so, others of which one in n is tried, and laws of one entry each."""
    from tests.law import other_calls  # its registry compiles, by the flags of above

    seen: Counter[str] = Counter()

    def is_left_out(item):
        if item.get_closest_marker("exhaustive"):
            return True
        if sampled := item.get_closest_marker("sampled"):
            name = item.nodeid.partition("[")[0]
            seen[name] += 1
            return (seen[name] - 1) % sampled.args[0] > 0
        function = getattr(item, "function", None)
        if not hasattr(function, "of_every_call"):
            return False
        return not function.of_every_call and item.callspec.params["entry"].name in other_calls()

    kept, left_out = [], []
    for item in items:
        (left_out if is_left_out(item) else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


GROUP = pytest.StashKey[str]()
_seen_groups: list[str] = []


@pytest.fixture(autouse=True)
def _forget_programs(request):
    """Compiled programs are kept for good otherwise, by the gigabyte.

    What else there is stays out of garbage collections until then: JAX's checks for tracers that
    outlive their trace collect all garbage, at each trace.
    """
    name = request.node.stash.get(GROUP, "")
    if name not in _seen_groups[-1:]:
        _seen_groups.append(name)
        if len(_seen_groups) % 30 == 0:
            gc.unfreeze()
            jax.clear_caches()
        gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """How many (function, law) pairs were tried: an entry of the registry under one of the laws."""
    outcomes = {
        outcome: [r for r in terminalreporter.stats.get(outcome, []) if "law" in r.keywords]
        for outcome in ("passed", "failed")
    }
    every = [report for reports in outcomes.values() for report in reports]
    if every:
        held, broken = map(len, outcomes.values())
        as_users_do = sum("[optimised-" in report.nodeid for report in every)
        fused = sum("[fused-" in report.nodeid for report in every)
        terminalreporter.write_line(
            f"{held} (function, law) pairs hold and {broken} do not; {as_users_do} were compiled "
            f"with XLA's default optimisation and {fused} with it but for LLVM's"
        )
