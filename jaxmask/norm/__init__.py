"""Normalisation over real steps only: `(x, mask) -> (y, mask)`.

What the mean and the variance are taken over tells the functions apart:

    layer, rms     the features of one step
    group          the real steps of a row and the features of one group
    instance       the real steps of a row, each feature by itself
    standardize    the same without scale and bias, for inputs
    batch          the real steps of all rows, each feature by itself

The variance is taken in two passes (of what is left after the mean is gone, which does not cancel)
and in at least float32; it is the biased one, as everywhere in the field. A constant row gives 0
before the bias, with a finite gradient. Padding stays 0: neither scale nor bias reaches it.
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


def __dir__() -> list[str]:
    return __all__
