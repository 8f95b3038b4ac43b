"""Metrics as immutable pytrees: `empty()`, `update(...)`, `merge(other)`, `compute()`.

A metric holds sums and counts, so it is right over batches of any length, and the metrics of
batches, hosts and devices merge into what one pass over everything would give; inside `shard_map`,
`jax.lax.psum(metric, axis)` merges those of all devices. A metric that saw no real step computes 0.
"""

from jaxmask.metrics.confusion import F1 as F1
from jaxmask.metrics.confusion import ConfusionMatrix as ConfusionMatrix
from jaxmask.metrics.confusion import Precision as Precision
from jaxmask.metrics.confusion import Recall as Recall
from jaxmask.metrics.curve import AUC as AUC
from jaxmask.metrics.edit import TokenErrorRate as TokenErrorRate
from jaxmask.metrics.edit import edit_distance as edit_distance
from jaxmask.metrics.mean import Accuracy as Accuracy
from jaxmask.metrics.mean import Mean as Mean
from jaxmask.metrics.mean import MeanSquaredError as MeanSquaredError
from jaxmask.metrics.mean import Perplexity as Perplexity
from jaxmask.metrics.mean import TopKAccuracy as TopKAccuracy

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
