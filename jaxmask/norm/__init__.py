"""Normalisation over real steps only: `(x, mask) -> (y, mask)`.

The functions differ in what the mean and the variance are taken over:

    layer, rms     the features of one step
    group          the real steps of a row and the features of one group
    instance       the real steps of a row, each feature by itself
    standardize    the same without scale and bias, for inputs
    batch          the real steps of all rows, each feature by itself

The variance is the biased one, computed in two passes (from the centred values, which avoids
cancellation) and in at least float32. A constant row gives 0 before the bias, with a finite
gradient. Padding stays 0: neither scale nor bias reaches it.
"""

from jaxmask.norm._batch import BatchStatistics, batch, batch_statistics, update_statistics
from jaxmask.norm._over_time import group, instance, standardize
from jaxmask.norm._per_step import layer, rms

__all__ = [
    "BatchStatistics",
    "batch",
    "batch_statistics",
    "group",
    "instance",
    "layer",
    "rms",
    "standardize",
    "update_statistics",
]
__dir__ = __all__.copy
