"""The page of functions says what the registry says."""

import pytest

from tests.parity import table
from tests.parity.rivals import RIVALS, VERDICTS, VERSIONS
from tests.registry import NOT_MASKED_FUNCTIONS


def test_every_function_has_its_facts():
    missing = set(table.entries_by_name()) - set(table.facts_by_name())
    assert not missing, "add a row to tests/parity/rivals.py"


def test_no_facts_are_left_over():
    public = set(table.entries_by_name()) | set(NOT_MASKED_FUNCTIONS)
    assert set(table.facts_by_name()) <= public


def test_each_function_stands_in_one_row():
    names = [name for facts in RIVALS for name in facts.functions.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("rival", VERSIONS)
def test_cells_are_a_verdict_and_a_note(rival):
    cells = [getattr(facts, rival) for facts in RIVALS]
    assert {table.verdict(cell) for cell in cells} <= set(VERDICTS)
    needs_a_note = [cell for cell in cells if cell in ("right", "partly", "wrong", "blind")]
    assert not needs_a_note
    assert not [cell for cell in cells if "|" in cell]


def test_the_page_is_up_to_date():
    committed = table.PAGE.read_text(encoding="utf-8")
    assert committed == table.page(), table.HOW_TO_WRITE
