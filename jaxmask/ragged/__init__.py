"""`ragged_vmap`: write a function for one unpadded row, run it on a padded batch.

    y, y_mask = jm.ragged_vmap(f)(x, mask)

The function is traced once at a length that is a symbol, and its program is run, primitive by
primitive, by rules that know which part of an axis belongs to the row.
"""

from jaxmask.ragged import calls as calls
from jaxmask.ragged import contraction as contraction
from jaxmask.ragged import control as control
from jaxmask.ragged import cumulative as cumulative
from jaxmask.ragged import extremes as extremes
from jaxmask.ragged import gathering as gathering
from jaxmask.ragged import joining as joining
from jaxmask.ragged import linear_algebra as linear_algebra
from jaxmask.ragged import randomness as randomness
from jaxmask.ragged import reductions as reductions
from jaxmask.ragged import refused as refused
from jaxmask.ragged import shapes as shapes
from jaxmask.ragged import slicing as slicing
from jaxmask.ragged import sorting as sorting
from jaxmask.ragged import windows as windows
from jaxmask.ragged.checking import Report as Report
from jaxmask.ragged.elementwise import elementwise as elementwise
from jaxmask.ragged.errors import RaggedTraceError as RaggedTraceError
from jaxmask.ragged.errors import UnsupportedPrimitiveError as UnsupportedPrimitiveError
from jaxmask.ragged.interpret import Step as Step
from jaxmask.ragged.interpret import register as register
from jaxmask.ragged.substitutes import associative_scan as associative_scan
from jaxmask.ragged.transform import RaggedVmap as RaggedVmap
from jaxmask.ragged.transform import ragged_vmap as ragged_vmap
