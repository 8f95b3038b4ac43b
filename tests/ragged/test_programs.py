"""Every row function of the corpus equals itself on each row alone."""

import pytest

from tests.ragged.alone import compare
from tests.ragged.programs import PROGRAMS

# Their arrays are empty in a row of one step, and for all rows of a batch of such.
AT_ONE_STEP = (
    "calls.custom_vjp_of_a_part",
    "control.crf",
    "control.fori_from_one",
    "control.viterbi",
    "cumulative.linear_recurrence",
    "indexing.every_second_from_one",
    "indexing.log_of_differences",
    "joining.crop_the_end",
    "windows.valid_of_two",
)


@pytest.mark.parametrize("name", AT_ONE_STEP)
def test_a_batch_of_single_steps(name):
    compare(PROGRAMS[name], (1, 0, 1), time=1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_the_row_alone(name):
    compare(PROGRAMS[name])
