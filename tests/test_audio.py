"""What the laws do not say about audio: NumPy, SciPy and PyTorch on the row alone, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from flax import nnx

import jaxmask as jm

LENGTHS = (50, 33, 16, 7, 0)
TIME = 50
MASK = np.arange(TIME) < np.array(LENGTHS)[:, None]
SIZE, STEP, POINTS = 16, 6, 20


def samples():
    x = np.random.default_rng(0).normal(size=MASK.shape).astype(np.float32)
    x[~MASK] = np.nan
    return x


def rows_of(y, mask):
    return [np.asarray(y)[b, np.asarray(mask)[b]] for b in range(len(LENGTHS))]


def frames_of(row):
    """Frames of one row alone, by NumPy."""
    if len(row) < SIZE:
        return np.zeros((0, SIZE), np.float32)
    return np.lib.stride_tricks.sliding_window_view(row, SIZE)[::STEP]


def test_frames_are_those_of_numpy():
    x = samples()
    for row, (length, ours) in enumerate(
        zip(LENGTHS, rows_of(*jm.audio.frames(x, MASK, SIZE, STEP)), strict=True)
    ):
        np.testing.assert_array_equal(ours, frames_of(x[row, :length]))


def test_frames_from_every_start_hold_every_sample():
    x = samples()
    y, mask = jm.audio.frames(x, MASK, SIZE, STEP, padding="reverse_causal")
    for row, (length, ours) in enumerate(zip(LENGTHS, rows_of(y, mask), strict=True)):
        starts = range(0, length, STEP)
        longer = np.pad(x[row, :length], (0, SIZE))
        expected = [longer[start : start + SIZE] for start in starts]
        assert len(ours) == len(expected)
        if expected:
            np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("taper", ["hann", "hamming", "rectangular"])
def test_stft_is_that_of_numpy_and_scipy(taper):
    x = samples()
    y, mask = jm.audio.stft(x, MASK, SIZE, STEP, fft_size=POINTS, taper=taper)
    values = scipy.signal.get_window({"rectangular": "boxcar"}.get(taper, taper), SIZE)
    for row, (length, ours) in enumerate(zip(LENGTHS, rows_of(y, mask), strict=True)):
        alone = x[row, :length]
        expected = np.fft.rfft(frames_of(alone) * values, n=POINTS)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
        if length >= SIZE:
            _, _, theirs = scipy.signal.stft(
                *(alone, 1.0, values, SIZE, SIZE - STEP, POINTS), boundary=None, padded=False
            )
            np.testing.assert_allclose(ours, theirs.T * values.sum(), rtol=1e-4, atol=1e-5)
    assert not np.asarray(y)[~np.asarray(mask)].any()
    given, _ = jm.audio.stft(x, MASK, SIZE, STEP, fft_size=POINTS, taper=values)
    np.testing.assert_allclose(given, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("power", [2.0, 1.0])
def test_log_mel_and_its_gradient_are_those_of_pytorch(power):
    torch = pytest.importorskip("torch")
    x = samples()
    bank = jm.audio.mel_filterbank(5, fft_size=POINTS, rate=100)

    def total(x):
        y, mask = jm.audio.log_mel(x, MASK, bank, SIZE, STEP, power=power)
        return jnp.sum(y * jnp.cos(jnp.arange(5.0))), (y, mask)

    (_, (y, mask)), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(x)
    for row, (length, ours) in enumerate(zip(LENGTHS, rows_of(y, mask), strict=True)):
        assert not np.asarray(slope)[row, length:].any()
        if length < SIZE:
            assert not len(ours)
            continue
        alone = torch.tensor(x[row, :length], requires_grad=True)
        spectrum = torch.fft.rfft(alone.unfold(0, SIZE, STEP) * torch.hann_window(SIZE), n=POINTS)
        theirs = torch.log(torch.clamp(spectrum.abs() ** power @ torch.tensor(bank), min=1e-6))
        (theirs * torch.cos(torch.arange(5.0))).sum().backward()
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(slope[row, :length], alone.grad.numpy(), rtol=1e-3, atol=1e-3)


def test_silence_is_the_floor_and_has_a_finite_gradient():
    bank = jm.audio.mel_filterbank(3, fft_size=8, rate=100)

    def total(x, power):
        return jnp.sum(jm.audio.log_mel(x, None, bank, 8, 4, power=power, floor=1e-3)[0])

    for power in (1.0, 2.0):
        silence = jnp.zeros((1, 16))
        np.testing.assert_allclose(total(silence, power) / 9, np.log(1e-3), rtol=1e-6)
        assert not jax.grad(total)(silence, power).any()


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_filters_are_triangles_on_the_mel_scale(scale):
    """Each rises from the centre of the one before it and falls to that of the one after it."""
    bank = jm.audio.mel_filterbank(10, fft_size=4096, rate=16000, low=100, high=7000, scale=scale)
    hertz = np.linspace(0, 8000, 2049)
    centres = hertz[bank.argmax(axis=0)]
    if scale == "htk":
        mel = 2595 * np.log10(1 + np.array([100, *centres, 7000]) / 700)
    else:
        low, high = centres[centres < 1000], centres[centres > 1000]
        assert np.ptp(np.diff([100, *low])) < 8  # evenly in hertz, then in its logarithm
        mel = np.log([*high, 7000])
    assert np.ptp(np.diff(mel)) < 0.01 * np.ptp(mel)
    inside = (hertz > centres[0]) & (hertz < centres[-1])
    np.testing.assert_allclose(bank[inside].sum(axis=1), 1, atol=1e-5)
    assert bank[(hertz <= 100) | (hertz >= 7000)].max() < 1e-6
    area = jm.audio.mel_filterbank(10, 4096, 16000, scale=scale, norm="slaney").sum(axis=0)
    np.testing.assert_allclose(area * hertz[1], 1, rtol=0.01)


def test_slaney_scale_at_known_points():
    """1000 hertz is 15 mel, and 27 mel are a factor of 6.4: the centres of one and two filters."""
    bank = jm.audio.mel_filterbank(1, fft_size=6400, rate=12800, scale="slaney")
    top = 15 + 27  # 6400 hertz
    centre = 1000 * 6.4 ** ((top / 2 - 15) / 27)
    assert abs(bank[:, 0].argmax() * 2 - centre) <= 2


def test_the_module_is_the_function():
    x = samples()
    layer = jm.nn.LogMelSpectrogram(
        *(5,), rate=100, window=SIZE, strides=STEP, scale="slaney", norm="slaney", low=5, power=1.0
    )
    assert layer.fft_size == 16
    bank = jm.audio.mel_filterbank(5, 16, 100, scale="slaney", norm="slaney", low=5)
    expected = jm.audio.log_mel(x, MASK, bank, SIZE, STEP, power=1.0)
    for ours, theirs in zip(nnx.jit(layer)(x, MASK), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_dtypes():
    x = jnp.ones((1, 32), jnp.bfloat16)
    assert jm.audio.stft(x, None, 16, 8)[0].dtype == jnp.complex64
    bank = jm.audio.mel_filterbank(4, 16, 100)
    assert jm.audio.log_mel(x, None, bank, 16, 8)[0].dtype == jnp.bfloat16
    assert jm.audio.frames(np.arange(6)[None], None, 2, 2)[0].tolist() == [[[0, 1], [2, 3], [4, 5]]]


X = np.ones((2, 32), np.float32)
BANK = jm.audio.mel_filterbank(4, 16, 100)
REFUSED = {
    "window of 0": (lambda: jm.audio.frames(X, None, 0, 1), "`window` must be at least 1"),
    "strides of 0": (lambda: jm.audio.frames(X, None, 4, 0), "`strides` must be at least 1"),
    "fft_size": (lambda: jm.audio.stft(X, None, 8, 4, fft_size=6), "`fft_size`"),
    "filterbank": (lambda: jm.audio.log_mel(X, None, BANK, 32, 4), "`fft_size`"),
    "filterbank rank": (lambda: jm.audio.log_mel(X, None, BANK[0], 8, 4), "`filterbank`"),
    "taper": (lambda: jm.audio.stft(X, None, 8, 4, taper="kaiser"), "`taper`"),
    "taper size": (lambda: jm.audio.stft(X, None, 8, 4, taper=np.ones(7)), "`taper`"),
    "taper dtype": (lambda: jm.audio.stft(X, None, 8, 4, taper=np.ones(8, complex)), "`taper`"),
    "floor of 0": (lambda: jm.audio.log_mel(X, None, BANK, 8, 4, floor=1e-46), "`floor`"),
    "features": (lambda: jm.audio.stft(X[..., None], None, 8, 4), "samples"),
    "integers": (lambda: jm.audio.stft(X.astype(int), None, 8, 4), "floating"),
    "floor": (lambda: jm.audio.log_mel(X, None, BANK, 8, 4, floor=0), "`floor`"),
    "power": (lambda: jm.audio.log_mel(X, None, BANK, 8, 4, power=0), "`power`"),
    "band": (lambda: jm.audio.mel_filterbank(4, 16, 100, low=20, high=60), "half of `rate`"),
    "scale": (lambda: jm.audio.mel_filterbank(4, 16, 100, scale="bark"), "`scale`"),
    "odd": (
        lambda: jm.nn.LogMelSpectrogram(4, rate=100, window=8, strides=4, fft_size=9),
        "must be even",
    ),
    "mask of frames": (
        lambda: jm.audio.frames(X, np.ones((2, 4), bool), 8, 8),
        "`mask` must have the shape",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, text = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=text):
        call()
