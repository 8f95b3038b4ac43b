"""Models of other libraries as masked modules, and back.

    module = jm.interop.from_torch(model)
    y, mask = module(x, mask)

A conversion is planned first: a model with a layer that is not covered is a `ValueError` that
names the layer and the way out, and nothing is converted. `explain` shows the plan. Where the
module deliberately differs from its source, one `InteropWarning` lists the layers.

None of these libraries is imported before a model of it is converted.
"""

from jaxmask.interop._explain import explain
from jaxmask.interop._flax import from_flax
from jaxmask.interop._plan import InteropWarning, Plan
from jaxmask.interop._torch import from_torch

__all__ = ["InteropWarning", "Plan", "explain", "from_flax", "from_torch"]
__dir__ = __all__.copy
