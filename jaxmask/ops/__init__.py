"""Masked primitives that are safe against nan, inf and empty rows.

All of them act on the real steps of each row only, wherever the padding lies (mask class: any),
and keep the sequences of `Segments` apart. What stands in the padding of a result is 0.
"""

from jaxmask.ops._dtypes import accumulator, of_mean, of_sum
from jaxmask.ops._extreme import extreme
from jaxmask.ops._filling import each_step, fill, fill_real
from jaxmask.ops._moving import compact, flip, shift
from jaxmask.ops._over_time import cumsum, log_softmax, logsumexp, softmax
from jaxmask.ops._segments import segments_apart

__all__ = [
    "accumulator",
    "compact",
    "cumsum",
    "each_step",
    "extreme",
    "fill",
    "fill_real",
    "flip",
    "log_softmax",
    "logsumexp",
    "of_mean",
    "of_sum",
    "segments_apart",
    "shift",
    "softmax",
]


def __dir__() -> list[str]:
    return __all__
