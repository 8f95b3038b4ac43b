"""`skip_padding`: run a masked function at the cost of its real steps.

    g = jm.skip_padding(f)
    y, y_mask = g(x, mask)  # equals f(x, mask)

Rows are sorted by length and cut into groups, and each group runs at the shortest of a few static
lengths that holds it. Or, with `pack`, rows are packed into fewer, and only these run.
"""

from jaxmask._report import Report
from jaxmask.skip._plan import Plan
from jaxmask.skip._transform import SkipPadding, skip_padding

__all__ = ["Plan", "Report", "SkipPadding", "skip_padding"]
__dir__ = __all__.copy
