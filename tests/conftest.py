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


def pytest_configure(config):
    jax.config.update("jax_disable_most_optimizations", not config.getoption("--optimized"))
