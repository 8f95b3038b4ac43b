"""Noise."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

import jaxmask as jm
from tests.registry.entry import Entry

KEYED = {"segments": "noise is keyed by the row, which a packed sequence changes"}


def noise(function: Callable, *extra: Any, **options: Any) -> Callable:
    """With one key, and the rows named by their ids."""
    return lambda params, xs, masks, rows: [
        function(xs[0], masks[0], jax.random.key(0), *extra, row_ids=rows, **options)
    ]


def module(layer: nnx.Module) -> Callable:
    """In training, from the same key at each call."""
    return lambda params, xs, masks, rows: [
        layer(xs[0], masks[0], rngs=jax.random.key(0), row_ids=rows)
    ]


ENTRIES = [
    Entry("random.dropout", noise(jm.random.dropout, 0.5), of_rows=True, exempt=KEYED),
    Entry(
        "random.spatial_dropout", noise(jm.random.spatial_dropout, 0.5), of_rows=True, exempt=KEYED
    ),
    Entry(
        "random.gaussian_noise", noise(jm.random.gaussian_noise, 0.5), of_rows=True, exempt=KEYED
    ),
    Entry("random.time_masking", noise(jm.random.time_masking, 3, num_masks=2), exempt=KEYED),
    Entry(
        "random.feature_masking", noise(jm.random.feature_masking, 2), of_rows=True, exempt=KEYED
    ),
    Entry("random.time_warp", noise(jm.random.time_warp, 1), exempt=KEYED),
    Entry("nn.Dropout", module(jm.nn.Dropout(0.5)), of_rows=True, exempt=KEYED),
    Entry("nn.SpatialDropout", module(jm.nn.SpatialDropout(0.5)), of_rows=True, exempt=KEYED),
    Entry("nn.GaussianNoise", module(jm.nn.GaussianNoise(0.5)), of_rows=True, exempt=KEYED),
    Entry("nn.TimeMasking", module(jm.nn.TimeMasking(3)), exempt=KEYED),
    Entry("nn.TimeWarp", module(jm.nn.TimeWarp(1)), exempt=KEYED),
    Entry("nn.FeatureMasking", module(jm.nn.FeatureMasking(2)), of_rows=True, exempt=KEYED),
]

NOT_MASKED = {
    "random.step_keys": "gives keys; tested in test_random.py",
}
