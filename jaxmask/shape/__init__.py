"""Change shapes and take the mask along: `(x, mask) -> (y, mask)`.

Padding of a result is 0 everywhere. What would move, mix or lose the time axis without saying
what becomes of the mask is an error.
"""

from jaxmask.shape._by_rank import crop, split_at, take
from jaxmask.shape._features import permute, reshape
from jaxmask.shape._sampling import downsample, upsample
from jaxmask.shape._time import concatenate, flatten, pad, repeat, split

__all__ = [
    "concatenate",
    "crop",
    "downsample",
    "flatten",
    "pad",
    "permute",
    "repeat",
    "reshape",
    "split",
    "split_at",
    "take",
    "upsample",
]


def __dir__() -> list[str]:
    return __all__
