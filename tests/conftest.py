"""Runs before any test module is imported."""

import os

import jax
from hypothesis import settings

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


def pytest_configure(config):
    jax.config.update("jax_disable_most_optimizations", not config.getoption("--optimized"))


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
