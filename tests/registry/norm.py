"""Normalisation."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

import jaxmask as jm
from tests.registry.entry import Entry, Input, module

WIDE = (Input(features=(4,)),)
AFFINE = (jnp.array([0.5, 1.5, -1.0, 2.0]), jnp.array([0.3, -0.2, 0.1, 0.4]))
STATISTICS = jm.norm.BatchStatistics(jnp.arange(4.0) / 4, jnp.arange(1.0, 5.0), 7)
MIXES_ROWS = dict.fromkeys(
    ("row_alone", "segments", "nan_stays_in_its_row"),
    "its statistics mix the rows of a batch; tested in test_norm.py",
)


def affine(function: Any, *extra: Any, **options: Any) -> dict[str, Any]:
    """With a scale and a bias as its parameters."""

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        return [function(xs[0], masks[0], *extra, *params, **options)]

    return {"call": call, "params": AFFINE, "inputs": WIDE}


ENTRIES = [
    Entry("norm.layer", **affine(jm.norm.layer), of_rows=True),
    Entry(
        "norm.rms",
        lambda params, xs, masks, rows: [jm.norm.rms(xs[0], masks[0], params)],
        WIDE,
        AFFINE[0],
        of_rows=True,
    ),
    Entry("norm.group", **affine(jm.norm.group, 2)),
    Entry("norm.instance", **affine(jm.norm.instance, epsilon=1e-2)),
    Entry(
        "norm.standardize",
        lambda params, xs, masks, rows: [jm.norm.standardize(xs[0], masks[0], epsilon=1e-2)],
        (Input(features=()),),
    ),
    Entry("norm.batch", **affine(jm.norm.batch, None), of_rows=True, exempt=MIXES_ROWS),
    Entry("norm.batch:given", **affine(jm.norm.batch, STATISTICS), of_rows=True),
    Entry("nn.LayerNorm", **module(lambda rngs: jm.nn.LayerNorm(3, rngs=rngs)), of_rows=True),
    Entry("nn.RMSNorm", **module(lambda rngs: jm.nn.RMSNorm(3, rngs=rngs)), of_rows=True),
    Entry("nn.GroupNorm", **module(lambda rngs: jm.nn.GroupNorm(3, 1, rngs=rngs))),
    Entry("nn.InstanceNorm", **module(lambda rngs: jm.nn.InstanceNorm(3, epsilon=1e-2, rngs=rngs))),
    Entry("nn.Standardize", **module(lambda rngs: jm.nn.Standardize(epsilon=1e-2))),
    Entry(
        "nn.BatchNorm",
        **module(lambda rngs: jm.nn.BatchNorm(3, rngs=rngs)),
        of_rows=True,
        exempt=MIXES_ROWS,
    ),
    Entry(
        "nn.BatchNorm:eval",
        **module(lambda rngs: jm.nn.BatchNorm(3, use_running_average=True, rngs=rngs)),
        of_rows=True,
    ),
    Entry(
        "nn.SpectralNorm",
        # Gradients are slopes once the power iteration has converged.
        **module(
            lambda rngs: jm.nn.SpectralNorm(
                jm.nn.AttentionPool(3, rngs=rngs), n_steps=30, rngs=rngs
            )
        ),
    ),
    Entry(
        "nn.SpectralNorm:streams",
        **module(
            lambda rngs: jm.nn.SpectralNorm(
                jm.nn.MinGRU(3, 2, rngs=nnx.Rngs(1)),
                n_steps=30,
                use_running_average=True,
                rngs=rngs,
            ),
            streams=True,
        ),
    ),
]

NOT_MASKED = {
    "norm.BatchStatistics": "a tuple of statistics",
    "norm.batch_statistics": "gives statistics and no pair; the laws of nn.BatchNorm run it",
    "norm.update_statistics": "takes statistics and no pair; the laws of nn.BatchNorm run it",
}
