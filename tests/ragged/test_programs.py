"""Every row function of the corpus equals itself on each row alone."""

import pytest

from jaxmask.ragged._interpreter import interpret
from tests.ragged.alone import compare
from tests.ragged.programs import PROGRAMS
from tests.ragged.usual import USUAL

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


@pytest.mark.parametrize("name", sorted(USUAL))
def test_equals_the_row_alone(name):
    """Of rows that are padded: each row is compiled alone."""
    _, *padded = PROGRAMS[name].lengths
    compare(PROGRAMS[name], tuple(padded))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_all_of_them_and_a_full_row_equal_the_row_alone(name):
    compare(PROGRAMS[name])


@pytest.mark.exhaustive
def test_the_usual_programs_reach_every_rule(monkeypatch):
    reached = {name: primitives_of(PROGRAMS[name], monkeypatch) for name in PROGRAMS}
    assert set().union(*reached.values()) == set().union(*(reached[name] for name in USUAL))


def primitives_of(row, monkeypatch):
    """The primitives whose rules a program asks for, and the ranks of what they are given."""
    found = set()

    def recorded(name, rule):
        def run(step, *values):
            found.add((name, *(getattr(value, "ndim", 0) for value in values[:3])))
            return rule(step, *values)

        return run

    rules = {name: recorded(name, rule) for name, rule in interpret.RULES.items()}
    monkeypatch.setattr(interpret, "RULES", rules)
    compare(row)
    monkeypatch.undo()
    return found
