"""Audio features."""

from typing import Any

import jax
import jax.numpy as jnp

import jaxmask as jm
from tests.registry.entry import NO_SEGMENTS, Entry, Input, module, simple

SAMPLES = (Input(features=()),)
BANK = jnp.array([[0.5, 0.0], [0.5, 0.3], [0.0, 0.7]])


def stft_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    y, mask = jm.audio.stft(xs[0], masks[0], 3, 2, fft_size=4, padding="same")
    return [(y.real, mask), (y.imag, mask)]


def centred_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    y, mask = jm.audio.stft(xs[0], masks[0], 3, 2, fft_size=4, center="reflect")
    return [(y.real, mask), (y.imag, mask)]


def istft_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    """Bins made of three real numbers."""
    y = jax.lax.complex(xs[0], xs[0][..., ::-1])
    return [jm.audio.istft(y, masks[0], 4, 2, taper="hamming", center="constant")]


def griffin_lim_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    options = {"taper": "hamming", "iterations": 2, "momentum": 0.5}
    key = jax.random.key(0)
    return [jm.audio.griffin_lim(xs[0], masks[0], 4, 2, **options, key=key, row_ids=rows)]


def log_mel_call(params: Any, xs: list, masks: list, rows: Any) -> list:
    options = {"taper": "hamming", "padding": "reverse_causal", "power": 1.0}
    return [jm.audio.log_mel(xs[0], masks[0], params, 3, 2, **options)]


COMPLEX = "there are no complex numbers of half precision"
ENTRIES: list[Entry] = [
    Entry("audio.frames", simple(jm.audio.frames, 3, 1), mask_class="contiguous", linear=True),
    Entry(
        "audio.stft",
        stft_call,
        SAMPLES,
        mask_class="contiguous",
        exempt={"half_precision": COMPLEX},
    ),
    Entry(
        "audio.stft:center",
        centred_call,
        SAMPLES,
        mask_class="contiguous",
        exempt={"half_precision": COMPLEX},
    ),
    Entry(
        "audio.istft",
        istft_call,
        mask_class="contiguous",
        exempt={
            "half_precision": COMPLEX,
            "half_precision_at_scale": COMPLEX,
            "eager_is_jit": "nan in the padding cannot be made complex where nan is debugged",
            "segments": "it needs those of the samples as well: tests/test_spectra.py",
        },
    ),
    Entry(
        "audio.griffin_lim",
        griffin_lim_call,
        (Input(kind="positive"),),
        mask_class="contiguous",
        exempt={"segments": NO_SEGMENTS},
    ),
    Entry("audio.mfcc", simple(jm.audio.mfcc, 2, lifter=4.0), of_rows=True),
    Entry("audio.deltas", simple(jm.audio.deltas, 3)),
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
