"""Models of other libraries as masked modules, and back.

    module = jm.interop.from_torch(model)
    y, mask = module(x, mask)

A conversion is planned first: a model with a layer that is not supported is a `ValueError` that
names the layer and what to do, and nothing is converted. `explain` shows the plan. Where the
module deliberately differs from its source, one `InteropWarning` lists the layers.

Importing this module imports neither PyTorch, Keras nor Linen.
"""

from jaxmask.interop._explain import explain
from jaxmask.interop._flax import from_flax
from jaxmask.interop._keras import from_keras
from jaxmask.interop._packed import from_packed_sequence, to_packed_sequence
from jaxmask.interop._plan import InteropWarning, Plan
from jaxmask.interop._state_dict import Loaded, load_state_dict
from jaxmask.interop._to_keras import to_keras
from jaxmask.interop._to_torch import to_torch
from jaxmask.interop._torch import from_torch

__all__ = [
    "InteropWarning",
    "Loaded",
    "Plan",
    "explain",
    "from_flax",
    "from_keras",
    "from_packed_sequence",
    "from_torch",
    "load_state_dict",
    "to_keras",
    "to_packed_sequence",
    "to_torch",
]
__dir__ = __all__.copy
