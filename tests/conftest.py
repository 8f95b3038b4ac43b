"""Runs before any test module is imported."""

import os

from hypothesis import settings

# Keras reads it once, when it is first imported; the comparisons with Keras need one backend.
os.environ["KERAS_BACKEND"] = "jax"

# The first example of a shape compiles, which no deadline foresees.
settings.register_profile("jax", deadline=None)
settings.load_profile("jax")
