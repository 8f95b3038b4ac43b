"""Every row function of the corpus equals itself on each row alone."""

import pytest

from tests.ragged.alone import compare
from tests.ragged.programs import PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_the_row_alone(name):
    compare(PROGRAMS[name])
