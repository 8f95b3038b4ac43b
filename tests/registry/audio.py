"""Audio features."""

from typing import Any

import jax.numpy as jnp

import jaxmask as jm
from tests.registry.entry import Entry, Input, module, simple

SAMPLES = (Input(features=()),)
BANK = jnp.array([[0.5, 0.0], [0.5, 0.3], [0.0, 0.7]])


def stft_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    y, mask = jm.audio.stft(xs[0], masks[0], 3, 2, fft_size=4, padding="same")
    return [(y.real, mask), (y.imag, mask)]


def log_mel_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    options = {"taper": "hamming", "padding": "reverse_causal", "power": 1.0}
    return [jm.audio.log_mel(xs[0], masks[0], params, 3, 2, **options)]


ENTRIES: list[Entry] = [
    Entry("audio.frames", simple(jm.audio.frames, 3, 1), mask_class="contiguous", linear=True),
    Entry(
        "audio.stft",
        stft_call,
        SAMPLES,
        mask_class="contiguous",
        exempt={"half_precision": "there are no complex numbers of half precision"},
    ),
    Entry("audio.log_mel", log_mel_call, SAMPLES, params=BANK, mask_class="contiguous"),
    Entry(
        "nn.Frames",
        **module(lambda rngs: jm.nn.Frames(2, 2, padding="causal")),
        inputs=SAMPLES,
        mask_class="contiguous",
    ),
    Entry(
        "nn.LogMelSpectrogram",
        **module(lambda rngs: jm.nn.LogMelSpectrogram(2, rate=8, window=2, strides=1, fft_size=4)),
        inputs=SAMPLES,
        mask_class="contiguous",
    ),
]

NOT_MASKED: dict[str, str] = {"audio.mel_filterbank": "makes a filterbank; tested in test_audio.py"}
