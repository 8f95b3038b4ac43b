"""In all of these tests the padding is checked after every rule."""

import pytest

from jaxmask.ragged._interpreter import padding


@pytest.fixture(autouse=True)
def _checked_padding():
    with padding.checking():
        yield
