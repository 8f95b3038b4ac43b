"""Metrics as immutable pytrees: `empty()`, `update(...)`, `merge(other)`, `compute()`.

A metric holds sums and counts, so that batches may have any length, and the metrics of batches,
hosts and devices merge into that of a single pass; inside `shard_map`, `jax.lax.psum(metric, axis)`
merges those of all devices. A metric of no real step computes 0.
"""

from jaxmask.metrics._confusion import F1, ConfusionMatrix, Precision, Recall
from jaxmask.metrics._curve import AUC
from jaxmask.metrics._edit import TokenErrorRate, edit_distance
from jaxmask.metrics._mean import Accuracy, Mean, MeanSquaredError, Perplexity, TopKAccuracy

__all__ = [
    "AUC",
    "F1",
    "Accuracy",
    "ConfusionMatrix",
    "Mean",
    "MeanSquaredError",
    "Perplexity",
    "Precision",
    "Recall",
    "TokenErrorRate",
    "TopKAccuracy",
    "edit_distance",
]
__dir__ = __all__.copy
