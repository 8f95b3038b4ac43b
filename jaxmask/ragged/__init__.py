"""`ragged_vmap`: write a function for one unpadded row, and run it on a padded batch.

    y, y_mask = jm.ragged_vmap(f)(x, mask)

The function is traced once at a symbolic length, and its program is run, primitive by primitive, by
rules that know which part of an axis belongs to the row.
"""

from jaxmask._report import Report
from jaxmask.ragged import _rules as _rules
from jaxmask.ragged._errors import RaggedTraceError, UnsupportedPrimitiveError
from jaxmask.ragged._interpreter.interpret import Step, register
from jaxmask.ragged._interpreter.substitutes import associative_scan
from jaxmask.ragged._rules.elementwise import elementwise
from jaxmask.ragged._transform import RaggedVmap, ragged_vmap

__all__ = [
    "RaggedTraceError",
    "RaggedVmap",
    "Report",
    "Step",
    "UnsupportedPrimitiveError",
    "associative_scan",
    "elementwise",
    "ragged_vmap",
    "register",
]
__dir__ = __all__.copy
