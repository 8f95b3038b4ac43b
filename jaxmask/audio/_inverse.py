"""From spectra back to samples."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmask import _check, _mask_ops, masks
from jaxmask._errors import refusing_pairs
from jaxmask._keys import step_keys
from jaxmask._steps import filled, gather, to_left
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair, Segments, StepMask
from jaxmask.audio._audio import stft, taper_of
from jaxmask.audio._centred import CENTRES, shortened

_LEAST = 1e-11  # of the squares of tapers that meet at a sample, as in torch.istft


@refusing_pairs
def istft(
    y: ArrayLike,
    mask: Mask,
    window: int,
    strides: int,
    *,
    fft_size: int | None = None,
    taper: str | ArrayLike = "hann",
    center: str | None = None,
    sample_mask: Mask = None,
) -> Pair:
    """Samples of each row from its short-time Fourier transform: the inverse of `stft`.

        x[b, t] = sum_i taper[t - i * strides] f[b, i, t - i * strides] / w[b, t]
        w[b, t] = sum_i taper[t - i * strides] ** 2

    over the real frames i, where f is the inverse transform of each. Of all signals, x is the one
    whose transform is nearest to y. Samples that no taper weighs, such as the first one of a Hann
    window, are 0. Mask class: contiguous. A hole is a missing frame, which adds nothing.

    Args:
      y: `[batch, frame, fft_size // 2 + 1]`, complex.
      mask: `[batch, frame]`, boolean, or None, or the `Segments` that `stft` gave for packed rows;
        the frames alone do not say where their sequences stood, so `sample_mask` is then needed.
      window, strides, fft_size, taper, center: those of `stft`.
      sample_mask: `[batch, time]`, the mask of the samples that were transformed: the result has
        as many samples in each row, moved to the left; those after the last frame are 0. Where
        None, m frames give `(m - 1) * strides + window` samples; with `center`,
        `(m - 1) * strides` where `fft_size` is even, which may leave out a few at the end. For
        packed rows, the `Segments` of the samples, which stay where they were.

    Returns:
      The pair `(x, mask)`, `x [batch, time]` and mask `[batch, time]`.

    Raises:
      ValueError: if y does not have the bins of `fft_size`, or the squares of the tapers that meet
        at a sample add up to 0.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.arange(1.0, 9.0)[None], jnp.arange(8)[None] < 7
      >>> y, frames = jm.audio.stft(x, mask, 4, 2, center="reflect")
      >>> back, again = jm.audio.istft(y, frames, 4, 2, center="reflect", sample_mask=mask)
      >>> back.round().astype(int).tolist(), bool((again == mask).all())
      ([[1, 2, 3, 4, 5, 6, 7, 0]], True)

    Agrees with `torch.istft` (`center="reflect"`, `sample_mask` in the place of its `length`) and
    with `librosa.istft`. Source: Griffin and Lim, 1984, doi:10.1109/TASSP.1984.1164317.
    """
    where = "istft"
    y, mask = _check.pair(y, mask, where, over_time=True, name="y")
    if isinstance(mask, Segments):
        options: dict[str, Any] = {"fft_size": fft_size, "taper": taper, "center": center}
        one = functools.partial(istft, y, window=window, strides=strides, **options)
        return _apart(one, mask, sample_mask, y.shape[0], where)
    if not jnp.issubdtype(y.dtype, jnp.complexfloating):
        raise TypeError(f"{where}: `y` must be complex, got dtype {y.dtype}.")
    window = _check.count(window, where, "window", least=1)
    strides = _check.count(strides, where, "strides", least=1)
    _check.choice(center, CENTRES, where, "center")
    points = window if fft_size is None else fft_size
    points = _check.count(points, where, "fft_size", least=window)
    if y.ndim != 3 or y.shape[2] != points // 2 + 1:
        raise ValueError(
            f"{where}: `y` must be [batch, frame, fft_size // 2 + 1] = [..., {points // 2 + 1}], "
            f"got shape {y.shape}."
        )
    weights = taper_of(taper, window, points if center else window, where)
    _require_overlap(weights, strides, where)
    real = jnp.ones(y.shape[:2], bool)
    if mask is not None:
        y, real = to_left(y, masks.as_bool(mask))
    x, own = _overlapped(y, real, weights, strides, points)
    half = points // 2 if center else 0
    if sample_mask is not None:
        return _of_length(x[:, half:], sample_mask, where)
    x, own = shortened(x, own, half)
    return x, None if mask is None else own


def _apart(
    inverse: Callable[..., Pair], frames: Segments, samples: Any, batch: int, where: str
) -> Pair:
    """The samples of each sequence of a packed row, where it stood."""
    if not isinstance(samples, Segments) or samples.max_segments != frames.max_segments:
        raise _check.MaskError(
            f"{where}: with frames of packed rows, `sample_mask` must be the `Segments` of the "
            f"samples that were transformed, with max_segments = {frames.max_segments}, got "
            f"{getattr(samples, 'max_segments', _check.kind_of(samples))}."
        )
    rows = jnp.zeros((batch, *samples.ids.shape[1:]))
    _, given = _check.pair(rows, samples, where, name="the samples")

    def one(frames: Array, samples: Array) -> Array:
        x, _ = inverse(mask=frames, sample_mask=samples)  # moved to the left
        first = jnp.argmax(samples, axis=1)[:, None]
        index = jnp.arange(samples.shape[1], dtype=first.dtype)[None] - first
        return filled(gather(x, jnp.maximum(index, 0)), samples)

    each = map(_mask_ops.of_each_segment, (frames, samples))
    return jnp.sum(jax.vmap(one, in_axes=1)(*each), axis=0), given


def _overlapped(
    y: Array, real: StepMask, weights: Array, strides: int, points: int
) -> tuple[Array, StepMask]:
    """Overlap and add, and which samples a real frame covers."""
    dtype = jnp.finfo(y.dtype).dtype
    if y.size:
        waves = jnp.fft.irfft(y, n=points)[..., : len(weights)]
    else:  # not every backend transforms nothing
        waves = jnp.zeros((*y.shape[:2], len(weights)), dtype)
    weights = weights.astype(dtype)[None, None]
    shown = real[..., None].astype(dtype)
    total = _added(filled(waves * weights, real), strides)
    weight = _added(shown * jnp.square(weights), strides)
    covered = _added(shown * jnp.ones_like(weights), strides) > 0
    some = weight > _LEAST
    return jnp.where(some, total / jnp.where(some, weight, 1), 0), covered


def _added(frames: Array, strides: int) -> Array:
    """`[batch, frame, size]` frames added up where they overlap, `[batch, time]`."""
    batch, count, size = frames.shape
    if not count:
        return jnp.zeros((batch, 0), frames.dtype)
    blocks = -(-size // strides)
    frames = jnp.pad(frames, ((0, 0), (0, 0), (0, blocks * strides - size)))
    parts = frames.reshape(batch, count, blocks, strides)
    total = sum(
        jnp.pad(parts[:, :, k], ((0, 0), (k, blocks - 1 - k), (0, 0))) for k in range(blocks)
    )
    time = (count + blocks - 1) * strides
    return jnp.asarray(total).reshape(batch, time)[:, : (count - 1) * strides + size]


def _require_overlap(weights: Array, strides: int, where: str) -> None:
    known = _check.known(weights)
    if known is None:
        return
    padded = np.pad(np.square(known), (0, -len(known) % strides)).reshape(-1, strides)
    if len(known) < strides or padded.sum(0).min() < _LEAST:
        raise ValueError(
            f"{where}: the tapers must overlap so that each sample has a weight, and with "
            f"`strides` {strides} the squares of {len(known)} values add up to 0 somewhere. Take "
            "smaller strides."
        )


def _of_length(x: Array, sample_mask: Mask, where: str) -> Pair:
    real = _check.boolean(sample_mask, where, "sample_mask")
    if real.ndim != 2 or real.shape[0] != x.shape[0]:
        raise _check.MaskError(
            f"{where}: `sample_mask` must be a mask [batch, time] of {x.shape[0]} rows, got shape "
            f"{real.shape}."
        )
    time = real.shape[1]
    x = jnp.pad(x, ((0, 0), (0, jax.core.max_dim(time - x.shape[1], 0))))[:, :time]
    own = jnp.arange(time)[None] < masks.lengths(real)[:, None]
    return filled(x, own), own


@refusing_pairs
def griffin_lim(
    magnitude: ArrayLike,
    mask: Mask,
    window: int,
    strides: int,
    *,
    iterations: int = 32,
    momentum: float = 0.99,
    fft_size: int | None = None,
    taper: str | ArrayLike = "hann",
    center: str | None = None,
    key: Array | None = None,
    row_ids: ArrayLike | None = None,
) -> Pair:
    """Samples whose spectra have given magnitudes, by searching for phases that are consistent.

        z = stft(istft(magnitude * phase))
        phase = unit(z - momentum / (1 + momentum) * (z of the iteration before))

    Mask class: contiguous, as in `istft`.

    Args:
      magnitude: `[batch, frame, fft_size // 2 + 1]`, floating, not negative: `jnp.abs` of `stft`.
      mask: `[batch, frame]`, boolean, or None. `Segments` are refused.
      iterations: static.
      momentum: static, from 0 (the algorithm of 1984) to below 1.
      key: a JAX random key for the first phases, by row and step; where None, they are 0.
      row_ids: as in `jaxmask.random.step_keys`.
      window, strides, fft_size, taper, center: as in `stft`.

    Returns:
      The pair `(x, mask)` of samples, as `istft` gives it.

    Example:
      >>> import jax, jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.sin(jnp.arange(64.0))[None]
      >>> y, _ = jm.audio.stft(x, None, 16, 4, center="reflect")
      >>> again, _ = jm.audio.griffin_lim(jnp.abs(y), None, 16, 4, center="reflect")
      >>> near = jnp.abs(jm.audio.stft(again, None, 16, 4, center="reflect")[0])
      >>> bool(jnp.linalg.norm(near - jnp.abs(y)) < 0.2 * jnp.linalg.norm(y))
      True

    Agrees with `librosa.griffinlim` (`center="constant"` there; it draws the first phases).
    Source: Perraudin et al., 2013, doi:10.1109/WASPAA.2013.6701851.
    """
    where = "griffin_lim"
    magnitude, mask = _check.pair(
        magnitude, mask, where, over_time=True, segments=False, name="magnitude"
    )
    _check.floating(magnitude, where, "magnitude")
    iterations = _check.count(iterations, where, "iterations")
    _check.static_number(momentum, where, "momentum")
    if not 0 <= momentum < 1:
        raise ValueError(f"{where}: `momentum` must be from 0 to below 1, got {momentum}.")
    wide = filled(magnitude, mask).astype(accumulator(magnitude.dtype))
    phase = _first_phases(key, wide, mask, row_ids)
    if mask is not None:
        parts = jnp.stack([wide, phase.real, phase.imag], axis=-1)
        parts, mask = to_left(parts, masks.as_bool(mask))
        wide, phase = parts[..., 0], jax.lax.complex(parts[..., 1], parts[..., 2])
    options: dict[str, Any] = {"fft_size": fft_size, "taper": taper, "center": center}

    def improved(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        phase, before = state
        x, samples = istft(_scaled(phase, wide), mask, window, strides, **options)
        z = stft(x, samples, window, strides, **options)[0]
        z = jnp.pad(z, ((0, 0), (0, wide.shape[1] - z.shape[1]), (0, 0)))
        return (_unit(z - _scaled(before, jnp.full_like(wide, momentum / (1 + momentum)))), z), None

    (phase, _), _ = jax.lax.scan(improved, (phase, jnp.zeros_like(phase)), length=iterations)
    x, samples = istft(_scaled(phase, wide), mask, window, strides, **options)
    return x.astype(magnitude.dtype), samples


def _first_phases(
    key: Array | None, magnitude: Array, mask: Mask, row_ids: ArrayLike | None
) -> Array:
    if key is None:
        return jax.lax.complex(jnp.ones_like(magnitude), jnp.zeros_like(magnitude))
    keys = step_keys(key, magnitude, mask, row_ids=row_ids)
    bins, dtype = magnitude.shape[2:], magnitude.dtype
    turns = jax.vmap(lambda k: jax.random.uniform(k, bins, dtype))(keys.reshape(-1))
    angle = 2 * jnp.pi * turns.reshape(magnitude.shape)
    return jax.lax.complex(jnp.cos(angle), jnp.sin(angle))


def _unit(z: Array) -> Array:
    """`z` over its magnitude, and 0 for 0, where that has no slope."""
    square = jax.lax.square(z.real) + jax.lax.square(z.imag)
    above = square > jnp.finfo(square.dtype).tiny
    return _scaled(z, jnp.where(above, jax.lax.rsqrt(jnp.where(above, square, 1)), 0))


def _scaled(z: Array, by: Array) -> Array:
    return jax.lax.complex(z.real * by, z.imag * by)
