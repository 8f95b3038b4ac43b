"""The page that says what is covered is the one that the tests give."""

import runpy

import pytest

from tests.ragged.coverage import PAGE, page
from tests.ragged.programs import PROGRAMS


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page()


def test_the_corpus_is_large():
    assert len(PROGRAMS) >= 200


@pytest.mark.exhaustive
def test_the_example_learns():
    main = runpy.run_path(str(PAGE.parents[1] / "examples" / "ragged_vmap.py"))["main"]
    assert main(steps=12) < 2.2
