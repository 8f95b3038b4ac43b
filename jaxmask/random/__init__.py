"""Noise that padding cannot change.

Each draw is keyed by the id of its row and, where steps have draws of their own, by the rank of the
step among the real steps of the row. So the noise of a real step depends neither on where the
padding lies nor on how much of it there is.
"""

from jaxmask._keys import step_keys
from jaxmask.random._dropping import dropout, gaussian_noise, spatial_dropout
from jaxmask.random._spans import feature_masking, time_masking
from jaxmask.random._warp import time_warp

__all__ = [
    "dropout",
    "feature_masking",
    "gaussian_noise",
    "spatial_dropout",
    "step_keys",
    "time_masking",
    "time_warp",
]
__dir__ = __all__.copy
