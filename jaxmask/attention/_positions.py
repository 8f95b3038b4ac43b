"""Positions that count real steps, so a left-padded row has those of a right-padded one."""

import dataclasses
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._steps import filled
from jaxmask._sums import accumulator
from jaxmask._types import Array, ArrayLike, Mask, Pair
from jaxmask.attention._visible import ranks

PositionBias: TypeAlias = Callable[
    [Int[Array, "batch_or_1 1 query 1"], Int[Array, "batch_or_1 1 1 key"]],
    Float[Array, "batch_or_1 heads_or_1 query key"],
]


@refusing_pairs
def rotary(
    x: ArrayLike,
    mask: Mask,
    *,
    base: float = 10000.0,
    interleaved: bool = False,
    features: int | None = None,
    positions: ArrayLike | None = None,
) -> Pair:
    """Rotate pairs of features by an angle that grows with the position among the real steps.

        angle[i] = position * base ** (-2 i / features),   i = 0 .. features / 2 - 1
        (a, b)[i] -> (a cos - b sin, a sin + b cos)[i]

    The dot product of a rotated query and key depends on their distance in real steps alone.
    Mask class: any.

    Args:
      x: `[batch, time, ..., head_features]`, floating, `head_features` even: queries or keys.
      mask: `[batch, time]`, boolean, or `Segments` (positions restart in each), or None.
      base: of the wavelengths.
      interleaved: pair neighbours `(0, 1), (2, 3), ...`, as the paper does, instead of the halves
        `(0, d/2), (1, d/2 + 1), ...`.
      features: static and even: rotate the first of a head, and leave the others as they are
        (partial rotary); all of them where None.
      positions: `[batch, time]`, integer; the rank of each real step where None.

    Returns:
      The pair `(y, mask)`, `y` like `x`.

    Raises:
      TypeError: if `x` is not floating, or `mask` not boolean.
      ValueError, MaskError: if the features that rotate are odd or too many, or `mask` does
        not belong to `x`.

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
    turned = x.shape[-1] if features is None else _check.count(features, where, "features", least=2)
    if features is not None and (turned % 2 or turned > x.shape[-1]):
        raise ValueError(
            f"{where}: `features` must be even and at most the {x.shape[-1]} of a head, got "
            f"{features}."
        )
    if x.ndim < 3 or turned % 2:
        raise ValueError(
            f"{where}: `x` must be [batch, time, ..., head_features] with `head_features` even, "
            f"since features rotate in pairs, got {x.shape}."
        )
    wide = accumulator(x.dtype)
    _check.positive(base, where, "base")
    interleaved = _check.flag(interleaved, where, "interleaved")
    angles = _angles(ranks(x, mask, positions, where, "positions"), turned, base, wide)
    angles = jnp.expand_dims(angles, tuple(range(2, x.ndim - 1)))
    safe, half = filled(x, mask), turned // 2
    first, rest = safe[..., :turned].astype(wide), safe[..., turned:]
    pairs = first.reshape(*x.shape[:-1], *((half, 2) if interleaved else (2, half)))
    axis = -1 if interleaved else -2
    a, b = jnp.take(pairs, 0, axis=axis), jnp.take(pairs, 1, axis=axis)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    y = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=axis)
    y = y.reshape(first.shape).astype(x.dtype)
    return jnp.concatenate([y, rest], axis=-1) if rest.shape[-1] else y, mask


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
    _check.positive(base, where, "base")
    angles = _angles(_check.array(positions, "positions", where), features, base, dtype)
    both = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return both.reshape(*angles.shape[:-1], features)


@dataclasses.dataclass(frozen=True)
class Alibi:
    """Attention with linear biases: what `bias=` of `attend` and of attention modules may be.

        bias[h, i, j] = -slope[h] |i - j|

    in real steps. Of a power of two heads the slopes are `2 ** (-8 (h + 1) / num_heads)`; of
    another number those of the power below it, and between them every other one of the power above.

    Attributes:
      num_heads: heads of the queries.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> alibi = jm.attention.Alibi(2)
      >>> alibi.slopes
      (0.0625, 0.00390625)
      >>> x, mask = jnp.ones((1, 3, 2, 4)), jnp.array([[True, False, True]])
      >>> jm.attention.attend(x, mask, x, x, mask, bias=alibi)[0].shape
      (1, 3, 2, 4)

    Source: Press et al., 2022, arXiv:2108.12409; slopes of other numbers of heads: its code.
    """

    num_heads: int

    def __post_init__(self) -> None:
        _check.count(self.num_heads, "Alibi", "num_heads", least=1)

    @property
    def slopes(self) -> tuple[float, ...]:
        """One for each head."""
        power = 2 ** int(math.log2(self.num_heads))
        first = [2.0 ** (-8 * (h + 1) / power) for h in range(power)]
        more = [2.0 ** (-4 * (h + 1) / power) for h in range(0, 2 * power, 2)]
        return tuple((first + more)[: self.num_heads])

    def __call__(self, query: Array, key: Array) -> Array:
        """The bias of positions `[batch or 1, 1, query, 1]` and `[batch or 1, 1, 1, key]`."""
        each = [-slope * jnp.abs(query - key).astype(float) for slope in self.slopes]
        return jnp.concatenate(each, axis=1)


def relative_buckets(
    distance: ArrayLike,
    *,
    num_buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool = True,
) -> Int[Array, "..."]:
    """The bucket of a distance in T5's relative position bias.

    Half of the buckets are one distance each, from 0 on; the other half are as wide as the distance
    is far, up to `max_distance`, beyond which all share the last. Where the attention is
    `bidirectional`, the second half of all buckets is for keys behind the query, else these share
    bucket 0.

    Args:
      distance: integer, any shape: position of the key minus that of the query.
      num_buckets: static; even where `bidirectional`.
      max_distance: static.
      bidirectional: whether keys behind the query have buckets of their own.

    Returns:
      Of the shape of `distance`, int32, from 0 to `num_buckets - 1`.

    Raises:
      TypeError: if `distance` is not an integer.
      ValueError: if there are too few buckets for `max_distance`.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> distance = jnp.array([-200, -9, -1, 0, 1, 9])
      >>> jm.attention.relative_buckets(distance).tolist()
      [15, 8, 1, 0, 17, 24]

    Agrees with T5 of Hugging Face. Source: Raffel et al., 2020, arXiv:1910.10683.
    """
    where = "relative_buckets"
    distance = _check.array(distance, "distance", where)
    if not jnp.issubdtype(distance.dtype, jnp.integer):
        raise TypeError(f"{where}: `distance` must be integers, got dtype {distance.dtype}.")
    bidirectional = _check.flag(bidirectional, where, "bidirectional")
    buckets = _check.count(num_buckets, where, "num_buckets", least=4 if bidirectional else 2)
    side = buckets // 2 if bidirectional else buckets
    exact = side // 2
    max_distance = _check.count(max_distance, where, "max_distance")
    if (bidirectional and buckets % 2) or max_distance <= exact:
        raise ValueError(
            f"{where}: `num_buckets` must be even where `bidirectional`, and `max_distance` more "
            f"than the {exact} distances with a bucket each, got {buckets} and {max_distance}."
        )
    back = jnp.abs(distance) if bidirectional else jnp.maximum(-distance, 0)
    # Compared with whole numbers: a logarithm rounds differently on each machine.
    firsts = [_first_of(n, exact, side, max_distance) for n in range(exact + 1, side)]
    far = sum((back >= first).astype(jnp.int32) for first in firsts)
    bucket = jnp.where(back < exact, back, exact + far).astype(jnp.int32)
    return bucket + jnp.where(distance > 0, side, 0) if bidirectional else bucket


def _first_of(bucket: int, exact: int, side: int, max_distance: int) -> int:
    """The least distance of a bucket beyond those of one distance each."""
    share = (bucket - exact) / (side - exact)
    return math.ceil(exact * (max_distance / exact) ** share - 1e-6)
