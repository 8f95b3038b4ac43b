"""Runs before any test module is imported."""

import os

# Keras reads it once, when it is first imported; the comparisons with Keras need one backend.
os.environ["KERAS_BACKEND"] = "jax"
