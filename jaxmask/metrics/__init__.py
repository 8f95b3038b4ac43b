"""Metrics as immutable pytrees: `empty()`, `update(...)`, `merge(other)`, `compute()`.

A metric holds a total and a count, so it is right over batches of any length, and the metrics of
batches, hosts and devices merge into what one pass over everything would give; inside `shard_map`,
`jax.lax.psum(metric, axis)` merges those of all devices. A metric that saw no real step computes 0.
"""

from jaxmask.metrics.edit import TokenErrorRate as TokenErrorRate
from jaxmask.metrics.edit import edit_distance as edit_distance
from jaxmask.metrics.mean import Accuracy as Accuracy
from jaxmask.metrics.mean import Mean as Mean
from jaxmask.metrics.mean import Perplexity as Perplexity

__all__ = ["Accuracy", "Mean", "Perplexity", "TokenErrorRate", "edit_distance"]
