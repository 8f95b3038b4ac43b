"""Test your own masked functions: Hypothesis strategies of ragged batches, and what to assert.

    @hypothesis.given(jaxmask.testing.ragged_batches(features=(3,)))
    def test_my_layer(batch):
        jaxmask.testing.assert_lawful(my_layer, *batch)

Needs `hypothesis`, which `pip install jaxmask[testing]` brings.
"""

from jaxmask.testing._testing import (
    LAYOUTS,
    POISONS,
    assert_lawful,
    assert_row_alone,
    masks,
    ragged_batches,
)

__all__ = [
    "LAYOUTS",
    "POISONS",
    "assert_lawful",
    "assert_row_alone",
    "masks",
    "ragged_batches",
]


def __dir__() -> list[str]:
    return __all__
