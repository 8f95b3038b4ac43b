"""Metrics."""

import jaxmask as jm
from tests.registry.entry import LABELS, LOGITS, NO_SEGMENTS, SCALAR, Entry, Input

ENTRIES = [
    Entry(
        "metrics.edit_distance",
        lambda params, xs, masks, rows: [
            jm.metrics.edit_distance(xs[0], masks[0], xs[1], masks[1])
        ],
        (LABELS, Input(features=(), kind="ids", mask=1)),
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry(
        "metrics.Mean",
        lambda params, xs, masks, rows: [
            (jm.metrics.Mean.empty().update(xs[0], masks[0]).compute(), None)
        ],
        of_rows=True,
        exempt=SCALAR,
    ),
    Entry(
        "metrics.Perplexity",
        lambda params, xs, masks, rows: [
            (jm.metrics.Perplexity.empty().update(xs[0], masks[0]).compute(), None)
        ],
        (Input(features=()),),
        of_rows=True,
        exempt=SCALAR,
    ),
    Entry(
        "metrics.Accuracy",
        lambda params, xs, masks, rows: [
            (jm.metrics.Accuracy.empty().update(xs[0], masks[0], xs[1]).compute(), None)
        ],
        (LOGITS, LABELS),
        of_rows=True,
        exempt=SCALAR,
    ),
    Entry(
        "metrics.TokenErrorRate",
        lambda params, xs, masks, rows: [
            (
                jm.metrics.TokenErrorRate.empty()
                .update(xs[0], masks[0], xs[1], masks[1])
                .compute(),
                None,
            )
        ],
        (LABELS, Input(features=(), kind="ids", mask=1)),
        exempt=SCALAR,
    ),
]

NOT_MASKED = {}
