"""How each primitive runs on a padded row, one file a family of primitives."""

from jaxmask.ragged._rules import (
    calls as calls,
)
from jaxmask.ragged._rules import (
    contraction as contraction,
)
from jaxmask.ragged._rules import (
    control as control,
)
from jaxmask.ragged._rules import (
    cumulative as cumulative,
)
from jaxmask.ragged._rules import (
    elementwise as elementwise,
)
from jaxmask.ragged._rules import (
    extremes as extremes,
)
from jaxmask.ragged._rules import (
    gathering as gathering,
)
from jaxmask.ragged._rules import (
    joining as joining,
)
from jaxmask.ragged._rules import (
    linear_algebra as linear_algebra,
)
from jaxmask.ragged._rules import (
    randomness as randomness,
)
from jaxmask.ragged._rules import (
    reductions as reductions,
)
from jaxmask.ragged._rules import (
    refused as refused,
)
from jaxmask.ragged._rules import (
    shapes as shapes,
)
from jaxmask.ragged._rules import (
    slicing as slicing,
)
from jaxmask.ragged._rules import (
    sorting as sorting,
)
from jaxmask.ragged._rules import (
    windows as windows,
)
