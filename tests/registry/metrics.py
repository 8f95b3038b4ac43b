"""Metrics."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxmask as jm
from tests.registry.entry import FLOATS, LABELS, LOGITS, NO_SEGMENTS, SCALAR, Entry, Input


def _computed(metric: Any, weights: Any = None) -> Callable:
    """One number for the batch; of a matrix, the sum of it under some weights."""

    def call(params: Any, xs: list, masks: list, rows: Any) -> list:
        y = metric.update(xs[0], masks[0], xs[1]).compute()
        return [(y if weights is None else jnp.vdot(weights, y), None)]

    return call


_SPANS = jm.metrics.SpanF1.empty(["O", "B-A", "I-A", "B-B", "I-B"], "macro")
_CELLS = np.cos(np.arange(25.0, dtype=np.float32)).reshape(5, 5)
_COUNTED = {
    "ConfusionMatrix": (_computed(jm.metrics.ConfusionMatrix.empty(5), _CELLS), (LOGITS, LABELS)),
    "Precision": (_computed(jm.metrics.Precision.empty(5, "macro")), (LOGITS, LABELS)),
    "Recall": (_computed(jm.metrics.Recall.empty(5, "macro")), (LABELS, LABELS)),
    "F1": (_computed(jm.metrics.F1.empty(5, "micro")), (LOGITS, LABELS)),
    "FBeta": (_computed(jm.metrics.FBeta.empty(5, "weighted", beta=2.0)), (LOGITS, LABELS)),
    "IoU": (_computed(jm.metrics.IoU.empty(5, None), np.cos(np.arange(5.0))), (LABELS, LABELS)),
    "SpanF1": (_computed(_SPANS), (LOGITS, LABELS)),
    "TopKAccuracy": (_computed(jm.metrics.TopKAccuracy.empty(2)), (LOGITS, LABELS)),
    "MeanSquaredError": (_computed(jm.metrics.MeanSquaredError.empty()), FLOATS),
    "RootMeanSquaredError": (_computed(jm.metrics.RootMeanSquaredError.empty()), FLOATS),
    "MeanAbsoluteError": (_computed(jm.metrics.MeanAbsoluteError.empty()), FLOATS),
    "MeanAbsolutePercentageError": (
        _computed(jm.metrics.MeanAbsolutePercentageError.empty()),
        FLOATS,
    ),
    "R2Score": (_computed(jm.metrics.R2Score.empty((3,))), FLOATS),
}
_SCORES = (Input(features=(), kind="probability"), Input(features=(), kind="ids", high=3))


def _auc(params: Any, xs: list, masks: list, rows: Any) -> list:
    metric = jm.metrics.AUC.empty(50).update(xs[0], masks[0], xs[1] % 2)
    return [(metric.compute(), None)]


def _exact_auc(params: Any, xs: list, masks: list, rows: Any) -> list:
    metric = jm.metrics.ExactAUC.empty(200).update(xs[0], masks[0], xs[1] % 2)
    return [(metric.compute(), None)]


_NO_NAN = {"nan_stays_in_its_row": "it counts classes, and a class cannot be nan"}

ENTRIES = [
    *(
        Entry(
            f"metrics.{name}",
            call,
            inputs,
            of_rows=name != "SpanF1",
            exempt=SCALAR | ({} if inputs == FLOATS else _NO_NAN),
        )
        for name, (call, inputs) in _COUNTED.items()
    ),
    Entry("metrics.AUC", _auc, _SCORES, of_rows=True, exempt=SCALAR),
    Entry("metrics.ExactAUC", _exact_auc, _SCORES, of_rows=True, exempt=SCALAR),
    Entry(
        "metrics.BitsPerByte",
        _computed(jm.metrics.BitsPerByte.empty()),
        (Input(features=()), LABELS),
        of_rows=True,
        exempt=SCALAR,
    ),
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
        exempt=SCALAR | _NO_NAN,
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
