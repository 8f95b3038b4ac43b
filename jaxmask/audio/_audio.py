"""From samples to frames, spectra and log-mel features."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxmask import _check, _windows
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask._windows import Window, slide
from jaxmask.audio._centred import CENTRES, continued

TAPERS = ("hann", "hamming", "rectangular")


@refusing_pairs
def frames(
    x: ArrayLike,
    mask: Mask,
    window: int,
    strides: int,
    *,
    padding: str = "valid",
    mask_rule: str | None = None,
) -> Pair:
    """Cut each row into frames that may overlap.

        y[b, i, k] = x[b, i * strides + k - left]

    where samples outside the row, and padding, are 0. `left` and the mask are those of
    `jaxmask.conv.conv1d`: by default (`padding="valid"`) n real samples have
    `(n - window) // strides + 1` frames, none if `n < window`; with "reverse_causal" every sample
    is in a frame: `ceil(n / strides)` of them, the last ones padded with 0.

    Args:
      x: `[batch, time, feature...]`, any dtype.
      mask: `[batch, time]`, boolean, or `Segments` (no frame crosses from one sequence to
        another, and frames close up to the left), or None.
      window: static number of samples in a frame.
      strides: static number of samples from one frame to the next.
      padding: `"valid"`, `"same"` (frames are centred), `"causal"`, `"reverse_causal"` or `"full"`.
      mask_rule: as in `jaxmask.conv.conv1d`.

    Returns:
      The pair `(y, mask)`, `y [batch, frame, window, feature...]` and mask `[batch, frame]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[1, 2, 3, 4, 9, 9]]), jnp.arange(6)[None] < 4
      >>> y, mask = jm.audio.frames(x, mask, 3, 1)
      >>> y.tolist(), mask.tolist()
      ([[[1, 2, 3], [2, 3, 4], [0, 0, 0], [0, 0, 0]]], [[True, True, False, False]])

    Agrees with `torch.Tensor.unfold` of the unpadded row.
    """
    x, mask = _check.pair(x, mask, "frames", over_time=True)
    windows = _windows.window(window, strides, padding, mask_rule, "frames")
    return slide(functools.partial(_cut, windows=windows), x, mask, windows)


def _cut(x: Array, mask: Mask, *, windows: Window) -> Array:
    count = windows.steps_out(x.shape[1])
    if not count:
        return jnp.zeros((x.shape[0], 0, windows.size, *x.shape[2:]), x.dtype)
    rest = ((0, 0),) * (x.ndim - 2)
    padded = jnp.pad(filled(x, mask), ((0, 0), windows.pads, *rest))
    index = jnp.arange(count)[:, None] * windows.stride + jnp.arange(windows.size)[None]
    return jnp.take(padded, index, axis=1)


@refusing_pairs
def stft(
    x: ArrayLike,
    mask: Mask,
    window: int,
    strides: int,
    *,
    fft_size: int | None = None,
    taper: str | ArrayLike = "hann",
    padding: str = "valid",
    mask_rule: str | None = None,
    center: str | None = None,
) -> Pair:
    """Short-time Fourier transform of each row.

        y[b, i, f] = sum_k taper[k] x[b, i * strides + k - left] exp(-2 pi j f k / fft_size)

    Unscaled; phases count from the start of each frame.

    `torch.stft` and `librosa.stft` continue a signal by `fft_size // 2` samples at both ends, so
    that frame i is centred at sample `i * strides`, and n samples have `n // strides + 1` frames.
    They do it by default, and ask for `center=False` otherwise; here it is the other way round. The
    ends are those of each row, and not of the rectangle.

    Args:
      x: `[batch, time]`, floating; transformed in at least float32.
      fft_size: at least `window`, which it is where None; frames are padded with 0.
      taper: `"hann"`, `"hamming"` (both periodic), `"rectangular"`, or an array `[window]`,
        floating.
      center: None; or `"reflect"` continues each row by its reflection (the default of
        `torch.stft`), and `"constant"` by 0 (that of `librosa.stft`). A shorter `window` then lies
        in the middle of `fft_size`, as there; `padding` stays `"valid"`. A row shorter than
        `fft_size // 2` is reflected again and again, as in NumPy, where `torch.stft` raises.
      mask, window, strides, padding, mask_rule: as in `frames`.

    Returns:
      The pair `(y, mask)`, `y [batch, frame, fft_size // 2 + 1]`, complex, and mask
      `[batch, frame]`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((1, 6)), jnp.arange(6)[None] < 5
      >>> y, mask = jm.audio.stft(x, mask, 4, 1, taper="rectangular")
      >>> y[0, :, 0].real.tolist(), mask.tolist()
      ([4.0, 4.0, 0.0], [[True, True, False]])

    Agrees with `numpy.fft.rfft` of the frames, with `scipy.signal.stft` up to its scale, and with
    `center` with `torch.stft` and `librosa.stft`.
    """
    return _stft(x, mask, window, strides, fft_size, taper, padding, mask_rule, center, "stft")


def _stft(
    x: ArrayLike,
    mask: Mask,
    window: int,
    strides: int,
    fft_size: int | None,
    taper: str | ArrayLike,
    padding: str,
    mask_rule: str | None,
    center: str | None,
    where: str,
) -> Pair:
    x, mask = _check.pair(x, mask, where, over_time=True)
    _check.floating(x, where)
    if x.ndim != 2:
        raise ValueError(f"{where}: `x` must be [batch, time], samples, got shape {x.shape}.")
    window = _check.count(window, where, "window", least=1)
    points = window if fft_size is None else fft_size
    points = _check.count(points, where, "fft_size", least=window)
    _check.choice(center, CENTRES, where, "center")
    wide = x.astype(accumulator(x.dtype))
    weights = taper_of(taper, window, points if center else window, where)
    if center is not None:
        if padding != "valid":
            raise ValueError(f"{where}: with `center`, `padding` must be 'valid', got {padding!r}.")
        wide, mask = continued(wide, mask, points // 2, center)
    y, mask = frames(wide, mask, len(weights), strides, padding=padding, mask_rule=mask_rule)
    tapered = y * weights.astype(y.dtype)[None, None]
    if not y.size:  # not every backend transforms nothing
        dtype = jnp.complex128 if y.dtype == jnp.float64 else jnp.complex64
        return jnp.zeros((*y.shape[:2], points // 2 + 1), dtype), mask
    return filled(jnp.fft.rfft(tapered, n=points), mask), mask


def taper_of(taper: str | ArrayLike, window: int, size: int, where: str) -> Array:
    """The taper `[window]` in the middle of `[size]`."""
    before = (size - window) // 2
    return jnp.pad(_taper(taper, window, where), (before, size - window - before))


def _taper(taper: str | ArrayLike, window: int, where: str) -> Array:
    if not isinstance(taper, str):
        values = _check.array(taper, "taper", where)
        _check.floating(values, where, "taper")
        _check.shape(values, (window,), "[window]", where, "taper")
        return values
    _check.choice(taper, TAPERS, where, "taper")
    if taper == "rectangular":
        return jnp.ones(window)
    floor = 0.5 if taper == "hann" else 0.54
    return jnp.asarray(floor - (1 - floor) * np.cos(2 * np.pi * np.arange(window) / window))


@refusing_pairs
def log_mel(
    x: ArrayLike,
    mask: Mask,
    filterbank: ArrayLike,
    window: int,
    strides: int,
    *,
    taper: str | ArrayLike = "hann",
    power: float = 2.0,
    floor: float = 1e-6,
    padding: str = "valid",
    mask_rule: str | None = None,
    center: str | None = None,
) -> Pair:
    """Logarithmic energy of each frame in the bands of a filterbank.

        y = log(max(|stft(x)| ** power @ filterbank, floor))

    Args:
      filterbank: `[fft_size // 2 + 1, bands]`, floating, for an even `fft_size` of at least
        `window`: see `mel_filterbank`.
      power: static; 2 for energies, 1 for magnitudes.
      floor: static, positive: smaller energies are raised to it before the logarithm.
      x, mask, window, strides, taper, padding, mask_rule, center: as in `stft`.

    Returns:
      The pair `(y, mask)`, `y [batch, frame, bands]` in the dtype of `x`, and mask
      `[batch, frame]`. The padding holds 0, which is a loud log energy: use the mask.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> bank = jm.audio.mel_filterbank(40, fft_size=512, rate=16000)
      >>> x, mask = jnp.ones((1, 1600)), jnp.arange(1600)[None] < 900
      >>> y, mask = jm.audio.log_mel(x, mask, bank, window=400, strides=160)
      >>> y.shape, mask.tolist()[0]
      ((1, 8, 40), [True, True, True, True, False, False, False, False])
    """
    where = "log_mel"
    filterbank = _check.array(filterbank, "filterbank", where)
    _check.floating(filterbank, where, "filterbank")
    least = _check.count(window, where, "window", least=1) // 2 + 1
    if filterbank.ndim != 2 or filterbank.shape[0] < max(2, least):
        raise ValueError(
            f"{where}: `filterbank` must be [fft_size // 2 + 1, bands] with `fft_size` at least "
            f"`window`, {window}, got {filterbank.shape}."
        )
    for value, name in ((power, "power"), (floor, "floor")):
        _check.positive(_check.static_number(value, where, name), where, name)
    points = 2 * (filterbank.shape[0] - 1)
    options = (points, taper, padding, mask_rule, center)
    spectrum, mask = _stft(x, mask, window, strides, *options, where)
    energy = jax.lax.square(spectrum.real) + jax.lax.square(spectrum.imag)
    if floor < (tiny := jnp.finfo(energy.dtype).tiny):  # it would count as 0
        raise ValueError(f"{where}: `floor` must be at least {tiny}, got {floor}.")
    if power != 2:
        # The root of 0 has no finite slope: select a safe base before it, and 0 after it.
        above = energy != 0
        energy = jnp.where(above, jnp.where(above, energy, 1) ** (power / 2), 0)
    y = jnp.log(jnp.maximum(energy @ filterbank.astype(energy.dtype), floor))
    return filled(y.astype(_check.array(x).dtype), mask), mask


def mel_filterbank(
    mels: int,
    fft_size: int,
    rate: float,
    *,
    low: float = 0.0,
    high: float | None = None,
    scale: str = "htk",
    norm: str | None = None,
) -> Float[np.ndarray, "bin mel"]:
    """Triangular filters that are evenly spaced on the mel scale.

        htk:     mel = 2595 log10(1 + hertz / 700)
        slaney:  mel = 3 hertz / 200 below 1000 hertz, 15 + 27 log(hertz / 1000) / log(6.4) above

    A filter narrower than the distance between two bins may contain none, and is then 0: use a
    larger `fft_size` or fewer `mels`.

    Args:
      mels: number of filters.
      fft_size: of the transform.
      rate: samples per second.
      low: hertz, where the first filter begins.
      high: hertz, where the last one ends; `rate / 2` where None.
      scale: `"htk"` or `"slaney"`.
      norm: `"slaney"` gives every filter the area of 1 hertz; where None, its height is 1.

    Returns:
      `[fft_size // 2 + 1, mels]`, float32, NumPy.

    Example:
      >>> import jaxmask as jm
      >>> bank = jm.audio.mel_filterbank(40, fft_size=512, rate=16000)
      >>> bank.shape, bank.argmax(axis=0)[:4].tolist()
      ((257, 40), [1, 3, 5, 6])

    Agrees with `torchaudio.functional.melscale_fbanks` and `librosa.filters.mel`. Sources: Young et
    al., The HTK Book; Slaney, 1998, Auditory Toolbox.
    """
    where = "mel_filterbank"
    mels = _check.count(mels, where, "mels", least=1)
    fft_size = _check.count(fft_size, where, "fft_size", least=1)
    _check.choice(scale, ("htk", "slaney"), where, "scale")
    _check.choice(norm, (None, "slaney"), where, "norm")
    for value, name in ((rate, "rate"), (low, "low"), *[(high, "high")][: high is not None]):
        _check.static_number(value, where, name)
    high = rate / 2 if high is None else high
    if not 0 <= low < high <= rate / 2:
        raise ValueError(
            f"{where}: `low` and `high` must lie in 0..{rate / 2} (half of `rate`), in order, got "
            f"{low} and {high}."
        )
    to_mel, to_hertz = (_htk, _from_htk) if scale == "htk" else (_slaney, _from_slaney)
    edges = to_hertz(np.linspace(to_mel(np.asarray(low)), to_mel(np.asarray(high)), mels + 2))
    bins = np.arange(fft_size // 2 + 1)[:, None] * (rate / fft_size)
    first, centre, last = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - first) / (centre - first), (last - bins) / (last - centre)
    bank = np.maximum(0, np.minimum(rising, falling))
    if norm == "slaney":
        bank = bank * (2 / (last - first))
    return bank.astype(np.float32)


def _htk(hertz: np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + hertz / 700)


def _from_htk(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)


def _slaney(hertz: np.ndarray) -> np.ndarray:
    above = 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4)
    return np.where(hertz < 1000, 3 * hertz / 200, above)


def _from_slaney(mel: np.ndarray) -> np.ndarray:
    above = 1000 * np.exp((mel - 15) * np.log(6.4) / 27)
    return np.where(mel < 15, 200 * mel / 3, above)
