"""Transducer loss against torchaudio, each row alone."""

import numpy as np
import pytest

from tests.golden import make_torchaudio_rnnt as golden
from tests.test_losses_of_two_sequences import transducer_of

pytest.importorskip("torchaudio")


def test_stored_losses_are_those_of_torchaudio_as_it_is():
    with np.load(golden.PATH) as stored:
        for name, y in golden.torchaudio_result(0).items():
            np.testing.assert_allclose(y, stored[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(1, 26))
def test_random_rows(seed):
    theirs = golden.torchaudio_result(seed)
    for name, y in transducer_of(*golden.cases(seed)).items():
        np.testing.assert_allclose(y, theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)
