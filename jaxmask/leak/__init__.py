"""Does padding leak through a function? Poison it, append more of it, move it, and compare.

    jm.leak.assert_padding_invariant(fn, x, mask)

An acquittal says what was tried: these shapes, this mask, these contents of the padding.
"""

from jaxmask.leak._checker import assert_padding_invariant, check
from jaxmask.leak._findings import Finding, LeakError, Report

__all__ = [
    "Finding",
    "LeakError",
    "Report",
    "assert_padding_invariant",
    "check",
]


def __dir__() -> list[str]:
    return __all__
