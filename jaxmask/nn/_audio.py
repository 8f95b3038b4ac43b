"""Audio modules: configuration only; the arithmetic is `jaxmask.audio`."""

import dataclasses
import functools

from jaxmask import _windows, audio
from jaxmask._types import ArrayLike, Mask, Pair
from jaxmask.nn._base import Configured, MaskedModule, configured

# Computed on the host, so a constant in a traced call, and cached: a model computes it once.
_filterbank = functools.lru_cache(maxsize=32)(audio.mel_filterbank)


def _check_windows(layer: "Frames | LogMelSpectrogram") -> None:
    windows = layer.window, layer.strides, layer.padding, layer.mask_rule
    _windows.window(*windows, type(layer).__name__)


@configured
class Frames(Configured):
    """Frames of samples: `jaxmask.audio.frames`.

    Shapes: `x [batch, time, feature...]` and mask `[batch, time]` to
    `y [batch, frame, window, feature...]` and mask `[batch, frame]`.

    Args:
      window, strides, padding, mask_rule: as in `jaxmask.audio.frames`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, mask = jm.nn.Frames(400, 160)(jnp.ones((1, 1600)), jnp.arange(1600)[None] < 900)
      >>> y.shape, int(mask.sum())
      ((1, 8, 400), 4)
    """

    _function = staticmethod(audio.frames)
    window: int
    strides: int
    _: dataclasses.KW_ONLY
    padding: str = "valid"
    mask_rule: str | None = None

    def __post_init__(self) -> None:
        _check_windows(self)


@configured
class LogMelSpectrogram(MaskedModule):
    """Log-mel features of samples: `jaxmask.audio.log_mel`.

    Shapes: `x [batch, time]` and mask `[batch, time]` to `y [batch, frame, mels]` and mask
    `[batch, frame]`.

    Args:
      fft_size: even, at least `window`; the next power of 2 where None.
      center: see `jaxmask.audio.stft`; librosa's features have "constant", torchaudio's "reflect".
      mels, rate, low, high, scale, norm: as in `jaxmask.audio.mel_filterbank`.
      window, strides, taper, padding, mask_rule: as in `jaxmask.audio.stft`.
      power, floor: as in `jaxmask.audio.log_mel`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> layer = jm.nn.LogMelSpectrogram(40, rate=16000, window=400, strides=160)
      >>> y, mask = layer(jnp.ones((1, 1600)), jnp.arange(1600)[None] < 900)
      >>> y.shape, int(mask.sum())
      ((1, 8, 40), 4)
    """

    mels: int
    _: dataclasses.KW_ONLY
    rate: float
    window: int
    strides: int
    fft_size: int | None = None
    low: float = 0.0
    high: float | None = None
    scale: str = "htk"
    norm: str | None = None
    taper: str = "hann"
    power: float = 2.0
    floor: float = 1e-6
    padding: str = "valid"
    mask_rule: str | None = None
    center: str | None = None

    def __post_init__(self) -> None:
        _check_windows(self)
        if self.fft_size is None:
            self.fft_size = max(2, 1 << (self.window - 1).bit_length())
        if self.fft_size % 2:
            raise ValueError(f"LogMelSpectrogram: `fft_size` must be even, got {self.fft_size}.")

    def __call__(self, x: ArrayLike, mask: Mask = None) -> Pair:
        """Compute the features and return `(y, mask)`."""
        options = {name: getattr(self, name) for name in ("low", "high", "scale", "norm")}
        bank = _filterbank(self.mels, self.fft_size, self.rate, **options)
        names = ("taper", "power", "floor", "padding", "mask_rule", "center")
        options = {name: getattr(self, name) for name in names}
        return audio.log_mel(x, mask, bank, self.window, self.strides, **options)
