"""Positions that count real steps, so a left-padded row has those of a right-padded one."""

import jax
import jax.numpy as jnp

from jaxmask import _check
from jaxmask._steps import filled
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.attention._visible import ranks


def rotary(
    x: ArrayLike,
    mask: Mask,
    *,
    base: float = 10000.0,
    interleaved: bool = False,
    positions: ArrayLike | None = None,
) -> Pair:
    """Rotate pairs of features by an angle that grows with the position among the real steps.

        angle[i] = position * base ** (-2 i / head_features),   i = 0 .. head_features / 2 - 1
        (a, b)[i] -> (a cos - b sin, a sin + b cos)[i]

    The dot product of a rotated query and key depends on their distance in real steps alone.
    Mask class: any.

    Args:
      x: `[batch, time, ..., head_features]`, floating, `head_features` even: queries or keys.
      mask: `[batch, time]`, boolean, or `Segments` (positions restart in each), or None.
      base: of the wavelengths.
      interleaved: pair neighbours `(0, 1), (2, 3), ...`, as the paper does, instead of the halves
        `(0, d/2), (1, d/2 + 1), ...`.
      positions: `[batch, time]`, integer; the rank of each real step where None.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Raises:
      TypeError: if `x` is not floating, or `mask` not boolean.
      ValueError, MaskError: if `head_features` is odd, or `mask` does not belong to `x`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x = jnp.array([[[7.0, 7.0], [1.0, 0.0], [1.0, 0.0]]])
      >>> y, _ = jm.attention.rotary(x, jnp.array([[False, True, True]]))
      >>> [[round(float(a), 2) for a in step] for step in y[0]]
      [[0.0, 0.0], [1.0, 0.0], [0.54, 0.84]]

    Source: Su et al., 2021, RoFormer, arXiv:2104.09864.
    """
    where = "rotary"
    x, mask = _check.pair(x, mask, where, over_time=True)
    _check.floating(x, where)
    if x.ndim < 3 or x.shape[-1] % 2:
        raise ValueError(
            f"{where}: `x` must be [batch, time, ..., head_features] with `head_features` even, "
            f"since features rotate in pairs, got {x.shape}."
        )
    wide = accumulator(x.dtype)
    _check.number(base, where, "base")
    angles = _angles(ranks(x, mask, positions, where, "positions"), x.shape[-1], base, wide)
    angles = jnp.expand_dims(angles, tuple(range(2, x.ndim - 1)))
    safe, half = filled(x, mask).astype(wide), x.shape[-1] // 2
    pairs = safe.reshape(*x.shape[:-1], *((half, 2) if interleaved else (2, half)))
    axis = -1 if interleaved else -2
    a, b = jnp.take(pairs, 0, axis=axis), jnp.take(pairs, 1, axis=axis)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    y = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=axis)
    return y.reshape(x.shape).astype(x.dtype), mask


def _angles(
    positions: Array, features: int, base: float, dtype: jax.typing.DTypeLike | None
) -> Array:
    """`[..., features / 2]`; in the default floating dtype where that is None."""
    dtype = jnp.result_type(float) if dtype is None else dtype
    rates = base ** (-jnp.arange(0, features, 2, dtype=dtype) / features)
    positions = positions[..., None].astype(dtype)
    return positions * jax.lax.broadcast_to_rank(rates, positions.ndim)


def sinusoids(
    positions: ArrayLike,
    features: int,
    *,
    base: float = 10000.0,
    dtype: jax.typing.DTypeLike | None = None,
) -> Array:
    """Sinusoidal encoding of positions.

        y[..., 2 i]     = sin(position * base ** (-2 i / features))
        y[..., 2 i + 1] = cos(position * base ** (-2 i / features))

    Args:
      positions: integer, any shape.
      features: static, even.
      base: of the wavelengths.
      dtype: to compute in, float32 or float64; None is float32, or float64 under
        `jax_enable_x64`.

    Returns:
      `[..., features]` in that dtype.

    Raises:
      ValueError: if `features` is odd or below 2.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> y = jm.attention.sinusoids(jnp.arange(2), 2)
      >>> [[round(float(a), 2) for a in step] for step in y]
      [[0.0, 1.0], [0.84, 0.54]]

    Source: Vaswani et al., 2017, arXiv:1706.03762.
    """
    where = "sinusoids"
    features = _check.count(features, where, "features", least=2)
    if features % 2:
        raise ValueError(f"{where}: `features` must be even, sines and cosines, got {features}.")
    _check.number(base, where, "base")
    angles = _angles(_check.array(positions, "positions", where), features, base, dtype)
    both = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return both.reshape(*angles.shape[:-1], features)
