"""Make `librosa_audio.npz`: spectra, signals and features of single rows by librosa.

    python tests/golden/make_librosa_audio.py

Needs librosa, which the tests do not: they read the file, and run `librosa_result` again where
librosa is installed.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("librosa_audio.npz")
LENGTHS = (60, 41, 17, 5)
WINDOW, STRIDES, POINTS = 12, 4, 16
MELS, FRAMES, COEFFICIENTS, LIFTER = 7, 9, 4, 22.0
GRIFFIN = {"iterations": 6, "momentum": 0.9}


def samples() -> np.ndarray:
    """Rows of noise and a tone, in float32."""
    draw = np.random.default_rng(0)
    tone = np.sin(0.7 * np.arange(max(LENGTHS)))
    noise = draw.normal(size=(len(LENGTHS), max(LENGTHS)))
    return (tone + 0.3 * noise).astype(np.float32)


def log_mels() -> np.ndarray:
    """Features `[frame, mel]`."""
    return np.random.default_rng(1).normal(size=(FRAMES, MELS)).astype(np.float32)


def librosa_result() -> dict[str, np.ndarray]:
    """By row: centred spectra, the samples of the magnitudes, and features of one recording."""
    import librosa

    sizes = {"hop_length": STRIDES, "win_length": WINDOW}
    found = {}
    for row, length in enumerate(LENGTHS):
        alone = samples()[row, :length]
        for mode in ("reflect", "constant"):
            y = librosa.stft(alone, n_fft=POINTS, pad_mode=mode, **sizes)
            found[f"{mode}_{row}"] = y.T
        found[f"griffin_lim_{row}"] = librosa.griffinlim(
            np.abs(y),
            n_iter=GRIFFIN["iterations"],
            momentum=GRIFFIN["momentum"],
            init=None,
            **sizes,
        )
    features = log_mels()
    found["mfcc"] = librosa.feature.mfcc(S=features.T, n_mfcc=COEFFICIENTS).T
    found["lifted"] = librosa.feature.mfcc(S=features.T, n_mfcc=COEFFICIENTS, lifter=LIFTER).T
    found["deltas"] = librosa.feature.delta(features.T, width=5, mode="nearest").T
    return found


if __name__ == "__main__":
    np.savez_compressed(PATH, **librosa_result())
