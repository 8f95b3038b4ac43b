"""Features of frames: cepstra and their slopes over time."""

import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops, masks, ops
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled, gather, segments_apart
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair


@refusing_pairs
def mfcc(x: ArrayLike, mask: Mask, coefficients: int, *, lifter: float = 0.0) -> Pair:
    """Mel-frequency cepstral coefficients: the cosine transform of log-mel features.

        y[k] = s[k] sum_m x[m] cos(pi k (m + 1/2) / M),   s[0] = sqrt(1 / M), else sqrt(2 / M)
        y[k] = y[k] (1 + lifter / 2 sin(pi (k + 1) / lifter))   with a lifter above 0

    `mfcc(*log_mel(...), 13)`. Each step alone; mask class: any.

    Args:
      x: `[batch, time, ..., mel]`, or `[batch, ..., mel]` with a row mask; floating.
      mask: boolean, or `Segments`, or None.
      coefficients: static, how many of the M to keep.
      lifter: static; 0 lifts nothing.

    Returns:
      The pair `(y, mask)`, `y [..., coefficients]` in the dtype of `x`, with the mask that came in.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y, _ = jm.audio.mfcc(jnp.array([[[1.0, 1.0, 1.0, 1.0]]]), None, 2)
      >>> y.tolist()
      [[[2.0, 0.0]]]

    Agrees with `scipy.fft.dct(norm="ortho")`, and with `librosa.feature.mfcc(S=x)`, which by
    default computes x in decibels, 10 / log(10) times ours, 80 dB below the loudest at most.
    """
    where = "mfcc"
    x, mask = _check.pair(x, mask, where)
    _check.floating(x, where)
    _check.features(x, mask, where)
    size = x.shape[-1]
    kept = _check.count(coefficients, where, "coefficients", least=1)
    if kept > size:
        raise ValueError(f"{where}: `coefficients` must be at most {size}, as `x` has, got {kept}.")
    _check.static_number(lifter, where, "lifter")
    if not lifter >= 0:
        raise ValueError(f"{where}: `lifter` must be at least 0, got {lifter}.")
    rank = np.arange(kept)
    basis = np.cos(np.pi / size * np.outer(np.arange(size) + 0.5, rank)) * np.sqrt(2 / size)
    basis[:, 0] /= np.sqrt(2)
    if lifter:
        basis *= 1 + lifter / 2 * np.sin(np.pi * (rank + 1) / lifter)
    wide = filled(x, mask).astype(accumulator(x.dtype))
    return filled((wide @ jnp.asarray(basis, wide.dtype)).astype(x.dtype), mask), mask


@segments_apart
def deltas(x: ArrayLike, mask: Mask, window: int = 5) -> Pair:
    """Slope of each feature over time, by least squares over a window of real steps.

        y[t] = sum_k k (x[t + k] - x[t - k]) / (2 sum_k k ** 2)   for k from 1 to window // 2

    Beyond its ends, a row goes on with its first and its last real step. Mask class: any.

    Args:
      x: `[batch, time, feature...]`, floating.
      mask: `[batch, time]`, boolean, or `Segments`, or None.
      window: static, odd, at least 3.

    Returns:
      The pair `(y, mask)`, `y` like `x`, with the mask that came in.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.array([[1.0, 2.0, 4.0, 9.0]]), jnp.arange(4)[None] < 3
      >>> jm.audio.deltas(x, mask, 3)[0].tolist()
      [[0.5, 1.5, 1.0, 0.0]]

    Agrees with `torchaudio.functional.compute_deltas`, and with `librosa.feature.delta` with
    `mode="nearest"` (by default, it fits a line to the first and the last window instead).
    Source: Young et al., The HTK Book.
    """
    where = "deltas"
    x, mask = _check.pair(x, mask, where, over_time=True)
    _check.floating(x, where)
    window = _check.count(window, where, "window", least=3)
    if window % 2 == 0:
        raise ValueError(f"{where}: `window` must be odd, got {window}.")
    if not x.size:
        return x, mask
    real = _mask_ops.real_steps(mask, x.shape[:2])
    closed = ops.compact(x, mask)[0].astype(accumulator(x.dtype))
    rank, last = masks.positions(real), jnp.maximum(masks.lengths(real)[:, None] - 1, 0)
    reach = range(1, window // 2 + 1)

    def moved(k: int) -> Array:
        return gather(closed, jnp.clip(rank + k, 0, last))

    y = jnp.asarray(sum(k * (moved(k) - moved(-k)) for k in reach))
    return filled((y / (2 * sum(k * k for k in reach))).astype(x.dtype), mask), mask
