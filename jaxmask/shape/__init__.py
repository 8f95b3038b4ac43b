"""Changes of shape that carry the mask along: `(x, mask) -> (y, mask)`.

Results are 0 in the padding. An operation that would move, mix or lose the time axis, so that no
mask fits the result, is an error.
"""

from jaxmask.shape._by_rank import crop, split_at, take
from jaxmask.shape._features import permute, reshape
from jaxmask.shape._lengths import repeat_each
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
    "repeat_each",
    "reshape",
    "split",
    "split_at",
    "take",
    "upsample",
]
__dir__ = __all__.copy
