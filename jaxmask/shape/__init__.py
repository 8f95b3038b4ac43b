"""Change shapes and take the mask along: `(x, mask) -> (y, mask)`.

Padding of a result is 0 everywhere. What would move, mix or lose the time axis without saying
what becomes of the mask is an error.
"""

from jaxmask.shape.by_rank import crop as crop
from jaxmask.shape.by_rank import split_at as split_at
from jaxmask.shape.by_rank import take as take
from jaxmask.shape.features import permute as permute
from jaxmask.shape.features import reshape as reshape
from jaxmask.shape.time import concatenate as concatenate
from jaxmask.shape.time import flatten as flatten
from jaxmask.shape.time import pad as pad
from jaxmask.shape.time import repeat as repeat
from jaxmask.shape.time import split as split
from jaxmask.shape.time import upsample as upsample
