"""Several sequences to one, step by step: `*pairs -> (y, mask)`.

All arrays of a call have one shape and dtype (`concatenate`: but for the last axis); nothing is
broadcast or cast. A mask of None counts as all real, and None comes out where every mask is None.
Masks that are equal need no choice; where they differ, one rule, `combine=`, holds for all functions:

    "and"    a step is real where every pair has it (default)
    "or"     a step is real where any pair has it; who lacks it takes no part in the operation
    "first"  the mask of the first pair; who lacks a step of it takes no part there

To take no part is to stand there as the operation's identity: 0 in a sum, 1 in a product, nobody
in an average, maximum or minimum, zeros among concatenated features and in a dot product.
`Segments` are merged with `Segments` alone, and a step stays real only where those that have it
name the same sequence. Mask class of all: any where the masks are equal. Where they differ, pairs
meet at the columns of the arrays (holes: physical), so rows that begin at different columns are to
be moved to the left first, by `jm.ops.compact`.
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

__all__ = [
    "add",
    "average",
    "concatenate",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]


def __dir__() -> list[str]:
    return __all__
