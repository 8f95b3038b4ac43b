"""Masked primitives that are safe against nan, inf and empty rows.

All of them act on the real steps of each row only, wherever the padding lies (mask class: any),
and keep the sequences of `Segments` apart. Results are 0 in the padding.
"""

from jaxmask.ops._filling import each_step, fill
from jaxmask.ops._moving import compact, flip, shift
from jaxmask.ops._over_time import cumsum, log_softmax, logsumexp, softmax

__all__ = [
    "compact",
    "cumsum",
    "each_step",
    "fill",
    "flip",
    "log_softmax",
    "logsumexp",
    "shift",
    "softmax",
]
__dir__ = __all__.copy
