"""F1 of spans against seqeval."""

import json

import numpy as np
import pytest

from tests.golden import make_seqeval as golden
from tests.test_spans import scores

pytest.importorskip("seqeval")


def test_stored_scores_are_those_of_seqeval_as_it_is():
    stored = json.loads(golden.PATH.read_text(encoding="utf-8"))
    assert stored == {scheme: golden.scores(scheme, *golden.rows(scheme, 0)) for scheme in stored}


@pytest.mark.parametrize("scheme", golden.SCHEMES)
def test_random_rows(scheme):
    for seed in range(10):
        rows = golden.rows(scheme, seed + 1)
        theirs = golden.scores(scheme, *rows)
        for name, y in scores(scheme, *rows).items():
            np.testing.assert_allclose(y, theirs[name], rtol=1e-5, err_msg=name)
