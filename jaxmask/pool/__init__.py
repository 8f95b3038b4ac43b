"""From the steps of a row to one value: `(x, mask) -> (y, row_mask)`.

Every function acts on the real steps alone, wherever the padding lies (mask class: any). A row
without a real step gives 0 and False, and passes no gradient. `Segments` in the mask's place give
one row per segment, `[batch * max_segments, feature...]`. With `mask=None` the row mask is None.
"""

from jaxmask.pool._pool import attend, first, last, max, mean, min, sum
from jaxmask.pool._spread import statistics, std, var

__all__ = ["attend", "first", "last", "max", "mean", "min", "statistics", "std", "sum", "var"]
__dir__ = __all__.copy
