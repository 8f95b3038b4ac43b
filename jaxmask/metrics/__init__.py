"""Metrics as immutable pytrees: `empty()`, `update(...)`, `merge(other)`, `compute()`.

Carry one through `jax.lax.scan`, donate it to `jax.jit`, checkpoint it; `update` returns a new one.
A metric holds sums and counts, so that batches may have any length, and the metrics of batches,
hosts and devices merge into that of a single pass; inside `shard_map`, `jax.lax.psum(metric, axis)`
merges those of all devices (`ExactAUC`, which keeps scores and no sums, has `gather`). A metric of
no real step computes 0, unless `zero_division` says otherwise. `where=` leaves out values that are
missing one by one.
"""

from typing import TYPE_CHECKING

from jaxmask._errors import absent
from jaxmask.metrics._accuracy import Accuracy, TopKAccuracy
from jaxmask.metrics._curve import AUC, ExactAUC
from jaxmask.metrics._edit import TokenErrorRate, edit_distance
from jaxmask.metrics._mean import BitsPerByte, Mean, Perplexity
from jaxmask.metrics._regression import (
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    R2Score,
    RootMeanSquaredError,
)
from jaxmask.metrics._scores import F1, ConfusionMatrix, FBeta, IoU, Precision, Recall
from jaxmask.metrics._spans import SpanF1

__all__ = [
    "AUC",
    "F1",
    "Accuracy",
    "BitsPerByte",
    "ConfusionMatrix",
    "ExactAUC",
    "FBeta",
    "IoU",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "Perplexity",
    "Precision",
    "R2Score",
    "Recall",
    "RootMeanSquaredError",
    "SpanF1",
    "TokenErrorRate",
    "TopKAccuracy",
    "edit_distance",
]
__dir__ = __all__.copy
_ELSEWHERE = {
    "AUROC": "AUC",
    "Average": "Mean",
    "CharErrorRate": "TokenErrorRate",
    "EditDistance": "TokenErrorRate",
    "WordErrorRate": "TokenErrorRate",
}
if not TYPE_CHECKING:  # a type checker would take it for any name
    __getattr__ = absent(__name__, __all__, _ELSEWHERE)
