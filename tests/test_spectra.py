"""Centred spectra, their inverse and features of frames, against librosa and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.signal

import jaxmask as jm
from tests.golden import make_librosa_audio as golden

LENGTHS, SIZES = golden.LENGTHS, (golden.WINDOW, golden.STRIDES)
MASK = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
OPTIONS = {"fft_size": golden.POINTS}
FOUND = dict(np.load(golden.PATH))


def samples():
    return np.where(MASK, golden.samples(), np.nan).astype(np.float32)


def rows_of(y, mask):
    return [np.asarray(row)[np.asarray(real)] for row, real in zip(y, mask, strict=True)]


@pytest.mark.filterwarnings("ignore:n_fft=16 is too large:UserWarning")
def test_the_file_is_what_librosa_gives():
    pytest.importorskip("librosa")
    for name, values in golden.librosa_result().items():
        np.testing.assert_allclose(values, FOUND[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("center", ["reflect", "constant"])
def test_centred_spectra_are_those_of_librosa_on_the_row_alone(center):
    y, mask = jm.audio.stft(samples(), MASK, *SIZES, **OPTIONS, center=center)
    for row, ours in enumerate(rows_of(y, mask)):
        np.testing.assert_allclose(ours, FOUND[f"{center}_{row}"], rtol=1e-4, atol=1e-5)
    left = np.stack([np.roll(row, int((~m).sum())) for row, m in zip(samples(), MASK, strict=True)])
    moved, same = jm.audio.stft(left, MASK[:, ::-1], *SIZES, **OPTIONS, center=center)
    np.testing.assert_array_equal(np.asarray(moved), np.asarray(y))
    np.testing.assert_array_equal(same, mask)
    bank = jm.audio.mel_filterbank(3, golden.POINTS, 100)
    mel, again = jm.audio.log_mel(samples(), MASK, bank, *SIZES, center=center)
    np.testing.assert_array_equal(again, mask)
    energy = np.abs(FOUND[f"{center}_0"]) ** 2 @ bank
    np.testing.assert_allclose(mel[0], np.log(np.maximum(energy, 1e-6)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("center", ["reflect", None])
def test_the_inverse_of_packed_rows_is_that_of_each_sequence(center):
    ids = np.array([[1] * 11 + [0, 2, 2] + [3] * 9, [1] * 3 + [2] * 20])
    segments = jm.Segments(jnp.asarray(ids), 3)
    x = np.random.default_rng(0).normal(size=ids.shape).astype(np.float32)
    options = {"taper": "hamming", "center": center}
    y, frames = jm.audio.stft(x, segments, 4, 2, **options)
    y = jnp.where(frames.ids[..., None] > 0, y, jnp.nan) * np.exp(1j * np.arange(3))
    back, out = jm.audio.istft(y, frames, 4, 2, **options, sample_mask=segments)
    assert out.ids.tolist() == ids.tolist()
    assert not np.asarray(back)[ids == 0].any()
    for row, of_row in enumerate(ids):
        for segment in range(1, of_row.max() + 1):
            where, of_frames = of_row == segment, frames.ids[row] == segment
            whole = {"sample_mask": np.ones((1, where.sum()), bool)}
            alone, _ = jm.audio.istft(y[row : row + 1, of_frames], None, 4, 2, **options, **whole)
            np.testing.assert_allclose(back[row, where], alone[0], rtol=1e-5, atol=1e-5)
    gradient = jax.grad(
        lambda x: jnp.sum(
            jm.audio.istft(jm.audio.stft(x, segments, 4, 2, **options)[0], frames, 4, 2, **options,
                           sample_mask=segments)[0]
        )
    )(x)  # fmt: skip
    assert np.isfinite(gradient).all()


def test_a_row_of_no_or_one_sample():
    x, mask = (
        np.array([[np.nan, np.nan], [3.0, np.nan]], np.float32),
        np.array([[0, 0], [1, 0]]) > 0,
    )
    y, frames = jm.audio.stft(x, mask, 4, 2, taper="rectangular", center="reflect")
    assert frames.tolist() == [[False, False], [True, False]]
    np.testing.assert_allclose(y[1, 0], np.fft.rfft([3.0] * 4), atol=1e-6)  # as NumPy reflects it


@pytest.mark.parametrize("center", ["reflect", "constant", None])
def test_the_inverse_gives_the_samples_back(center):
    taper = "hamming" if center is None else "hann"
    options = {**OPTIONS, "taper": taper, "center": center}
    y, frames = jm.audio.stft(samples(), MASK, *SIZES, **options)
    x, mask = jm.audio.istft(
        np.where(np.asarray(frames)[..., None], y, np.nan), frames, *SIZES, **options,
        sample_mask=MASK,
    )  # fmt: skip
    np.testing.assert_array_equal(mask, MASK)
    alone, covered = jm.audio.istft(y, frames, *SIZES, **options)
    for row, length in enumerate(LENGTHS):
        count = int(np.sum(frames[row]))
        if center:
            whole, sure = length, (count - 1) * golden.STRIDES
        else:  # the samples after the last whole window are in no frame
            whole = sure = max(0, (count - 1) * golden.STRIDES + golden.WINDOW) if count else 0
        assert int(np.sum(covered[row])) == sure
        np.testing.assert_allclose(x[row, :whole], samples()[row, :whole], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(alone[row, :sure], samples()[row, :sure], rtol=1e-4, atol=1e-4)
        assert not np.any(x[row, whole:])


def test_the_inverse_of_any_spectrum_is_that_of_scipy():
    draw = np.random.default_rng(0)
    y = (draw.normal(size=(1, 9, 9)) + 1j * draw.normal(size=(1, 9, 9))).astype(np.complex64)
    taper = scipy.signal.get_window("hamming", 16)
    _, theirs = scipy.signal.istft(y[0].T / taper.sum(), 1.0, taper, 16, 12, 16, boundary=False)
    ours, _ = jm.audio.istft(y, None, 16, 4, taper="hamming")
    np.testing.assert_allclose(ours[0], theirs, rtol=1e-3, atol=1e-5)


def test_phases_are_found_as_librosa_finds_them():
    y, mask = jm.audio.stft(samples(), MASK, *SIZES, **OPTIONS, center="constant")
    magnitude = np.where(np.asarray(mask)[..., None], np.abs(y), np.nan)
    options = {**OPTIONS, **golden.GRIFFIN, "center": "constant"}
    x, real = jax.jit(lambda m: jm.audio.griffin_lim(m, mask, *SIZES, **options))(magnitude)
    for row, ours in enumerate(rows_of(x, real)):
        np.testing.assert_allclose(ours, FOUND[f"griffin_lim_{row}"], rtol=1e-3, atol=1e-3)


def test_cepstra_are_those_of_librosa_and_scipy():
    x = golden.log_mels()
    ours, _ = jm.audio.mfcc(x[None], None, golden.COEFFICIENTS)
    np.testing.assert_allclose(ours[0], FOUND["mfcc"], rtol=1e-5, atol=1e-5)
    every = scipy.fft.dct(x, norm="ortho")
    np.testing.assert_allclose(jm.audio.mfcc(x, None, golden.MELS)[0], every, rtol=1e-4, atol=1e-5)
    lifted, _ = jm.audio.mfcc(x[None], None, golden.COEFFICIENTS, lifter=golden.LIFTER)
    np.testing.assert_allclose(lifted[0], FOUND["lifted"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("window", [3, 5, 9])
def test_slopes_are_those_of_scipy_on_the_row_alone(window):
    x = golden.log_mels()
    padded = np.full((2, 12, golden.MELS), np.nan, np.float32)
    padded[0, 2:11], padded[1, 1:10:2] = x, x[:5]  # to the right, and between holes
    mask = ~np.isnan(padded[..., 0])
    ours = rows_of(*jm.audio.deltas(padded, mask, window))
    for alone, found in zip((x, x[:5]), ours, strict=True):
        longer = np.pad(alone, ((window, window), (0, 0)), "edge")
        expected = scipy.signal.savgol_filter(longer, window, 1, deriv=1, axis=0)
        np.testing.assert_allclose(found, expected[window:-window], rtol=1e-4, atol=1e-5)
    if window == 5:
        np.testing.assert_allclose(ours[0], FOUND["deltas"], rtol=1e-4, atol=1e-5)


Y = np.ones((1, 3, 5), np.complex64)
X = np.ones((1, 32), np.float32)
REFUSED = {
    "`y` must be complex": lambda: jm.audio.istft(Y.real, None, 8, 4),
    "`y` must be .* 9., got shape": lambda: jm.audio.istft(Y, None, 16, 4),
    "tapers must overlap": lambda: jm.audio.istft(Y, None, 8, 9),
    "squares of 8 values add up to 0": lambda: jm.audio.istft(Y, None, 8, 8),
    "`center` must be one of": lambda: jm.audio.stft(X, None, 8, 4, center="wrap"),
    "`padding` must be 'valid'": lambda: jm.audio.stft(
        X, None, 8, 4, center="reflect", padding="same"
    ),
    "`sample_mask` must be a mask": lambda: jm.audio.istft(
        Y, None, 8, 4, sample_mask=np.ones(3, bool)
    ),
    "`momentum` must be": lambda: jm.audio.griffin_lim(Y.real, None, 8, 4, momentum=1.0),
    "`coefficients` must be at most 5": lambda: jm.audio.mfcc(Y.real, None, 6),
    "`lifter` must be at least 0": lambda: jm.audio.mfcc(Y.real, None, 5, lifter=-1),
    "`window` must be odd": lambda: jm.audio.deltas(Y.real, None, 4),
    "`sample_mask` must be the `Segments`": lambda: jm.audio.istft(
        Y, jm.Segments(np.ones((1, 3), np.int32), 1), 8, 4
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text):
    with pytest.raises((ValueError, TypeError), match=text):
        REFUSED[text]()


def test_gradients_of_centred_spectra_stay_in_the_row():
    def total(x):
        y, mask = jm.audio.stft(x, MASK, *SIZES, **OPTIONS, center="reflect")
        back, _ = jm.audio.istft(y * (1 + jnp.abs(y)), mask, *SIZES, **OPTIONS, center="reflect")
        return jnp.sum(jnp.square(back))

    def alone(x):
        y, mask = jm.audio.stft(x[None], None, *SIZES, **OPTIONS, center="reflect")
        back, _ = jm.audio.istft(y * (1 + jnp.abs(y)), mask, *SIZES, **OPTIONS, center="reflect")
        return jnp.sum(jnp.square(back))

    slope = np.asarray(jax.jit(jax.grad(total))(samples()))
    assert not slope[~MASK].any()
    for row in (0, 2):
        expected = jax.grad(alone)(samples()[row, : LENGTHS[row]])
        np.testing.assert_allclose(slope[row, : LENGTHS[row]], expected, rtol=1e-3, atol=1e-3)


def test_spectra_and_back_export_for_any_time():
    batch, time = jax.export.symbolic_shape("batch, time", constraints=("time >= 9",))

    def run(x, mask):
        y, frames = jm.audio.stft(x, mask, 4, 2, taper="hamming", center="reflect")
        options = {"taper": "hamming", "center": "reflect"}
        back = jm.audio.istft(y, frames, 4, 2, **options, sample_mask=mask)
        return back, jm.audio.griffin_lim(jnp.abs(y), frames, 4, 2, **options, iterations=1)

    specs = [jax.ShapeDtypeStruct((batch, time), kind) for kind in (np.float32, bool)]
    program = jax.export.export(jax.jit(run))(*specs)
    found, expected = program.call(samples(), MASK), jax.jit(run)(samples(), MASK)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
