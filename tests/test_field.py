"""docs/field.md: the verdicts on code of others, and its rows."""

import pytest

from tests import field_table
from tests.field import sequence_layers
from tests.field_table import PAGE, SUBJECTS

BY_NAME = {(subject.group, subject.name): subject for subject in SUBJECTS}
RIGHT = ("JAX", "`jnp.mean(where=)`")
WRONG = ("JAX", "`x * mask`, summed, by the count")


def test_the_page_has_a_row_for_each_subject():
    text = PAGE.read_text(encoding="utf-8")
    assert len(SUBJECTS) == text.count("\n| ") - 2 * text.count("\n| --- |")
    for subject in SUBJECTS:
        assert f"| {subject.name} |" in text


def test_right_and_wrong_code_is_told_apart():
    assert field_table.row(BY_NAME[RIGHT])[1:] == ["proved", "proved", "the same", ""]
    _, value, gradient, more, first = field_table.row(BY_NAME[WRONG])
    assert (value, gradient, more) == ("nan only", "proved", "the same")
    assert "0 * nan is nan" in first


@pytest.mark.exhaustive
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_the_page_says_what_is_found(subject):
    if subject.group == sequence_layers.GROUP:
        pytest.importorskip("sequence_layers")
    cells = field_table.row(subject)[:4]
    assert f"| {' | '.join(cells)} |" in PAGE.read_text(encoding="utf-8")
