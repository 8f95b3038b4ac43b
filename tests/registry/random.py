"""Noise."""

import jax

import jaxmask as jm
from tests.registry.entry import Entry

ENTRIES = [
    Entry(
        "random.dropout",
        lambda params, xs, masks, rows: [
            jm.random.dropout(xs[0], masks[0], jax.random.key(0), 0.5, row_ids=rows)
        ],
        of_rows=True,
        exempt={"segments": "noise is keyed by the row, which a packed sequence changes"},
    ),
]

NOT_MASKED = {
    "random.step_keys": "gives keys; tested in test_random.py",
}
