"""Conditional random fields against pytorch-crf, each row alone."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchcrf = pytest.importorskip("torchcrf")
import jaxmask as jm  # noqa: E402


def test_crf_is_pytorch_crf():
    draw = np.random.default_rng(0)
    lengths, tags = (7, 4, 1), 5
    theirs = torchcrf.CRF(tags, batch_first=True)
    weights = {
        "transitions": theirs.transitions.detach().numpy(),
        "start": theirs.start_transitions.detach().numpy(),
        "end": theirs.end_transitions.detach().numpy(),
    }
    for _ in range(20):
        logits = draw.normal(size=(3, 7, tags)).astype(np.float32)
        ids = draw.integers(0, tags, (3, 7)).astype(np.int32)
        mask = np.arange(7) < np.array(lengths)[:, None]
        path, _ = jax.jit(jm.decoding.viterbi)(logits, mask, **weights)
        loss, _ = jax.jit(jm.losses.crf)(logits, mask, ids, **weights)
        for row, n in enumerate(lengths):
            alone = torch.tensor(logits[row : row + 1, :n])
            real = torch.ones(1, n, dtype=torch.bool)  # its own default is of a deprecated dtype
            assert np.asarray(path)[row, :n].tolist() == theirs.decode(alone, real)[0]
            log_p = theirs(alone, torch.tensor(ids[row : row + 1, :n]).long(), real)
            np.testing.assert_allclose(loss[row], -log_p.item(), rtol=1e-4, atol=1e-5)
