"""Tests of your own masked functions: Hypothesis strategies of ragged batches, assertions, and a
plugin of pytest.

    @hypothesis.given(jaxmask.testing.ragged_batches(features=(3,)))
    def test_my_layer(batch):
        jaxmask.testing.assert_lawful(my_layer, *batch)

With `pytest_plugins = ["jaxmask.testing"]` in your `conftest.py`, the marker `padding_invariant`
checks what a test returns, and the fixture `ragged_batch` is a batch. Needs Hypothesis and pytest:
`pip install jaxmask[testing]`.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
    import pytest as _pytest  # noqa: F401, PT013
except ImportError as error:
    raise ImportError(
        "jaxmask.testing needs Hypothesis and pytest: `pip install jaxmask[testing]`. Without "
        "them, `jm.leak.check` and `jm.leak.assert_padding_invariant` check a function on a batch "
        "of yours."
    ) from error

from jaxmask.testing._assertions import assert_lawful, assert_row_alone
from jaxmask.testing._plugin import pytest_configure, pytest_pyfunc_call, ragged_batch
from jaxmask.testing._strategies import LAYOUTS, POISONS, masks, ragged_batches

__all__ = [
    "LAYOUTS",
    "POISONS",
    "assert_lawful",
    "assert_row_alone",
    "masks",
    "pytest_configure",
    "pytest_pyfunc_call",
    "ragged_batch",
    "ragged_batches",
]
__dir__ = __all__.copy
