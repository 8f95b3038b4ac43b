"""Runs before any test module is imported."""

import os

import jax
import pytest
from hypothesis import settings

from tests import flags

# Keras reads it once, when it is first imported; the comparisons with Keras need one backend.
os.environ["KERAS_BACKEND"] = "jax"

# The first example of a shape compiles, which no deadline foresees.
settings.register_profile("jax", deadline=None)
settings.load_profile("jax")


def pytest_addoption(parser):
    parser.addoption(
        "--optimized",
        action="store_true",
        help="compile as users do; without it XLA optimises little, since tests mostly compile",
    )
    parser.addoption(
        "--fuzz", type=int, default=0, metavar="N", help="try N random stacks of layers"
    )
    parser.addoption(
        "--fuzz-seed", type=int, default=0, metavar="SEED", help="the number of the first of them"
    )
    parser.addoption(
        "--long", type=int, default=0, metavar="N", help="kill a training job N times more"
    )


def pytest_configure(config):
    if not config.getoption("--optimized"):
        jax.config.update("jax_disable_most_optimizations", True)
        # XLA reads the flags when it first starts.
        os.environ["XLA_FLAGS"] = flags.with_quick(os.environ.get("XLA_FLAGS", ""))


def pytest_collection_modifyitems(items):
    """All laws of one function in a row and on one worker, so that each program compiles once."""
    groups: dict[str, int] = {}
    for item in items:
        entry = getattr(item, "callspec", None) and item.callspec.params.get("entry")
        name = f"{item.path}:{entry}" if entry else str(item.path)
        groups.setdefault(name, len(groups))
        item.stash[GROUP] = name
        if entry:
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: groups[item.stash[GROUP]])


GROUP = pytest.StashKey[str]()
_seen_groups: list[str] = []


@pytest.fixture(autouse=True)
def _forget_programs(request):
    """Compiled programs are kept for good otherwise, by the gigabyte."""
    name = request.node.stash.get(GROUP, "")
    if name not in _seen_groups[-1:]:
        _seen_groups.append(name)
        if len(_seen_groups) % 12 == 0:
            jax.clear_caches()


def pytest_terminal_summary(terminalreporter):
    """How many (function, law) pairs were tried: an entry of the registry under one of the laws."""
    outcomes = {
        outcome: [r for r in terminalreporter.stats.get(outcome, []) if "test_laws.py" in r.nodeid]
        for outcome in ("passed", "failed")
    }
    if any(outcomes.values()):
        held, broken = (len(reports) for reports in outcomes.values())
        entries = {r.nodeid.partition("[")[2] for reports in outcomes.values() for r in reports}
        terminalreporter.write_line(
            f"{held} (function, law) pairs hold and {broken} do not, over {len(entries)} functions"
        )
