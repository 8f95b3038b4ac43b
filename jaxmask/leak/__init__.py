"""Does padding leak through a function? Poison it, append more of it, move it, and compare.

    jm.leak.assert_padding_invariant(fn, x, mask)

An acquittal says what was tried: these shapes, this mask, these contents of the padding.
"""

from jaxmask.leak.checker import assert_padding_invariant as assert_padding_invariant
from jaxmask.leak.checker import check as check
from jaxmask.leak.findings import Finding as Finding
from jaxmask.leak.findings import LeakError as LeakError
from jaxmask.leak.findings import Report as Report
