"""Noise that padding cannot change.

Every draw is keyed by the row's id and, where steps differ, by the rank of the step among the row's
real steps, so a real step gets the same noise wherever the padding lies and however much of it
there is.
"""

from jaxmask._keys import step_keys
from jaxmask.random._dropping import dropout, spatial_dropout
from jaxmask.random._noise import gaussian_noise
from jaxmask.random._spans import feature_masking, time_masking

__all__ = [
    "dropout",
    "feature_masking",
    "gaussian_noise",
    "spatial_dropout",
    "step_keys",
    "time_masking",
]


def __dir__() -> list[str]:
    return __all__
