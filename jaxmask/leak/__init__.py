"""Test whether padding leaks through a function: poison it, append more, move it, and compare.

    jm.leak.assert_padding_invariant(fn, x, mask)

This is a test and not a proof; a report says which shapes, masks and contents of the padding it
tried.
"""

from jaxmask._report import Report
from jaxmask.leak._checker import assert_padding_invariant, check
from jaxmask.leak._findings import Finding, LeakError

__all__ = [
    "Finding",
    "LeakError",
    "Report",
    "assert_padding_invariant",
    "check",
]


def __dir__() -> list[str]:
    return __all__
