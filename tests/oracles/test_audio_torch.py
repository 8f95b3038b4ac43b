"""Centred spectra and their inverse: PyTorch on each row alone."""

import numpy as np
import pytest

import jaxmask as jm

torch = pytest.importorskip("torch")
LENGTHS = (90, 61, 20)
MASK = np.arange(90) < np.array(LENGTHS)[:, None]


@pytest.mark.parametrize("center", ["reflect", "constant"])
@pytest.mark.parametrize("sizes", [(16, 5, 16), (12, 4, 20), (15, 4, 15)])
def test_spectra_and_samples(sizes, center):
    window, strides, points = sizes
    x = np.random.default_rng(0).normal(size=MASK.shape).astype(np.float32)
    options = {"fft_size": points, "center": center}
    y, frames = jm.audio.stft(x, MASK, window, strides, **options)
    back, _ = jm.audio.istft(y, frames, window, strides, **options, sample_mask=MASK)
    short, covered = jm.audio.istft(y, frames, window, strides, **options)
    taper = torch.hann_window(window)
    for row, length in enumerate(LENGTHS):
        alone = torch.tensor(x[row, :length])
        theirs = torch.stft(
            *(alone, points, strides, window, taper), pad_mode=center, return_complex=True
        )
        ours = np.asarray(y)[row, np.asarray(frames)[row]]
        np.testing.assert_allclose(ours, theirs.numpy().T, rtol=1e-4, atol=1e-5)
        inverse = (theirs, points, strides, window, taper)
        given = torch.istft(*inverse, length=length).numpy()
        np.testing.assert_allclose(back[row, :length], given, rtol=1e-4, atol=1e-5)
        whole = np.asarray(short)[row, np.asarray(covered)[row]]
        np.testing.assert_allclose(whole, torch.istft(*inverse).numpy(), rtol=1e-4, atol=1e-5)
