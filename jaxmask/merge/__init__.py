"""Several sequences to one, step by step: `*pairs -> (y, mask)`.

All arrays of a call have one shape and dtype (`concatenate`: except the last axis); nothing is
broadcast or cast. A mask of None counts as all real; the result is None only if every mask is.
Equal masks need no choice. Where masks differ, `combine` decides, the same way in every function:

    "and"    a step is real where every pair has it (default)
    "or"     a step is real where any pair has it; pairs without the step are ignored there
    "first"  the mask of the first pair; pairs without the step are ignored there

An ignored step counts as the operation's identity: 0 in a sum, 1 in a product, left out of an
average, maximum or minimum, zeros among concatenated features and in a dot product.
`Segments` merge with `Segments` alone, and a step stays real only where those that have it name the
same sequence. Mask class of all: any where the masks are equal. Where they differ, pairs are
combined at the columns of the arrays (holes: physical); rows that begin at different columns must
first be moved to the left by `jm.ops.compact`.
"""

from jaxmask.merge._merge import (
    add,
    average,
    concatenate,
    dot,
    maximum,
    minimum,
    multiply,
    subtract,
)

__all__ = ["add", "average", "concatenate", "dot", "maximum", "minimum", "multiply", "subtract"]
__dir__ = __all__.copy
