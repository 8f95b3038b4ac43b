"""Tests of your own masked functions: Hypothesis strategies of ragged batches, and assertions.

    @hypothesis.given(jaxmask.testing.ragged_batches(features=(3,)))
    def test_my_layer(batch):
        jaxmask.testing.assert_lawful(my_layer, *batch)

Needs `hypothesis`: `pip install jaxmask[testing]`.
"""

from jaxmask.testing._assertions import assert_lawful, assert_row_alone
from jaxmask.testing._strategies import LAYOUTS, POISONS, masks, ragged_batches

__all__ = [
    "LAYOUTS",
    "POISONS",
    "assert_lawful",
    "assert_row_alone",
    "masks",
    "ragged_batches",
]
__dir__ = __all__.copy
